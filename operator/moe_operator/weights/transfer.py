"""One file from its source to its place: resumed, checked, whole or not there."""

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from moe_operator.catalog.weights_layout import Reason
from moe_operator.weights.digests import Verifier
from moe_operator.weights.errors import FetchError, TransientError
from moe_operator.weights.files import FILE_MODE, make_folder, size_if_file, sync_folder
from moe_operator.weights.folder import Entry
from moe_operator.weights.lease import Lease
from moe_operator.weights.progress import Progress
from moe_operator.weights.retry import Patience
from moe_operator.weights.source import RemoteFile, Source

CHUNK = 1 << 20
"""Bytes read and written at once, per file in transfer."""


@dataclass(frozen=True)
class Work:
    """What every transfer of one entry needs."""

    entry: Entry
    source: Source
    commit: str
    progress: Progress
    lease: Lease
    patience: Callable[[], Patience]
    go_on: Callable[[], None]
    """Raises where the process was told to stop or another file failed."""

    def check(self) -> None:
        """To be called before each write."""
        self.go_on()
        self.lease.check()


def transfer(work: Work, file: RemoteFile) -> str:
    """Bring one file to its place and return its SHA-256.

    Raises FetchError (also of a content that differs from the source's checksum twice), SourceChangedError, OSError.
    """
    patience = work.patience()
    faults: list[str] = []
    while len(faults) < 2:
        verifier = Verifier(file.size, file.digest)
        descriptor = _open_partial(work, file)
        try:
            resumed = _hash_present(work, descriptor, verifier)
            anew = _fill(work, file, descriptor, verifier, patience) or resumed == 0
            fault = verifier.fault()
            if fault is None:
                work.check()
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fault is None:
            _put_in_place(work, file)
            return verifier.sha256
        work.entry.partial_of(file.name).unlink(missing_ok=True)
        work.progress.present(-verifier.seen)
        if anew:  # what a crash left half-written is no fault of the source
            faults.append(fault)
    raise FetchError(
        Reason.CORRUPT,
        f"{file.name} came twice with other content than its source states: {faults[0]}; then {faults[1]}. "
        "A proxy or mirror on the way changes it, or the source's copy is damaged",
    )


def hash_whole(work: Work, file: RemoteFile) -> str | None:
    """SHA-256 of a file in its place, or None if it is not what its source states."""
    verifier = Verifier(file.size, file.digest)
    descriptor = os.open(work.entry.file(file.name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _read_into(descriptor, verifier, work.go_on)
    finally:
        os.close(descriptor)
    return None if verifier.fault() else verifier.sha256


def _open_partial(work: Work, file: RemoteFile) -> int:
    """The file's beginning; one that is longer than the file is not its beginning."""
    work.check()
    path = work.entry.partial_of(file.name)
    if (size_if_file(path) or 0) > file.size:
        path.unlink()
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)


def _hash_present(work: Work, descriptor: int, verifier: Verifier) -> int:
    _read_into(descriptor, verifier, work.go_on)
    work.progress.present(verifier.seen)
    return verifier.seen


def _read_into(descriptor: int, verifier: Verifier, go_on: Callable[[], None]) -> None:
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while verifier.seen < verifier.size and (count := os.preadv(descriptor, [buffer], verifier.seen)):
        go_on()
        verifier.update(view[: min(count, verifier.size - verifier.seen)])


def _fill(work: Work, file: RemoteFile, descriptor: int, verifier: Verifier, patience: Patience) -> bool:
    """Fetch what is missing. Returns whether the server could only begin anew."""
    anew = False
    while verifier.seen < file.size:
        try:
            opened = work.source.open(work.commit, file, verifier.seen)
            with closing(opened.body):
                if opened.start != verifier.seen:
                    work.progress.present(-verifier.seen)
                    verifier.restart()
                    anew = True
                _copy(work, opened.body.read, descriptor, verifier, patience)
        except TransientError as error:
            patience.wait(error)
    return anew


def _copy(
    work: Work,
    read: Callable[[int], bytes],
    descriptor: int,
    verifier: Verifier,
    patience: Patience,
) -> None:
    while missing := verifier.size - verifier.seen:
        data = read(min(CHUNK, missing))
        if not data:
            raise TransientError(f"the connection ended {missing} bytes early")
        work.check()
        view = memoryview(data)
        while view:  # at a stated offset: a second writer could only put the same bytes there
            written = os.pwrite(descriptor, view, verifier.seen)
            verifier.update(view[:written])
            view = view[written:]
        work.progress.received(len(data))
        patience.progressed()


def _put_in_place(work: Work, file: RemoteFile) -> None:
    target = work.entry.file(file.name)
    folder = work.entry.model
    for part in file.name.split("/")[:-1]:
        folder = folder / part
        make_folder(folder)
    work.check()
    work.entry.partial_of(file.name).replace(target)
    sync_folder(target.parent)
