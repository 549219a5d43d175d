"""Two models and not enough GPUs.

Lost if this fails: requests of the model that matters most, while another one's spare groups hold its GPUs; or those of
the other one, whose groups are ended instead of drained, or come and go.
"""

from collections.abc import Callable
from typing import Any

from fakecluster.crashes import Report, Story, explore
from fakecluster.engines import EngineSettings
from fakecluster.harness import NAMESPACE, Harness, Witness, manifest, play
from moe_operator.api import names, reasons
from moe_operator.api.reasons import WaitingReason
from moe_operator.controller.kube import EVENT, NODE, Obj

LOW, HIGH = "tiny", "urgent"


def _wanted(name: str, replicas: int, priority: int = 0, **spec: Any) -> Obj:
    """Groups of one node of eight GPUs."""
    scaling = {"mode": "External", "maxGroups": 6, "priority": priority, **spec.pop("scaling", {})}
    return manifest(
        replicas, name, hardware={"accelerator": "B200", "gpusPerGroup": 8}, scaling=scaling, **spec
    )


def _waiting(h: Harness, name: str) -> dict[str, Any]:
    return (h.status(name).get("scaling") or {}).get("waiting") or {}


def _waits(h: Harness, name: str, reason: WaitingReason) -> Callable[[], bool]:
    return lambda: _waiting(h, name).get("reason") == reason.value


def _live(h: Harness, name: str) -> int:
    draining = names.ANNOTATION_DRAINING
    return sum(
        not g["metadata"].get("deletionTimestamp")
        and draining not in (g["metadata"].get("annotations") or {})
        for g in h.groups(name)
    )


def _drains(h: Harness) -> int:
    """Groups that were drained for others."""
    events = h.world.server.list(EVENT, NAMESPACE)
    return sum(e["reason"] == reasons.RECLAIMED and e["action"] == "Drain" for e in events)


async def _full(h: Harness) -> None:
    """Three nodes, all of them the lower one's."""
    h.apply(_wanted(LOW, 3))
    await h.serve(3)
    await h.settle()


async def _urgent_comes(h: Harness) -> None:
    h.apply(_wanted(HIGH, 1, 100))


async def _both_serve(h: Harness) -> None:
    await h.serve(1, 300, HIGH)
    await h.until(lambda: len(h.serving(LOW)) == 2, 60)


def test_a_higher_priority_gets_gpus_by_drain_and_the_status_says_who_waits() -> None:
    async def scenario(h: Harness) -> None:
        await _full(h)
        witness = Witness(h)
        h.world.settings.requests = 4
        await _urgent_comes(h)
        await h.until(_waits(h, HIGH, WaitingReason.RECLAIM_DUE), 10)
        waiting = _waiting(h, HIGH)
        assert waiting["groups"] == 1
        assert waiting["gpusPerGroup"] == 8
        assert waiting["message"].startswith("waits for 1 group of 8 GPUs (B200): groups of lower priority")
        assert h.status(HIGH)["scaling"]["granted"] == 0
        capacity = h.condition(reasons.CAPACITY_AVAILABLE, HIGH)
        assert capacity is not None
        assert capacity["reason"] == reasons.WAITING_FOR_GPUS
        assert _live(h, LOW) == 3, "a short wait drains nothing"
        await h.until(lambda: _live(h, LOW) == 2, 40, "a group drains")
        assert not h.groups(HIGH), "made when its GPUs are there"
        await _both_serve(h)
        await h.settle()
        assert witness.lowest >= 2
        low = h.status(LOW)["scaling"]
        assert low["desired"] == 3
        assert low["waiting"]["reason"] == WaitingReason.NO_ROOM, "nobody else waits: it is the first again"
        assert low["waiting"]["message"].startswith("waits for 1 group of 8 GPUs (B200): first in the queue")
        assert _drains(h) == 1
        assert _waiting(h, HIGH) == {}
        before = h.writes
        await h.rest(600)
        # What the autoscalers learn meanwhile is written at most once in ten minutes.
        assert h.writes <= before + 2, h.written(before)

    play(scenario, nodes=3, settings=EngineSettings())


