"""The processes of containers, read from /proc: trees, memory, processor time, and signals to some of them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """Of one tree of processes: processor seconds with those of children already gone, and memory in bytes."""

    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class _Stat:
    parent: int
    cpu_seconds: float
    resident_bytes: int


def _stat(pid: str) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command name (field 2) may contain spaces and parentheses: count from the last one.
    fields = text[text.rindex(b")") + 2 :].split()
    return _Stat(int(fields[1]), sum(map(int, fields[11:15])) / _TICKS, int(fields[21]) * _PAGE)


class Snapshot:
    """All processes of the machine at one moment; cheap (one small read for each process)."""

    def __init__(self) -> None:
        self._stats: dict[int, _Stat] = {}
        self._children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):  # noqa: PTH208 (names alone: pathlib is three times slower)
            if name.isdigit() and (stat := _stat(name)) is not None:
                self._stats[int(name)] = stat
                self._children.setdefault(stat.parent, []).append(int(name))

    def tree(self, root: int) -> list[int]:
        """``root`` and all its descendants. Of a PID namespace's first process: everything in the namespace."""
        found, pending = [], [root] if root in self._stats else []
        while pending:
            pid = pending.pop()
            found.append(pid)
            pending += self._children.get(pid, [])
        return found

    def cpu_seconds(self, pids: Iterable[int]) -> float:
        return sum(self._stats[pid].cpu_seconds for pid in pids)

    def resident_bytes(self, pids: Iterable[int]) -> int:
        """Resident memory with shared pages counted once for each process: an upper bound."""
        return sum(self._stats[pid].resident_bytes for pid in pids)


def proportional_bytes(pids: Iterable[int]) -> int:
    """Memory with each shared page divided among those who map it (PSS). Slow for large processes: milliseconds per
    GiB; call it beside the event loop."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
                    break
    return total


def usage(root: int, snapshot: Snapshot) -> Usage:
    """Of the tree below ``root``."""
    pids = snapshot.tree(root)
    return Usage(snapshot.cpu_seconds(pids), proportional_bytes(pids))


def command_line(pid: int) -> str:
    """The process's arguments with spaces between, "" when it is gone."""
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        )
    except OSError:
        return ""


def send(pids: Iterable[int], number: signal.Signals) -> list[int]:
    """Signal each that still lives; returns those."""
    reached = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            reached.append(pid)
    return reached
