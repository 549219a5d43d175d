"""Write a set of files so that a reader sees the old set or the new one, never a mixture.

The layout is the one Kubernetes documents for its volumes: the files lie in a dated directory, ``..data`` points to it,
and each top-level name is a link through ``..data``; one rename of ``..data`` changes everything.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

DATA = "..data"
#: Content and permission bits by relative path.
Payload = Mapping[str, tuple[bytes, int]]


def write(directory: Path, payload: Payload) -> bool:
    """Make ``directory`` show ``payload``. Returns False, touching nothing, when it already does.

    Raises ValueError for a path that leads out of the directory.
    """
    for path in payload:
        parts = Path(path).parts
        if not parts or Path(path).is_absolute() or ".." in parts or parts[0].startswith(".."):
            raise ValueError(f"volume path {path!r} must be relative, without '..', and not start with '..'")
    if _current(directory) == {path: (bytes(data), mode) for path, (data, mode) in payload.items()}:
        return False
    old = (directory / DATA).readlink() if (directory / DATA).is_symlink() else None
    prefix = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.")
    fresh = Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
    fresh.chmod(0o755)
    for path, (data, mode) in payload.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(mode)
    link = directory / (DATA + "_tmp")
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(directory / DATA)
    names = {Path(path).parts[0] for path in payload}
    for name in names:
        shown = directory / name
        if not shown.is_symlink():
            shown.symlink_to(f"{DATA}/{name}")
    for entry in directory.iterdir():
        if entry.is_symlink() and entry.name != DATA and entry.name not in names:
            entry.unlink()
    if old is not None:
        shutil.rmtree(directory / old, ignore_errors=True)
    return True


def _current(directory: Path) -> dict[str, tuple[bytes, int]] | None:
    if not (directory / DATA).is_symlink():
        return None
    data = directory / DATA
    base = data.resolve()
    return {
        str(path.relative_to(base)): (path.read_bytes(), path.stat().st_mode & 0o7777)
        for path in base.rglob("*")
        if path.is_file()
    }
