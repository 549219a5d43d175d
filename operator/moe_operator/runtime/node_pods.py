"""Which pods of ours are on which nodes with how many GPUs, by what the cache has: what telemetry credits memory to."""

from collections.abc import Iterator, Mapping
from typing import Any

from moe_operator.api import names
from moe_operator.catalog.device_drivers import BY_RESOURCE
from moe_operator.controller.kube import LEADER_WORKER_SET, NODE, POD
from moe_operator.controller.store import Store, owner_key
from moe_operator.planner.quantities import whole
from moe_operator.telemetry.pod_memory import NodePod

_MEMORY = "memory"


def node_pods(store: Store) -> Iterator[NodePod]:
    """Pods of groups that exist in the cache and have a node; by uid, as names come again."""
    groups = {
        (o["metadata"]["namespace"], o["metadata"]["name"]): o["metadata"]
        for o in store.all(LEADER_WORKER_SET)
    }
    for pod in store.all(POD):
        meta, spec = pod["metadata"], pod.get("spec") or {}
        key, node = owner_key(pod), spec.get("nodeName")
        group = groups.get((meta["namespace"], (meta.get("labels") or {}).get(names.LABEL_GROUP, "")))
        if key is None or group is None or not node:
            continue
        resources = _engine(spec).get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        yield NodePod(
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
            node=node,
            devices=_devices(limits) or _claimed(group),
            memory=whole(limits.get(_MEMORY) or requests.get(_MEMORY)),
            deployment=key,
        )


def host_addresses(store: Store) -> dict[str, str]:
    """Addresses of the nodes that have pods of ours, as these say: nodes themselves need not be readable."""
    found = {}
    for pod in store.all(POD):
        node, address = (pod.get("spec") or {}).get("nodeName"), (pod.get("status") or {}).get("hostIP")
        if node and address and owner_key(pod) is not None:
            found[node] = address
    return found


def node_devices(store: Store, node: str) -> int | None:
    """GPUs that a node says it has; None where it cannot be read, or says nothing (a driver of claims tells none)."""
    found = store.get(NODE, "", node)
    return None if found is None else _devices((found.get("status") or {}).get("capacity") or {}) or None


def _engine(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    found = (c for c in spec.get("containers") or [] if c.get("name") == names.ENGINE_CONTAINER)
    return next(found, {})


def _devices(amounts: Mapping[str, Any]) -> int:
    return sum(whole(amounts[name]) or 0 for name in BY_RESOURCE if name in amounts)


def _claimed(group: Mapping[str, Any]) -> int:
    return whole((group.get("annotations") or {}).get(names.ANNOTATION_GPUS_PER_POD, "0")) or 0
