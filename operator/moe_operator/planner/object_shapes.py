"""The parts of Kubernetes' objects that an inventory reads, so that a broken file is refused with the fault's path."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError


class InventoryError(ValueError):
    """A file that describes no inventory: the message begins with where the fault is."""


def _or_empty(value: Any) -> Any:
    """Null stands for an empty object or list."""
    return {} if value is None else value


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


_Text = Annotated[str, Field(min_length=1, max_length=4096)]
_Labels = Annotated[dict[str, str], BeforeValidator(_or_empty)]
_Amounts = Annotated[dict[str, str | int | float], BeforeValidator(_or_empty)]
_List = list[dict[str, Any]] | None


class _Meta(_Part):
    name: _Text
    labels: _Labels = Field(default_factory=dict)


class _Taint(_Part):
    key: _Text
    effect: _Text
    value: str | None = None


class _NodeSpec(_Part):
    taints: list[_Taint] | None = None
    unschedulable: bool | None = None


class _NodeStatus(_Part):
    capacity: _Amounts = Field(default_factory=dict)
    allocatable: _Amounts = Field(default_factory=dict)
    conditions: _List = None


class _Node(_Part):
    metadata: _Meta
    spec: _NodeSpec | None = None
    status: _NodeStatus | None = None


class _Resources(_Part):
    limits: _Amounts = Field(default_factory=dict)
    requests: _Amounts = Field(default_factory=dict)


class _Container(_Part):
    resources: _Resources | None = None


class _PodSpec(_Part):
    # "" is what some printers make of a pod that is bound nowhere.
    nodeName: str | None = None  # noqa: N815 (the field's name in Kubernetes)
    containers: list[_Container] | None = None
    initContainers: list[_Container] | None = None  # noqa: N815


class _PodStatus(_Part):
    phase: str | None = None


class _Pod(_Part):
    metadata: _Meta
    spec: _PodSpec | None = None
    status: _PodStatus | None = None


class _Pool(_Part):
    name: _Text
    generation: int | None = None
    resourceSliceCount: int | None = None  # noqa: N815


class _Attribute(_Part):
    string: str | None = None


_Attributes = Annotated[dict[str, _Attribute], BeforeValidator(_or_empty)]


class _Basic(_Part):
    attributes: _Attributes = Field(default_factory=dict)
    capacity: Annotated[dict[str, Any], BeforeValidator(_or_empty)] = Field(default_factory=dict)
    taints: _List = None


class _Device(_Basic):
    name: _Text
    basic: _Basic | None = None


class _SliceSpec(_Part):
    driver: _Text
    pool: _Pool
    devices: list[_Device] | None = None


class _Slice(_Part):
    spec: _SliceSpec


class _Result(_Part):
    driver: _Text
    pool: _Text
    device: _Text


class _Allocated(_Part):
    results: list[_Result] | None = None


class _Allocation(_Part):
    devices: _Allocated | None = None


class _ClaimStatus(_Part):
    allocation: _Allocation | None = None


class _Claim(_Part):
    status: _ClaimStatus | None = None


#: By kind, what is read.
SHAPES: Mapping[str, type[BaseModel]] = {
    "Node": _Node,
    "Pod": _Pod,
    "ResourceSlice": _Slice,
    "ResourceClaim": _Claim,
}


def checked(kind: str, path: str, obj: dict[str, Any]) -> dict[str, Any]:
    """The object of this kind, if what is read of it has the right form.

    Raises InventoryError with the path of the first fault; `path` goes before it.
    """
    try:
        SHAPES[kind].model_validate(obj)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
        given = str(fault["input"])[:60]
        name = (obj.get("metadata") or {}).get("name") if isinstance(obj.get("metadata"), dict) else None
        of = f" ({kind} {str(name)[:80]})" if name else f" ({kind})"
        raise InventoryError(f"{field_at(path, field)}{of}: {fault['msg']}, not {given!r}") from error
    return obj


def field_at(path: str, field: str) -> str:
    """Both as one path; a document's own fields have no dot before them."""
    return path + field if path and not path.endswith(" ") else path + field.removeprefix(".")
