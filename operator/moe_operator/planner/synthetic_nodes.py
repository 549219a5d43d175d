"""Nodes for people without a cluster: `{nodes: [{accelerator: B200, count: 4, gpus: 8}]}`. Labels, further resources
and taints may be added where the fabric, the topology or the access to nodes matters."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from moe_operator.catalog.accelerators import AcceleratorProfile, Catalog
from moe_operator.catalog.fabric import Count
from moe_operator.planner.object_shapes import InventoryError


class _Taint(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    key: Annotated[str, Field(min_length=1)]
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)

    accelerator: str
    """Name or alias of the catalogue."""
    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Nodes."""
    gpus: Annotated[int, Field(ge=1, le=1024)] | None = None
    """On each; the catalogue's figure by default."""
    memory_mib: Annotated[int, Field(ge=1, le=2**24)] | None = None
    """Of each GPU; the catalogue's figure by default."""
    labels: dict[str, str] = Field(default_factory=dict)
    resources: dict[str, str | int] = Field(default_factory=dict)
    """What a node offers beside its GPUs, such as network adapters: {rdma/ib: 8}."""
    taints: list[_Taint] = Field(default_factory=list)
    fabric: str | None = None
    """Network between them, by its name in the catalogue; what is usual by default, where `resources`
    says nothing. `tcp`: none but the pod network."""


class _Description(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    nodes: Annotated[list[_Entry], Field(min_length=1, max_length=1000)]


def synthetic_nodes(data: Mapping[str, Any], where: str, catalog: Catalog) -> list[dict[str, Any]]:
    """Node objects. `where` goes before paths in errors.

    Nodes of an NVLink domain wider than a node get its label, filling one domain after the other.
    """
    try:
        description = _Description.model_validate(data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(
            "."
        )
        raise InventoryError(f"{where}{path}: {fault['msg']}, not {str(fault['input'])[:60]!r}") from error
    made: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}
    for index, entry in enumerate(description.nodes):
        path = f"{where}nodes[{index}]"
        profile = catalog.accelerator(entry.accelerator)
        if profile is None:
            known = ", ".join(catalog.closest(entry.accelerator))
            raise InventoryError(
                f"{path}.accelerator: the catalogue has no {entry.accelerator[:60]!r}; it has {known}"
            )
        if profile.resource_name is None and (entry.gpus or entry.memory_mib):
            raise InventoryError(f"{path}: {profile.name} has no GPUs: leave gpus and memoryMib out")
        if entry.fabric is not None and catalog.fabrics.fabric(entry.fabric) is None:
            known = ", ".join(catalog.fabrics.names())
            raise InventoryError(f"{path}.fabric: the catalogue has no {entry.fabric[:60]!r}; it has {known}")
        for _ in range(entry.count):
            number = numbers[profile.name] = numbers.get(profile.name, -1) + 1
            made.append(_node(profile, entry, number, catalog))
    return made


def _node(profile: AcceleratorProfile, entry: _Entry, number: int, catalog: Catalog) -> dict[str, Any]:
    name = f"{profile.name.lower()}-{number}"
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/arch": profile.architecture}
    capacity = {resource: str(amount) for resource, amount in entry.resources.items()}
    if profile.resource_name is not None:
        gpus = entry.gpus or profile.gpus_per_node
        key, values = profile.node_labels[0]
        labels[key] = values[0]
        capacity[profile.resource_name] = str(gpus)
        labels |= fabric_labels(profile, number, gpus)
        if entry.fabric is not None or not entry.resources:
            adapters = fabric_resources(profile, gpus, catalog, entry.fabric)
            capacity |= {name: str(count) for name, count in adapters.items()}
    if entry.memory_mib:
        key, value = _memory_label(profile, entry.memory_mib)
        labels[key] = value
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels | entry.labels},
        "spec": {"taints": [taint.model_dump() for taint in entry.taints]} if entry.taints else {},
        "status": {"capacity": capacity},
    }


def fabric_labels(profile: AcceleratorProfile, number: int, gpus: int) -> dict[str, str]:
    """The label of an NVLink domain over several nodes, for the node of this number."""
    if profile.nvlink_domain <= profile.gpus_per_node:
        return {}
    domain = number // max(1, profile.nvlink_domain // gpus)
    return {"nvidia.com/gpu.clique": f"{profile.name.lower()}-domain-{domain}.0"}


#: Servers of GPUs with NVLink or xGMI usually have an adapter for each of them.
_USUAL_FABRIC = "infiniband"


def fabric_resources(
    profile: AcceleratorProfile, gpus: int, catalog: Catalog, name: str | None = None
) -> dict[str, int]:
    """What a node offers of a fabric's adapters; without a name, of the usual one."""
    if name is None and not profile.gpus_per_node >= profile.nvlink_domain > 1:
        return {}
    fabric = catalog.fabrics.fabric(name or _USUAL_FABRIC)
    resource = fabric.named_resource if fabric is not None else None
    if fabric is None or resource is None:
        return {}
    kind = fabric.resource(resource)
    if kind is None or kind.count is Count.ONE:
        return {resource: 1}
    return {resource: kind.per_node or gpus}


def _memory_label(profile: AcceleratorProfile, mib: int) -> tuple[str, str]:
    """As the vendor's labeller writes it; AMD's counts GiB."""
    if profile.resource_name == "amd.com/gpu":
        return "amd.com/gpu.vram", f"{max(1, mib // 1024)}G"
    return "nvidia.com/gpu.memory", str(mib)
