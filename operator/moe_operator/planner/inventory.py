"""The cluster's nodes as the planner sees them: hardware, not what is free at the moment.

A plan outlives the moment it is made in, so a node that is cordoned, not ready or full still says how many
GPUs its kind has. Whether pods find room is the scheduler's business.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: Taints that come and go with a node's health; they say nothing about what the node is for.
_PASSING = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
_KEEPS_AWAY = ("NoSchedule", "NoExecute")


@dataclass(frozen=True)
class Taint:
    """What keeps pods without a matching toleration away."""

    key: str
    value: str
    effect: str

    def tolerated_by(self, tolerations: Iterable[Mapping[str, Any]]) -> bool:
        """Whether one of these tolerations (plain dicts) matches."""
        return any(self._matches(toleration) for toleration in tolerations)

    def _matches(self, toleration: Mapping[str, Any]) -> bool:
        if toleration.get("effect") not in (None, "", self.effect):
            return False
        key, exists = toleration.get("key"), toleration.get("operator") == "Exists"
        if not key:
            return exists
        return bool(key == self.key and (exists or toleration.get("value", "") == self.value))


@dataclass(frozen=True)
class NodeFacts:
    """One node."""

    name: str
    labels: Mapping[str, str]
    gpus: Mapping[str, int]
    """Devices by extended resource, as the device plugin counts them, broken ones included."""
    cordoned: bool = False
    taints: tuple[Taint, ...] = ()
    """Lasting taints that keep pods away."""


@dataclass(frozen=True)
class Inventory:
    """All nodes, or None where the operator may not read them."""

    nodes: tuple[NodeFacts, ...] | None


def inventory_from_nodes(nodes: Iterable[Mapping[str, Any]]) -> Inventory:
    """Read Node objects (plain dicts). Fields that are absent count as empty."""
    return Inventory(tuple(sorted(map(_facts, nodes), key=lambda node: node.name)))


def _facts(node: Mapping[str, Any]) -> NodeFacts:
    meta, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    return NodeFacts(
        name=meta["name"],
        labels=dict(meta.get("labels") or {}),
        gpus={
            name: count
            for name, amount in (status.get("capacity") or {}).items()
            if "/" in name and (count := _count(amount)) > 0
        },
        cordoned=bool(spec.get("unschedulable")),
        taints=tuple(
            Taint(taint["key"], taint.get("value", ""), taint["effect"])
            for taint in spec.get("taints") or ()
            if taint["effect"] in _KEEPS_AWAY and not taint["key"].startswith(_PASSING)
        ),
    )


def _count(amount: object) -> int:
    """A whole number of devices; 0 for what is none (extended resources have no fractions)."""
    text = str(amount)
    return int(text) if text.isascii() and text.isdigit() else 0
