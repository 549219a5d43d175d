"""Whose the objects of a cache are: Jobs have several owners, claims none, so labels tell the operator's."""

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.controller.kube import Obj


def is_operators(obj: Obj) -> bool:
    """Whether the operator made it."""
    return (obj["metadata"].get("labels") or {}).get(names.LABEL_MANAGED_BY) == names.MANAGED_BY


def owned_by(job: Obj, deployment: ModelDeployment) -> bool:
    """Whether it belongs to this deployment too."""
    return any(r.get("uid") == deployment.uid for r in job["metadata"].get("ownerReferences") or [])
