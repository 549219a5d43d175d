"""How progress is told: one line at a time, to standard error, so that standard output stays the
command's own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

Say = Callable[[str], None]


def to_stderr(line: str) -> None:
    """The usual Say."""
    print(f"localcluster: {line}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """``75.2`` -> ``1m15s``."""
    whole = int(seconds)
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"
