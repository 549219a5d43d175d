"""`state.json`: what an entry of a cache is, and how far it is."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moe_operator.weights.digests import Digest
from moe_operator.weights.files import write_json
from moe_operator.weights.source import RemoteFile

_VERSION = 1


@dataclass(frozen=True)
class FileState:
    """One file of an entry."""

    remote: RemoteFile
    sha256: str = ""
    """Of the content on disk, computed as it came; empty until the file is complete."""


@dataclass(frozen=True)
class State:
    """One entry. Written as a whole, so that a reader never sees half of it."""

    source: str
    revision: str
    """As asked for; empty for a store without revisions."""
    commit: str
    """What the revision was resolved to, once."""
    include: tuple[str, ...] = ()
    """Patterns of files taken beside what an engine needs."""
    files: tuple[FileState, ...] = ()
    complete: bool = False
    last_used: float = field(default=0.0)
    """Seconds since 1970: when a fetch last wanted or finished this entry."""

    @property
    def total_bytes(self) -> int:
        return sum(file.remote.size for file in self.files)

    def with_file(self, done: FileState) -> "State":
        """The same state with one file replaced by its newer version."""
        return replace(
            self, files=tuple(done if file.remote.name == done.remote.name else file for file in self.files)
        )


def read_state(path: Path) -> State | None:
    """None where there is none, or none that this version can read: then the entry is begun anew, files kept."""
    try:
        return _from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_state(path: Path, state: State) -> None:
    """Replace the state, durably. Raises OSError."""
    write_json(path, _to_json(state))


def _to_json(state: State) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "source": state.source,
        "revision": state.revision,
        "commit": state.commit,
        "include": list(state.include),
        "complete": state.complete,
        "last_used": datetime.fromtimestamp(state.last_used, UTC).isoformat(timespec="seconds"),
        "files": [
            {
                "name": file.remote.name,
                "size": file.remote.size,
                "sha256": file.sha256,
                "etag": file.remote.etag,
                "stated": _digest_to_json(file.remote.digest),
            }
            for file in state.files
        ],
    }


def _digest_to_json(digest: Digest | None) -> dict[str, Any] | None:
    if digest is None:
        return None
    return {"kind": digest.kind, "value": digest.value, "partSize": digest.part_size}


def _from_json(value: dict[str, Any]) -> State | None:
    if value["version"] != _VERSION:
        return None
    return State(
        source=str(value["source"]),
        revision=str(value["revision"]),
        commit=str(value["commit"]),
        include=tuple(str(pattern) for pattern in value["include"]),
        complete=value["complete"] is True,
        last_used=datetime.fromisoformat(value["last_used"]).timestamp(),
        files=tuple(_file_from_json(file) for file in value["files"]),
    )


def _file_from_json(value: dict[str, Any]) -> FileState:
    stated = value["stated"]
    digest = Digest(str(stated["kind"]), str(stated["value"]), int(stated["partSize"])) if stated else None
    remote = RemoteFile(str(value["name"]), int(value["size"]), digest, str(value["etag"]))
    return FileState(remote, str(value["sha256"]))
