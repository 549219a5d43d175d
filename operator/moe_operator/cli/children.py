"""`-o manifests`: the objects that the operator would make of a plan, for one group."""

from typing import Any

from moe_operator.cli.plan_report import PlanReport
from moe_operator.resources.children import build_children
from moe_operator.resources.group import build_group


def child_manifests(report: PlanReport) -> list[dict[str, Any]]:
    """In the operator's order, the group last. Of a deployment that is not applied there is no owner to refer to."""
    deployment, revision = report.deployment, report.revision
    objects = [*build_children(deployment, revision), build_group(deployment, revision, 0)]
    if deployment.uid == "not-applied":
        for obj in objects:
            obj["metadata"].pop("ownerReferences", None)
    return objects
