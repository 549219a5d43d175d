"""The addresses of a cluster. Each cluster has a network namespace of its own, so all clusters have the
same ones.
"""

POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
#: The Service ``default/kubernetes``; the first address of the range, as the API server takes it.
KUBERNETES_IP = "10.96.0.1"
DNS_IP = "10.96.0.10"
DOMAIN = "cluster.local"

LOOPBACK = "127.0.0.1"
API_PORT = 6443
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
CONTROLLER_MANAGER_PORT = 10257
SCHEDULER_PORT = 10259
LWS_WEBHOOK_PORT = 9443
LWS_HEALTH_PORT = 8081

API_URL = f"https://{LOOPBACK}:{API_PORT}"
