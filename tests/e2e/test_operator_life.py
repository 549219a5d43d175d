"""The operator itself goes away, comes back, or has nothing to do: what serves must not notice."""

import os
import signal
import time
from pathlib import Path

import pytest

from e2e.conftest import NAMESPACE, Maker
from harness.audit import position, writes_since
from harness.deployments import deployment, engine_pods, group_of, wait_ready
from harness.engines import engine_core
from harness.kubectl import get, items
from harness.wait import wait_for

pytestmark = pytest.mark.timeout(600)

NAME = "steady"
SYSTEM = "moe-system"
SERVICE_ACCOUNT = f"{SYSTEM}:moe-operator"
LEASE = "moe-operator"
#: Longest handover after a SIGKILL, and after a clean stop (s).
KILLED, CLEAN = 20.0, 2.0


@pytest.fixture(scope="module", autouse=True)
def served(make: Maker) -> None:
    make(NAME)


def holder() -> str | None:
    lease = get("lease", LEASE, SYSTEM)
    identity = lease["spec"].get("holderIdentity") if lease else None
    return str(identity) if identity else None


def leader_pod() -> str:
    """Name of the pod that holds the Lease."""
    identity = wait_for("a leader", holder, seconds=60)
    for pod in items("pods", SYSTEM, "app.kubernetes.io/name=moe-operator"):
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


def time_handover(number: signal.Signals) -> float:
    """Seconds from ending the leader until another replica holds the Lease."""
    wait_for(
        "two ready replicas",
        lambda: (
            (found := get("deployment", "moe-operator", SYSTEM)) and found["status"].get("readyReplicas") == 2
        ),
        seconds=60,
    )
    before = holder()
    pid = operator_process(leader_pod())
    begun = time.monotonic()
    os.kill(pid, number)
    wait_for("another leader", lambda: (now := holder()) and now != before, seconds=40, every=0.05)
    return time.monotonic() - begun


def test_a_clean_stop_hands_over_in_two_seconds() -> None:
    seconds = time_handover(signal.SIGTERM)
    print(f"handover after SIGTERM: {seconds:.2f} s")
    assert seconds <= CLEAN


def test_a_killed_leader_is_succeeded_in_twenty_seconds_and_the_group_lives_on() -> None:
    before = [p["metadata"]["uid"] for p in engine_pods(NAME, NAMESPACE)]
    seconds = time_handover(signal.SIGKILL)
    print(f"handover after SIGKILL: {seconds:.2f} s")
    assert seconds <= KILLED
    assert [p["metadata"]["uid"] for p in engine_pods(NAME, NAMESPACE)] == before


def test_an_operator_killed_in_the_middle_of_a_recovery_is_carried_on_by_the_next() -> None:
    pods = engine_pods(NAME, NAMESPACE)
    group = group_of(pods[0])
    pid = operator_process(leader_pod())
    engine_core(pods[0]["metadata"]["name"]).send(signal.SIGKILL)
    time.sleep(0.3)  # somewhere within the recovery; every point is covered by the faults layer
    os.kill(pid, signal.SIGKILL)
    wait_for(
        "a successor",
        lambda: (now := engine_pods(NAME, NAMESPACE)) and all(group_of(p) != group for p in now),
        seconds=120,
        every=0.5,
    )
    wait_ready(NAME, NAMESPACE, seconds=300)


def test_a_settled_deployment_causes_no_writes_but_the_lease() -> None:
    """Two minutes, counted at the API server."""
    wait_ready(NAME, NAMESPACE, seconds=300)
    wait_for(
        "the load of earlier tests out of the figures",
        lambda: deployment(NAME, NAMESPACE)["status"]["throughput"]["outputTokensPerSecond"] == 0,
        seconds=120,
        every=1,
    )
    begun, offset = time.monotonic(), position()
    wait_for("two minutes", lambda: time.monotonic() - begun > 120, seconds=130, every=5)
    writes = [w for w in writes_since(offset, SERVICE_ACCOUNT) if w.resource != "leases"]
    assert writes == []
    assert writes_since(offset, SERVICE_ACCOUNT), (
        "the Lease must have been renewed: is the audit log read at all?"
    )
