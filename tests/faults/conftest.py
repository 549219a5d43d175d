"""Shows at the end of a run what the crash explorations found."""

from typing import Any

import pytest

from fakecluster.crashes import Report

_REPORTS: list[Report] = []


@pytest.fixture
def reports() -> list[Report]:
    """Reports entered here are printed in the summary."""
    return _REPORTS


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _REPORTS:
        terminalreporter.section("crash exploration")
        for report in _REPORTS:
            terminalreporter.write_line(report.line())
