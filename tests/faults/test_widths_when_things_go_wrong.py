"""A move to another width ends as it should, whatever goes wrong beside it.

Lost otherwise, at a restart of the operator or a bad minute of the API server in the middle of a move: GPUs to groups
of both widths for good, a second move that nobody asked for, or the way back to where it began.
"""

import pytest

from fakecluster.crashes import FATES, Report, Story, explore
from fakecluster.faults import WatchFaults
from faults.width_stories import GIVEN_UP, STORY, THERE_AND_BACK, soon, wide_is_worth
from moe_operator.controller.kube import LEADER_WORKER_SET, MODEL_DEPLOYMENT, NODE, POD

pytestmark = pytest.mark.timeout(900)

_CRASHES = ("a crash before each write", "a crash after each write")
_STORIES = (STORY, THERE_AND_BACK, GIVEN_UP)
#: Events of all kinds late, twice and against each other.
_DISORDER = WatchFaults(
    delay={POD: 1.0, LEADER_WORKER_SET: 2.0, MODEL_DEPLOYMENT: 1.5, NODE: 0.5}, jitter=1.5, double=0.3, seed=7
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    soon(monkeypatch)


def _explore(
    story: Story,
    monkeypatch: pytest.MonkeyPatch,
    reports: list[Report],
    fates: tuple[str, ...],
    disorder: WatchFaults | None = None,
) -> None:
    if story is THERE_AND_BACK:
        wide_is_worth(monkeypatch, 6)
    report = explore(story, fates, disorder=disorder)
    reports.append(report)
    print(report.line())
    assert not report.failures, "\n\n".join(report.failures)
    assert report.writes, "a story without writes proves nothing"


@pytest.mark.parametrize("story", _STORIES, ids=lambda s: s.name)
def test_a_crash_at_any_write_changes_nothing_about_the_end(
    story: Story, monkeypatch: pytest.MonkeyPatch, reports: list[Report]
) -> None:
    _explore(story, monkeypatch, reports, _CRASHES)


@pytest.mark.parametrize("story", _STORIES, ids=lambda s: s.name)
def test_a_crash_at_any_write_with_a_stale_cache_changes_nothing_about_the_end(
    story: Story, monkeypatch: pytest.MonkeyPatch, reports: list[Report]
) -> None:
    _explore(story, monkeypatch, reports, _CRASHES[1:], _DISORDER)


def test_a_refused_or_unanswered_write_changes_nothing_about_the_end(
    monkeypatch: pytest.MonkeyPatch, reports: list[Report]
) -> None:
    _explore(STORY, monkeypatch, reports, tuple(f for f in FATES if f not in _CRASHES))
