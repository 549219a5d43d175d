"""The cluster's nodes as the planner sees them: hardware, what is in use of it, and what cannot be right.

A plan outlives the moment it is made in, so a node that is cordoned, not ready or full still says how many
GPUs its kind has. What is free is said apart from it; whether pods find room is the scheduler's business.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from moe_operator.catalog.accelerators import Catalog, load_catalog
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.planner.facts import Inventory as Inventory
from moe_operator.planner.facts import NodeFacts as NodeFacts
from moe_operator.planner.facts import Problem as Problem
from moe_operator.planner.facts import SiteNames
from moe_operator.planner.facts import Taint as Taint
from moe_operator.planner.node_object import problems_of, read_node
from moe_operator.planner.pod_requests import held_by_pods
from moe_operator.planner.resource_slices import SliceGpus, SliceIndex

_Objects = Iterable[Mapping[str, Any]]


class NodeReader:
    """Reads nodes, each anew only when it is another object than last time, or its GPUs are others: objects are never
    changed in place."""

    def __init__(self, catalog: Catalog, site: SiteNames) -> None:
        self._catalog = catalog
        self._site = site
        self._known: dict[str, tuple[object, SliceGpus | None, NodeFacts, tuple[Problem, ...]]] = {}

    @classmethod
    def of(cls, config: OperatorConfig) -> "NodeReader":
        """By the catalogue and the names of a site."""
        return cls(config.catalog, SiteNames.of(config))

    def read(
        self, nodes: _Objects, slices: Mapping[str, SliceGpus]
    ) -> tuple[tuple[NodeFacts, ...], tuple[Problem, ...]]:
        """Facts of all, by name, and what is wrong with them. `slices`: GPUs by node of ResourceSlices."""
        before, self._known = self._known, {}
        read = []
        for node in nodes:
            name = node["metadata"]["name"]
            gpus, known = slices.get(name), before.get(name)
            if known is None or known[0] is not node or known[1] != gpus:
                facts = read_node(node, gpus, self._site)
                known = (node, gpus, facts, tuple(problems_of(facts, gpus, self._catalog)))
            self._known[name] = known
            read.append(known)
        read.sort(key=lambda one: one[2].name)
        return tuple(one[2] for one in read), tuple(problem for one in read for problem in one[3])


def inventory_from(
    nodes: _Objects,
    pods: _Objects | None = None,
    resource_slices: _Objects = (),
    resource_claims: _Objects = (),
    *,
    catalog: Catalog | None = None,
    site: SiteNames | None = None,
    reader: NodeReader | None = None,
) -> Inventory:
    """Read Kubernetes' objects (plain dicts). Fields that are absent count as empty.

    Without `pods` nothing is said of what is in use. Pods must be those of all namespaces. `reader`: one that has
    read such nodes before, in place of `catalog` and `site`.
    """
    if reader is None:
        reader = NodeReader(catalog or load_catalog(), site or SiteNames())
    slices = SliceIndex(resource_slices)
    facts, problems = reader.read(nodes, slices.by_node())
    held = None if pods is None else _held(facts, held_by_pods(pods), slices, resource_claims)
    return Inventory(facts, held, problems)


def held_from(
    inventory: Inventory,
    by_requests: dict[str, dict[str, int]],
    resource_slices: _Objects = (),
    resource_claims: _Objects = (),
) -> dict[str, dict[str, int]] | None:
    """What is in use of an inventory's nodes, by node and resource; None where nodes are unknown. `by_requests`: what
    pods hold by requests, to which claims are added in place."""
    if inventory.nodes is None:
        return None
    return _held(inventory.nodes, by_requests, SliceIndex(resource_slices), resource_claims)


def _held(
    nodes: Iterable[NodeFacts],
    held: dict[str, dict[str, int]],
    slices: SliceIndex,
    resource_claims: _Objects,
) -> dict[str, dict[str, int]]:
    by_node = slices.by_node()
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
