"""Load that comes back while a group drains: the group serves on, warm, and no other is made.

What a user would lose: minutes of waiting for weights that were in memory a moment ago, GPUs for a group that was not
needed, and clients' connections for as long as the group lives.
"""

import pytest

from fakecluster.api_server import Write
from fakecluster.faults import FaultPlan
from fakecluster.harness import Harness, Witness, manifest, play
from faults.stories import long_answers
from moe_operator.api import names, reasons
from moe_operator.controller.kube import EVENT, LEADER_WORKER_SET, MODEL_DEPLOYMENT


def _uids(h: Harness) -> set[str]:
    return {group["metadata"]["uid"] for group in h.groups()}


def _draining(h: Harness) -> list[str]:
    return [
        group["metadata"]["name"]
        for group in h.groups()
        if names.ANNOTATION_DRAINING in (group["metadata"].get("annotations") or {})
    ]


async def _drains(h: Harness, **spec: object) -> None:
    """One of two groups drains, for two minutes."""
    h.apply(manifest(2, **spec))
    await h.serve(2)
    await h.settle()
    h.edit(replicas=1)
    await h.until(lambda: _draining(h) and len(h.serving()) == 1, 10, "one group drains")


def _closing(h: Harness) -> set[str]:
    return {engine.pod for engine in h.world.engines.by_pod.values() if engine.draining}


def test_a_group_that_drains_serves_again_within_a_second_and_no_other_is_made() -> None:
    async def scenario(h: Harness) -> None:
        await _drains(h)
        witness, before = Witness(h), _uids(h)
        assert _closing(h) == {"tiny-g1-0", "tiny-g1-0-1"}
        h.edit(replicas=2)
        assert await h.serve(2, within=10) < 2, "a new one takes a minute here"
        assert not _closing(h), "clients may keep their connections"
        await h.settle()
        assert _uids(h) == before
        assert witness.most == 2
        assert not witness.lost_requests
        told = [(e["reason"], e["action"]) for e in h.world.server.list(EVENT) if e["action"] == "Undrain"]
        assert told == [(reasons.UNDRAINED, "Undrain")]
        assert h.status()["groups"]["draining"] == 0

    play(scenario, settings=long_answers())


def test_it_can_drain_again_and_then_goes() -> None:
    """A second drain works as the first: agents are told, and the deadline begins anew."""

    async def scenario(h: Harness) -> None:
        await _drains(h, rollout={"drainDeadline": "150s"})
        await h.rest(100)
        h.edit(replicas=2)
        await h.serve(2, within=10)
        h.edit(replicas=1)
        await h.until(lambda: _draining(h) == ["tiny-g1"], 10)
        assert _closing(h) == {"tiny-g1-0", "tiny-g1-0-1"}
        await h.rest(90)  # 190 s after the first drain began
        assert _draining(h) == ["tiny-g1"]
        await h.serve(1, within=120)

    play(scenario, settings=long_answers())


@pytest.mark.parametrize("number", range(1, 5))
@pytest.mark.parametrize("how", ["crash_before", "crash_after"])
def test_a_group_that_is_deleted_had_its_clients_moved_whatever_came_between(how: str, number: int) -> None:
    """It was to come back, the operator crashed over it, and then it was to go after all."""

    async def scenario(h: Harness) -> None:
        await _drains(h)
        operator = h.operator
        operator.client.faults = FaultPlan(**{how: operator.client.attempts + number})
        closing: list[set[str]] = []

        def note(write: Write) -> None:
            if write.kind == LEADER_WORKER_SET and write.verb == "delete":
                closing.append(_closing(h))

        h.world.server.write_listeners.append(note)
        h.edit(replicas=2)
        await h.until(lambda: operator.crash is not None, 60)
        h.edit(replicas=1)
        await h.serve(1, within=400)
        assert closing == [{"tiny-g1-0", "tiny-g1-0-1"}]
        await h.settle()
        assert not _closing(h), "agents of the group that stays keep connections"

    play(scenario, settings=long_answers())


def test_agents_that_could_not_be_told_are_told_again() -> None:
    """The operator ends between the two, or a pod does not answer just then."""

    async def scenario(h: Harness) -> None:
        await _drains(h)
        deaf: list[str] = []

        async def not_heard(host: str, port: int, token: str | None = None) -> bool:
            deaf.append(host)
            return False

        client = h.world.engine_client
        hears, client.undrain = client.undrain, not_heard  # type: ignore[method-assign]
        h.edit(replicas=2)
        await h.serve(2, within=10)
        assert deaf
        assert _closing(h) == {"tiny-g1-0", "tiny-g1-0-1"}
        client.undrain = hears  # type: ignore[method-assign]
        await h.until(lambda: not _closing(h), 10, "their next figures show it")

    play(scenario, settings=long_answers())


def test_a_group_whose_node_is_to_go_or_whose_revision_is_not_wanted_drains_on() -> None:
    async def scenario(h: Harness) -> None:
        await _drains(h)
        gone = next(g["metadata"]["uid"] for g in h.groups() if g["metadata"]["name"] == "tiny-g1")
        h.world.nodes.cordon(h.world.pod("tiny-g1-0")["spec"]["nodeName"])
        h.edit(replicas=2)
        await h.serve(2, within=300)
        assert gone not in _uids(h)

    play(scenario, settings=long_answers())


def test_a_deployment_that_is_deleted_gets_none_back() -> None:
    async def scenario(h: Harness) -> None:
        await _drains(h)
        h.edit(replicas=2)
        h.delete()
        await h.until(lambda: not h.world.server.list(LEADER_WORKER_SET), 400, "all groups are gone")
        await h.until(lambda: not h.world.server.list(MODEL_DEPLOYMENT), 60)

    play(scenario, settings=long_answers())
