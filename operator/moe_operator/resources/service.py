"""The Service that clients use: the pods of all groups, of any revision, that may take traffic."""

from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.resources.metadata import child_metadata


def build_service(deployment: ModelDeployment) -> dict[str, Any]:
    """One ClusterIP Service named as the deployment, on the engines' own port.

    It selects by the traffic label and not by readiness alone: half a group is ready for some seconds, and
    only the operator knows when a group is whole. Each pod balances over its own ranks, so all pods of a
    group are endpoints.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(deployment, deployment.name),
        "spec": {
            "type": "ClusterIP",
            "selector": {
                names.LABEL_DEPLOYMENT: deployment.name,
                names.LABEL_TRAFFIC: names.TRAFFIC_ON,
            },
            "ports": [
                {
                    "name": names.HTTP_PORT_NAME,
                    "protocol": "TCP",
                    "port": names.HTTP_PORT,
                    "targetPort": names.HTTP_PORT_NAME,
                }
            ],
        },
    }
