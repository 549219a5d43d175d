"""A move to another width ends as it should, whatever goes wrong beside it.

Lost otherwise, at a restart of the operator or a bad minute of the API server in the middle of a move: GPUs to groups
of both widths for good, a second move that nobody asked for, or the way back to where it began.
"""

import pytest

from fakecluster.crashes import DISORDER, FATES, Report, Story, explore
from fakecluster.faults import WatchFaults
from faults.width_stories import BACK, STORY, WIDER, none_comes_up, soon, wide_is_worth

pytestmark = pytest.mark.timeout(900)

_CRASHES = ("a crash before each write", "a crash after each write")
_ONE, _TWO = none_comes_up(1), none_comes_up(2)
#: Of the longer ones each fate only at every other write, as CI has little time: in all 100 s of one processor.
_STORIES = ((STORY, 1), (WIDER, 2), (BACK, 1), (_ONE, 1), (_TWO, 2))
#: Of the rest, in which the same code is met by other faults.
_FEW = 4


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    soon(monkeypatch)


def _explore(
    story: Story,
    monkeypatch: pytest.MonkeyPatch,
    reports: list[Report],
    fates: tuple[str, ...],
    disorder: WatchFaults | None = None,
    every: int = 1,
) -> None:
    if story in (WIDER, BACK):
        wide_is_worth(monkeypatch, 6)
    report = explore(story, fates, disorder=disorder, every=every)
    reports.append(report)
    print(report.line())
    assert not report.failures, "\n\n".join(report.failures)
    assert report.writes, "a story without writes proves nothing"


@pytest.mark.parametrize(("story", "every"), _STORIES, ids=[story.name for story, _ in _STORIES])
def test_a_crash_at_any_write_changes_nothing_about_the_end(
    story: Story, every: int, monkeypatch: pytest.MonkeyPatch, reports: list[Report]
) -> None:
    _explore(story, monkeypatch, reports, _CRASHES, every=every)


def test_a_crash_with_a_stale_cache_changes_nothing_about_the_end(
    monkeypatch: pytest.MonkeyPatch, reports: list[Report]
) -> None:
    _explore(STORY, monkeypatch, reports, _CRASHES[1:], DISORDER, every=_FEW)


def test_a_refused_or_unanswered_write_changes_nothing_about_the_end(
    monkeypatch: pytest.MonkeyPatch, reports: list[Report]
) -> None:
    _explore(STORY, monkeypatch, reports, tuple(f for f in FATES if f not in _CRASHES), every=_FEW)
