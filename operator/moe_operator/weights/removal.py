"""`weights remove`: entries that somebody wants gone, and how an entry goes at all.

It is renamed out of the cache first, which is at once and for everybody; its files go after. So nobody ever sees half
of an entry, and a run that is killed in between leaves nothing but files that the next removal, or the next download
that needs room, deletes.
"""

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from moe_operator.catalog.weights_layout import MODEL_FOLDER, STATE_FILE, Reason
from moe_operator.weights.errors import FetchError
from moe_operator.weights.files import sync_folder, used_bytes
from moe_operator.weights.folder import Cache, Entry, unusable
from moe_operator.weights.lease import Claim, Lease
from moe_operator.weights.progress import Outcome, Phase, Progress

_LOOK = 0.5  # seconds between two looks at another's lease


def remove(folder: Path, names: Sequence[str], progress: Progress, wait: Callable[[float], None]) -> Outcome:
    """Remove these entries; what is not there counts as removed.

    An entry that another process works on stays: that process wants it. The others go all the same. `wait` sleeps for
    so many seconds, 0 for a look, and raises what tells the run to stop. Raises FetchError (BadCache) and OSError.
    """
    cache = Cache(folder)
    if not folder.is_dir():
        raise FetchError(Reason.BAD_CACHE, f"{folder} is not a folder: give the cache's")
    entries = [cache.entry(name) for name in dict.fromkeys(names)]
    cache.prepare()
    removed, freed, faults = 0, 0, []
    for entry in entries:
        wait(0)
        try:
            size = _remove(cache, entry, progress, wait)
        except FetchError as error:
            faults.append((entry, error))
            continue
        removed += size is not None
        freed += size or 0
    empty_trash(cache, lambda: wait(0))
    absent = len(entries) - removed - len(faults)
    said = [f"{removed} removed"] if removed else []
    said += [f"{absent} not there"] if absent else []
    if not faults:
        return Outcome(Reason.COMPLETE, ", ".join(said), _named(entries), bytes=freed)
    # What a person must mend comes before what passes by itself.
    entry, worst = min(faults, key=lambda fault: fault[1].reason is Reason.BUSY)
    said += [f"{fault.name}: {error.message}" for fault, error in faults]
    return Outcome(worst.reason, "; ".join(said), entry.name, bytes=freed)


def set_aside(cache: Cache, entry: Entry) -> Path:
    """Take an entry out of the cache, under its lease; its files are still to be deleted. Raises OSError."""
    aside = cache.trash / f"{entry.name}-{secrets.token_hex(4)}"
    entry.path.rename(aside)
    sync_folder(cache.path)
    return aside


def delete(folder: Path, go_on: Callable[[], None] = lambda: None) -> OSError | None:
    """Delete what was set aside, as far as that can be done; gives the first error. Never follows a link. Raises what
    `go_on` raises, which is called before each file."""
    first: OSError | None = None
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            go_on()
            first = _try(os.unlink, Path(parent) / name) or first
        for name in folders:
            path = Path(parent) / name
            first = _try(os.unlink if path.is_symlink() else os.rmdir, path) or first
    return _try(os.rmdir, folder) or first


def empty_trash(cache: Cache, go_on: Callable[[], None] = lambda: None) -> None:
    """Delete what earlier runs set aside and were killed over."""
    for left in cache.trash.iterdir():
        delete(left, go_on)


def _remove(cache: Cache, entry: Entry, progress: Progress, wait: Callable[[float], None]) -> int | None:
    """The bytes that it took; None for an entry that is not there."""
    if not os.path.lexists(entry.path):
        return None
    lease = _acquire(cache, entry, progress, wait)
    try:
        if not os.path.lexists(entry.path):
            return None
        _check_ours(entry)
        size = used_bytes(entry.path)
        progress.phase(Phase.REMOVING, f"{entry.name}: {size / 2**30:.1f} GiB")
        aside = set_aside(cache, entry)
    except OSError as error:
        raise unusable(cache.path, error) from error
    finally:
        lease.release()
    if fault := delete(aside, lambda: wait(0)):
        left = used_bytes(aside)
        raise FetchError(
            Reason.BAD_CACHE,
            f"it is out of the cache, and {left} bytes of it cannot be deleted by user {os.getuid()}, group "
            f"{os.getgid()}: {fault.strerror} ({fault.filename}). Delete {aside} as the user that owns it",
        )
    return size


def _acquire(cache: Cache, entry: Entry, progress: Progress, wait: Callable[[float], None]) -> Lease:
    """The entry's lease. Raises FetchError (Busy) once its holder is seen to live, or has changed the entry."""
    claim, before = Claim(cache.lease_path(entry.name)), entry.read()
    while (lease := claim.try_acquire()) is None:
        if claim.alive:
            raise _busy(claim.holder)
        progress.phase(Phase.WAITING, f"{claim.holder} has worked on {entry.name}: does it live?")
        wait(_LOOK)
    if entry.read() != before:
        lease.release()
        raise _busy("another process, which has just finished")
    return lease


def _busy(who: str) -> FetchError:
    return FetchError(
        Reason.BUSY, f"{who} works on it, so it stays. End that first, or run this again when it is done"
    )


def _check_ours(entry: Entry) -> None:
    """Refuse what the program did not make; an entry that was hardly begun has no state yet."""
    if entry.path.is_symlink() or not entry.path.is_dir():
        raise FetchError(Reason.BAD_CACHE, f"{entry.path} is no folder, so not an entry of a cache: it stays")
    if entry.read() is not None:
        return
    known = {MODEL_FOLDER, entry.partial.name, STATE_FILE}
    others = sorted(
        path.name
        for path in entry.path.iterdir()
        if path.name not in known and not path.name.startswith(f".{STATE_FILE}.")
    )
    if others:
        raise FetchError(
            Reason.BAD_CACHE,
            f"{entry.path} is not an entry of a cache: it holds {', '.join(others[:3])} and no {STATE_FILE}. It stays",
        )


def _named(entries: Sequence[Entry]) -> str:
    return entries[0].name if len(entries) == 1 else ""


def _try(what: Callable[[Path], None], path: Path) -> OSError | None:
    try:
        what(path)
    except FileNotFoundError:
        pass  # another process empties the same trash
    except OSError as error:
        return error
    return None
