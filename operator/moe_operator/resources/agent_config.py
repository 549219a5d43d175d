"""The agent's files as a ConfigMap, and how the engine's pods take it up."""

import hashlib
from collections.abc import Mapping
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.resources.agent_bundle import MIDDLEWARE, agent_files, config_map_key
from moe_operator.resources.metadata import child_metadata
from moe_operator.resources.pod_parts import PodParts

#: Where the agent's files lie in the engine container; on PYTHONPATH, so that vLLM finds the plugin's
#: metadata.
MOUNT_PATH = "/opt/moe-agent"
#: An emptyDir that all processes of the pod share: requests in flight and the drain flag.
STATE_PATH = "/run/moe-agent"

#: Differs from group to group, so it is in the pods' metadata: the template is the revision's.
_VERIFIER_FIELD = f"metadata.annotations['{names.ANNOTATION_AGENT_VERIFIER}']"
_FILES_VOLUME = "moe-agent"
_STATE_VOLUME = "moe-agent-state"


def agent_config_name(deployment_name: str) -> str:
    """`<deployment>-agent-<hash8>`: another agent is another ConfigMap, and a group keeps its own."""
    digest = hashlib.sha256()
    for path, content in sorted(agent_files().items()):
        digest.update(f"{path}\0{content}\0".encode())
    return f"{deployment_name}-agent-{digest.hexdigest()[:8]}"


def build_agent_config(deployment: ModelDeployment) -> dict[str, Any]:
    """The immutable ConfigMap with this operator's agent.

    Pods of older groups may mount one of an earlier operator: keep those that `agent_configs_of` names for a
    revision.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(deployment, agent_config_name(deployment.name)),
        "immutable": True,
        "data": {config_map_key(path): content for path, content in sorted(agent_files().items())},
    }


def agent_configs_of(template: Mapping[str, Any]) -> set[str]:
    """Names of the agent ConfigMaps that a template mounts: they must live as long as its revision."""
    workers = template["leaderWorkerTemplate"]
    return {
        volume["configMap"]["name"]
        for pod in (workers.get("leaderTemplate"), workers["workerTemplate"])
        if pod
        for volume in pod["spec"].get("volumes", ())
        if volume["name"] == _FILES_VOLUME
    }


def agent_arguments() -> tuple[tuple[str, str], ...]:
    """(flag, value) that put the agent around vLLM's HTTP application."""
    return (("middleware", MIDDLEWARE),)


def agent_parts(deployment_name: str) -> PodParts:
    """The files, each at its path, the state that all processes of the pod share, and where both are."""
    items = [{"key": config_map_key(path), "path": path} for path in sorted(agent_files())]
    return PodParts(
        env=(
            {"name": "PYTHONPATH", "value": MOUNT_PATH},
            {"name": "MOE_AGENT_DIR", "value": STATE_PATH},
            {"name": "MOE_AGENT_VERIFIER", "valueFrom": {"fieldRef": {"fieldPath": _VERIFIER_FIELD}}},
            # The pod's own emptyDir is there: what an engine that crashed left in it may be removed.
            {"name": "MOE_AGENT_SHM", "value": "/dev/shm"},
        ),
        volumes=(
            {
                "name": _FILES_VOLUME,
                "configMap": {"name": agent_config_name(deployment_name), "items": items},
            },
            {"name": _STATE_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        ),
        mounts=(
            {"name": _FILES_VOLUME, "mountPath": MOUNT_PATH, "readOnly": True},
            {"name": _STATE_VOLUME, "mountPath": STATE_PATH},
        ),
        reasons={
            "PYTHONPATH": "where vLLM finds the operator's agent",
            "MOE_AGENT_DIR": "what the agent's processes share",
            "MOE_AGENT_VERIFIER": "the agent knows the operator by it",
            "MOE_AGENT_SHM": "the agent removes what an engine that crashed left there",
            MOUNT_PATH: "the operator's agent, from its ConfigMap",
            STATE_PATH: "requests in flight and the drain flag, shared by the pod's processes",
        },
    )
