"""A cache on disk: its entries, and the paths of one."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from moe_operator.catalog.weights_layout import MODEL_FOLDER, STATE_FILE, Reason
from moe_operator.weights.errors import FetchError
from moe_operator.weights.files import make_folder, size_if_file
from moe_operator.weights.names import unsafe
from moe_operator.weights.state import State, read_state

_OWN = ".moe-operator"  # leases and what is being removed; no entry begins with a dot


@dataclass(frozen=True)
class Entry:
    """One model at one revision: `<cache>/<entry>/`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def state_path(self) -> Path:
        return self.path / STATE_FILE

    @property
    def model(self) -> Path:
        return self.path / MODEL_FOLDER

    @property
    def partial(self) -> Path:
        return self.path / "partial"

    def partial_of(self, name: str) -> Path:
        """Where a file is gathered. Flat, so that no name from a source makes folders before it is whole."""
        return self.partial / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.part"

    def file(self, name: str) -> Path:
        """Where a whole file lies. Raises FetchError for a name that leads elsewhere, also from a state file."""
        if fault := unsafe(name):
            raise FetchError(Reason.BAD_SOURCE, f"the name {name!r} is refused: {fault}")
        return self.model / name

    def read(self) -> State | None:
        return read_state(self.state_path)

    def prepare(self) -> None:
        """Make the entry's folders."""
        for folder in (self.path, self.model, self.partial):
            make_folder(folder)

    def present_bytes(self, state: State) -> int:
        """Bytes of the state's files that are on disk, whole or in part."""
        total = 0
        for file in state.files:
            whole = size_if_file(self.file(file.remote.name))
            if whole != file.remote.size:
                whole = min(size_if_file(self.partial_of(file.remote.name)) or 0, file.remote.size)
            total += whole
        return total

    def whole(self, state: State) -> bool:
        """Whether every file is there with its size. No file gets its name before its bytes were checked."""
        return all(size_if_file(self.file(file.remote.name)) == file.remote.size for file in state.files)


@dataclass(frozen=True)
class Cache:
    """The folder that entries lie in."""

    path: Path

    def entry(self, name: str) -> Entry:
        """Raises FetchError for a name that is no entry's."""
        if not name or name.startswith(".") or unsafe(name) or "/" in name:
            raise FetchError(Reason.NOT_FOUND, f"{name!r} is no name of an entry; `weights list` names them")
        return Entry(self.path / name)

    def lease_path(self, name: str) -> Path:
        return self.path / _OWN / f"{name}.lease"

    @property
    def trash(self) -> Path:
        return self.path / _OWN / "trash"

    def prepare(self) -> None:
        """Make the cache's own folders. Raises FetchError where this user cannot write."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            make_folder(self.path / _OWN)
            make_folder(self.trash)
        except OSError as error:
            raise unusable(self.path, error) from error

    def entries(self) -> list[tuple[Entry, State]]:
        """Every entry that this program made, by name. Other people's folders are none."""
        try:
            names = sorted(path.name for path in self.path.iterdir())
        except OSError as error:
            raise unusable(self.path, error) from error
        found = (Entry(self.path / name) for name in names if not name.startswith("."))
        return [(entry, state) for entry in found if (state := entry.read()) is not None]


def unusable(path: Path, error: OSError) -> FetchError:
    """The error for a cache folder that the process cannot use."""
    return FetchError(
        Reason.BAD_CACHE,
        f"the cache {path} cannot be used by user {os.getuid()}, group {os.getgid()}: {error.strerror or error}"
        f"{f' ({error.filename})' if error.filename else ''}. Mount a volume there that this user can write, "
        "for example with fsGroup in the pod's security context",
    )
