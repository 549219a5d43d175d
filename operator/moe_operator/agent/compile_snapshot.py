"""A folder of compiled kernels as one file: packed from what does not move, unpacked only where all of it is sound.

The file is a compressed tar whose first entry says what it is. It gets its name in one step, so that a reader finds a
whole one or none; compression ends in a checksum, which is read before anything takes its place. Content is not
trusted: plain files and folders alone, below the target, up to a bound.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import stat
import tarfile
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

FORMAT = 1
SUFFIX = ".tar.gz"
#: Of a file under way; with a dot before its name.
NEW_SUFFIX = ".new"
#: Bytes unpacked, and files: far above what compilers leave (a few GB and some ten thousand files).
MAX_BYTES = 32 * 2**30
MAX_FILES = 500_000
_MAX_ABOUT = 64 * 1024
_ABOUT = "about.json"
_CONTENT = "content"
_MTIME = "MOE.mtime_ns"
_CHUNK = 1 << 20
#: Speed matters more than size: the engine waits for the way back.
_LEVEL = 1
#: What says something of this machine or this process, and nothing of kernels. By the beginning of the path.
_NOT_KERNELS = (
    # Which of the node's GPUs reach each other; read back without being measured anew.
    "vllm/gpu_p2p_access_cache",
    # Free memory when it was measured.
    "vllm/startup_plan/",
    "vllm/assets/",
)
_PASSING = (".lock", ".tmp")


class SnapshotError(Exception):
    """A snapshot that cannot be used, or a folder that cannot be packed: the message says why."""


@dataclass(frozen=True)
class Entry:
    """One file of a folder."""

    size: int
    mtime: int
    """Nanoseconds."""


Content = dict[str, Entry]


def scan(folder: Path) -> Content:
    """Kernels' files below the folder, by their path in it. Links and what is no kernel are left out."""
    found: Content = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = f"{root}/{name}"
            relative = os.path.relpath(path, folder)
            if relative.startswith(_NOT_KERNELS) or name.endswith(_PASSING):
                continue
            try:
                status = os.lstat(path)
            except OSError:  # gone meanwhile
                continue
            if stat.S_ISREG(status.st_mode):
                found[relative] = Entry(status.st_size, status.st_mtime_ns)
    return found


def pack(folder: Path, target: Path, key: str) -> Content:
    """Make `target` of the folder's files, or leave what is there; the answer is what it holds.

    Raises:
        SnapshotError: a file changed meanwhile, or there is too much.
        OSError: the disk is full, read-only or gone.
    """
    before = scan(folder)
    if len(before) > MAX_FILES or sum(entry.size for entry in before.values()) > MAX_BYTES:
        raise SnapshotError(f"{len(before)} files are more than a snapshot holds")
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex}{NEW_SUFFIX}")
    try:
        with new.open("xb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=_LEVEL, mtime=0) as packed:
                _write(cast(IO[bytes], packed), folder, before, key)
            raw.flush()
            os.fsync(raw.fileno())
        if scan(folder) != before:
            raise SnapshotError("files changed while they were packed")
        new.replace(target)
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not every shared file system lets a folder be synced
        _sync_folder(target.parent)
    return before


def unpack(source: Path, folder: Path, key: str, stopped: Callable[[], bool] = lambda: False) -> Content:
    """Put the snapshot's files into `folder`, all of them or none. What is there already stays as it is. One process of
    a pod does so.

    `stopped`: asked before each file; once it says yes, nothing is put in place any more.

    Raises:
        FileNotFoundError: there is no snapshot.
        SnapshotError: it is torn, of another key, or holds what no snapshot does.
        OSError: it cannot be read, or there is no room.
    """
    for left in folder.parent.glob(f".{folder.name}.*{NEW_SUFFIX}"):  # by an engine that was killed meanwhile
        shutil.rmtree(left, ignore_errors=True)
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}{NEW_SUFFIX}")
    staging.parent.mkdir(parents=True, exist_ok=True)
    try:
        with source.open("rb") as raw:
            staging.mkdir()
            try:
                with gzip.GzipFile(fileobj=raw, mode="rb") as packed:
                    _read(cast(IO[bytes], packed), staging, key, stopped)
                    while packed.read(_CHUNK):  # up to the checksum
                        pass
            except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError, KeyError) as error:
                raise SnapshotError(f"{type(error).__name__}: {error}") from error
        if stopped():
            raise SnapshotError("took too long")
        content = scan(staging)
        try:
            staging.rename(folder)
        except OSError:
            _merge(staging, folder, content)
        return content
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _merge(staging: Path, folder: Path, content: Content) -> None:
    """Libraries make folders, and write logs, when they are imported."""
    for name in content:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(target):
            (staging / name).rename(target)


