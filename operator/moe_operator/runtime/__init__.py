"""The process around the controller: event source, queue, leader lease, resync, health, Kubernetes client."""
