"""Where a pod may go and where it would rather go: node and pod affinity, taints and gates, as the scheduler has them.

One pod at a time, without looking ahead: as the real one, it begins groups that it cannot finish.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fakecluster.objects import labels_of
from moe_operator.controller.kube import Obj

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def gates(pod: Obj) -> list[str]:
    """What keeps the scheduler from looking at the pod."""
    return [gate["name"] for gate in pod["spec"].get("schedulingGates") or []]


class Board:
    """The nodes and who is on them."""

    def __init__(self, nodes: Sequence[Obj], pods: Sequence[Obj]) -> None:
        self._nodes = {node["metadata"]["name"]: node for node in nodes}
        self._pods = [pod for pod in pods if pod["spec"].get("nodeName") in self._nodes]

    def bind(self, pod: Obj, node: str) -> None:
        """Count a pod as there."""
        self._pods.append({**pod, "spec": {**pod["spec"], "nodeName": node}})

    def objection(self, pod: Obj, name: str) -> str | None:
        """Why the pod may not go there, in the scheduler's words, or None."""
        node = self._nodes[name]
        if not _matches_node(pod, node):
            return "didn't match Pod's node affinity/selector"
        if not _tolerated(pod, node):
            return "had untolerated taint(s)"
        for term in _terms(pod, "podAffinity"):
            same = self._in_domain(pod, term, node)
            if same is None or (not same and self._anywhere(pod, term)):
                return "didn't match pod affinity rules"
        for term in _terms(pod, "podAntiAffinity"):
            if self._in_domain(pod, term, node):
                return "didn't match pod anti-affinity rules"
        return None

    def score(self, pod: Obj, name: str) -> int:
        """The pod's wishes that hold there."""
        node, affinity = self._nodes[name], pod["spec"].get("affinity") or {}
        total = 0
        for wish in (affinity.get("nodeAffinity") or {}).get(_PREFERRED) or []:
            total += wish["weight"] * _term(wish["preference"], node)
        for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
            for wish in (affinity.get(kind) or {}).get(_PREFERRED) or []:
                there = self._in_domain(pod, wish["podAffinityTerm"], node) or []
                total += sign * wish["weight"] * len(there)
        return total

    def _in_domain(self, pod: Obj, term: Mapping[str, Any], node: Obj) -> list[Obj] | None:
        """Pods that the term means, on nodes with this node's value of its key; None if the node has no such label."""
        value = labels_of(node).get(term["topologyKey"])
        if value is None:
            return None
        return [
            other
            for other in self._meant(pod, term)
            if labels_of(self._nodes[other["spec"]["nodeName"]]).get(term["topologyKey"]) == value
        ]

    def _anywhere(self, pod: Obj, term: Mapping[str, Any]) -> bool:
        """Whether the first pod of its like has a place: it may go anywhere, if it is meant itself."""
        wanted = term["labelSelector"]["matchLabels"].items()
        return bool(self._meant(pod, term)) or not wanted <= labels_of(pod).items()

    def _meant(self, pod: Obj, term: Mapping[str, Any]) -> list[Obj]:
        wanted = term["labelSelector"]["matchLabels"].items()
        space = pod["metadata"]["namespace"]
        return [
            p for p in self._pods if p["metadata"]["namespace"] == space and wanted <= labels_of(p).items()
        ]


def _terms(pod: Obj, kind: str) -> list[Any]:
    return ((pod["spec"].get("affinity") or {}).get(kind) or {}).get(_REQUIRED) or []


def _matches_node(pod: Obj, node: Obj) -> bool:
    labels = labels_of(node)
    if any(labels.get(key) != value for key, value in (pod["spec"].get("nodeSelector") or {}).items()):
        return False
    required = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED)
    return required is None or any(_term(term, node) for term in required["nodeSelectorTerms"])


def _term(term: Mapping[str, Any], node: Obj) -> bool:
    fields = {"metadata.name": node["metadata"]["name"]}
    rules = [(rule, labels_of(node)) for rule in term.get("matchExpressions") or []]
    rules += [(rule, fields) for rule in term.get("matchFields") or []]
    return bool(rules) and all(_rule(rule, values) for rule, values in rules)


def _rule(rule: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    there, value = rule["key"] in values, values.get(rule["key"])
    answers = {
        "In": there and value in (rule.get("values") or []),
        "NotIn": not there or value not in (rule.get("values") or []),
        "Exists": there,
        "DoesNotExist": not there,
    }
    return bool(answers[rule["operator"]])


def _tolerated(pod: Obj, node: Obj) -> bool:
    tolerations = pod["spec"].get("tolerations") or []
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] == "PreferNoSchedule":
            continue
        for one in tolerations:
            if one.get("effect") in (None, "", taint["effect"]) and (
                (one.get("operator") == "Exists" and one.get("key") in (None, "", taint["key"]))
                or (one.get("key") == taint["key"] and one.get("value", "") == taint.get("value", ""))
            ):
                break
        else:
            return False
    return True
