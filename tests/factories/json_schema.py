"""As much of JSON schema (draft 7) as the operator's own schemas use: a value's faults, with their paths."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: Every keyword that is looked at; `faults` refuses to judge by a schema with others.
KEYWORDS = frozenset(
    (
        *(
            "additionalProperties",
            "anyOf",
            "description",
            "enum",
            "items",
            "maxItems",
            "maxLength",
            "minItems",
        ),
        *("maximum", "minLength", "minimum", "pattern", "properties", "propertyNames", "required", "type"),
    )
)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def faults(schema: Mapping[str, Any], value: Any, path: str = "") -> list[str]:
    """What is wrong with the value; empty: nothing. Raises ValueError for a keyword that it does not know."""
    if unknown := set(schema) - KEYWORDS:
        raise ValueError(f"{path}: keywords {sorted(unknown)}")
    return list(_faults(schema, value, path))


def _faults(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    kind = schema.get("type")
    if kind is not None and not _is(kind, value):
        yield f"{path}: no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: not one of {schema['enum']}"
    if "anyOf" in schema and all(faults(branch, value, path) for branch in schema["anyOf"]):
        yield f"{path}: none of the alternatives"
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            yield f"{path}: length"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{path}: pattern"
    if _is("integer", value) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: too small or too large"
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{path}: number of items"
        for index, item in enumerate(value):
            yield from faults(schema.get("items", {}), item, f"{path}.{index}")
    if isinstance(value, dict):
        yield from _of_object(schema, value, path)


def _of_object(schema: Mapping[str, Any], value: Mapping[str, Any], path: str) -> Iterator[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    yield from (f"{path}.{name}: missing" for name in schema.get("required", ()) if name not in value)
    for name, item in value.items():
        at = f"{path}.{name}"
        yield from faults(schema.get("propertyNames", {}), name, f"{at} (name)")
        if name in known:
            yield from faults(known[name], item, at)
        elif others is False:
            yield f"{at}: unknown"
        elif isinstance(others, Mapping):
            yield from faults(others, item, at)


def _is(kind: str, value: Any) -> bool:
    if kind == "integer" and isinstance(value, bool):
        return False
    return isinstance(value, _TYPES[kind])
