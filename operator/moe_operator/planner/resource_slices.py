"""GPUs of nodes from ResourceSlices and what ResourceClaims hold of them (dynamic resource allocation, DRA).

Forms of NVIDIA's driver `gpu.nvidia.com`: a pool per node, devices of type `gpu`, `mig` or `vfio`. API versions
v1 and the betas are read alike: the betas put attributes under `basic`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moe_operator.planner.quantities import whole

DRIVER = "gpu.nvidia.com"


@dataclass(frozen=True)
class SliceGpus:
    """Whole GPUs of one node."""

    gpus: int
    usable: int
    """Without those that the driver tainted."""
    products: tuple[str, ...]
    """Product names as the driver says them, each once."""
    memory_mib: int | None
    """Memory of the smallest."""
    missing: int
    """Slices of the node's pools that were announced and not found: the view is incomplete."""


@dataclass(frozen=True)
class _Device:
    node: str
    pool: str
    name: str
    kind: str
    uuid: str
    parent: str
    product: str
    memory_mib: int | None
    tainted: bool


class SliceIndex:
    """All devices of the driver's newest pool generations."""

    def __init__(self, slices: Iterable[Mapping[str, Any]]) -> None:
        newest = list(_newest(slices))
        self._devices = {(d.pool, d.name): d for spec in newest for d in _devices(spec)}
        self._missing: dict[str, int] = {}
        pools: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for spec in newest:
            pools.setdefault((_node(spec), spec["pool"]["name"]), []).append(spec)
        for (node, _), specs in pools.items():
            announced = specs[0]["pool"].get("resourceSliceCount") or len(specs)
            self._missing[node] = self._missing.get(node, 0) + max(0, announced - len(specs))

    def by_node(self) -> dict[str, SliceGpus]:
        """The GPUs of each node that has slices."""
        found: dict[str, list[_Device]] = {node: [] for node in self._missing}
        for device in self._devices.values():
            if device.kind == "gpu":
                found[device.node].append(device)
        return {
            node: SliceGpus(
                gpus=len(devices),
                usable=sum(not d.tainted for d in devices),
                products=tuple(sorted({d.product for d in devices if d.product})),
                memory_mib=min((d.memory_mib for d in devices if d.memory_mib), default=None),
                missing=self._missing[node],
            )
            for node, devices in found.items()
        }

    def held(self, claims: Iterable[Mapping[str, Any]]) -> dict[str, int]:
        """Whole GPUs that allocated claims hold, by node. A GPU of which a partition is held is held too."""
        whole_gpus = {d.uuid: d for d in self._devices.values() if d.kind == "gpu" and d.uuid}
        taken: set[tuple[str, str, str]] = set()
        for result in (r for claim in claims for r in _results(claim)):
            device = self._devices.get((result.get("pool", ""), result.get("device", "")))
            if device is not None and device.kind == "mig":
                device = whole_gpus.get(device.parent)
            if device is not None and device.kind == "gpu":
                taken.add((device.node, device.pool, device.name))
        counts: dict[str, int] = {}
        for node, _, _ in taken:
            counts[node] = counts.get(node, 0) + 1
        return counts


def _newest(slices: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Specs of the driver's slices on nodes; of a pool only the newest generation counts (the API's rule)."""
    specs = [s["spec"] for s in slices if s["spec"].get("driver") == DRIVER and _node(s["spec"])]
    newest: dict[str, int] = {}
    for spec in specs:
        pool = spec["pool"]
        newest[pool["name"]] = max(newest.get(pool["name"], 0), pool.get("generation") or 0)
    return (spec for spec in specs if (spec["pool"].get("generation") or 0) == newest[spec["pool"]["name"]])


def _node(spec: Mapping[str, Any]) -> str:
    return str(spec.get("nodeName") or spec["pool"].get("nodeName") or "")


def _devices(spec: Mapping[str, Any]) -> Iterator[_Device]:
    for entry in spec.get("devices") or ():
        device = entry.get("basic") or entry
        attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
        memory = capacity.get("memory")
        size = whole(memory.get("value") if isinstance(memory, Mapping) else memory)
        taints = device.get("taints") or entry.get("taints") or ()
        yield _Device(
            node=_node(spec),
            pool=spec["pool"]["name"],
            name=entry["name"],
            kind=_text(attributes, "type"),
            uuid=_text(attributes, "uuid"),
            parent=_text(attributes, "parentUUID"),
            product=_text(attributes, "productName"),
            memory_mib=size // 2**20 if size else None,
            tainted=any(taint.get("effect") in ("NoSchedule", "NoExecute") for taint in taints),
        )


def _text(attributes: Mapping[str, Any], name: str) -> str:
    value = attributes.get(name) or attributes.get(f"{DRIVER}/{name}") or {}
    return str(value.get("string") or "")


def _results(claim: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    for result in (allocation.get("devices") or {}).get("results") or ():
        # Admin access looks at devices that others hold.
        if result.get("driver") == DRIVER and not result.get("adminAccess"):
            yield result
