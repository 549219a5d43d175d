"""A crash after any single write must not matter: the successor ends where an operator that never crashed would.

What a user would lose otherwise: a rollout, a recovery or a scale-down that stays half done after a restart of the
operator, with GPUs held by groups that nobody serves from, or two groups where one was paid for.
"""

import pytest

from fakecluster.crashes import DISORDER, FATES, Report, Story, explore
from fakecluster.faults import FaultPlan
from fakecluster.harness import Harness, manifest, play
from faults.stories import STORIES, busy

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

    play(scenario, settings=busy())


@pytest.mark.parametrize("story", STORIES[:2], ids=lambda s: s.name)
def test_a_refused_or_unanswered_write_changes_nothing_about_the_end(
    story: Story, reports: list[Report]
) -> None:
    report = explore(story, tuple(f for f in FATES if f not in _CRASHES))
    reports.append(report)
    print(report.line())
    assert not report.failures, "\n\n".join(report.failures)


@pytest.mark.parametrize("story", STORIES, ids=lambda s: s.name)
def test_a_crash_with_a_stale_cache_changes_nothing_about_the_end(
    story: Story, reports: list[Report]
) -> None:
    # Which write it is matters less than how old what was read is: from each second one.
    report = explore(story, _CRASHES[1:], disorder=DISORDER, every=2)
    reports.append(report)
    print(report.line())
    assert not report.failures, "\n\n".join(report.failures)
