"""What a ModelDeployment needs beside its groups, in the order in which it must be there."""

from typing import Any

from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import AgentMode
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.resources.agent_config import build_agent_config
from moe_operator.resources.disruption_budget import build_disruption_budget
from moe_operator.resources.metadata import child_metadata
from moe_operator.resources.network_policy import build_network_policy
from moe_operator.resources.revision import Revision
from moe_operator.resources.service import build_service
from moe_operator.resources.service_account import build_service_account


def build_children(
    deployment: ModelDeployment, revision: Revision, config: OperatorConfig
) -> list[dict[str, Any]]:
    """All of them but revisions and groups: objects that are applied whenever they differ."""
    children = [build_service_account(deployment)]
    # Before there are pods: none is ever open to all.
    if (network := build_network_policy(deployment, revision, config)) is not None:
        children.append(network)
    if deployment.spec.engine.agent is AgentMode.ENABLED:
        children.append(build_agent_config(deployment))
    children += [_own(deployment, companion) for companion in revision.companions]
    return [*children, build_service(deployment), build_disruption_budget(deployment)]


def _own(deployment: ModelDeployment, companion: dict[str, Any]) -> dict[str, Any]:
    """An object that is kept with the revision, as a child of this deployment."""
    metadata = child_metadata(deployment, companion["metadata"]["name"], companion["metadata"].get("labels"))
    return {**companion, "metadata": metadata}
