"""Requests in flight in a pod, counted over all of its API-server processes.

Each process owns one small file, mapped into its memory, that only it writes; a POSIX record lock on the file
lives as long as the process. A reader adds up the files whose locks are held and removes the others, so that
a process that was killed with requests in flight does not leave a count that never reaches zero.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

_LAYOUT = struct.Struct("<qqqq")
_SUFFIX = ".slot"


@dataclass(frozen=True)
class Reading:
    """One API-server process as seen by any process of the pod.

    Attributes:
        pid: its process id in the pod's namespace.
        in_flight: requests it has begun and not ended.
        served: requests it has ended since it started.
        idle: connections on which clients may send another request; counted while the pod drains.
        silent: seconds since its event loop last gave a sign of life.
    """

    pid: int
    in_flight: int
    served: int
    idle: int
    silent: float


class Slot:
    """This process's own count. Written from one thread only: the event loop's."""

    def __init__(self, directory: Path) -> None:
        """Make and lock the file under `directory`.

        Raises:
            OSError: if the directory cannot be made or written.
        """
        directory.mkdir(parents=True, exist_ok=True)
        # A name that is never used again: a reader that removes a dead process's file cannot hit a new one's.
        self._path = directory / f"{os.getpid()}-{time.time_ns()}{_SUFFIX}"
        unready = self._path.with_suffix(".new")
        self._fd = os.open(unready, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, _LAYOUT.size)
        # Record locks belong to the process, not to the descriptor, so a forked child does not keep them
        # alive.
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        self._memory = mmap.mmap(self._fd, _LAYOUT.size)
        self._in_flight = 0
        self._served = 0
        self._idle = 0
        self.beat()
        unready.rename(self._path)

    @property
    def path(self) -> Path:
        """Where the count lies."""
        return self._path

    def enter(self) -> None:
        """A request has begun."""
        self._in_flight += 1
        self.beat()

    def leave(self) -> None:
        """A request has ended, well or not."""
        self._in_flight -= 1
        self._served += 1
        self.beat()

    def note_idle(self, connections: int) -> None:
        """So many connections wait for another request."""
        self._idle = connections
        self.beat()

    def beat(self) -> None:
        """The event loop runs."""
        if self._memory.closed:  # a request that ends while the server shuts down
            return
        _LAYOUT.pack_into(self._memory, 0, self._in_flight, self._served, self._idle, time.monotonic_ns())

    def read(self) -> Reading:
        """This process's own numbers."""
        return _reading(os.getpid(), _LAYOUT.unpack_from(self._memory, 0))

    def close(self) -> None:
        """End the count and remove its file."""
        self._path.unlink(missing_ok=True)
        self._memory.close()
        os.close(self._fd)


def read_all(directory: Path, own: Slot) -> list[Reading]:
    """The numbers of every living API-server process of the pod, this one first.

    The own file is not opened again: closing any descriptor of it would drop this process's lock on it.
    """
    readings = [own.read()]
    for path in sorted(directory.glob("*" + _SUFFIX)):
        if path == own.path:
            continue
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                content = os.pread(fd, _LAYOUT.size, 0)
                if len(content) == _LAYOUT.size:
                    readings.append(_reading(int(path.name.partition("-")[0]), _LAYOUT.unpack(content)))
            else:
                path.unlink(missing_ok=True)
        finally:
            os.close(fd)
    return readings


def _reading(pid: int, content: tuple[int, ...]) -> Reading:
    in_flight, served, idle, beat = content
    return Reading(pid, in_flight, served, idle, max(0.0, (time.monotonic_ns() - beat) / 1e9))