def _write(packed: IO[bytes], folder: Path, content: Content, key: str) -> None:
    with tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK) as tar:
        about = json.dumps({"format": FORMAT, "key": key, "files": len(content)}).encode()
        first = tarfile.TarInfo(_ABOUT)
        first.size = len(about)
        tar.addfile(first, io.BytesIO(about))
        for name, entry in sorted(content.items()):
            info = tarfile.TarInfo(f"{_CONTENT}/{name}")
            info.size = entry.size
            # Builders compare times: to the nanosecond, which tar itself rounds.
            info.mtime = entry.mtime // 10**9
            info.pax_headers = {_MTIME: str(entry.mtime)}
            try:
                with (folder / name).open("rb") as file:
                    info.mode = 0o755 if os.fstat(file.fileno()).st_mode & stat.S_IXUSR else 0o644
                    tar.addfile(info, file)
            except FileNotFoundError as error:
                raise SnapshotError("files changed while they were packed") from error
            except OSError as error:
                # tarfile's own word for a file that became shorter.
                if error.errno is None:
                    raise SnapshotError("files changed while they were packed") from error
                raise


def _read(packed: IO[bytes], staging: Path, key: str, stopped: Callable[[], bool]) -> None:
    with tarfile.open(fileobj=packed, mode="r|", bufsize=_CHUNK) as tar:
        members = iter(tar)
        expected = _about(tar, members, key)
        # The node's disk is others' too.
        room = min(MAX_BYTES, shutil.disk_usage(staging).free // 2)
        count = size = 0
        for member in members:
            if stopped():
                raise SnapshotError("took too long")
            count, size = count + 1, size + member.size
            if count > min(MAX_FILES, expected) or size > room:
                raise SnapshotError(
                    f"it holds more than the {expected} files that it names, or than {room} bytes"
                )
            path = _safe(member)
            target = staging / path
            target.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            if source is None:
                raise SnapshotError(f"{member.name} has no content")
            # "x": no entry goes through another one.
            with target.open("xb") as file:
                shutil.copyfileobj(source, file, _CHUNK)
                os.fchmod(file.fileno(), 0o755 if member.mode & stat.S_IXUSR else 0o644)
            mtime = int(member.pax_headers.get(_MTIME, int(member.mtime) * 10**9))
            os.utime(target, ns=(mtime, mtime))
        if count != expected:
            raise SnapshotError(f"it holds {count} of {expected} files")


def _about(tar: tarfile.TarFile, members: Iterator[tarfile.TarInfo], key: str) -> int:
    """How many files follow."""
    first = next(members, None)
    if first is None or first.name != _ABOUT or not first.isreg() or first.size > _MAX_ABOUT:
        raise SnapshotError("it does not begin as a snapshot")
    file = tar.extractfile(first)
    about = json.loads(file.read()) if file is not None else None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise SnapshotError("it is of another format")
    if about.get("key") != key:
        raise SnapshotError(f"it is of another key, {about.get('key')!r}")
    return int(about["files"])


def _safe(member: tarfile.TarInfo) -> PurePosixPath:
    path = PurePosixPath(member.name)
    inside = path.parts[:1] == (_CONTENT,) and len(path.parts) > 1 and ".." not in path.parts
    if not member.isreg() or path.is_absolute() or not inside:
        raise SnapshotError(f"{member.name!r} is no plain file below the folder")
    return PurePosixPath(*path.parts[1:])


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
