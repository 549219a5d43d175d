"""Which of the operator's replicas leads, and its process."""

from pathlib import Path

from harness.install import OPERATOR_NAMESPACE
from harness.kubectl import get, items
from harness.wait import wait_for

LEASE = "moe-operator"


def holder() -> str | None:
    """Identity of the Lease's holder."""
    lease = get("lease", LEASE, OPERATOR_NAMESPACE)
    identity = lease["spec"].get("holderIdentity") if lease else None
    return str(identity) if identity else None


def leader_pod() -> str:
    """Name of the pod that holds the Lease."""
    identity = wait_for("a leader", holder, seconds=60)
    for pod in items("pods", OPERATOR_NAMESPACE, "app.kubernetes.io/name=moe-operator"):
        if pod["metadata"]["name"] in identity:
            return str(pod["metadata"]["name"])
    raise AssertionError(f"the Lease's holder {identity} is no pod of the operator")


def operator_process(pod: str) -> int:
    """Pid of the operator in a pod of the local cluster."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            mine = f"HOSTNAME={pod}".encode() in (entry / "environ").read_bytes().split(b"\0")
            title = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if mine and b"moe-operator" in title and b"run" in title:
            return int(entry.name)
    raise AssertionError(f"no operator process in pod {pod}")
