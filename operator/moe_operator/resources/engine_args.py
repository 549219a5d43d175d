"""The arguments of `vllm serve` for one group, the same for all of its pods, each with the reason for it.

vLLM balances requests over ranks in modes that it partly infers from other flags, so the mode is named here
and its flags are rendered together (`_parallel_arguments`). What differs from pod to pod is the worker index,
which the kubelet puts in for `$(LWS_WORKER_INDEX)`: LeaderWorkerSet sets its variables before all others of a
container.
"""

from collections.abc import Iterator
from enum import StrEnum

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import AgentMode
from moe_operator.planner.plan import Plan, Sizing
from moe_operator.resources.adapters import adapter_arguments
from moe_operator.resources.agent_config import agent_arguments
from moe_operator.resources.argument import Argument
from moe_operator.resources.fabric import fabric_flags
from moe_operator.resources.feature_args import feature_arguments, with_keys
from moe_operator.resources.rendering import Rendering

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


def engine_arguments(rendering: Rendering) -> tuple[str, ...]:
    """What follows `vllm serve`."""
    return tuple(token for one in explained_arguments(rendering) for token in one.tokens())


def explained_arguments(rendering: Rendering) -> tuple[Argument, ...]:
    """What follows `vllm serve`: the model, what the operator derives, then flags by name, sorted.

    The accelerator's profile and the plan give flags by name too, and the user's take their place where both name
    one.
    """
    deployment, plan = rendering.deployment, rendering.plan
    engine = deployment.spec.engine
    return (
        *_model_arguments(rendering),
        # All pods of a test cluster may share a network namespace: bind the pod's own address only.
        Argument("host", "$(POD_IP)", "the pod's own address"),
        Argument("port", str(names.HTTP_PORT), "where the Service and the operator ask"),
        *_size_arguments(deployment, plan.sizing),
        *_parallel_arguments(plan),
        Argument(
            "shutdown-timeout",
            str(SHUTDOWN_TIMEOUT),
            "requests in flight have so many seconds when the pod is told to stop; without it they are aborted",
        ),
        *adapter_arguments(deployment.spec.model.adapters, rendering.weights.kept),
        *_agent_arguments(engine.agent),
        *_named_arguments(rendering),
    )


def _model_arguments(rendering: Rendering) -> Iterator[Argument]:
    model, sizing = rendering.deployment.spec.model, rendering.plan.sizing
    weights = rendering.weights
    if weights.kept is not None:
        yield Argument("", weights.argument, f"{weights.source.url}, kept in {weights.kept.place}")
    elif model.source is None and sizing is not None and sizing.repository is not None:
        yield Argument("", sizing.repository, f"the {sizing.precision} checkpoint of {model.name}")
    else:
        yield Argument("", weights.argument, "where model.source, else model.name, says the weights are")
    if model.revision and weights.kept is None and weights.source.remote:
        yield Argument("revision", model.revision, "as model.revision says")
    yield Argument("served-model-name", model.served_name or model.name, "what clients put into `model`")


#: `--dtype` for a model that was not sized.
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def _size_arguments(deployment: ModelDeployment, sizing: Sizing | None) -> Iterator[Argument]:
    """Precision and context."""
    model = deployment.spec.model
    if sizing is None:
        if model.precision in _DTYPES:
            yield Argument("dtype", _DTYPES[model.precision], "as model.precision says")
        if model.context_length:
            yield Argument("max-model-len", str(model.context_length), "as model.contextLength says")
        if model.kv_cache_precision:
            yield Argument("kv-cache-dtype", model.kv_cache_precision, "as model.kvCachePrecision says")
        return
    if sizing.dtype is not None:
        yield Argument(
            "dtype", sizing.dtype, f"model.precision {sizing.precision} is not what the checkpoint is in"
        )
    if model.context_length:
        why = "as model.contextLength says"
    elif sizing.context_length < sizing.native_context:
        why = f"the longest of the model's {sizing.native_context} tokens that fits beside the weights"
    else:
        why = "the model's own longest request, which fits"
    yield Argument("max-model-len", str(sizing.context_length), why)
    if sizing.kv_cache_dtype != "auto":
        asked = model.kv_cache_precision is not None
        why = "as model.kvCachePrecision says" if asked else "what the checkpoint was calibrated for"
        yield Argument("kv-cache-dtype", sizing.kv_cache_dtype, why)


