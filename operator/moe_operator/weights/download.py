"""All files of an entry, a bounded number at a time."""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from moe_operator.weights.errors import InterruptedFetchError
from moe_operator.weights.files import size_if_file
from moe_operator.weights.folder import Entry
from moe_operator.weights.lease import Lease
from moe_operator.weights.progress import Phase, Progress
from moe_operator.weights.retry import Patience
from moe_operator.weights.source import Source
from moe_operator.weights.state import FileState, State, write_state
from moe_operator.weights.transfer import Work, hash_whole, transfer

FILES_AT_ONCE = 8
"""One connection each: what a content network gives to one is below what a node's network takes."""
_TICK = 0.5  # seconds


class _Stopper:
    """Stops the other files when one fails, or all when the process is told to."""

    def __init__(self, stop: threading.Event) -> None:
        self.outer, self.failed = stop, threading.Event()

    def check(self) -> None:
        if self.outer.is_set() or self.failed.is_set():
            raise InterruptedFetchError


def download(
    entry: Entry,
    state: State,
    source: Source,
    lease: Lease,
    progress: Progress,
    patience: Callable[[], Patience],
    stop: threading.Event,
) -> State:
    """Every file in its place; the state with their checksums, not yet called complete.

    Raises what `transfer` raises, and InterruptedFetchError.
    """
    stopper = _Stopper(stop)
    work = Work(entry, source, state.commit, progress, lease, patience, stopper.check)
    book = _Book(entry, state)
    progress.phase(Phase.DOWNLOADING)
    # The largest first: else the last file alone fills the end of the time.
    missing = sorted(
        (file for file in state.files if not _settled(entry, file)), key=lambda file: -file.remote.size
    )
    for file in state.files:
        if file not in missing:
            progress.present(file.remote.size, files=1)
    pool = ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="file")
    try:
        _wait({pool.submit(_one, work, file, book) for file in missing}, progress, stop)
    finally:
        stopper.failed.set()
        # Not waited for: one may sit in a silent connection. It finds out before it writes again.
        pool.shutdown(wait=False, cancel_futures=True)
    return book.state


class _Book:
    """The state, kept on disk as files are done: a checksum is not computed twice."""

    def __init__(self, entry: Entry, state: State) -> None:
        self._entry, self.state, self._lock = entry, state, threading.Lock()

    def done(self, file: FileState) -> None:
        with self._lock:
            self.state = self.state.with_file(file)
            write_state(self._entry.state_path, self.state)


def _settled(entry: Entry, file: FileState) -> bool:
    return bool(file.sha256) and size_if_file(entry.file(file.remote.name)) == file.remote.size


def _one(work: Work, file: FileState, book: _Book) -> None:
    work.go_on()
    sha256 = None
    if file.remote.digest and size_if_file(work.entry.file(file.remote.name)) == file.remote.size:
        # In its place, but the process ended before it could say so.
        sha256 = hash_whole(work, file.remote)
        if sha256:
            work.progress.present(file.remote.size)
    if not sha256:
        sha256 = transfer(work, file.remote)
    work.check()
    book.done(replace(file, sha256=sha256))
    work.progress.present(0, files=1)


def _wait(running: set[Future[None]], progress: Progress, stop: threading.Event) -> None:
    while running:
        done, running = wait(running, timeout=_TICK, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        progress.tick()
        if stop.is_set():
            raise InterruptedFetchError
