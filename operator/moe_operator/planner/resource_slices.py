"""GPUs of nodes from ResourceSlices and what ResourceClaims hold of them (dynamic resource allocation, DRA).

Forms of the drivers in `catalog/device_drivers.py`: a pool per node, devices that say their type. API versions v1 and
the betas are read alike: the betas put attributes under `basic`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moe_operator.catalog.device_drivers import DRIVERS, DeviceDriver
from moe_operator.planner.quantities import whole


@dataclass(frozen=True)
class SliceGpus:
    """Whole GPUs of one node."""

    resource: str
    """Extended resource that stands for the driver's GPUs."""
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
    driver: DeviceDriver
    node: str
    pool: str
    name: str
    whole: bool
    card: str
    """Identity of the GPU that it is, or is a part of; empty where the driver says none."""
    part: bool
    product: str
    memory_mib: int | None
    tainted: bool


class SliceIndex:
    """All devices of the driver's newest pool generations."""

    def __init__(self, slices: Iterable[Mapping[str, Any]]) -> None:
        newest = list(_newest(slices))
        self._devices = {(spec["driver"], d.pool, d.name): d for spec in newest for d in _devices(spec)}
        self._missing: dict[str, int] = {}
        self._drivers: dict[str, DeviceDriver] = {}
        pools: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
        for spec in newest:
            pools.setdefault((_node(spec), spec["driver"], spec["pool"]["name"]), []).append(spec)
        for (node, driver, _), specs in pools.items():
            announced = specs[0]["pool"].get("resourceSliceCount") or len(specs)
            self._missing[node] = self._missing.get(node, 0) + max(0, announced - len(specs))
            # A node has GPUs of one vendor.
            self._drivers.setdefault(node, DRIVERS[driver])

    def by_node(self) -> dict[str, SliceGpus]:
        """The GPUs of each node that has slices."""
        found: dict[str, list[_Device]] = {node: [] for node in self._missing}
        for device in self._devices.values():
            if device.whole and device.driver is self._drivers[device.node]:
                found[device.node].append(device)
        return {
            node: SliceGpus(
                resource=self._drivers[node].resource,
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
        cards = {(d.node, d.card): d for d in self._devices.values() if d.whole and d.card}
        taken: set[tuple[str, str, str]] = set()
        for result in (r for claim in claims for r in _results(claim)):
            at = (result.get("driver", ""), result.get("pool", ""), result.get("device", ""))
            device = self._devices.get(at)
            if device is not None and device.part:
                device = cards.get((device.node, device.card))
            if device is not None and device.whole:
                taken.add((device.node, device.pool, device.name))
        counts: dict[str, int] = {}
        for node, _, _ in taken:
            counts[node] = counts.get(node, 0) + 1
        return counts


def _newest(slices: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Specs of the drivers' slices on nodes; of a pool only the newest generation counts (the API's rule)."""
    specs = [s["spec"] for s in slices if s["spec"].get("driver") in DRIVERS and _node(s["spec"])]
    newest: dict[tuple[str, str], int] = {}
    for spec in specs:
        at = (spec["driver"], spec["pool"]["name"])
        newest[at] = max(newest.get(at, 0), spec["pool"].get("generation") or 0)
    return (
        spec
        for spec in specs
        if (spec["pool"].get("generation") or 0) == newest[spec["driver"], spec["pool"]["name"]]
    )


def _node(spec: Mapping[str, Any]) -> str:
    return str(spec.get("nodeName") or spec["pool"].get("nodeName") or "")


def _devices(spec: Mapping[str, Any]) -> Iterator[_Device]:
    driver = DRIVERS[spec["driver"]]
    for entry in spec.get("devices") or ():
        device = entry.get("basic") or entry
        attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
        memory = capacity.get("memory")
        size = whole(memory.get("value") if isinstance(memory, Mapping) else memory)
        taints = device.get("taints") or entry.get("taints") or ()
        kind = _text(driver, attributes, "type")
        part = kind == driver.part
        yield _Device(
            driver=driver,
            node=_node(spec),
            pool=spec["pool"]["name"],
            name=entry["name"],
            whole=kind == driver.whole,
            card=_text(driver, attributes, driver.parent if part else driver.identity),
            part=part,
            product=_text(driver, attributes, "productName"),
            memory_mib=size // 2**20 if size else None,
            tainted=any(taint.get("effect") in ("NoSchedule", "NoExecute") for taint in taints),
        )


def _text(driver: DeviceDriver, attributes: Mapping[str, Any], name: str) -> str:
    value = attributes.get(name) or attributes.get(f"{driver.name}/{name}") or {}
    return str(value.get("string") or "")


def _results(claim: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    for result in (allocation.get("devices") or {}).get("results") or ():
        # Admin access looks at devices that others hold.
        if result.get("driver") in DRIVERS and not result.get("adminAccess"):
            yield result
