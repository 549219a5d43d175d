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


class DeviceCount:
    """The same, for one look after the other at nearly the same pods: each is read once when it comes, and once when it
    goes or another object takes its place. Objects are never changed in place."""

    def __init__(self) -> None:
        self._counted: dict[str, Mapping[str, Any]] = {}
        self._held: dict[str, dict[str, int]] = {}

    def of(self, pods: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
        """Extended resources by node and name, as `held_by_pods` of these pods, but for nodes that hold none."""
        before, self._counted = self._counted, {}
        for pod in pods:
            uid = pod["metadata"]["uid"]
            if uid in self._counted:
                continue
            self._counted[uid] = pod
            known = before.pop(uid, None)
            if known is not pod:
                self._add(pod, 1)
                if known is not None:
                    self._add(known, -1)
        for pod in before.values():
            self._add(pod, -1)
        return {node: dict(amounts) for node, amounts in self._held.items()}

    def _add(self, pod: Mapping[str, Any], times: int) -> None:
        for node, amounts in held_by_pods((pod,)).items():
            held = self._held.setdefault(node, {})
            for name, count in amounts.items():
                held[name] = held.get(name, 0) + times * count
                if not held[name]:
                    del held[name]
            if not held:
                del self._held[node]


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
