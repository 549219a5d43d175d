"""What all API models share: camelCase on the wire, snake_case in Python, Kubernetes' own ways of writing.

The annotations here say a thing once for pydantic, which reads objects, and for the CRD's schema, by which
the API server refuses them.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_DURATION = re.compile(r"([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

#: Pattern of a duration in the CRD: hours, minutes, seconds, milliseconds, in this order, at least one.
DURATION_PATTERN = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"

#: A resource quantity as Kubernetes writes it: `500m`, `16Gi`, `1e3`.
QUANTITY_PATTERN = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)


class ApiModel(BaseModel):
    """A part of the API object. Unknown fields are ignored: a newer version may have stored them."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Fields' docstrings are their descriptions; read from the source only when a schema is asked for."""
        from moe_operator.api.docstrings import field_docstrings

        made = handler(schema)
        properties = handler.resolve_ref_schema(made).get("properties", {})
        for name, text in field_docstrings(cls).items():
            if name in cls.model_fields:
                properties[cls.model_fields[name].alias or name].setdefault("description", text)
        return made

    def wire(self) -> dict[str, Any]:
        """The object as JSON on the wire: camelCase, absent instead of null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Extend:
    """Adds keywords to the JSON schema of the type that it annotates (`x-kubernetes-…`, mostly)."""

    def __init__(self, **keywords: Any) -> None:
        """Keywords with `_` for `-`: `x_kubernetes_list_type="map"`."""
        self._keywords = {k.replace("_", "-") if k.startswith("x_") else k: v for k, v in keywords.items()}

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | self._keywords


#: The fields by which the items of a list are told apart: such lists merge item by item in server-side apply.
NAMED_ITEMS = Extend(x_kubernetes_list_type="map", x_kubernetes_list_map_keys=["name"])
#: A list that is replaced as a whole: its order means something.
WHOLE_LIST = Extend(x_kubernetes_list_type="atomic")


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `2s`, `50ms` or `1h30m`.

    Raises ValueError for anything else, an empty string included.
    """
    match = _DURATION.fullmatch(text)
    if not text or not match:
        raise ValueError(f"{text!r} is not a duration: write for example 30s, 5m, 1h30m or 50ms")
    seconds = 0.0
    for number, unit in re.findall(r"([0-9]+)(ms|h|m|s)", text):
        seconds += int(number) * _UNITS[unit]
    return seconds


def _check_duration(value: str) -> str:
    parse_duration(value)
    return value


#: A duration as the user wrote it; `parse_duration` gives seconds.
Duration = Annotated[
    str,
    Field(min_length=2, max_length=32),
    AfterValidator(_check_duration),
    Extend(pattern=DURATION_PATTERN),
]


class Between:
    """Bounds of a Duration, both included, in the model and as a CEL rule in the CRD."""

    def __init__(self, least: str, most: str) -> None:
        self._least = least
        self._most = most
        self._message = f"must be between {least} and {most}"

    def _check(self, value: str) -> str:
        if not parse_duration(self._least) <= parse_duration(value) <= parse_duration(self._most):
            raise ValueError(f"{self._message}, not {value}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        rule = f"duration(self) >= duration('{self._least}') && duration(self) <= duration('{self._most}')"
        validation = {"rule": rule, "message": self._message}
        return handler(schema) | {"x-kubernetes-validations": [validation]}


#: An amount of a resource: an integer, or a string with a unit.
Quantity = Annotated[
    int | Annotated[str, Field(max_length=64, pattern=QUANTITY_PATTERN)],
    Extend(x_kubernetes_int_or_string=True),
]

#: Name of a Kubernetes object.
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
#: An absolute folder of a node, without steps upwards.
NodeFolder = Annotated[str, Field(min_length=2, max_length=256, pattern=r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$")]

#: An object whose shape is Kubernetes' own (a toleration, an affinity ...) and is passed on as written.
KubernetesObject = Annotated[dict[str, Any], Extend(x_kubernetes_preserve_unknown_fields=True)]


def _keyed(key: str, length: int) -> tuple[AfterValidator, Extend]:
    def check(value: dict[str, Any]) -> dict[str, Any]:
        text = value.get(key)
        if not isinstance(text, str) or not 0 < len(text) <= length:
            raise ValueError(f"needs a {key} of 1 to {length} characters")
        return value

    keyword: Mapping[str, Any] = {"type": "string", "minLength": 1, "maxLength": length}
    return AfterValidator(check), Extend(
        x_kubernetes_preserve_unknown_fields=True, properties={key: keyword}, required=[key]
    )


_NAME_CHECK, _NAME_SCHEMA = _keyed("name", 253)
_MOUNT_CHECK, _MOUNT_SCHEMA = _keyed("mountPath", 1024)

#: A Kubernetes object with a name, by which rules and server-side apply tell it apart.
NamedObject = Annotated[dict[str, Any], _NAME_CHECK, _NAME_SCHEMA]
#: A volume mount, told apart by its path.
MountObject = Annotated[dict[str, Any], _MOUNT_CHECK, _MOUNT_SCHEMA]
