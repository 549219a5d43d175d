"""The cluster's nodes as the planner sees them: hardware, what is in use of it, and what cannot be right.

A plan outlives the moment it is made in, so a node that is cordoned, not ready or full still says how many
GPUs its kind has. What is free is said apart from it; whether pods find room is the scheduler's business.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from moe_operator.catalog.accelerators import Catalog, load_catalog
from moe_operator.planner.facts import Inventory as Inventory
from moe_operator.planner.facts import NodeFacts as NodeFacts
from moe_operator.planner.facts import Problem as Problem
from moe_operator.planner.facts import SiteNames
from moe_operator.planner.facts import Taint as Taint
from moe_operator.planner.node_object import problems_of, read_node
from moe_operator.planner.pod_requests import held_by_pods
from moe_operator.planner.resource_slices import SliceIndex

_Objects = Iterable[Mapping[str, Any]]


def inventory_from(
    nodes: _Objects,
    pods: _Objects | None = None,
    resource_slices: _Objects = (),
    resource_claims: _Objects = (),
    *,
    catalog: Catalog | None = None,
    site: SiteNames | None = None,
) -> Inventory:
    """Read Kubernetes' objects (plain dicts). Fields that are absent count as empty.

    Without `pods` nothing is said of what is in use. Pods must be those of all namespaces.
    """
    site, catalog = site or SiteNames(), catalog or load_catalog()
    slices = SliceIndex(resource_slices)
    by_node = slices.by_node()
    facts = sorted(
        (read_node(node, by_node.get(node["metadata"]["name"]), site) for node in nodes),
        key=lambda node: node.name,
    )
    held = None if pods is None else _held(facts, pods, slices, resource_claims)
    problems = [p for node in facts for p in problems_of(node, by_node.get(node.name), catalog)]
    return Inventory(tuple(facts), held, tuple(problems))


def held_from(
    inventory: Inventory,
    pods: _Objects | None,
    resource_slices: _Objects = (),
    resource_claims: _Objects = (),
) -> dict[str, dict[str, int]] | None:
    """What pods hold of an inventory's nodes, by node and resource; None without `pods`, or where nodes are unknown."""
    if pods is None or inventory.nodes is None:
        return None
    return _held(inventory.nodes, pods, SliceIndex(resource_slices), resource_claims)


def _held(
    nodes: Iterable[NodeFacts], pods: _Objects, slices: SliceIndex, resource_claims: _Objects
) -> dict[str, dict[str, int]]:
    held, by_node = held_by_pods(pods), slices.by_node()
    claimed = slices.held(resource_claims)
    _add_claims(held, {n: (by_node[n].resource, count) for n, count in claimed.items()}, nodes)
    return held


def inventory_from_nodes(nodes: _Objects) -> Inventory:
    """The inventory of nodes alone: nothing is known of what is in use."""
    return inventory_from(nodes)


def _add_claims(
    held: dict[str, dict[str, int]], claimed: Mapping[str, tuple[str, int]], nodes: Iterable[NodeFacts]
) -> None:
    """GPUs held through claims, onto those held through requests.

    Where a node's GPUs come from slices, a request of the extended resource has a claim that the scheduler made
    for it: the two are one. Beside a device plugin the two are apart.
    """
    for node in nodes:
        resource, count = claimed.get(node.name, ("", 0))
        if count:
            on_node = held.setdefault(node.name, {})
            requested = on_node.get(resource, 0)
            on_node[resource] = max(requested, count) if node.from_slices else requested + count
