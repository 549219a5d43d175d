"""The pod template of a group, the same for its leader and its workers."""

from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import AgentMode
from moe_operator.catalog.accelerators import AcceleratorProfile
from moe_operator.planner.plan import Plan
from moe_operator.resources import agent_config
from moe_operator.resources.affinity import affinity
from moe_operator.resources.engine_args import SHUTDOWN_TIMEOUT, engine_arguments
from moe_operator.resources.model_source import ModelSource, model_source
from moe_operator.resources.probes import readiness_probe, startup_probe
from moe_operator.resources.service_account import service_account_name

#: What the engine needs after `--shutdown-timeout` to free its GPUs and end its processes.
_SHUTDOWN_MARGIN = 10
#: Downloads and compiled kernels: kept while the pod lives, so an engine that is restarted in place finds
#: them.
CACHE_PATH = "/var/cache/moe-operator"

_SHM_VOLUME = "shm"
_CACHE_VOLUME = "cache"


def pod_template(
    deployment: ModelDeployment, plan: Plan, profile: AcceleratorProfile, image: str, role: str
) -> dict[str, Any]:
    """The pods of a group of this role. Free of the group's name: `group.build_group` puts that in."""
    user = deployment.spec.pod_template
    metadata: dict[str, Any] = {
        "labels": {**user.labels, **deployment.labels(), names.LABEL_ROLE: role},
    }
    if user.annotations:
        metadata["annotations"] = dict(user.annotations)
    return {"metadata": metadata, "spec": _pod_spec(deployment, plan, profile, image)}


def _pod_spec(
    deployment: ModelDeployment, plan: Plan, profile: AcceleratorProfile, image: str
) -> dict[str, Any]:
    user = deployment.spec.pod_template
    agent = deployment.spec.engine.agent is AgentMode.ENABLED
    source = model_source(deployment.spec.model)
    volumes = [
        {
            "name": _SHM_VOLUME,
            "emptyDir": {"medium": "Memory", "sizeLimit": f"{profile.shared_memory_mib}Mi"},
        },
        {"name": _CACHE_VOLUME, "emptyDir": {}},
        *source.volumes(),
        *(agent_config.agent_volumes(deployment.name) if agent else ()),
        *user.volumes,
    ]
    spec: dict[str, Any] = {
        "serviceAccountName": service_account_name(deployment.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": SHUTDOWN_TIMEOUT + _SHUTDOWN_MARGIN,
        # Not runAsNonRoot: vLLM's default images start as root, and a kubelet would refuse them. Their
        # non-root variants run unchanged.
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_engine(deployment, plan, profile, image, source), *user.containers],
        "volumes": volumes,
        "tolerations": [*(dict(t) for t in profile.tolerations), *user.tolerations],
        "affinity": affinity(user.affinity, plan, profile),
        "nodeSelector": dict(sorted(user.node_selector.items())),
        "imagePullSecrets": user.image_pull_secrets,
        "schedulerName": user.scheduler_name,
        "priorityClassName": user.priority_class_name,
        "runtimeClassName": user.runtime_class_name,
    }
    return {field: value for field, value in spec.items() if value not in (None, [], {})}


def _engine(
    deployment: ModelDeployment, plan: Plan, profile: AcceleratorProfile, image: str, source: ModelSource
) -> dict[str, Any]:
    agent = deployment.spec.engine.agent is AgentMode.ENABLED
    return {
        "name": names.ENGINE_CONTAINER,
        "image": image,
        "command": ["vllm", "serve"],
        "args": list(engine_arguments(deployment, plan, profile)),
        "env": _env(deployment, profile, source),
        "ports": [{"name": names.HTTP_PORT_NAME, "containerPort": names.HTTP_PORT, "protocol": "TCP"}],
        "resources": _resources(deployment, plan, profile),
        "startupProbe": startup_probe(),
        "readinessProbe": readiness_probe(agent=agent),
        # The agent writes the engine's last errors there; without it the end of the log has to do.
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": _SHM_VOLUME, "mountPath": "/dev/shm"},
            {"name": _CACHE_VOLUME, "mountPath": CACHE_PATH},
            *source.mounts(),
            *(agent_config.agent_mounts() if agent else ()),
            *deployment.spec.pod_template.volume_mounts,
        ],
    }


def _env(
    deployment: ModelDeployment, profile: AcceleratorProfile, source: ModelSource
) -> list[dict[str, Any]]:
    """Ours, then the profile's, then the user's, who may replace any that is not reserved.

    A variable can refer only to those before it: ours come first, and what LeaderWorkerSet adds before all.
    """
    own: list[dict[str, Any]] = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "VLLM_HOST_IP", "value": "$(POD_IP)"},
        {"name": "VLLM_CACHE_ROOT", "value": f"{CACHE_PATH}/vllm"},
        {"name": "HF_HOME", "value": f"{CACHE_PATH}/huggingface"},
    ]
    if source.offline:
        own.append({"name": "HF_HUB_OFFLINE", "value": "1"})
    if deployment.spec.engine.agent is AgentMode.ENABLED:
        own += agent_config.agent_env()
    own += [{"name": name, "value": value} for name, value in profile.env]
    user = deployment.spec.engine.env
    replaced = {entry.get("name") for entry in user}
    return [*(entry for entry in own if entry["name"] not in replaced), *user]


def _resources(deployment: ModelDeployment, plan: Plan, profile: AcceleratorProfile) -> dict[str, Any]:
    """The profile's, with the user's in their place name by name, and the plan's GPUs in place of both."""
    user = deployment.spec.engine.resources
    gpus = profile.pod_limits(plan.gpus_per_pod)
    resources = {
        "requests": {**profile.pod_requests(plan.gpus_per_pod), **user.requests, **gpus},
        "limits": {**user.limits, **gpus},
    }
    return {kind: dict(sorted(values.items())) for kind, values in resources.items() if values}
