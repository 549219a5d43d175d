"""Which nodes a group's pods may run on, and that they do not share one: added to the user's own affinity."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from moe_operator.api import names
from moe_operator.catalog.accelerators import AcceleratorProfile
from moe_operator.planner.facts import NVIDIA_GPU
from moe_operator.planner.placement import Placement
from moe_operator.planner.plan import Plan

_HOSTNAME = "kubernetes.io/hostname"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


#: GPUs that several pods are given at once are no whole GPUs, and not every labeller marks the product's name then. A
#: node without the label is let in: `NotIn` and `DoesNotExist` hold there.
_UNSHARED: tuple[dict[str, Any], ...] = (
    {
        "key": "nvidia.com/gpu.sharing-strategy",
        "operator": "NotIn",
        "values": ["time-slicing", "mps"],
    },
    {"key": "cloud.google.com/gke-gpu-sharing-strategy", "operator": "DoesNotExist"},
)


def affinity(user: Mapping[str, Any], plan: Plan, profile: AcceleratorProfile) -> dict[str, Any]:
    """The user's affinity, narrowed to the accelerator's nodes, with the pods of one group on a node each, and all of
    them in one domain where their transport asks for it."""
    merged: dict[str, Any] = copy.deepcopy(dict(user))
    _require_accelerator(merged, profile)
    if plan.pods_per_group > 1:
        _keep_apart(merged, required=profile.resource_name is not None)
        if plan.transport is not None and plan.transport.domain is not None:
            _keep_together(merged, plan.transport.domain, required=plan.transport.domain_required)
    return merged


def put(affinity: dict[str, Any], placement: Placement) -> None:
    """Add a group's place to the affinity of its pods: its domain must be, its node should be; nodes that it shuns must
    not be, those that it dislikes should not be."""
    if placement.domain is not None:
        key, value = placement.domain
        _require(affinity, [{"key": key, "operator": "In", "values": [value]}])
    if placement.node is not None:
        field = {"key": "metadata.name", "operator": "In", "values": [placement.node]}
        wishes = affinity.setdefault("nodeAffinity", {}).setdefault(_PREFERRED, [])
        wishes.append({"weight": 100, "preference": {"matchFields": [field]}})
    if placement.shunned:
        required = affinity.setdefault("nodeAffinity", {}).setdefault(_REQUIRED, {})
        terms: list[dict[str, Any]] = required.setdefault("nodeSelectorTerms", [{}])
        for term in terms:
            term["matchFields"] = [*(term.get("matchFields") or ()), *_not_on(placement.shunned)]
    if placement.disliked:
        wishes = affinity.setdefault("nodeAffinity", {}).setdefault(_PREFERRED, [])
        wishes.append({"weight": 100, "preference": {"matchFields": _not_on(placement.disliked)}})


def _not_on(nodes: Sequence[str]) -> list[dict[str, Any]]:
    """One requirement for each: the field takes a single value."""
    return [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in nodes]


def _require(merged: dict[str, Any], *alternatives: Sequence[Mapping[str, Any]]) -> None:
    """Require one of these lists of expressions, each of which must hold as a whole.

    Terms are alternatives and the expressions of one term must all hold. So where there are terms already, each of
    them is combined with each of these.
    """
    required = merged.setdefault("nodeAffinity", {}).setdefault(_REQUIRED, {})
    theirs: list[dict[str, Any]] = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [
        {**term, "matchExpressions": [*(term.get("matchExpressions") or ()), *copy.deepcopy(list(own))]}
        for term in theirs
        for own in alternatives
    ]


def _require_accelerator(merged: dict[str, Any], profile: AcceleratorProfile) -> None:
    """Only nodes that say they have this accelerator, undivided: all GPUs of a vendor share one resource name."""
    if not profile.node_labels:
        return
    unshared = _UNSHARED if profile.resource_name == NVIDIA_GPU else ()
    _require(
        merged,
        *(
            [{"key": key, "operator": "In", "values": list(values)}, *unshared]
            for key, values in profile.node_labels
        ),
    )


def _keep_apart(merged: dict[str, Any], *, required: bool) -> None:
    """Pods of one group on different nodes: required on GPUs, preferred on the CPU.

    Two pods of a group on one node of GPUs would talk through the network though NVLink is there. A group on
    the CPU must fit on one laptop.

    The label's value is the group's name, which the template does not know: `group.build_group` fills it in.
    """
    _group_term(merged.setdefault("podAntiAffinity", {}), _HOSTNAME, required=required)


def _keep_together(merged: dict[str, Any], domain: str, *, required: bool) -> None:
    """Pods of one group in one domain. The first of them goes anywhere: the scheduler lets a pod in that is asked to be
    near its like when there is none yet, on nodes that carry the label."""
    _group_term(merged.setdefault("podAffinity", {}), domain, required=required)


def _group_term(kind: dict[str, Any], key: str, *, required: bool) -> None:
    term = {"labelSelector": {"matchLabels": {names.LABEL_GROUP: ""}}, "topologyKey": key}
    if required:
        kind[_REQUIRED] = [*(kind.get(_REQUIRED) or ()), term]
    else:
        kind[_PREFERRED] = [*(kind.get(_PREFERRED) or ()), {"weight": 100, "podAffinityTerm": term}]