def test_a_lost_group_of_the_higher_one_is_replaced_before_the_lower_one_takes_its_gpus() -> None:
    """The lower one's pods wait for a node: they would be the first that the scheduler serves."""

    async def scenario(h: Harness) -> None:
        await _full(h)
        await _urgent_comes(h)
        await _both_serve(h)
        await h.settle()
        h.world.crash_engine(
            "urgent-g0-0", "RuntimeError: CUDA error: an illegal memory access was encountered"
        )
        await h.until(lambda: not h.serving(HIGH), 60)
        await h.serve(1, 120, HIGH)
        await h.settle()
        assert len(h.serving(LOW)) == 2
        assert _drains(h) == 1

    play(scenario, nodes=3)


def test_the_lower_one_gets_its_gpus_back_when_the_higher_one_lets_go() -> None:
    async def scenario(h: Harness) -> None:
        await _full(h)
        await _urgent_comes(h)
        await _both_serve(h)
        h.delete(HIGH)
        await h.serve(3)
        await h.settle()
        assert _waiting(h, LOW) == {}
        assert "granted" not in h.status(LOW)["scaling"]

    play(scenario, nodes=3)


def test_nothing_is_taken_from_a_floor_or_an_equal() -> None:
    async def scenario(h: Harness) -> None:
        h.apply(_wanted(LOW, 2, scaling={"minGroups": 2}))
        h.apply(_wanted("equal", 1, 100))
        await h.serve(2)
        await h.serve(1, 300, "equal")
        h.edit("equal", replicas=1)
        await _urgent_comes(h)
        await h.until(_waits(h, HIGH, WaitingReason.NO_ROOM), 60)
        await h.rest(300)
        assert _live(h, LOW) == 2
        assert _live(h, "equal") == 1
        message = _waiting(h, HIGH)["message"]
        assert "first in the queue" in message
        assert f"{NAMESPACE}/{LOW}" in message, "who holds them"

    play(scenario, nodes=3)


def test_those_behind_the_first_make_no_pods_that_would_take_its_gpus() -> None:
    async def scenario(h: Harness) -> None:
        await _full(h)
        h.apply(_wanted("first", 1, scaling={"minGroups": 1}))
        await h.until(_waits(h, "first", WaitingReason.NO_ROOM), 60)
        h.apply(_wanted("second", 1))
        await h.until(_waits(h, "second", WaitingReason.BEHIND), 60)
        assert _waiting(h, "second")["behind"] == [f"{NAMESPACE}/first"]
        assert not h.groups("second")
        h.edit(LOW, replicas=2)
        await h.serve(1, 400, "first")
        await h.until(_waits(h, "second", WaitingReason.NO_ROOM), 60)
        h.edit(LOW, replicas=1)
        await h.serve(1, 400, "second")

    play(scenario, nodes=3)


def test_after_a_restart_nothing_is_taken_before_all_have_spoken() -> None:
    """The operator comes back in the middle of it: the one that waits is looked at before those that hold GPUs."""

    async def scenario(h: Harness) -> None:
        await _full(h)
        await _urgent_comes(h)
        await h.until(_waits(h, HIGH, WaitingReason.RECLAIM_DUE), 10)
        since = _waiting(h, HIGH)["since"]
        h.operator.kill()
        await h.until(lambda: len(h.operators) == 2 and h.operator.leads, 60)
        await h.rest(3)
        assert _waiting(h, HIGH)["since"] == since, "it does not wait anew"
        await _both_serve(h)
        await h.settle()
        assert _drains(h) == 1, "one group is drained, not two"

    play(scenario, nodes=3)


def test_a_restart_while_a_group_drains_drains_no_other() -> None:
    async def scenario(h: Harness) -> None:
        h.world.settings.requests = 4
        await _full(h)
        witness = Witness(h)
        await _urgent_comes(h)
        await h.until(lambda: _live(h, LOW) == 2, 60)
        h.operator.kill()
        await h.until(lambda: len(h.operators) == 2 and h.operator.leads, 60)
        await _both_serve(h)
        await h.settle()
        assert witness.lowest >= 2
        assert _drains(h) == 1

    play(scenario, nodes=3)


def test_a_crash_at_any_write_ends_the_same(reports: list[Report]) -> None:
    async def few_nodes(h: Harness) -> None:
        for node in h.world.server.list(NODE)[3:]:
            h.world.nodes.cordon(node["metadata"]["name"])
        await _full(h)

    crashes = ("a crash before each write", "a crash after each write")
    report = explore(Story("reclaim", few_nodes, _urgent_comes, _both_serve), crashes)
    reports.append(report)
    assert not report.failures, "\n".join(report.failures)
