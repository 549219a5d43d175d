"""The arguments of `vllm serve` for one group, the same for all of its pods.

vLLM balances requests over ranks in modes that it partly infers from other flags, so the mode is named here
and its flags are rendered together (`_parallel_arguments`). What differs from pod to pod is the worker index,
which the kubelet puts in for `$(LWS_WORKER_INDEX)`: LeaderWorkerSet sets its variables before all others of a
container.
"""

from collections.abc import Mapping
from enum import StrEnum

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import AgentMode
from moe_operator.catalog.accelerators import AcceleratorProfile
from moe_operator.planner.plan import Plan
from moe_operator.resources.agent_config import agent_arguments
from moe_operator.resources.model_source import model_source

#: Seconds that an engine told to stop gives the requests it still has. Its default, 0, aborts them at once.
SHUTDOWN_TIMEOUT = 20

LEADER_ADDRESS = "$(LWS_LEADER_ADDRESS)"
WORKER_INDEX = "$(LWS_WORKER_INDEX)"

#: Asked all the time by probes and scrapes: as access log lines they would bury what matters. The agent keeps
#: its own pages out; without it the readiness probe asks for the models.
_QUIET_PATHS = ("/health", "/metrics")


class Balancing(StrEnum):
    """Who picks the rank for a request."""

    SINGLE = "Single"
    """One rank: nobody."""
    INTERNAL = "Internal"
    """One pod with several ranks: its API servers, over all of them."""
    EXTERNAL = "External"
    """Pods of one rank each: the Service, as every pod has its own API server."""
    HYBRID = "Hybrid"
    """Pods of several ranks each: the Service picks the pod, the pod's API servers one of its ranks."""


def balancing(plan: Plan) -> Balancing:
    """The mode that follows from the layout."""
    if plan.data == 1:
        return Balancing.SINGLE
    if plan.pods_per_group == 1:
        return Balancing.INTERNAL
    return Balancing.EXTERNAL if plan.ranks_per_pod == 1 else Balancing.HYBRID


def engine_arguments(deployment: ModelDeployment, plan: Plan, profile: AcceleratorProfile) -> tuple[str, ...]:
    """What follows `vllm serve`: what the operator derives, then further flags by name.

    The accelerator's profile gives some flags, and the user's take their place where both name one.
    """
    model, engine = deployment.spec.model, deployment.spec.engine
    arguments = [model_source(model).argument, "--served-model-name", model.served_name or model.name]
    # All pods of a test cluster may share a network namespace: bind the pod's own address only.
    arguments += ["--host", "$(POD_IP)", "--port", str(names.HTTP_PORT)]
    if model.revision:
        arguments += ["--revision", model.revision]
    if model.precision:
        arguments += ["--dtype", model.precision]
    if model.context_length:
        arguments += ["--max-model-len", str(model.context_length)]
    arguments += _parallel_arguments(plan)
    arguments += ["--shutdown-timeout", str(SHUTDOWN_TIMEOUT)]
    agent = engine.agent is AgentMode.ENABLED
    quiet = _QUIET_PATHS if agent else (*_QUIET_PATHS, "/v1/models")
    arguments += ["--disable-access-log-for-endpoints", ",".join(quiet)]
    if agent:
        arguments += agent_arguments()
    arguments += _flags({**dict(profile.args), **engine.args})
    return tuple(arguments)


def _parallel_arguments(plan: Plan) -> list[str]:
    """The flags of the layout.

    HYBRID needs each pod's first rank, worker index x ranks per pod, and Kubernetes cannot multiply. vLLM
    can: from --nnodes and --node-rank it derives the first rank, and with --data-parallel-hybrid-lb each node
    keeps its own API servers. Its ranks then meet at --master-addr and a fixed port (29501), where those of
    EXTERNAL let the kernel choose one.

    EXTERNAL is written as hybrid with one local rank, which vLLM turns into external balancing: unlike
    --data-parallel-rank this is allowed for models without experts too.
    """
    arguments = ["--tensor-parallel-size", str(plan.tensor)]
    mode = balancing(plan)
    if mode is not Balancing.SINGLE:
        arguments += ["--data-parallel-size", str(plan.data)]
    if mode in (Balancing.EXTERNAL, Balancing.HYBRID):
        arguments += ["--data-parallel-size-local", str(plan.ranks_per_pod), "--data-parallel-hybrid-lb"]
        arguments += ["--data-parallel-address", LEADER_ADDRESS]
        arguments += ["--data-parallel-rpc-port", str(names.RPC_PORT)]
    if mode is Balancing.EXTERNAL:
        arguments += ["--data-parallel-start-rank", WORKER_INDEX]
    if mode is Balancing.HYBRID:
        arguments += ["--nnodes", str(plan.pods_per_group), "--node-rank", WORKER_INDEX]
        arguments += ["--master-addr", LEADER_ADDRESS]
    if plan.expert_parallel:
        arguments.append("--enable-expert-parallel")
    return arguments


def _flags(values: Mapping[str, str]) -> list[str]:
    """`--name=value`, sorted; a bare flag for an empty value.

    One token each: a value that begins with a dash would be taken for the next flag.
    """
    return [f"--{name}={value}" if value else f"--{name}" for name, value in sorted(values.items())]
