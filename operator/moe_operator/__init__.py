"""A Kubernetes operator for self-hosted mixture-of-experts models."""
