"""Writing to a folder that others share and that may lose power: atomic, durable, never through a link."""

import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any

from moe_operator.catalog.weights_layout import Reason
from moe_operator.weights.errors import FetchError

_FOLDER_MODE = 0o775  # a group may share a volume (fsGroup): pods come and go as different users
FILE_MODE = 0o664


def make_folder(path: Path) -> None:
    """Make one folder if it is not there. Raises FetchError where a link or a file stands in its place."""
    try:
        path.mkdir(mode=_FOLDER_MODE)
    except FileExistsError:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise FetchError(
                Reason.BAD_CACHE, f"{path} is not a folder: remove it, the cache puts one there"
            ) from None


def write_json(path: Path, value: Any) -> None:
    """Replace a file so that a reader sees the old text or the new one, also after a loss of power."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make names in a folder durable. Some network file systems cannot; their renames are durable by themselves."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def size_if_file(path: Path) -> int | None:
    """Bytes of a plain file; None where there is none, or a link or a folder in its place."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def used_bytes(folder: Path) -> int:
    """Bytes that a folder takes on its disk; what vanishes meanwhile counts nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).lstat().st_blocks * 512
            except OSError:
                continue
    return total
