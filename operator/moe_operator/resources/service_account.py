"""The identity of the engines' pods."""

from typing import Any

from moe_operator.api.deployment import ModelDeployment
from moe_operator.resources.metadata import child_metadata


def service_account_name(deployment_name: str) -> str:
    """Suffixed, so that a ServiceAccount of the user's that is named as the model is not in the way."""
    return f"{deployment_name}-engine"


def build_service_account(deployment: ModelDeployment) -> dict[str, Any]:
    """An account without rights and without a mounted token: engines call no API server."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": child_metadata(deployment, service_account_name(deployment.name)),
        "automountServiceAccountToken": False,
    }
