"""The command lines of the control plane. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from localcluster import network as net
from localcluster.layout import ClusterDirs
from localcluster.pki import FRONT_PROXY

#: How soon a silent node counts as failed. Kubernetes' own defaults (5 s, 50 s) would make every test of it
#: slow.
NODE_MONITOR_PERIOD = "2s"
NODE_MONITOR_GRACE_PERIOD = "20s"
#: How often HorizontalPodAutoscalers look; 15 s by default.
AUTOSCALER_PERIOD = "3s"


def merge(base: Sequence[str], extra: Sequence[str]) -> list[str]:
    """``base`` with the flags of ``extra`` added, each replacing the flag of the same name."""
    named = {flag.partition("=")[0] for flag in extra}
    return [flag for flag in base if flag.partition("=")[0] not in named] + list(extra)


def etcd(dirs: ClusterDirs) -> list[str]:
    """No fsync: the data is thrown away with the cluster, and disks shared with builds are slow."""
    client = f"http://{net.LOOPBACK}:{net.ETCD_PORT}"
    peer = f"http://{net.LOOPBACK}:{net.ETCD_PEER_PORT}"
    return [
        "--name=n0",
        f"--data-dir={dirs.etcd}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=n0={peer}",
        "--unsafe-no-fsync=true",
        "--log-level=warn",
    ]


def kube_apiserver(dirs: ClusterDirs) -> list[str]:
    """``endpoint-reconciler-type=none`` because a loopback address is not a legal endpoint: the ClusterIP
    forwarder knows the address of ``default/kubernetes`` by itself. To API servers behind an APIService it proves
    itself as the front proxy, whose authority is another than that of clients.
    """
    pki = dirs.pki
    return [
        f"--etcd-servers=http://{net.LOOPBACK}:{net.ETCD_PORT}",
        f"--bind-address={net.LOOPBACK}",
        f"--advertise-address={net.LOOPBACK}",
        f"--secure-port={net.API_PORT}",
        "--endpoint-reconciler-type=none",
        f"--cert-dir={pki}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        f"--requestheader-allowed-names={FRONT_PROXY}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki / FRONT_PROXY}.crt",
        f"--proxy-client-key-file={pki / FRONT_PROXY}.key",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={net.SERVICE_CIDR}",
        f"--service-account-issuer=https://kubernetes.default.svc.{net.DOMAIN}",
        f"--service-account-key-file={pki / 'sa.key'}",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        "--kubelet-preferred-address-types=Hostname",
        "--profiling=false",
        f"--audit-policy-file={Path(__file__).with_name('audit-policy.yaml')}",
        f"--audit-log-path={dirs.logs / 'audit.jsonl'}",
    ]


def _as_client(kubeconfig: Path) -> list[str]:
    return [
        f"--{use}={kubeconfig}"
        for use in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    ]


def kube_controller_manager(dirs: ClusterDirs) -> list[str]:
    """The client limits are raised: hundreds of pods of one test would otherwise queue behind 20 requests
    a second.
    """
    pki = dirs.pki
    return [
        *_as_client(pki / "controller-manager.kubeconfig"),
        f"--bind-address={net.LOOPBACK}",
        f"--secure-port={net.CONTROLLER_MANAGER_PORT}",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={pki / 'sa.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        f"--node-monitor-period={NODE_MONITOR_PERIOD}",
        f"--node-monitor-grace-period={NODE_MONITOR_GRACE_PERIOD}",
        f"--horizontal-pod-autoscaler-sync-period={AUTOSCALER_PERIOD}",
    ]


def kube_scheduler(dirs: ClusterDirs) -> list[str]:
    return [
        *_as_client(dirs.pki / "scheduler.kubeconfig"),
        f"--bind-address={net.LOOPBACK}",
        f"--secure-port={net.SCHEDULER_PORT}",
        "--leader-elect=false",
    ]


def lws_manager(dirs: ClusterDirs) -> list[str]:
    return [f"--kubeconfig={dirs.kubeconfig}", f"--config={dirs.root / 'lws.yaml'}", "--leader-elect=false"]


def netd(dirs: ClusterDirs) -> list[str]:
    """Arguments of ``python -m localcluster.netd``."""
    return [f"--pki={dirs.pki}"]


def kubelet(dirs: ClusterDirs) -> list[str]:
    """Arguments of ``python -m localcluster.kubelet``: one process for all nodes."""
    return [
        f"--kubeconfig={dirs.kubeconfig}",
        f"--nodes={dirs.nodes}",
        f"--images={dirs.images}",
        f"--root={dirs.kubelet}",
        f"--ca-cert={dirs.pki / 'ca.crt'}",
        f"--serving-cert={dirs.pki / 'kubelet.crt'}",
        f"--serving-key={dirs.pki / 'kubelet.key'}",
        f"--dns={net.DNS_IP}",
        f"--pod-cidr={net.POD_CIDR}",
    ]
