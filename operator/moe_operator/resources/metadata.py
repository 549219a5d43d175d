"""What the metadata of every child says: whose it is."""

from collections.abc import Mapping
from typing import Any

from moe_operator.api.deployment import ModelDeployment


def child_metadata(
    deployment: ModelDeployment, name: str, labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Name, namespace, labels and the controller reference: by these a child is found and collected."""
    return {
        "name": name,
        "namespace": deployment.namespace,
        "labels": {**deployment.labels(), **(labels or {})},
        "ownerReferences": [deployment.owner_reference()],
    }
