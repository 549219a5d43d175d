"""Devices that pods hold on nodes, as the scheduler counts them."""

from collections.abc import Iterable, Mapping
from typing import Any

from moe_operator.planner.quantities import whole

#: Phases in which a pod's devices are free again. A pod that is being deleted still holds its own.
_OVER = ("Succeeded", "Failed")


def held_by_pods(pods: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Extended resources by node and name, of the pods that are bound to a node and not over."""
    held: dict[str, dict[str, int]] = {}
    for pod in pods:
        spec, status = pod.get("spec") or {}, pod.get("status") or {}
        node = spec.get("nodeName")
        if not node or status.get("phase") in _OVER:
            continue
        on_node = held.setdefault(node, {})
        for name, count in extended_requests(spec).items():
            on_node[name] = on_node.get(name, 0) + count
    return held


def extended_requests(spec: Mapping[str, Any]) -> dict[str, int]:
    """Extended resources of a pod's spec.

    Init containers run one after the other before the containers, so the most that is needed at one time counts;
    those that restart always (sidecars) stay and add up (the rule of the scheduler and of KEP-753).
    """
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        own = _requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars = _sum(sidecars, own)
            peak = _max(peak, sidecars)
        else:
            peak = _max(peak, _sum(sidecars, own))
    running = sidecars
    for container in spec.get("containers") or ():
        running = _sum(running, _requests(container))
    return _max(running, peak)


def _requests(container: Mapping[str, Any]) -> dict[str, int]:
    """Of extended resources requests equal limits, where both are given; either may stand for both."""
    resources = container.get("resources") or {}
    amounts = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: count for name, amount in amounts.items() if "/" in name and (count := whole(amount))}


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _max(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}