def _parallel_arguments(plan: Plan) -> Iterator[Argument]:
    """The flags of the layout.

    HYBRID needs each pod's first rank, worker index x ranks per pod, and Kubernetes cannot multiply. vLLM
    can: from --nnodes and --node-rank it derives the first rank, and with --data-parallel-hybrid-lb each node
    keeps its own API servers. Its ranks then meet at --master-addr and a fixed port (29501), where those of
    EXTERNAL let the kernel choose one.

    EXTERNAL is written as hybrid with one local rank, which vLLM turns into external balancing: unlike
    --data-parallel-rank this is allowed for models without experts too.
    """
    yield Argument("tensor-parallel-size", str(plan.tensor), "GPUs of one rank")
    mode = balancing(plan)
    if mode is not Balancing.SINGLE:
        yield Argument("data-parallel-size", str(plan.data), "ranks of the group: width / GPUs of a rank")
    if mode in (Balancing.EXTERNAL, Balancing.HYBRID):
        yield Argument("data-parallel-size-local", str(plan.ranks_per_pod), "ranks in each pod")
        yield Argument(
            "data-parallel-hybrid-lb", None, "each pod answers for its own ranks; the Service picks the pod"
        )
        yield Argument("data-parallel-address", LEADER_ADDRESS, "ranks meet at the group's leader")
        yield Argument("data-parallel-rpc-port", str(names.RPC_PORT), "the same port on all pods")
    if mode is Balancing.EXTERNAL:
        yield Argument(
            "data-parallel-start-rank", WORKER_INDEX, "one rank in each pod: its index is the rank"
        )
    if mode is Balancing.HYBRID:
        yield Argument("nnodes", str(plan.pods_per_group), "pods of the group")
        yield Argument("node-rank", WORKER_INDEX, "which of them this is; vLLM derives its first rank")
        yield Argument("master-addr", LEADER_ADDRESS, "ranks on different nodes meet at the group's leader")
    if plan.expert_parallel:
        yield Argument(
            "enable-expert-parallel",
            None,
            "each GPU holds whole experts, spread over the group, not slices of all",
        )


def _agent_arguments(mode: AgentMode) -> Iterator[Argument]:
    agent = mode is AgentMode.ENABLED
    quiet = _QUIET_PATHS if agent else (*_QUIET_PATHS, "/v1/models")
    yield Argument(
        "disable-access-log-for-endpoints", ",".join(quiet), "asked all the time by probes and scrapes"
    )
    if agent:
        yield from (Argument(flag, value, "the operator's agent") for flag, value in agent_arguments())


def _named_arguments(rendering: Rendering) -> Iterator[Argument]:
    """Flags that a user may override by name."""
    profile, plan = rendering.profile, rendering.plan
    users = rendering.deployment.spec.engine.args
    flags = {one.flag: one for one in (*_plan_arguments(plan.sizing), *feature_arguments(plan, users))}
    flags |= {name: Argument(name, value, why, joined=True) for name, value, why in fabric_flags(rendering)}
    load_format = rendering.weights.load_format
    if load_format is not None:
        flags["load-format"] = Argument("load-format", load_format, "as weights.loader says", joined=True)
    for name, value in profile.args:
        flags[name] = Argument(name, value or None, f"what {profile.name} needs", joined=True)
    for name, value in users.items():
        plain = name.replace("_", "-")
        # vLLM takes `--no-x` for a switch: it takes the place of the switch itself.
        flags.pop(plain, None)
        flags.pop(plain.removeprefix("no-"), None)
        flags[name] = Argument(name, value or None, f"as engine.args.{name} says", joined=True)
    flags = with_keys(flags)
    yield from (flags[name] for name in sorted(flags))


def _plan_arguments(sizing: Sizing | None) -> Iterator[Argument]:
    if sizing is None:
        return

    def flag(name: str, value: object, reason: str) -> Argument:
        return Argument(name, None if value is None else str(value), reason, joined=True)

    if sizing.utilization:
        gib = sizing.headroom_bytes / 2**30
        yield flag(
            "gpu-memory-utilization",
            f"{sizing.utilization / 100:.2f}",
            f"leaves {gib:.1f} GiB of each GPU to the driver, to buffers made later and to fragmentation",
        )
    yield flag(
        "max-num-seqs",
        sizing.max_sequences,
        f"a rank's KV cache holds {sizing.concurrency} requests of the usual length",
    )
    yield flag(
        "max-num-batched-tokens", sizing.max_batched_tokens, "tokens of one step; activations grow with it"
    )
    if sizing.hf_overrides:
        yield flag(
            "hf-overrides",
            sizing.hf_overrides,
            f"positions are stretched beyond the model's own {sizing.native_context}",
        )
    if sizing.tool_call_parser:
        yield flag("enable-auto-tool-choice", None, "the model calls tools")
        yield flag("tool-call-parser", sizing.tool_call_parser, "how this model writes tool calls")
    if sizing.reasoning_parser:
        yield flag("reasoning-parser", sizing.reasoning_parser, "how this model marks its reasoning")
    if sizing.multimodal:
        yield flag(
            "limit-mm-per-prompt",
            sizing.multimodal,
            "bounds the encoder's memory, which is profiled at start",
        )
