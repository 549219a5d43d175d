"""`-o manifests`: the objects that the operator would make of a plan, for one group."""

from typing import Any

from moe_operator.api.spec import AgentMode
from moe_operator.cli.plan_report import PlanReport
from moe_operator.resources.agent_config import build_agent_config
from moe_operator.resources.disruption_budget import build_disruption_budget
from moe_operator.resources.group import build_group
from moe_operator.resources.service import build_service
from moe_operator.resources.service_account import build_service_account


def child_manifests(report: PlanReport) -> list[dict[str, Any]]:
    """In the operator's order, the group last. Of a deployment that is not applied there is no owner to refer to."""
    deployment = report.deployment
    objects = [build_service_account(deployment)]
    if deployment.spec.engine.agent is AgentMode.ENABLED:
        objects.append(build_agent_config(deployment))
    objects += [
        build_service(deployment),
        build_disruption_budget(deployment),
        build_group(deployment, report.revision, 0),
    ]
    if deployment.uid == "not-applied":
        for obj in objects:
            obj["metadata"].pop("ownerReferences", None)
    return objects
