"""NVIDIA's ComputeDomain: it lets pods on several nodes of an NVLink partition reach each other's memory.

One for a namespace, shared by all ModelDeployments in it: two ComputeDomains within one partition disturb each other
(dra-driver-nvidia-gpu #892), so groups of one rack must share theirs. The limits and the choice are in
docs/decisions/0012-compute-domain-per-namespace.md.
"""

from collections.abc import Mapping
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.planner.plan import Plan

#: Name of the ComputeDomain in each namespace that needs one.
COMPUTE_DOMAIN_NAME = "moe-operator-nvlink"
#: Name of the ResourceClaimTemplate that NVIDIA's controller makes for it.
CHANNEL_TEMPLATE = "moe-operator-nvlink-channel"


def domain_of(namespace: str) -> str:
    """The namespace's ComputeDomain as people name it: `NAMESPACE/NAME`."""
    return f"{namespace}/{COMPUTE_DOMAIN_NAME}"


def needs_compute_domain(plan: Plan) -> bool:
    """Whether the pods of this plan must be in the namespace's ComputeDomain.

    The plan's transport says so, and says it sparingly: a node has one channel to give.
    """
    return plan.transport is not None and plan.transport.compute_domain


def build_compute_domain(deployment: ModelDeployment) -> dict[str, Any]:
    """The namespace's ComputeDomain, as its first deployment makes it. All of them own it, none controls it: the
    garbage collector takes it with the last."""
    return {
        "apiVersion": "resource.nvidia.com/v1beta1",
        "kind": "ComputeDomain",
        "metadata": {
            "name": COMPUTE_DOMAIN_NAME,
            "namespace": deployment.namespace,
            "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY},
            "ownerReferences": [owner_of(deployment)],
        },
        # Zero nodes: daemons start as pods come, and no number of nodes is waited for.
        "spec": {
            "numNodes": 0,
            "channel": {"allocationMode": "Single", "resourceClaimTemplate": {"name": CHANNEL_TEMPLATE}},
        },
    }


def owner_of(deployment: ModelDeployment) -> dict[str, Any]:
    """A reference beside those of other deployments: it neither controls nor holds up the deployment's deletion."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": deployment.name,
        "uid": deployment.uid,
    }


def owners(domain: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The domain's owner references."""
    return list(domain["metadata"].get("ownerReferences") or [])
