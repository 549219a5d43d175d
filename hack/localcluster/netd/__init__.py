"""The cluster's network services, one process: cluster DNS, and the forwarder behind every ClusterIP."""
