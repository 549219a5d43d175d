"""Checksums that sources state, computed while bytes pass.

A hub states SHA-256 of large files and git's SHA-1 of small ones. An S3 store states what the upload asked for: CRC-32,
CRC-32C, CRC-64/NVME or SHA-256 of the whole object, SHA-256 per part, or an ETag that is the MD5 of the object or of
its parts' MD5s. SHA-256 is always computed too: the cache's own record.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Digest:
    """What a source states about a file's content."""

    kind: str
    """`sha256`, `git-sha1`, `md5`, `crc32`, `crc32c`, `crc64nvme`; `md5-parts`, `sha256-parts`: of digests of parts."""
    value: str
    """Lower-case hex; for parts without their number."""
    part_size: int = 0
    """Bytes of every part but the last, for parts."""


class _Hash(Protocol):
    def update(self, data: memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Crc:
    def __init__(self, step: Callable[[memoryview, int], int], digits: int) -> None:
        self._step, self._digits, self._value = step, digits, 0

    def update(self, data: memoryview, /) -> None:
        self._value = self._step(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:0{self._digits}x}"


class _Parts:
    """A digest of the digests of equal parts, as S3 makes for multipart uploads."""

    def __init__(self, kind: str, part_size: int) -> None:
        self._kind, self._part_size = kind, part_size
        self._whole, self._part = _plain(kind), _plain(kind)
        self._filled = 0

    def update(self, data: memoryview, /) -> None:
        while data:
            taken = data[: self._part_size - self._filled]
            self._part.update(taken)
            self._filled += len(taken)
            data = data[len(taken) :]
            if self._filled == self._part_size:
                self._whole.update(self._part.digest())
                self._part, self._filled = _plain(self._kind), 0

    def hexdigest(self) -> str:
        whole = self._whole.copy()
        if self._filled:
            whole.update(self._part.digest())
        return whole.hexdigest()


def _plain(kind: str) -> "hashlib._Hash":
    # For integrity, not for security: hashlib may refuse MD5 and SHA-1 otherwise.
    return hashlib.new(kind, usedforsecurity=False)


def _stated(digest: Digest, size: int) -> _Hash:
    if digest.kind == "git-sha1":
        blob = _plain("sha1")
        blob.update(b"blob %d\0" % size)
        return blob
    if digest.kind in ("md5-parts", "sha256-parts"):
        return _Parts(digest.kind.removesuffix("-parts"), digest.part_size)
    if digest.kind.startswith("crc"):
        # Only s3 needs it: 20 ms that a hub's file does not pay.
        from awscrt import checksums

        step: Callable[[memoryview, int], int] = getattr(checksums, digest.kind)
        return _Crc(step, 16 if digest.kind == "crc64nvme" else 8)
    return _plain(digest.kind)


class Verifier:
    """Sees a file's bytes in order, and says whether they are the file.

    Raises ValueError for a kind of digest that is not known.
    """

    def __init__(self, size: int, digest: Digest | None) -> None:
        self.size, self.digest = size, digest
        self.restart()

    def restart(self) -> None:
        """Forget what was seen."""
        digest, size = self.digest, self.size
        self.seen = 0
        self._own = hashlib.sha256()
        self._stated = None if digest is None or digest.kind == "sha256" else _stated(digest, size)

    def update(self, data: memoryview) -> None:
        self.seen += len(data)
        self._own.update(data)
        if self._stated is not None:
            self._stated.update(data)

    @property
    def sha256(self) -> str:
        return self._own.hexdigest()

    def fault(self) -> str | None:
        """What differs from what the source states, or None."""
        if self.seen != self.size:
            return f"{self.seen} bytes instead of {self.size}"
        if self.digest is None:
            return None
        found = self.sha256 if self._stated is None else self._stated.hexdigest()
        if found == self.digest.value:
            return None
        return f"{self.digest.kind} {found[:16]}… instead of {self.digest.value[:16]}…"


def from_base64(kind: str, text: str, part_size: int = 0) -> Digest:
    """A digest as S3's headers write it. Raises ValueError where it is not base64."""
    return Digest(kind, base64.b64decode(text, validate=True).hex(), part_size)
