"""A cache of built folders: each named by a key of what went into it, built once, complete or absent."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MARKER = ".complete"
_NOTICE_SECONDS = 5.0


def cache_root() -> Path:
    """The folder that all of the project's caches share; outside of the repository."""
    explicit = os.environ.get("MOE_OPERATOR_CACHE")
    if explicit:
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "moe-operator"


def content_key(*parts: str) -> str:
    """A short name for a folder whose content these parts decide."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def is_complete(folder: Path) -> bool:
    """Whether a build of this folder has ended well."""
    return (folder / _MARKER).is_file()


def built(folder: Path, build: Callable[[Path], None], say: Callable[[str], None]) -> Path:
    """Return `folder`, calling `build` on it first if no earlier build of it ended well.

    The folder is built at its final path, as a virtual environment cannot be moved; what makes it whole in
    one step is the marker written last. A lock beside it lets one process build while others wait; the kernel
    frees the lock of a builder that dies, and the next one starts from an empty folder.
    """
    if is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(folder.name + ".lock"), say):
        if not is_complete(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build(folder)
            (folder / _MARKER).touch()
    return folder


@contextmanager
def _locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    with path.open("w") as handle:
        waited = 0.0
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited % _NOTICE_SECONDS < 0.5:
                    say(f"another process is building it; waiting ({waited:.0f} s)")
                time.sleep(0.5)
                waited += 0.5
        yield
