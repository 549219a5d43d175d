"""Names of a weights cache: sources, entries, folders, and how the program that fills it ends.

The program writes by these names and Kubernetes objects are rendered with them: both must mean the same. Pure.
"""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

MODEL_FOLDER = "model"
"""`<cache>/<entry>/model/`: what the engine is given."""
STATE_FILE = "state.json"
"""`<cache>/<entry>/state.json`: source, commit, files, whether it is complete, when it was last used."""
DEFAULT_REVISION = "main"
"""What a Hugging Face repository's unpinned revision means."""


class Reason(StrEnum):
    """How a run of the program ended."""

    COMPLETE = "Complete"
    UNAUTHORIZED = "Unauthorized"
    """The source wants a token, a licence accepted, or other credentials."""
    NOT_FOUND = "NotFound"
    BAD_SOURCE = "BadSource"
    """The source cannot be what was meant: a wrong address, no weights, an unsafe file name."""
    BAD_CACHE = "BadCache"
    """The cache folder cannot be used: not there, or not writable by this user."""
    DISK_FULL = "DiskFull"
    CORRUPT = "Corrupt"
    """Bytes differ from the checksum that the source states, twice."""
    UNREACHABLE = "Unreachable"
    BUSY = "Busy"
    """Another process works on an entry that was to be removed."""
    INTERRUPTED = "Interrupted"
    """Told to stop; what was fetched is kept."""


EXIT_CODES = {
    Reason.COMPLETE: 0,
    Reason.UNAUTHORIZED: 3,
    Reason.NOT_FOUND: 3,
    Reason.BAD_SOURCE: 3,
    Reason.BAD_CACHE: 3,
    Reason.DISK_FULL: 4,
    Reason.CORRUPT: 5,
    Reason.UNREACHABLE: 6,
    Reason.BUSY: 6,
    Reason.INTERRUPTED: 143,
}
"""3: a person must change something. 6: it may pass by itself. 143: as a process ended by SIGTERM."""


@dataclass(frozen=True)
class SourceAddress:
    """`hf://ORG/NAME` or `s3://BUCKET/PREFIX`, read."""

    scheme: str
    """`hf` or `s3`."""
    location: str
    """`ORG/NAME`, or the bucket."""
    prefix: str = ""
    """Of the objects' keys, without a slash at its end; s3 only."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.location}" + (f"/{self.prefix}" if self.prefix else "")


_HUB_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_HUB = re.compile(rf"{_HUB_PART}/{_HUB_PART}")
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; other stores allow capitals.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{1,61}[A-Za-z0-9]")
_UNREADABLE = re.compile(r"[^a-z0-9]+")
_HASH_DIGITS = 10
_READABLE = 40


def parse_source(text: str) -> SourceAddress:
    """Read a source. Raises ValueError with what is wrong and what it looks like when right."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("hf", "s3"):
        raise ValueError(f"source {text!r}: give hf://ORG/NAME or s3://BUCKET/PREFIX")
    if scheme == "hf":
        if not _HUB.fullmatch(rest) or ".." in rest or "--" in rest or len(rest) > 192:
            raise ValueError(
                f"source {text!r}: {rest!r} is not the name of a repository; give hf://ORG/NAME, "
                "for example hf://Qwen/Qwen3-30B-A3B (a revision goes in its own field)"
            )
        return SourceAddress("hf", rest)
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f"source {text!r}: {bucket!r} is not the name of a bucket; give s3://BUCKET/PREFIX")
    parts = prefix.split("/")
    if not prefix or not all(parts) or {".", ".."} & set(parts) or not prefix.isprintable():
        raise ValueError(
            f"source {text!r}: give the folder in the bucket that holds config.json, as s3://BUCKET/PREFIX"
        )
    return SourceAddress("s3", bucket, prefix)


def canonical_revision(source: SourceAddress, revision: str | None) -> str:
    """The revision that names an entry; empty for s3, which has none."""
    return (revision or DEFAULT_REVISION) if source.scheme == "hf" else ""


def entry_name(source: str, revision: str | None = None) -> str:
    """The folder of a source in a cache, for example `qwen-qwen3-30b-a3b-main-0a1b2c3d4e`.

    A DNS label of at most 51 characters, so that it is one safe path component and may be a label's value or a part
    of an object's name too. The digits at its end are of source and revision as they are written: two sources never
    share an entry. Raises ValueError for a source that cannot be read.
    """
    address = parse_source(source)
    pinned = canonical_revision(address, revision)
    digest = hashlib.sha256(f"{address}@{pinned}".encode()).hexdigest()[:_HASH_DIGITS]
    # The last folder of a prefix and a commit's first digits tell people most.
    told = pinned[:12] if re.fullmatch(r"[0-9a-f]{40}", pinned) else pinned
    where = address.location if address.scheme == "hf" else f"s3-{address.location}-{address.prefix}"
    name = _dashed(where)
    tail = _dashed(told)[:16].strip("-")
    room = _READABLE - (len(tail) + 1 if tail else 0)
    # Of a long s3 address the end says more than its beginning.
    name = (name[:room] if address.scheme == "hf" else name[-room:]).strip("-")
    return "-".join(part for part in (name, tail, digest) if part)


def _dashed(text: str) -> str:
    return _UNREADABLE.sub("-", text.lower()).strip("-")
