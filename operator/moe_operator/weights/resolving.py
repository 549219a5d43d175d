"""What an entry is to hold: asked of the source once, then kept."""

import time
from collections.abc import Callable
from dataclasses import replace

from moe_operator.catalog.weights_layout import SourceAddress
from moe_operator.weights.folder import Entry
from moe_operator.weights.lease import Lease
from moe_operator.weights.progress import Phase, Progress
from moe_operator.weights.retry import Patience, persistently
from moe_operator.weights.source import Source
from moe_operator.weights.sources import wanted
from moe_operator.weights.state import FileState, State, write_state


def resolve(
    entry: Entry,
    address: SourceAddress,
    revision: str,
    include: tuple[str, ...],
    source: Source,
    lease: Lease,
    progress: Progress,
    patience: Callable[[], Patience],
) -> State:
    """The entry's state, with its files listed, written to disk.

    A commit that the entry knows is not asked for again, so a branch that moves on changes nothing here. Files whose
    listing changed are removed, with what was gathered of them.
    """
    before = entry.read()
    if before:
        entry.prepare()
    if before and before.commit and before.files and set(include) <= set(before.include):
        state = replace(before, complete=False, last_used=time.time())
    else:
        progress.phase(Phase.RESOLVING, f"asking for the files of {address}")
        patterns = tuple(sorted({*include, *(before.include if before else ())}))
        known = before.commit if before and address.scheme == "hf" else ""
        listing = persistently(
            lambda: wanted(source, address, known or revision or None, patterns), patience()
        )
        kept = {file.remote: file for file in (before.files if before else ())}
        files = tuple(kept.get(remote, FileState(remote)) for remote in listing.files)
        lease.check()
        entry.prepare()  # only now: a name that the source does not have leaves no folder
        _remove_others(entry, before, files)
        state = State(
            str(address), revision, listing.commit, patterns, files, complete=False, last_used=time.time()
        )
    lease.check()
    write_state(entry.state_path, state)
    return state


def forget(entry: Entry) -> None:
    """Make the next run ask the source again: what was listed is not there any more."""
    if before := entry.read():
        write_state(entry.state_path, replace(before, commit="", complete=False))


def _remove_others(entry: Entry, before: State | None, files: tuple[FileState, ...]) -> None:
    """Remove what belongs to no listed file: the rest of an earlier listing, and parts that nothing accounts for."""
    if before is None:
        for part in entry.partial.iterdir():
            part.unlink()
        return
    for gone in {file.remote for file in before.files} - {file.remote for file in files}:
        entry.partial_of(gone.name).unlink(missing_ok=True)
        entry.file(gone.name).unlink(missing_ok=True)
