"""Groups that serve and have nothing to do.

What a user would lose: the first requests after a quiet night, to an engine that has hung since; or a healthy group,
its figures, its scale-down and its drain, to the operator's own canaries.
"""

from typing import Any

import pytest

from fakecluster.engines import Engine, EngineSettings
from fakecluster.harness import Harness, manifest, play
from moe_operator.api import reasons

GARBAGE = "rank 3 at 10.0.0.2:8000: log-probabilities that are no numbers: [nan]"


async def _serving(h: Harness, groups: int = 1, **spec: Any) -> None:
    h.apply(manifest(groups, **spec))
    await h.serve(groups)
    await h.settle()


def _engines(h: Harness) -> list[Engine]:
    return list(h.world.engines.by_pod.values())


def _cause(h: Harness) -> dict[str, Any]:
    return h.status().get("recovery", {}).get("lastCause") or {}


def test_an_idle_group_that_hangs_is_replaced_within_minutes() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h)
        await h.rest(600)
        h.world.hang_engine("tiny-g0-0-1")
        took = await h.until(lambda: _cause(h).get("reason") == reasons.IDLE_CANARY_FAILED, 300)
        assert took <= 60 + 3 * 31 + 2 * 5 + 5, took
        assert "no token" in _cause(h)["message"]
        await h.serve()

    play(scenario)


def test_an_idle_group_that_answers_garbage_is_replaced() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h)
        engine = h.world.engine("tiny-g0-0-1")
        engine.garbage = GARBAGE
        took = await h.until(lambda: _cause(h).get("reason") == reasons.IDLE_CANARY_FAILED, 300)
        assert took < 90
        assert (_cause(h)["pod"], _cause(h)["node"]) == ("tiny-g0-0-1", engine.node)
        assert "[nan]" in _cause(h)["message"]
        await h.serve()

    play(scenario)


def test_one_bad_answer_costs_no_group() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h)
        uid = h.groups()[0]["metadata"]["uid"]
        engine = h.world.engine("tiny-g0-0")
        before = engine.canaries_asked
        engine.garbage = GARBAGE
        await h.until(lambda: engine.canaries_asked > before, 70)
        engine.garbage = ""
        await h.rest(600)
        assert [g["metadata"]["uid"] for g in h.groups()] == [uid]

    play(scenario)


def test_a_healthy_idle_hour_costs_60_tokens_a_rank_no_write_and_no_figure() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h, 2)
        await h.rest(120)
        writes, status = h.writes, h.status()
        asked = [e.canaries_asked for e in _engines(h)]
        reconciles = h.operator.counting.reconciles
        await h.rest(3600)
        assert h.writes == writes, h.written(writes)
        assert h.status() == status
        ranks = status["plan"]["ranksPerPod"]
        for engine, before in zip(_engines(h), asked, strict=True):
            assert 57 * ranks <= engine.canaries_asked - before <= 60 * ranks
        assert h.operator.counting.reconciles - reconciles < 150

    play(scenario)


@pytest.mark.parametrize("off", [True, False])
def test_it_can_be_turned_off_and_on_without_a_new_revision(off: bool) -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h, recovery={"idleCanary": "60s" if off else "0s"})
        revision = h.status()["revision"]
        h.edit(recovery={"idleCanary": "0s" if off else "60s"})
        await h.rest(5)
        before = sum(e.canaries_asked for e in _engines(h))
        await h.rest(300)
        assert (sum(e.canaries_asked for e in _engines(h)) == before) is off
        assert h.status()["revision"] == revision

    play(scenario)


def test_a_group_with_requests_is_never_asked_and_judged_by_its_progress() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h)
        before = [e.canaries_asked for e in _engines(h)]
        await h.rest(900)
        assert [e.canaries_asked for e in _engines(h)] == before
        h.world.hang_engine("tiny-g0-0")
        await h.until(lambda: _cause(h).get("reason") == reasons.ENGINE_STALLED, 140)

    play(scenario, settings=EngineSettings(requests=4))


def test_a_canary_under_way_delays_no_drain() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h, 2)
        engine = h.world.engine("tiny-g1-0")
        h.world.hang_engine("tiny-g1-0-1")
        await h.until(lambda: engine.canaries > 0, 90)
        await h.rest(1)
        h.edit(replicas=1)
        took = await h.until(lambda: len(h.groups()) == 1, 60)
        assert took < 25, took

    play(scenario)


def test_another_leader_goes_on_asking() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h)
        h.operator.kill()
        await h.until(lambda: h.operator.leads, 60)
        h.world.hang_engine("tiny-g0-0")
        await h.until(lambda: _cause(h).get("reason") == reasons.IDLE_CANARY_FAILED, 400)

    play(scenario)
