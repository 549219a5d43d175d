"""A Kubernetes cluster in one process and in virtual time: API server, controllers, kubelets and engines.

Deterministic: no threads, no sockets, no wall clock. What it simplifies is said in each module.
"""
