"""Locks between processes: flock on a file, released by the kernel when the holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster.say import Say, duration

_POLL_S = 0.2
_TELL_EVERY_S = 8.0


def try_lock(path: Path) -> int | None:
    """Take the lock and return its descriptor, or None if somebody holds it.

    The lock belongs to the open file: it lives on in every process that inherits the descriptor. The holder
    may unlink the file: whoever had opened it before sees that it locked a file without a name, and starts
    again.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock now."""
    if not path.exists():
        return False
    descriptor = try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


@contextmanager
def exclusive(path: Path, say: Say, what: str) -> Iterator[None]:
    """Hold the lock; while another process holds it, say every few seconds what is being waited for."""
    started = told = time.monotonic()
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() - told >= _TELL_EVERY_S:
            told = time.monotonic()
            say(f"waiting for {what} by another process ({duration(told - started)})")
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        os.close(descriptor)
