"""A crash after any single write must not matter: the successor ends where an operator that never crashed would.

What a user would lose otherwise: a rollout, a recovery or a scale-down that stays half done after a restart of the
operator, with GPUs held by groups that nobody serves from, or two groups where one was paid for.
"""

import pytest

from fakecluster.crashes import FATES, Report, Story, explore
from fakecluster.engines import EngineSettings
from fakecluster.faults import FaultPlan
from fakecluster.harness import Harness, manifest, play


async def _nothing(h: Harness) -> None:
    pass


async def _served(h: Harness) -> None:
    h.apply(manifest())
    await h.serve()
    await h.settle()


async def _create(h: Harness) -> None:
    h.apply(manifest())


async def _serves_one(h: Harness) -> None:
    await h.serve()


async def _crash_engine(h: Harness) -> None:
    h.world.crash_engine("tiny-g0-0-1", "RuntimeError: CUDA error: an illegal memory access was encountered")


async def _scale_up(h: Harness) -> None:
    h.edit(replicas=3)


async def _serves_three(h: Harness) -> None:
    await h.serve(3)


async def _three(h: Harness) -> None:
    h.apply(manifest(3))
    await h.serve(3)
    await h.settle()


async def _scale_down(h: Harness) -> None:
    h.edit(replicas=1)


async def _new_revision(h: Harness) -> None:
    h.edit(engine={"args": {"max-num-seqs": "64"}})


async def _rolled(h: Harness) -> None:
    revision = h.status().get("revision")
    await h.until(lambda: h.status().get("revision") != revision, 60)
    await h.serve(within=900)


async def _fail_and_delete(h: Harness) -> None:
    """The deployment goes while its group is being replaced: without a failure its deletion needs no write at all."""
    await _crash_engine(h)
    h.world.timers.after(2.0, h.delete)


async def _all_gone(h: Harness) -> None:
    await h.until(lambda: not h.end_state(), 120, "everything is gone")


def _busy() -> EngineSettings:
    return EngineSettings(requests=4)


STORIES = [
    Story("create", _nothing, _create, _serves_one),
    Story("engine crash", _served, _crash_engine, _serves_one),
    Story("scale 1 to 3", _served, _scale_up, _serves_three),
    Story("scale 3 to 1", _three, _scale_down, _serves_one, _busy),
    Story("rollout", _served, _new_revision, _rolled, _busy),
    Story("failure and deletion", _served, _fail_and_delete, _all_gone),
]

pytestmark = pytest.mark.timeout(900)

_CRASHES = ("a crash before each write", "a crash after each write")


@pytest.mark.parametrize("story", STORIES, ids=lambda s: s.name)
def test_a_crash_at_any_write_changes_nothing_about_the_end(story: Story, reports: list[Report]) -> None:
    report = explore(story, _CRASHES)
    reports.append(report)
    print(report.line())
    assert not report.failures, "\n\n".join(report.failures)
    assert report.writes, "a story without writes proves nothing"


@pytest.mark.parametrize("number", range(1, 4))
def test_a_drain_is_told_to_every_agent_whichever_write_is_the_operators_last(number: int) -> None:
    """Clients with pooled connections would stay with a group until its pods are deleted under them."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(2))
        await h.serve(2)
        await h.settle()
        operator = h.operator
        operator.client.faults = FaultPlan(crash_after=operator.client.attempts + number)
        h.edit(replicas=1)
        await h.serve(1)
        assert operator.crash is not None
        assert {"tiny-g1-0", "tiny-g1-0-1"} <= set(h.world.engine_client.drained)

    play(scenario, settings=_busy())


@pytest.mark.parametrize("story", STORIES[:2], ids=lambda s: s.name)
def test_a_refused_or_unanswered_write_changes_nothing_about_the_end(
    story: Story, reports: list[Report]
) -> None:
    report = explore(story, tuple(f for f in FATES if f not in _CRASHES))
    reports.append(report)
    print(report.line())
    assert not report.failures, "\n\n".join(report.failures)
