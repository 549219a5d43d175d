"""Results that are kept between runs, so that an interrupted benchmark goes on where it was."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grimp

import moe_operator.simulator

_PACKAGE = Path(moe_operator.simulator.__file__).parent
_OPERATOR = "operator"
#: Of the simulator, what no result depends on.
_APART = ("candidates.py", "planned_engine.py")


@dataclass(frozen=True)
class Store:
    """A folder of results. What one is of is its key: code included, so that a change of it makes others."""

    folder: str

    def get(self, key: tuple[Any, ...]) -> dict[str, Any] | None:
        """What was put; None if nothing was, or it cannot be read."""
        try:
            found: dict[str, Any] = json.loads(self._path(key).read_text())
        except (OSError, ValueError):
            return None
        return found

    def put(self, key: tuple[Any, ...], value: dict[str, Any]) -> dict[str, Any]:
        """Keeps it, whole or not at all."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(value))
        part.replace(path)
        return value

    def _path(self, key: tuple[Any, ...]) -> Path:
        text = json.dumps([code_of(""), *map(_plain, key)], sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()
        return Path(self.folder) / name[:2] / f"{name}.json"


def default_folder() -> Path:
    """Outside of the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "moe-operator" / "bench-autoscaler"


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
