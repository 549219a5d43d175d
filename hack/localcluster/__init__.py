"""A real Kubernetes cluster on one Linux machine, without a container engine.

etcd, the control plane, LeaderWorkerSet and a kubelet that runs pods as local processes live together in one
set of Linux namespaces, with or without root. Nothing listens outside of it, and killing its first process
ends everything. Run it with ``python -m localcluster --help``.
"""
