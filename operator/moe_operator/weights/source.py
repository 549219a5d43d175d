"""What a source of weights is, to the rest of the program."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from moe_operator.weights.digests import Digest


@dataclass(frozen=True)
class RemoteFile:
    """A file as its source lists it."""

    name: str
    """Relative, with `/`."""
    size: int
    digest: Digest | None = None
    """None: the source states none, and the file is checked by its size alone."""
    etag: str = ""
    """Of an object, as its store writes it; a request is bound to it."""


@dataclass(frozen=True)
class Listing:
    """Everything that a source holds at one moment."""

    commit: str
    """Of a repository. For a store without commits: a digest of the listing."""
    files: tuple[RemoteFile, ...]


class Body(Protocol):
    """The bytes of one answer."""

    def read(self, amount: int) -> bytes:
        """At most `amount` bytes; empty at the end. Raises TransientError when the connection breaks."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Opened:
    """An answer to a request for a file's end."""

    start: int
    """Offset of its first byte: the one asked for, or 0 where the server does not know ranges."""
    body: Body


class Source(Protocol):
    """A place that models are fetched from. Every method raises FetchError or TransientError."""

    def listing(self, revision: str | None) -> Listing:
        """What is there now, or at a revision or commit."""

    def described(self, files: Sequence[RemoteFile]) -> list[RemoteFile]:
        """The same files with their digests, where the listing does not have them."""

    def open(self, commit: str, file: RemoteFile, offset: int) -> Opened:
        """The file's bytes from `offset` on. Raises SourceChangedError if it is not the listed one any more."""
