"""A container's log on disk, in the line format of the container runtime interface, and reading it back.

Each line: ``<RFC 3339 time with nanoseconds> <stdout|stderr> <F|P> <text>``; P marks a piece of a longer line.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

#: Bytes after which a log starts a new file; the one before it is kept.
ROTATE_AT = 10 * 2**20
#: Longest piece of a line.
_PIECE = 16 * 1024
_BLOCK = 64 * 1024
_TIME = re.compile(rb"(\S+) (stdout|stderr) ([FP]) ")


class ContainerLog:
    """Takes what a container writes. ``close`` when no more can come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._size = self._file.tell()
        self._rest = {"stdout": b"", "stderr": b""}
        self._changed = asyncio.Event()
        self.closed = False

    def write(self, data: bytes, stream: str) -> None:
        """Append what one stream gave; a last incomplete line waits for its end."""
        stamp = _stamp()
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        head = stamp + b" " + stream.encode()
        out: list[bytes] = []
        for line in lines:
            while len(line) > _PIECE:
                out.append(head + b" P " + line[:_PIECE] + b"\n")
                line = line[_PIECE:]
            out.append(head + b" F " + line + b"\n")
        while len(rest) >= _PIECE:
            out.append(head + b" P " + rest[:_PIECE] + b"\n")
            rest = rest[_PIECE:]
        self._rest[stream] = rest
        self._append(b"".join(out))

    def _append(self, data: bytes) -> None:
        if not data or self.closed:
            return
        if self._size + len(data) > ROTATE_AT and self._size:
            self._file.close()
            self.path.replace(self.path.with_suffix(".log.1"))
            self._file = self.path.open("ab", buffering=0)
            self._size = 0
        self._file.write(data)
        self._size += len(data)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Write the last incomplete lines and end those who follow."""
        if self.closed:
            return
        stamp = _stamp()
        for stream, rest in self._rest.items():
            if rest:
                self._append(stamp + b" " + stream.encode() + b" P " + rest + b"\n")
        self.closed = True
        self._file.close()
        self._notify()

    async def changed(self) -> None:
        """Wait for the next write or the end."""
        if not self.closed:
            await self._changed.wait()


def _stamp() -> bytes:
    nanos = time.time_ns()
    whole = datetime.fromtimestamp(nanos // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{nanos % 10**9:09d}Z".encode()


@dataclass(frozen=True)
class LogOptions:
    """What ``kubectl logs`` asks for. ``since``: Unix seconds; ``streams``: which of stdout and stderr."""

    follow: bool = False
    tail: int | None = None
    since: float | None = None
    timestamps: bool = False
    limit: int | None = None
    streams: tuple[str, ...] = ("stdout", "stderr")


def _lines_backwards(path: Path) -> Iterator[bytes]:
    with path.open("rb") as handle:
        position = handle.seek(0, os.SEEK_END)
        rest = b""
        while position > 0:
            size = min(_BLOCK, position)
            position -= size
            handle.seek(position)
            pieces = (handle.read(size) + rest).split(b"\n")
            rest = pieces[0]
            for piece in reversed(pieces[1:]):
                if piece:
                    yield piece
        if rest:
            yield rest


def _files(path: Path) -> list[Path]:
    return [name for name in (path.with_suffix(".log.1"), path) if name.exists()]


def _wanted(line: bytes, options: LogOptions) -> bytes | None:
    match = _TIME.match(line)
    if match is None or match[2].decode() not in options.streams:
        return None
    if options.since is not None and _unix(match[1]) < options.since:
        return None
    body = line[match.end() :] + (b"\n" if match[3] == b"F" else b"")
    return match[1] + b" " + body if options.timestamps else body


def _unix(stamp: bytes) -> float:
    text = stamp.decode()
    return datetime.fromisoformat(text[:19] + "+00:00").timestamp() + float("0" + text[19:-1])


def read(path: Path, options: LogOptions) -> Iterator[bytes]:
    """What is in the log now, oldest first, filtered by ``options`` but for ``follow`` and ``limit``."""
    if options.tail is None:
        # What is appended while this is read belongs to those who follow.
        for name, end in [(name, name.stat().st_size) for name in _files(path)]:
            with name.open("rb") as handle:
                while handle.tell() < end:
                    line = handle.readline()
                    wanted = _wanted(line.rstrip(b"\n"), options)
                    if wanted is not None:
                        yield wanted
        return
    kept: list[bytes] = []
    complete = 0
    for name in reversed(_files(path)):
        for line in _lines_backwards(name):
            match = _TIME.match(line)
            if match is None or match[2].decode() not in options.streams:
                continue
            # A piece belongs to the full line after it: count complete lines, not pieces.
            complete += match[3] == b"F" or not kept
            if complete > options.tail:
                break
            wanted = _wanted(line, options)
            if wanted is None:
                break
            kept.append(wanted)
        if complete > options.tail:
            break
    yield from reversed(kept)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _blocks(lines: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _BLOCK:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


async def stream(path: Path, live: ContainerLog | None, options: LogOptions) -> AsyncIterator[bytes]:
    """Chunks for a client; with ``follow`` until the container has ended (``live`` is closed)."""
    left = options.limit
    size = _size(path)
    # Materialised before the first yield: what is written meanwhile belongs to the part that follows.
    held = b"".join(read(path, options)) if options.tail is not None else b""
    for chunk in [held] if options.tail is not None else _blocks(read(path, options)):
        if left is not None:
            chunk = chunk[:left]
            left -= len(chunk)
        if chunk:
            yield chunk
        if left == 0:
            return
    if not options.follow or live is None:
        return
    position = size
    rest = b""
    while True:
        waiting = asyncio.ensure_future(live.changed())
        try:
            now = _size(path)
            if now < position:
                position = 0  # the log started a new file
            if now > position:
                with path.open("rb") as handle:
                    handle.seek(position)
                    data = handle.read(_BLOCK)
                position += len(data)
                *lines, rest = (rest + data).split(b"\n")
                out = b"".join(wanted for line in lines if (wanted := _wanted(line, options)) is not None)
                if left is not None:
                    out = out[:left]
                    left -= len(out)
                if out:
                    yield out
                if left == 0:
                    return
                continue
            if live.closed:
                return
            await waiting
        finally:
            waiting.cancel()
