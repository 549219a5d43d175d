"""Files with a ModelDeployment, read as strictly as the API server would, and every fault by its path."""

import difflib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from moe_operator.api import names
from moe_operator.api.deployment import InvalidSpecError, ModelDeployment, parse
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.cli.errors import UsageError

#: Bytes of a file with manifests; the API server takes objects of about 1.5 MiB.
LARGEST_MANIFEST = 4 * 2**20
#: Levels of nesting; LibYAML's loader recurses and ends the process on thousands.
_DEEPEST = 200
#: Values that a document may unfold to: a few aliases of aliases make billions.
_MOST_VALUES = 200_000

#: The uid of a deployment that the API server has not seen.
NOT_APPLIED = "not-applied"

_TOP = ("apiVersion", "kind", "metadata", "spec", "status")


def read_text(path: str, largest: int, what: str) -> str:
    """A file, or standard input for `-`. Raises UsageError: not there, too large, no text."""
    try:
        if path == "-":
            text = sys.stdin.read(largest + 1)
            data = text.encode("utf-8", "surrogateescape")
        else:
            with Path(path).open("rb") as file:
                data = file.read(largest + 1)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} cannot be read: it is not UTF-8 at byte {error.start}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if len(data) > largest:
        raise UsageError(
            f"{path} has more than {largest / 2**20:g} MiB, too much for {what}: is it the right file?"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} cannot be read: it is not UTF-8 at byte {error.start}") from error


def read_documents(path: str) -> list[Any]:
    """The YAML (or JSON) documents of a file. Raises UsageError."""
    text = read_text(path, LARGEST_MANIFEST, "manifests")
    try:
        _refuse_depth(text, path)
        documents = [d for d in yaml.load_all(text, Loader=yaml.CSafeLoader) if d is not None]
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    for document in documents:
        if _unfolded(document, {}) > _MOST_VALUES:
            raise UsageError(f"{path}: its aliases (`*name`) unfold without end: write the values out")
    return documents


def _refuse_depth(text: str, path: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise UsageError(f"{path}: nests deeper than any Kubernetes object")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _unfolded(value: Any, sizes: dict[int, int]) -> int:
    """Values in it, aliases counted each time. One that holds itself counts as without end."""
    if not isinstance(value, dict | list):
        return 1
    known = sizes.get(id(value))
    if known is None:
        sizes[id(value)] = _MOST_VALUES + 1
        inner = value.values() if isinstance(value, dict) else value
        known = sizes[id(value)] = 1 + sum(_unfolded(item, sizes) for item in inner)
    return known


def the_deployment(documents: list[Any], path: str) -> dict[str, Any]:
    """The one ModelDeployment among them, with every field known. Raises UsageError."""
    found = [d for d in documents if isinstance(d, dict) and d.get("kind") == names.KIND]
    if len(found) != 1:
        raise UsageError(f"{path} holds {len(found)} ModelDeployments: one is needed")
    obj: dict[str, Any] = found[0]
    version = obj.get("apiVersion")
    if version != names.API_VERSION:
        raise UsageError(f"{path}: apiVersion: is {_short(version)}; this command reads {names.API_VERSION}")
    for key in ("metadata", "spec"):
        if not isinstance(obj.get(key, {}), dict):
            raise UsageError(f"{path}: {key}: is not an object")
    faults = [
        *_unknown(obj, _TOP, ""),
        *_unknown_fields(ModelDeploymentSpec, obj.get("spec") or {}, "spec"),
    ]
    if faults:
        raise UsageError(f"{path}: {'; '.join(faults)}")
    return obj


def deployment_of(obj: dict[str, Any]) -> ModelDeployment:
    """Parse the object; namespace and uid are filled in for one that is not applied yet. `obj` stays as it is. Raises
    UsageError."""
    meta = {"namespace": "default", "uid": NOT_APPLIED, **(obj.get("metadata") or {})}
    for field in ("name", "namespace"):
        if field not in meta:
            raise UsageError(f"the ModelDeployment has no metadata.{field}")
        if not isinstance(meta[field], str) or not meta[field]:
            raise UsageError(f"metadata.{field}: {_short(meta[field])} is not a text")
    try:
        return parse({**obj, "metadata": meta})
    except InvalidSpecError as error:
        raise UsageError(f"the spec is not valid: {error}") from error


def config_text(documents: list[Any], name: str, key: str) -> str | None:
    """The text under `key` of the ConfigMap `name` among the documents."""
    for document in documents:
        if not isinstance(document, dict) or document.get("kind") != "ConfigMap":
            continue
        meta, data = document.get("metadata"), document.get("data")
        if isinstance(meta, dict) and meta.get("name") == name and isinstance(data, dict):
            text = data.get(key)
            return text if isinstance(text, str) else None
    return None


def _unknown_fields(model: type[BaseModel], data: Mapping[str, Any], path: str) -> Iterator[str]:
    """Faults of fields that the API does not have, here and below."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    yield from _unknown(data, tuple(fields), path)
    for name, field in fields.items():
        inner = _model_in(field.annotation)
        value = data.get(name)
        if inner is not None and isinstance(value, dict):
            yield from _unknown_fields(inner, value, f"{path}.{name}")


def _unknown(data: Mapping[str, Any], known: tuple[str, ...], path: str) -> Iterator[str]:
    for key in data:
        if key in known:
            continue
        where = f"{path}.{key}" if path else str(key)
        close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        advice = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
        yield f"{_cut(where)}: there is no such field; {advice}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _short(value: object) -> str:
    return "missing" if value is None else _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
