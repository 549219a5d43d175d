"""The pod template of a group, the same for its leader and its workers: the parts of every concern, put together."""

from typing import Any

from moe_operator.api import names
from moe_operator.api.spec import AgentMode
from moe_operator.resources import agent_config
from moe_operator.resources.adapters import adapter_parts
from moe_operator.resources.affinity import affinity
from moe_operator.resources.claims import claim_parts
from moe_operator.resources.compile_cache import compile_cache_of, compile_cache_parts, compile_key
from moe_operator.resources.engine_args import SHUTDOWN_TIMEOUT, engine_arguments, explained_arguments
from moe_operator.resources.fabric import fabric_parts, shared_memory_mib
from moe_operator.resources.hardening import engine_context, hardened
from moe_operator.resources.pod_parts import PodParts, together
from moe_operator.resources.probes import readiness_probe, startup_probe
from moe_operator.resources.rendering import Rendering
from moe_operator.resources.service_account import service_account_name
from moe_operator.resources.weights_fetch import weights_parts

#: What the engine needs after `--shutdown-timeout` to free its GPUs and end its processes.
_SHUTDOWN_MARGIN = 10
#: Downloads and compiled kernels: kept while the pod lives, so an engine that is restarted in place finds
#: them.
CACHE_PATH = "/var/cache/moe-operator"


def pod_template(rendering: Rendering) -> dict[str, Any]:
    """The pods of a group. Free of the group's name: `group.build_group` puts that in."""
    deployment = rendering.deployment
    parts = pod_parts(rendering)
    metadata: dict[str, Any] = {
        "labels": {**parts.labels, **deployment.labels(), names.LABEL_ROLE: rendering.role},
    }
    if parts.annotations:
        metadata["annotations"] = dict(parts.annotations)
    return {"metadata": metadata, "spec": _pod_spec(rendering, parts)}


def pod_parts(rendering: Rendering) -> PodParts:
    """What all concerns add to the pods, with the reasons."""
    return together(_parts(rendering))


def _parts(rendering: Rendering) -> list[PodParts]:
    """Every concern, in the order in which later ones go before earlier ones. The user's is the last."""
    agent = rendering.deployment.spec.engine.agent is AgentMode.ENABLED
    return [
        _engine_parts(),
        hardened(rendering.deployment.spec.engine, CACHE_PATH),
        _shared_memory(rendering),
        weights_parts(rendering),
        adapter_parts(rendering.deployment.spec.model.adapters, rendering.weights.kept),
        *([agent_config.agent_parts(rendering.deployment.name)] if agent else []),
        _compiled(rendering),
        _accelerator(rendering),
        _api_key(rendering),
        fabric_parts(rendering),
        claim_parts(rendering),
        _user(rendering),
    ]


def _engine_parts() -> PodParts:
    """What every engine needs."""
    return PodParts(
        env=(
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "VLLM_HOST_IP", "value": "$(POD_IP)"},
            {"name": "VLLM_CACHE_ROOT", "value": f"{CACHE_PATH}/vllm"},
            {"name": "HF_HOME", "value": f"{CACHE_PATH}/huggingface"},
        ),
        volumes=({"name": "cache", "emptyDir": {}},),
        mounts=({"name": "cache", "mountPath": CACHE_PATH},),
        reasons={
            "POD_IP": "the arguments name it: the server listens on the pod's own address",
            "POD_NAME": "the agent says which pod answers",
            "VLLM_HOST_IP": "where the ranks of the group reach this pod's",
            "VLLM_CACHE_ROOT": "compiled kernels outlive a restart of the engine",
            "HF_HOME": "downloads outlive a restart of the engine",
            CACHE_PATH: "downloads and compiled kernels, for as long as the pod lives",
        },
    )


def _compiled(rendering: Rendering) -> PodParts:
    """Kernels that outlive the pod, where the spec or the site says so."""
    deployment = rendering.deployment
    cache = compile_cache_of(deployment.spec.engine, rendering.config.compile_cache)
    if cache is None:
        return PodParts()
    key = compile_key(rendering.image, rendering.plan.accelerator, explained_arguments(rendering))
    return compile_cache_parts(cache, deployment.namespace, key, CACHE_PATH)


def _shared_memory(rendering: Rendering) -> PodParts:
    """An emptyDir of its own. It goes with the pod, but not with a container that is restarted in place: what its
    engine left there the agent removes (`agent/shared_memory.py`); without the agent it stays until the pod goes."""
    size = f"{shared_memory_mib(rendering)}Mi"
    return PodParts(
        volumes=({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}},),
        mounts=({"name": "shm", "mountPath": "/dev/shm"},),
        reasons={"/dev/shm": "the ranks' message queues and NCCL's buffers; 64 MiB without it"},
    )


