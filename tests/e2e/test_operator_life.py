"""The operator itself goes away, comes back, or has nothing to do: what serves must not notice."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from e2e.conftest import IDLE_CANARY, NAMESPACE
from e2e.conftest import STEADY as NAME
from harness.audit import position, writes_since
from harness.deployments import deployment, engine_pods, group_of, wait_ready
from harness.engines import engine_core
from harness.install import OPERATOR_NAMESPACE
from harness.kubectl import get
from harness.leader import holder, leader_pod, operator_process
from harness.wait import wait_for

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("steady")]

SERVICE_ACCOUNT = f"{OPERATOR_NAMESPACE}:moe-operator"
#: Longest handover after a SIGKILL, and after a clean stop (s).
KILLED, CLEAN = 20.0, 2.0
#: Seconds that figures go unwritten at most.
FIGURES = 31.0
#: Seconds in which nothing is to be written: longer than idle groups go unasked, and than that.
SETTLED = max(IDLE_CANARY, FIGURES) + 15


def time_handover(number: signal.Signals) -> float:
    """Seconds from ending the leader until another replica holds the Lease."""
    wait_for(
        "two ready replicas",
        lambda: (
            (found := get("deployment", "moe-operator", OPERATOR_NAMESPACE))
            and found["status"].get("readyReplicas") == 2
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


def _resting() -> Callable[[], bool]:
    """Whether nothing was written for longer than figures that have moved wait to be."""
    seen: dict[str, float] = {}

    def rests() -> bool:
        version = deployment(NAME, NAMESPACE)["metadata"]["resourceVersion"]
        since = seen.setdefault(version, time.monotonic())
        return time.monotonic() - since > FIGURES

    return rests


def test_a_settled_deployment_causes_no_writes_but_the_lease() -> None:
    """Longer than anything that comes round in it, the canary of idle groups included; counted at the API server."""
    wait_ready(NAME, NAMESPACE, seconds=300)
    wait_for(
        "the load of earlier tests out of the figures",
        lambda: not any(deployment(NAME, NAMESPACE)["status"]["throughput"].values()),
        seconds=120,
        every=1,
    )
    wait_for(
        "the new group was looked at",
        lambda: deployment(NAME, NAMESPACE)["status"]["scaling"]["reason"] == "WithinObjective",
        seconds=60,
        every=1,
    )
    # An engine's memory falls by a sixth some time after it has started, which is a figure.
    wait_for("figures rest", _resting(), seconds=150, every=1)
    begun, offset = time.monotonic(), position()
    wait_for("a while", lambda: time.monotonic() - begun > SETTLED, seconds=SETTLED + 10, every=5)
    writes = [w for w in writes_since(offset, SERVICE_ACCOUNT) if w.resource != "leases"]
    assert writes == []
    assert writes_since(offset, SERVICE_ACCOUNT), (
        "the Lease must have been renewed: is the audit log read at all?"
    )
