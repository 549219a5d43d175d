"""Fleets of GPU nodes as the planner sees them: NVL72 racks with their cliques, HGX nodes in zones."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from moe_operator.planner.inventory import Inventory, NodeFacts
from moe_operator.planner.placement import Fleet, Holding, Need

GPU = "nvidia.com/gpu"
CLIQUE = "nvidia.com/gpu.clique"
ZONE = "topology.kubernetes.io/zone"
REGION = "topology.kubernetes.io/region"

#: What pods on these nodes select: nothing is kept out.
ANY_NODE: dict[str, Any] = {}


def tray(rack: str, index: int, zone: str = "zone-a", gpus: int = 4, **more: Any) -> NodeFacts:
    """One compute tray of an NVL72 rack."""
    labels = {CLIQUE: rack, ZONE: zone, REGION: "region-1", "nvidia.com/gpu.product": "NVIDIA-GB200"}
    made = NodeFacts(
        name=f"{rack}-{index:02}", labels=labels, gpus={GPU: gpus}, allocatable={GPU: gpus}, clique=rack
    )
    return replace(made, **more)


def rack(name: str, trays: int = 18, zone: str = "zone-a", **more: Any) -> list[NodeFacts]:
    """An NVL72 rack."""
    return [tray(name, index, zone, **more) for index in range(trays)]


def hgx(name: str, zone: str = "zone-a", gpus: int = 8) -> NodeFacts:
    """A node of eight GPUs that no NVLink joins to others."""
    labels = {ZONE: zone, REGION: "region-1", "nvidia.com/gpu.product": "NVIDIA-B200"}
    return NodeFacts(name=name, labels=labels, gpus={GPU: gpus}, allocatable={GPU: gpus})


def need(pods: int = 2, gpus: int = 4, domain: str | None = CLIQUE, **devices: int) -> Need:
    """A group of whole trays in one clique."""
    return Need(pods, gpus, GPU, {GPU: gpus, **devices}, domain)


def fleet(
    wanted: Need,
    nodes: Iterable[NodeFacts],
    held: Mapping[str, int] | None = None,
    holdings: Iterable[Holding] = (),
    pod: Mapping[str, Any] | None = None,
    neighbours: Mapping[str, tuple[str, ...]] | None = None,
    shunned: Iterable[str] = (),
) -> Fleet:
    """`held`: GPUs in use by node."""
    in_use = {node: {GPU: count} for node, count in (held or {}).items()}
    return Fleet(wanted, pod or ANY_NODE, Inventory(tuple(nodes), in_use), holdings, neighbours, shunned)


def waiting(
    pods: int = 2, gpus: int = 4, value: str | None = None, key: str = CLIQUE, **more: Any
) -> Holding:
    """A group whose pods have no nodes yet, put into a domain."""
    domain = (key, value) if value is not None else None
    return replace(Holding(own=False, waiting=pods, devices={GPU: gpus}, domain=domain), **more)


def placed(*nodes: str, own: bool = True) -> Holding:
    """A group that has all its nodes."""
    return Holding(own=own, nodes=nodes)
