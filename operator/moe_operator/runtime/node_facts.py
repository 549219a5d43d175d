"""What of a Node matters to deployments: a kubelet's heartbeat changes its Node every few minutes for nothing."""

from collections.abc import Mapping
from typing import Any


def significant(node: Mapping[str, Any]) -> tuple[object, ...]:
    """The parts of a Node that plans and failure handling read; two Nodes with equal parts are the same to them."""
    meta, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    ready: Mapping[str, Any] = {}
    for condition in status.get("conditions") or []:
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
    )