def _accelerator(rendering: Rendering) -> PodParts:
    profile, plan = rendering.profile, rendering.plan
    # With claims and an extended resource, a pod would get its GPUs twice.
    limits = {} if plan.claims else profile.pod_limits(plan.gpus_per_pod)
    return PodParts(
        env=tuple({"name": name, "value": value} for name, value in profile.env),
        limits=limits,
        tolerations=tuple(dict(one) for one in profile.tolerations),
        reasons={
            **dict.fromkeys((name for name, _ in profile.env), f"the catalogue's, for {profile.name}"),
            **dict.fromkeys(
                limits, f"ranks in the pod x GPUs of a rank: {plan.ranks_per_pod} x {plan.tensor}"
            ),
        },
    )


def _api_key(rendering: Rendering) -> PodParts:
    """What vLLM asks clients for. A reference: the key itself is in no object of the operator's."""
    secret = rendering.deployment.spec.engine.api_key_secret
    if secret is None:
        return PodParts()
    reference = {"name": secret.name, "key": secret.key}
    return PodParts(
        env=({"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": reference}},),
        reasons={"VLLM_API_KEY": "as engine.apiKeySecret says"},
    )


def _user(rendering: Rendering) -> PodParts:
    """What the spec adds, as it is written there."""
    user, env = rendering.deployment.spec.pod_template, rendering.deployment.spec.engine.env
    return PodParts(
        env=tuple(env),
        volumes=tuple(user.volumes),
        mounts=tuple(user.volume_mounts),
        tolerations=tuple(user.tolerations),
        labels=user.labels,
        annotations=user.annotations
        | ({names.ANNOTATION_QUEUE: user.queue_name} if user.queue_name is not None else {}),
        pod_spec={
            "nodeSelector": dict(sorted(user.node_selector.items())),
            "imagePullSecrets": user.image_pull_secrets,
            "schedulerName": user.scheduler_name,
            "priorityClassName": user.priority_class_name,
            "runtimeClassName": user.runtime_class_name,
        },
        reasons={
            **dict.fromkeys((str(one.get("name")) for one in env), "as engine.env says"),
            **dict.fromkeys(
                (str(one.get("mountPath")) for one in user.volume_mounts), "as podTemplate.volumeMounts says"
            ),
        },
    )


def _pod_spec(rendering: Rendering, parts: PodParts) -> dict[str, Any]:
    deployment = rendering.deployment
    user = deployment.spec.pod_template
    spec: dict[str, Any] = {
        "serviceAccountName": service_account_name(deployment.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": SHUTDOWN_TIMEOUT + _SHUTDOWN_MARGIN,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": list(parts.init_containers),
        "containers": [_engine(rendering, parts), *user.containers],
        "resourceClaims": list(parts.claims),
        "volumes": list(parts.volumes),
        "tolerations": list(parts.tolerations),
        "affinity": affinity(user.affinity, rendering.plan, rendering.profile),
        **parts.pod_spec,
    }
    return {field: value for field, value in spec.items() if value not in (None, [], {})}


def _engine(rendering: Rendering, parts: PodParts) -> dict[str, Any]:
    return {
        "name": names.ENGINE_CONTAINER,
        "image": rendering.image,
        "command": ["vllm", "serve"],
        "args": list(engine_arguments(rendering)),
        "env": list(parts.env),
        "ports": [{"name": names.HTTP_PORT_NAME, "containerPort": names.HTTP_PORT, "protocol": "TCP"}],
        "resources": _resources(rendering, parts),
        "startupProbe": startup_probe(),
        "readinessProbe": readiness_probe(agent=rendering.deployment.spec.engine.agent is AgentMode.ENABLED),
        # The agent writes the engine's last errors there; without it the end of the log has to do.
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": engine_context(
            rendering.deployment.spec.engine, parts.capabilities, privileged=parts.privileged
        ),
        "volumeMounts": list(parts.mounts),
    }


def _resources(rendering: Rendering, parts: PodParts) -> dict[str, Any]:
    """The profile's, with the user's in their place name by name, and what the plan takes in place of both."""
    user = rendering.deployment.spec.engine.resources
    requests = rendering.profile.pod_requests(rendering.plan.gpus_per_pod)
    amounts = {
        "requests": {**requests, **user.requests, **parts.limits},
        "limits": {**user.limits, **parts.limits},
    }
    without = rendering.profile.resource_name if rendering.plan.claims else None
    resources: dict[str, Any] = {
        kind: {name: values[name] for name in sorted(values) if name != without}
        for kind, values in amounts.items()
    }
    resources = {kind: values for kind, values in resources.items() if values}
    if parts.claims:
        resources["claims"] = [{"name": claim["name"]} for claim in parts.claims]
    return resources
