"""Results that are kept between runs, so that an interrupted benchmark goes on where it was.

They lie in a folder outside of the repository, and those behind the report in its record, a file beside it: what was
run on one machine counts on another.
"""

import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grimp

import moe_operator.simulator

#: First of the key that a cell's figures are kept by.
CELL = "cell"
REPOSITORY = Path(__file__).resolve().parents[3]
_PACKAGE = Path(moe_operator.simulator.__file__).parent
_OPERATOR = "operator"
#: Of the simulator, what no result depends on.
_APART = ("candidates.py", "planned_engine.py")


@dataclass(frozen=True)
class Store:
    """A folder of results. What one is of is its key: code included, so that a change of it makes others."""

    folder: str
    record: str | None = None
    """A file of results that counts like the folder; None, or one that is not there: none."""

    def get(self, key: tuple[Any, ...]) -> dict[str, Any] | None:
        """What was put; None if nothing was, or it cannot be read."""
        name = _name(_of(key))
        found = _read(self._path(name)) or (_recorded(self.record).get(name) if self.record else None)
        return None if found is None else found.value

    def put(self, key: tuple[Any, ...], value: dict[str, Any]) -> dict[str, Any]:
        """Keeps it, whole or not at all."""
        kept = Kept(_of(key), value)
        path = self._path(_name(kept.of))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(asdict(kept)))
        part.replace(path)
        return value

    def all(self) -> Iterator["Kept"]:
        """Whatever was kept, by any code; the record's first, each once."""
        names = set()
        if self.record is not None:
            for name, kept in _recorded(self.record).items():
                names.add(name)
                yield kept
        for path in sorted(Path(self.folder).glob("??/*.json")):
            if path.stem not in names and (found := _read(path)) is not None:
                yield found

    def _path(self, name: str) -> Path:
        return Path(self.folder) / name[:2] / f"{name}.json"


@dataclass(frozen=True)
class Kept:
    """A result, and what it is one of: the simulator's code and the key, as JSON has them."""

    of: list[Any]
    value: dict[str, Any]

    @property
    def is_of_this_code(self) -> bool:
        """Whether it would come out again: simulator and policy are those that it was made by. A cell's key names the
        policy's code last."""
        code, kind, *rest = self.of
        return bool(code == code_of("") and (kind != CELL or rest[-1] == code_of(rest[0]["policy"])))


def write_record(store: Store, path: Path) -> int:
    """Everything that the store keeps of today's code, for others to go on from; how many results that is. The same
    results make the same bytes."""
    lines = {
        _name(kept.of): json.dumps(asdict(kept), sort_keys=True)
        for kept in store.all()
        if kept.is_of_this_code
    }
    text = "".join(f"{lines[name]}\n" for name in sorted(lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(gzip.compress(text.encode(), mtime=0))
    part.replace(path)
    return len(lines)


@cache
def _recorded(path: str) -> dict[str, Kept]:
    try:
        lines = gzip.decompress(Path(path).read_bytes()).decode().splitlines()
    except FileNotFoundError:
        return {}
    return {_name(kept.of): kept for kept in (Kept(**json.loads(line)) for line in lines)}


def _read(path: Path) -> Kept | None:
    try:
        return Kept(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _of(key: tuple[Any, ...]) -> list[Any]:
    return [code_of(""), *map(_plain, key)]


def _name(of: list[Any]) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


def default_folder() -> Path:
    """Outside of the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "moe-operator" / "bench-autoscaler"


def default_record() -> Path:
    """Beside the report."""
    return REPOSITORY / "docs" / "benchmarks" / "autoscaler" / "runs.jsonl.gz"


@cache
def code_of(policy: str) -> str:
    """A digest of the code that a result depends on: the simulator's for "", beside it a policy's own.

    The operator's decisions are apart from the published ones, so that work on them leaves the others' results.
    """
    files: list[Path]
    if policy == "":
        files = [path for path in _PACKAGE.glob("*.py") if path.name not in _APART]
        files += _PACKAGE.glob("engines/*.yaml")
        files += [Path(__file__).parent / name for name in ("scenarios.py", "cells.py")]
    elif policy == _OPERATOR:
        files = [*_imported_by_the_operators_policy(), *_PACKAGE.glob("policies/operator*.py")]
    else:
        files = [
            path for path in _PACKAGE.glob("policies/*.py") if not path.name.startswith(("operator", "__"))
        ]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _imported_by_the_operators_policy() -> list[Path]:
    """Of the package, what decides; not what of the autoscaler a simulated run never comes to."""
    package = moe_operator.__name__
    modules = grimp.build_graph(package, cache_dir=None).find_upstream_modules(
        f"{package}.simulator.policies.operator"
    )
    inside = f"{moe_operator.simulator.__name__}."
    parts = (name.split(".")[1:] for name in modules if not name.startswith(inside))
    return [_PACKAGE.parent.joinpath(*part).with_suffix(".py") for part in parts]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {"is": type(value).__name__, **asdict(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
