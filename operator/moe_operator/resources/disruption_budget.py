"""Keeps evictions away from groups."""

from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.resources.metadata import child_metadata


def build_disruption_budget(deployment: ModelDeployment) -> dict[str, Any]:
    """A budget that allows no eviction at all.

    A budget counts pods, but one evicted pod costs its whole group: no number of pods says "one group". So
    eviction is refused, and groups leave a node by being replaced. `unhealthyPodEvictionPolicy` stays unset:
    AlwaysAllow would let an eviction through to a draining pod, which is unready and still has requests to
    finish.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": child_metadata(deployment, deployment.name),
        "spec": {
            "maxUnavailable": 0,
            "selector": {"matchLabels": {names.LABEL_DEPLOYMENT: deployment.name}},
        },
    }
