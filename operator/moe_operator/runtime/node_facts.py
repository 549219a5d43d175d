"""What of a Node matters to deployments: a kubelet's heartbeat changes its Node every few minutes for nothing."""

from collections.abc import Mapping
from typing import Any


def significant(node: Mapping[str, Any]) -> tuple[object, ...]:
    """The parts of a Node that plans and failure handling read; two Nodes with equal parts are the same to them."""
    meta, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    ready: Mapping[str, Any] = {}
    conditions = status.get("conditions") or []
    for condition in conditions:
        if condition.get("type") == "Ready":
            ready = condition
    taints = spec.get("taints") or []
    return (
        meta.get("uid"),
        bool(meta.get("deletionTimestamp")),
        tuple(sorted((meta.get("labels") or {}).items())),
        bool(spec.get("unschedulable")),
        tuple(sorted((t.get("key", ""), t.get("value", ""), t.get("effect", "")) for t in taints)),
        tuple(sorted((status.get("allocatable") or {}).items())),
        (ready.get("status"), ready.get("lastTransitionTime")),
        # A site may name any of them as one that empties the node.
        tuple(sorted((c.get("type", ""), c.get("status", "")) for c in conditions)),
    )
