"""`weights verify` and `weights list`: what is in a cache."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moe_operator.catalog.weights_layout import Reason
from moe_operator.weights.digests import Digest, Verifier
from moe_operator.weights.errors import FetchError
from moe_operator.weights.files import size_if_file, used_bytes
from moe_operator.weights.folder import Cache, Entry
from moe_operator.weights.lease import Claim, held
from moe_operator.weights.progress import Outcome, Phase, Progress
from moe_operator.weights.state import FileState, State, write_state

_CHUNK = 4 << 20


def verify(folder: Path, name: str, progress: Progress, go_on: Callable[[], None]) -> Outcome:
    """Hash every file of an entry again.

    A file that differs is removed and the entry no longer complete, so that the next fetch brings it anew; unless
    another process holds the entry. Raises FetchError, OSError and what `go_on` raises.
    """
    cache = Cache(folder)
    entry = cache.entry(name)
    state = entry.read()
    if state is None:
        known = ", ".join(other.name for other, _ in cache.entries())
        raise FetchError(Reason.NOT_FOUND, f"{folder} has no entry {name!r}; it has {known or 'none'}")
    progress.commit, progress.total_bytes, progress.total_files = (
        state.commit,
        state.total_bytes,
        len(state.files),
    )
    progress.phase(Phase.VERIFYING)
    faults: dict[str, str] = {}
    for file in state.files:
        fault = _fault(entry, file, progress, go_on)
        if fault:
            faults[file.remote.name] = fault
        else:
            progress.present(0, files=1)
    intact = sum(file.remote.size for file in state.files if file.remote.name not in faults)
    if not faults and state.complete:
        return Outcome(
            Reason.COMPLETE, f"{len(state.files)} files are as they came", name, state.commit, intact
        )
    said = "; ".join(f"{file}: {fault}" for file, fault in faults.items()) or "the entry was never completed"
    removed = (
        "" if _mark(cache, entry, state, faults) else ". Another process holds the entry: nothing was changed"
    )
    return Outcome(Reason.CORRUPT, f"{said}{removed}. Fetch it again", name, state.commit, intact)


def _fault(entry: Entry, file: FileState, progress: Progress, go_on: Callable[[], None]) -> str | None:
    path = entry.file(file.remote.name)
    size = size_if_file(path)
    if size is None:
        return "not there"
    if size != file.remote.size:
        return f"{size} bytes instead of {file.remote.size}"
    # The source's own checksum where there is one; else the one taken as the file came.
    expected = file.remote.digest or (Digest("sha256", file.sha256) if file.sha256 else None)
    verifier = Verifier(size, expected)
    buffer = bytearray(_CHUNK)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while count := os.readv(descriptor, [buffer]):
            go_on()
            verifier.update(memoryview(buffer)[:count])
            progress.received(count)
    finally:
        os.close(descriptor)
    if fault := verifier.fault():
        return fault
    return f"sha256 is not {file.sha256[:16]}…" if file.sha256 and verifier.sha256 != file.sha256 else None


def _mark(cache: Cache, entry: Entry, state: State, faults: dict[str, str]) -> bool:
    lease = Claim(cache.lease_path(entry.name)).try_acquire()
    if lease is None:
        return False
    try:
        for name in faults:
            entry.file(name).unlink(missing_ok=True)
        files = tuple(
            replace(file, sha256="") if file.remote.name in faults else file for file in state.files
        )
        write_state(entry.state_path, replace(state, files=files, complete=False))
    finally:
        lease.release()
    return True


def listed(folder: Path) -> list[dict[str, Any]]:
    """One object per entry, by name."""
    cache = Cache(folder)
    return [
        {
            "entry": entry.name,
            "source": state.source,
            "revision": state.revision or None,
            "commit": state.commit or None,
            "complete": state.complete,
            "held": held(cache.lease_path(entry.name)),
            "bytes": entry.present_bytes(state),
            "totalBytes": state.total_bytes,
            "usedBytes": used_bytes(entry.path),
            "files": len(state.files),
            "lastUsed": datetime.fromtimestamp(state.last_used, UTC).isoformat(timespec="seconds"),
        }
        for entry, state in cache.entries()
    ]


def table(entries: list[dict[str, Any]], now: float | None = None) -> str:
    """The same for people."""
    rows = [("ENTRY", "STATE", "SIZE", "LAST USED", "SOURCE", "COMMIT")]
    current = time.time() if now is None else now
    for one in entries:
        share = 100 * one["bytes"] // one["totalBytes"] if one["totalBytes"] else 0
        state = "complete" if one["complete"] else f"{share}%, " + ("fetching" if one["held"] else "left")
        hours = (current - datetime.fromisoformat(one["lastUsed"]).timestamp()) / 3600
        rows.append(
            (
                one["entry"],
                state,
                f"{one['usedBytes'] / 2**30:.1f} GiB",
                f"{hours:.1f} h ago",
                one["source"],
                (one["commit"] or "")[:12],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
