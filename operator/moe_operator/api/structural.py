"""From the JSON schema that pydantic writes to the structural schema that a CRD must have.

The API server takes a subset of JSON schema (no references, no null, no unions of types but int-or-string,
one type per node) and prunes what the schema does not name. `to_structural` brings a pydantic schema into
that form; `assert_structural` says what in a schema would be refused or silently lose data.
Rules: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = dict[str, Any]

#: Every keyword that may stand in our CRD. The others are unsupported by the API server, or of no use.
_ALLOWED = frozenset(
    {
        "additionalProperties",
        "anyOf",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maximum",
        "maxItems",
        "maxLength",
        "maxProperties",
        "minimum",
        "minItems",
        "minLength",
        "minProperties",
        "pattern",
        "properties",
        "required",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    }
)
#: Keywords that a reader looks for first; the others follow by name.
_FIRST = ("description", "type", "format", "enum", "default", "required", "properties", "items")
_TYPES = frozenset({"object", "array", "string", "integer", "boolean"})
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]


class NotStructuralError(ValueError):
    """The schema breaks the CRD's rules; the message says where and which."""


def to_structural(schema: Mapping[str, Any], *, defaults: bool = True) -> Schema:
    """A structural schema of a pydantic JSON schema.

    With `defaults`, an object whose fields have defaults gets `default: {}`, as the API server descends only
    into what is there. Without, no default at all: what is read is what was written.
    Raises NotStructuralError for what has no structural form.
    """
    definitions: Mapping[str, Any] = schema.get("$defs", {})
    return _convert(schema, definitions, defaults, path="", within=())


def _convert(
    schema: Mapping[str, Any], defs: Mapping[str, Any], defaults: bool, path: str, within: tuple[str, ...]
) -> Schema:
    node = copy.deepcopy({k: v for k, v in schema.items() if k not in ("$defs", "title", "examples")})
    if "$ref" in node:
        name = node.pop("$ref").rpartition("/")[2]
        if name in within:
            raise NotStructuralError(f"{path or 'root'}: {name} contains itself, which no CRD can express")
        target = {k: v for k, v in defs[name].items() if k != "title"}
        node = copy.deepcopy(target) | node
        within = (*within, name)
    if "anyOf" in node:
        node = _collapse(node, path)
        if "$ref" in node:
            return _convert(node, defs, defaults, path, within)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if "description" in node:
        node["description"] = unwrap(node["description"])
    if node.get("x-kubernetes-preserve-unknown-fields"):
        node.pop("additionalProperties", None)
    for keyword in ("exclusiveMinimum", "exclusiveMaximum"):
        if keyword in node:
            raise NotStructuralError(f"{path}: {keyword} has another meaning in a CRD; use ge and le")
    for name, child in node.get("properties", {}).items():
        node["properties"][name] = _convert(child, defs, defaults, f"{path}.{name}", within)
    for keyword in ("items", "additionalProperties"):
        if isinstance(node.get(keyword), dict):
            node[keyword] = _convert(node[keyword], defs, defaults, f"{path}[]", within)
    _settle_default(node, defaults)
    first = [keyword for keyword in _FIRST if keyword in node]
    return {keyword: node[keyword] for keyword in [*first, *sorted(set(node) - set(first))]}


def _collapse(node: Schema, path: str) -> Schema:
    """Absent instead of null; and the one union that a CRD has."""
    branches = [b for b in node.pop("anyOf") if b != {"type": "null"}]
    if len(branches) == 1:
        return dict(branches[0]) | node
    if node.get("x-kubernetes-int-or-string") and sorted(b.get("type") for b in branches) == [
        "integer",
        "string",
    ]:
        for branch in branches:
            node |= {k: v for k, v in branch.items() if k != "type"}
        return node | {"anyOf": copy.deepcopy(_INT_OR_STRING)}
    raise NotStructuralError(f"{path}: a union of types; give each its own optional field and a rule")


def _settle_default(node: Schema, defaults: bool) -> None:
    written = node.pop("default", None)
    if not defaults:
        return
    if "properties" in node and node.get("type") == "object":
        inner = any("default" in child for child in node["properties"].values())
        if inner and not node.get("required"):
            node["default"] = {}
    elif written is not None and written not in ([], {}):
        node["default"] = written


def unwrap(text: str) -> str:
    """Paragraphs of a docstring as one line each."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n".join(" ".join(p.split()) for p in paragraphs)


def apply_defaults(schema: Mapping[str, Any], value: Any) -> Any:
    """What the API server stores for `value`: absent fields with a default are filled in, parents first."""
    if isinstance(value, dict):
        filled = dict(value)
        for name, child in schema.get("properties", {}).items():
            if name not in filled and "default" in child:
                filled[name] = copy.deepcopy(child["default"])
        for name, item in filled.items():
            child = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(child, Mapping):
                filled[name] = apply_defaults(child, item)
        return filled
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        return [apply_defaults(schema["items"], item) for item in value]
    return value


def walk(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every node with its path; `[]` stands for a list's items and `{}` for a map's values."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}" if path else name)
    if isinstance(schema.get("items"), Mapping):
        yield from walk(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from walk(schema["additionalProperties"], f"{path}{{}}")


def assert_structural(schema: Mapping[str, Any]) -> None:
    """Raises NotStructuralError naming every node that the API server would refuse or prune unexpectedly."""
    faults = [f"{path or 'root'}: {fault}" for path, node in walk(schema) for fault in _faults(path, node)]
    if faults:
        raise NotStructuralError("; ".join(faults))


def _faults(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    for keyword in sorted(set(node) - _ALLOWED):
        yield f"keyword {keyword} is not allowed"
    int_or_string = node.get("x-kubernetes-int-or-string")
    if int_or_string:
        if node.get("anyOf") != _INT_OR_STRING or "type" in node:
            yield "int-or-string needs exactly anyOf integer and string, and no type"
        return
    if "anyOf" in node:
        yield "anyOf is only for int-or-string"
    kind = node.get("type")
    if kind not in _TYPES:
        yield f"type must be one of {', '.join(sorted(_TYPES))}, not {kind!r}"
    if kind == "object":
        yield from _object_faults(path, node)
    if kind == "array":
        yield from _array_faults(node)
    if kind == "string" and "default" in node and not isinstance(node["default"], str):
        yield "the default is no string"


def _object_faults(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    values = node.get("additionalProperties")
    preserves = node.get("x-kubernetes-preserve-unknown-fields") is True
    if values is not None and "properties" in node:
        yield "properties and additionalProperties exclude each other"
    if values is not None and not isinstance(values, Mapping):
        yield "additionalProperties must be a schema: declare a Kubernetes object to pass anything on"
    if not preserves and values is None and not node.get("properties") and path != "metadata":
        yield "an object without fields: everything in it would be pruned"
    for name in node.get("required", ()):
        if name not in node.get("properties", {}):
            yield f"required {name} is not described"


def _array_faults(node: Mapping[str, Any]) -> Iterator[str]:
    items = node.get("items")
    if not isinstance(items, Mapping):
        yield "a list needs one schema for its items"
        return
    if node.get("x-kubernetes-list-type") == "map":
        keys = node.get("x-kubernetes-list-map-keys") or []
        if not keys:
            yield "a map list needs its keys"
        for key in keys:
            described = items.get("properties", {}).get(key, {})
            if key not in items.get("required", ()) and "default" not in described:
                yield f"map key {key} must be required or have a default"
    elif items.get("type") == "object" and "x-kubernetes-list-type" not in node:
        yield "a list of objects needs x-kubernetes-list-type, or server-side apply replaces it whole"
