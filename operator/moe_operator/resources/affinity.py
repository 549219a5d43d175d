"""Which nodes a group's pods may run on, and that they do not share one: added to the user's own affinity."""

import copy
from collections.abc import Mapping
from typing import Any

from moe_operator.api import names
from moe_operator.catalog.accelerators import AcceleratorProfile
from moe_operator.planner.plan import Plan

_HOSTNAME = "kubernetes.io/hostname"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def affinity(user: Mapping[str, Any], plan: Plan, profile: AcceleratorProfile) -> dict[str, Any]:
    """The user's affinity, narrowed to the accelerator's nodes, with the pods of one group on a node each."""
    merged: dict[str, Any] = copy.deepcopy(dict(user))
    _require_accelerator(merged, profile)
    if plan.pods_per_group > 1:
        _keep_apart(merged, required=profile.resource_name is not None)
    return merged


def _require_accelerator(merged: dict[str, Any], profile: AcceleratorProfile) -> None:
    """Only nodes that say they have this accelerator: all GPUs of a vendor share one resource name.

    Terms are alternatives and the expressions of one term must all hold. So where the user has terms too,
    each of theirs is combined with each label by which the accelerator may be known.
    """
    if not profile.node_labels:
        return
    required = merged.setdefault("nodeAffinity", {}).setdefault(_REQUIRED, {})
    own = [{"key": key, "operator": "In", "values": list(values)} for key, values in profile.node_labels]
    theirs: list[dict[str, Any]] = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [
        {**term, "matchExpressions": [*(term.get("matchExpressions") or ()), expression]}
        for term in theirs
        for expression in own
    ]


def _keep_apart(merged: dict[str, Any], *, required: bool) -> None:
    """Pods of one group on different nodes: required on GPUs, preferred on the CPU.

    Two pods of a group on one node of GPUs would talk through the network though NVLink is there. A group on
    the CPU must fit on one laptop.

    The label's value is the group's name, which the template does not know: `group.build_group` fills it in.
    """
    term = {"labelSelector": {"matchLabels": {names.LABEL_GROUP: ""}}, "topologyKey": _HOSTNAME}
    apart = merged.setdefault("podAntiAffinity", {})
    if required:
        apart[_REQUIRED] = [*(apart.get(_REQUIRED) or ()), term]
    else:
        apart[_PREFERRED] = [*(apart.get(_PREFERRED) or ()), {"weight": 100, "podAffinityTerm": term}]
