"""Room for a model: what must be free, and which entries may go for it.

The rule: only entries that this program made, that are not named as in use, that nobody holds and that no fetch has
wanted for an hour; the least recently used first; as many as it takes, never more; and none if all together would not
be enough.
"""

import errno
import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from moe_operator.catalog.weights_layout import Reason
from moe_operator.weights.errors import FetchError, InterruptedFetchError
from moe_operator.weights.files import used_bytes
from moe_operator.weights.folder import Cache, Entry
from moe_operator.weights.lease import Claim, Lease, held
from moe_operator.weights.progress import Phase, Progress
from moe_operator.weights.removal import delete, empty_trash, set_aside
from moe_operator.weights.state import State

GRACE = 3600.0
"""Seconds since its last use within which an entry stays: a pod may be about to start from it."""
_LOOK = 0.5  # seconds between two looks at another's collection
_NAMED = 5  # entries that a message lists
_GIB = 2**30


@dataclass(frozen=True)
class Occupant:
    """An entry as the collection sees it."""

    name: str
    bytes: int
    last_used: float
    """Seconds since 1970."""
    wanted: bool = False
    """In use, or held by a process."""


def choose(occupants: Iterable[Occupant], short: int, now: float) -> list[Occupant] | None:
    """What must go to free `short` bytes, in this order; None if all that may go would not be enough."""
    chosen: list[Occupant] = []
    may_go = (each for each in occupants if not each.wanted and now - each.last_used > GRACE)
    for each in sorted(may_go, key=lambda one: (one.last_used, one.name)):
        if short <= 0:
            break
        chosen.append(each)
        short -= each.bytes
    return None if short > 0 else chosen


def make_room(
    cache: Cache,
    entry: Entry,
    state: State,
    in_use: Sequence[str],
    reserve: int,
    progress: Progress,
    stop: threading.Event,
) -> None:
    """Raises FetchError (DiskFull) with the numbers if the model does not fit, whatever may go."""
    needed = state.total_bytes - entry.present_bytes(state)
    if needed <= 0:
        return
    # One at a time: two that count the same room would remove for both, or refuse both where one fits.
    claim = Claim(cache.lease_path(".collection"))
    while (lease := claim.try_acquire()) is None:
        progress.phase(Phase.COLLECTING, f"{claim.holder} is making room")
        if stop.wait(_LOOK):
            raise InterruptedFetchError
    try:
        promised = _promised_to_others(cache, entry)
        short = needed + reserve + promised - free_bytes(cache)
        if short <= 0:
            return
        progress.phase(Phase.COLLECTING, f"{_gib(short)} more must be free for {_gib(needed)}")
        empty_trash(cache)
        short = needed + reserve + promised - free_bytes(cache)
        chosen = choose(_occupants(cache, entry, in_use), short, time.time())
        for each in chosen or ():
            if short > 0 and _remove(cache, each.name):
                progress.phase(Phase.COLLECTING, f"removed {each.name}: {_gib(each.bytes)}")
                short = needed + reserve + promised - free_bytes(cache)
        if short > 0:
            also = f", {_gib(promised)} promised to downloads under way" if promised else ""
            raise _full(
                cache,
                f"{entry.name} needs {_gib(needed)} more with {_gib(reserve)} kept free{also}; "
                f"{_gib(free_bytes(cache))} are free",
            )
    finally:
        lease.release()


def disk_full(cache: Cache, entry: Entry, state: State | None, error: OSError) -> FetchError | None:
    """The error for a write that found no room; None for another error."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    have, total = (entry.present_bytes(state), state.total_bytes) if state else (0, 0)
    what = "the quota is used up" if error.errno == errno.EDQUOT else f"{_gib(free_bytes(cache))} are free"
    return _full(
        cache,
        f"no room left while {entry.name} was written: {_gib(have)} of {_gib(total)} are there and are kept, {what}",
    )


def free_bytes(cache: Cache) -> int:
    """Bytes that this user may still write."""
    found = os.statvfs(cache.path)
    return found.f_bavail * found.f_frsize


def _full(cache: Cache, what: str) -> FetchError:
    sizes = sorted(((used_bytes(entry.path), entry.name) for entry, _ in cache.entries()), reverse=True)
    largest = ", ".join(f"{name} {_gib(size)}" for size, name in sizes[:_NAMED] if size)
    return FetchError(
        Reason.DISK_FULL,
        f"{what}. Largest in {cache.path}: {largest or 'nothing of ours'}. Make the volume larger, or delete a "
        "deployment whose model it holds: an entry that nobody uses goes by itself an hour later",
    )


def _occupants(cache: Cache, entry: Entry, in_use: Sequence[str]) -> list[Occupant]:
    return [
        Occupant(
            other.name,
            used_bytes(other.path),
            state.last_used,
            wanted=other.name in in_use or other.name == entry.name or _claimed(cache, other),
        )
        for other, state in cache.entries()
    ]


def _claimed(cache: Cache, entry: Entry) -> bool:
    path = cache.lease_path(entry.name)
    try:
        return held(path) and time.time() - path.stat().st_mtime < GRACE
    except OSError:
        return False


def _promised_to_others(cache: Cache, entry: Entry) -> int:
    """Bytes that downloads under way here have still to write: the disk will not have them."""
    return sum(
        max(0, state.total_bytes - other.present_bytes(state))
        for other, state in cache.entries()
        if other.name != entry.name and not state.complete and _claimed(cache, other)
    )


def _remove(cache: Cache, name: str) -> bool:
    """Take an entry away, under its lease and if it is still unused."""
    lease: Lease | None = Claim(cache.lease_path(name), abandoned=GRACE).try_acquire()
    if lease is None:
        return False
    try:
        entry = cache.entry(name)
        state = entry.read()
        if state is None or time.time() - state.last_used <= GRACE:
            return False
        delete(set_aside(cache, entry))
        return True
    except OSError:
        return False
    finally:
        lease.release()


def _gib(size: int) -> str:
    if abs(size) < 0.1 * _GIB:
        return f"{size / 2**20:.1f} MiB"
    return f"{size / _GIB:.1f} GiB"
