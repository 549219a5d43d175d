"""One writer per entry, on any shared file system, whatever happens to it.

The lease is a file made with O_EXCL, which is atomic on local disks, NFS (3 and later) and CephFS. Its holder beats:
it writes a counter into the file that it made. A waiter takes the lease over when the counter has stood still for
`expiry` on the waiter's own clock; clocks of nodes are never compared. A kernel's lock alone would not do: on NFS
without a lock manager, Lustre and others it is refused, or granted to everybody (huggingface_hub #4306). It only makes
a takeover quicker: where holder and waiter run on one kernel and the lock is seen to work, a free lock says that the
holder is gone.

Two holders at once cannot spoil files: both would write the same bytes, of one commit, at the same offsets, and a
holder whose beat has not come through stops writing well before anyone may take over.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moe_operator.weights.errors import LeaseLostError
from moe_operator.weights.files import FILE_MODE

EXPIRY = 30.0
"""Seconds without a beat after which a holder counts as gone."""
BEAT = 3.0
_TRUST = (
    EXPIRY / 2
)  # a holder's own limit: half, so that the other half is room for a slow disk and a slow clock


class Lease:
    """Held from `try_acquire` to `release`. `check` before every write."""

    def __init__(self, path: Path, descriptor: int, token: str) -> None:
        self._path, self._descriptor, self._token = path, descriptor, token
        self._beats, self._beaten = 0, time.monotonic()
        self._stopped, self._lost = threading.Event(), False
        self._beat()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises LeaseLostError if another may hold the lease."""
        if self._lost or time.monotonic() - self._beaten > _TRUST:
            raise LeaseLostError(str(self._path))

    def release(self) -> None:
        """Give it back; nothing happens to a lease that another has taken over."""
        self._stopped.set()
        self._thread.join(timeout=BEAT)
        if self._own():
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _keep(self) -> None:
        while not self._stopped.wait(BEAT):
            try:
                if not self._own():
                    self._lost = True
                    return
                self._beat()
            except OSError:
                continue  # `check` counts the time without one

    def _beat(self) -> None:
        self._beats += 1
        _write(self._descriptor, self._token, self._beats)
        self._beaten = time.monotonic()

    def _own(self) -> bool:
        content = _read(self._path)
        return content is not None and content.get("token") == self._token


class Claim:
    """One process's wish for a lease: asks, and remembers what it has seen of the holder.

    `abandoned`: a lease not written for so many seconds is taken at first sight. That compares this node's clock with
    the one that stamps files, so it must be far more than clocks differ.
    """

    def __init__(
        self,
        path: Path,
        *,
        expiry: float = EXPIRY,
        abandoned: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._expiry, self._abandoned, self._clock = path, expiry, abandoned, clock
        self._seen: dict[str, Any] | None = None
        self._since = 0.0
        self.alive = False
        """Whether a holder has been seen to beat: its lease changed between two looks."""

    def try_acquire(self) -> Lease | None:
        """The lease, or None while another holds it. Raises OSError where the folder cannot be written."""
        if self._gone():
            self._break()
        return _create(self._path)

    @property
    def holder(self) -> str:
        """Who holds it, as far as it says so: a pod's name."""
        return str((self._seen or {}).get("host", "another process"))

    def _gone(self) -> bool:
        content = _read(self._path)
        if content is None:
            return False
        if content != self._seen:
            self.alive = self._seen is not None
            self._seen, self._since = content, self._clock()
        return (
            self._clock() - self._since >= self._expiry
            or _dead_here(self._path, content)
            or (self._abandoned is not None and _age(self._path) > self._abandoned)
        )

    def _break(self) -> None:
        """Take the file away, unless it is no longer the one that was judged."""
        aside = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
        with contextlib.suppress(FileNotFoundError):
            self._path.rename(aside)
            moved = _read(aside)
            if self._seen is not None and (moved or {}).get("token") != self._seen.get("token"):
                # Somebody was quicker, and this is the new holder's.
                with contextlib.suppress(OSError):
                    os.link(aside, self._path)
            aside.unlink(missing_ok=True)


def held(path: Path) -> bool:
    """Whether there is a lease, of a living process or of one not yet known to be dead."""
    content = _read(path)
    return content is not None and not _dead_here(path, content)


def _create(path: Path) -> Lease | None:
    token = secrets.token_hex(8)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    except FileExistsError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return Lease(path, descriptor, token)


def _write(descriptor: int, token: str, beats: int) -> None:
    text = json.dumps({"token": token, "host": socket.gethostname(), "kernel": _kernel(), "beats": beats})
    # Never shorter than before: the counter only grows.
    os.pwrite(descriptor, text.encode(), 0)
    # Any close makes NFS send what was written, so that other nodes see it. Not fsync: on a local disk that could wait
    # for gigabytes of the model to be written first, and a beat that waits counts as missed.
    os.close(os.dup(descriptor))


def _read(path: Path) -> dict[str, Any] | None:
    """What the lease says; {} while its holder has not written yet; None where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return {}
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise
    return value if isinstance(value, dict) else {}


def _kernel() -> str:
    """Names the running kernel: the same in all containers of a node, another after each boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _dead_here(path: Path, content: dict[str, Any]) -> bool:
    """Whether the holder ran on this kernel and its lock is free, where locks are seen to work."""
    if not content.get("kernel") or content["kernel"] != _kernel():
        return False
    try:
        first, second = (os.open(path, os.O_RDWR | os.O_CLOEXEC) for _ in range(2))
    except OSError:
        return False
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _same(first, path)
        return False  # granted twice: this file system's locks mean nothing
    except OSError:
        return False
    finally:
        os.close(first)
        os.close(second)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _same(descriptor: int, path: Path) -> bool:
    try:
        named = path.stat()
    except OSError:
        return False
    opened = os.fstat(descriptor)
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)
