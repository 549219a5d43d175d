"""A move to another width ends as it should, whichever write is the operator's last.

Lost otherwise, at a restart of the operator in the middle of a move: GPUs to groups of both widths for good, a second
move that nobody asked for, or the way back to where it began.
"""

import pytest

from fakecluster.crashes import Report, explore
from faults.width_stories import STORY, soon

pytestmark = pytest.mark.timeout(900)


def test_a_crash_at_any_write_changes_nothing_about_the_end(
    monkeypatch: pytest.MonkeyPatch, reports: list[Report]
) -> None:
    soon(monkeypatch)
    report = explore(STORY, ("a crash before each write", "a crash after each write"))
    reports.append(report)
    print(report.line())
    assert not report.failures, "\n\n".join(report.failures)
    assert report.writes, "a story without writes proves nothing"
