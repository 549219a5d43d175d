"""A group dies while clients send on: its own requests are lost, no others, and nobody has to help."""

import signal

import pytest

from harness.deployments import engine_pods, group_of
from harness.engines import engine_core
from harness.wait import wait_for
from tests.traffic.conftest import NAME, NAMESPACE, Serve, run, settled
from traffic.counts import unexcused

pytestmark = pytest.mark.timeout(900)

#: Seconds after a kill within which a dead group may still be sent requests.
WITHIN = 5.0


def test_a_crash_costs_the_requests_of_its_group_alone(serve: Serve) -> None:
    serve(replicas=2)
    with run("one of two groups killed", "2 groups") as traffic:
        traffic.warm(100)
        victim = engine_pods(NAME, NAMESPACE)[-1]
        dead = group_of(victim)
        uids = {p["metadata"]["uid"] for p in engine_pods(NAME, NAMESPACE) if group_of(p) == dead}
        process = engine_core(victim["metadata"]["name"])
        # Before the signal: what fails between the two was sent to a living group.
        killed = traffic.mark(f"kill -9 of an engine of {dead}")
        process.send(signal.SIGKILL)
        wait_for("two whole groups", lambda: settled(2) and not uids & _uids(), seconds=300, every=1)
        traffic.mark("two groups again")
        traffic.settle()
        traffic.finish(traffic.load.sent + 60)
        pods = next(g.pods for g in traffic.groups() if g.name == dead)
    late = [r for r in traffic.records if r.pod in pods and r.sent > killed + WITHIN]
    assert not late
    assert not unexcused(traffic.records, pods, killed, WITHIN)
    assert any(r.pod in pods for r in traffic.records), "the dead group had no requests: nothing was shown"


def _uids() -> set[str]:
    return {p["metadata"]["uid"] for p in engine_pods(NAME, NAMESPACE)}
