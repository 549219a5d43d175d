"""The planner's answer: how one group is laid out and sized, or why it cannot be."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Sizing:
    """What each GPU of a group holds and what the engine is told. Flat, as it is stored in revisions."""

    model: str
    """Name in the catalogue, or of the config.json."""
    precision: str
    repository: str | None
    """Repository of the chosen checkpoint; None where the weights are the user's own."""
    dtype: str | None
    """`--dtype` where the precision asks for another than the checkpoint's."""
    kv_cache_dtype: str
    context_length: int
    native_context: int
    """The model's own: beyond it positions are stretched."""
    max_sequences: int
    """Requests that a rank runs at a time."""
    max_batched_tokens: int
    utilization: int
    """Percent of a GPU's memory that the engine takes; 0 on `cpu`."""
    redundant_experts: int
    balanced: bool
    """Whether EPLB moves experts."""
    capacity_bytes: int
    """Of one GPU. The five below add up to it."""
    weight_bytes: int
    activation_bytes: int
    buffer_bytes: int
    headroom_bytes: int
    kv_cache_bytes: int
    kv_block_tokens: int
    """Tokens per block of the KV cache after vLLM's alignment."""
    kv_block_bytes: int
    """On one GPU."""
    kv_cache_tokens: int
    """Of the whole group, in requests of the usual length."""
    concurrency: int
    """Requests of the usual length that a rank's KV cache holds."""
    sequences_per_rank: int
    """Running when the objective is just met, estimated."""
    output_tokens_per_second: int
    """Of the group, estimated."""
    prompt_tokens_per_second: int
    time_to_first_token_ms: int
    time_per_output_token_ms: int
    meets_objective: bool
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    multimodal: str | None = None
    """`--limit-mm-per-prompt` as JSON; None for a model of text."""
    hf_overrides: str | None = None
    """`--hf-overrides` as JSON, where the context is longer than the model's own."""
    prefix_caching: bool | None = None
    """Whether requests share the cache of what they begin alike with; None in plans of earlier versions."""
    recurrent: bool = False
    """Whether requests keep a recurrent state too (linear attention)."""
    speculative_tokens: int = 0
    """Drafted for each request in each step."""
    speculation: str | None = None
    """Method of `--speculative-config`; None: no drafts, or as `engine.args` asks for them."""
    balancing_window: int = 1000
    balancing_interval: int = 3000
    """Steps that EPLB looks back, and between its moves."""
    adapter_bytes: int = 0
    """Room for LoRA adapters on one GPU; part of the weights."""
    adapter_slots: int = 0
    """Adapters in GPU memory at a time; 0: none are served."""
    adapter_rank: int = 0
    experts_apart: bool = False
    """Whether the checkpoint holds each routed expert as tensors of its own."""
    checkpoint_bytes: int = 0
    """Of all files of weights; 0 in plans of earlier versions."""
    idle_step_microseconds: int = 0
    """Of a step with next to nothing to do, estimated; 0 on `cpu`, and in plans of earlier versions."""
    prompt_time_permille: int = 0
    """Of the group's time where the objective is just met, what prompts take, estimated; 0 in plans of earlier
    versions."""


@dataclass(frozen=True)
class Transport:
    """How the ranks of a group reach each other. Chosen once, with the plan, so that a rollback finds it."""

    fabric: str
    """Name of a profile of the catalogue's fabrics."""
    all2all: str | None = None
    """`--all2all-backend`; None: vLLM's default."""
    rdma_resource: str | None = None
    """Extended resource by which a pod gets its network adapters."""
    rdma_count: int = 0
    """Of the resource, per pod."""
    domain: str | None = None
    """Label key: the nodes of a group carry one value of it. None: it does not matter where they stand."""
    domain_required: bool = False
    """Whether a group outside of one domain could not work; else it would be slower."""
    compute_domain: bool = False
    """Whether pods need an IMEX channel (NVIDIA's ComputeDomain) to reach each other's memory."""


@dataclass(frozen=True)
class Plan:
    """Layout of one group. width = data x tensor = pods_per_group x ranks_per_pod x tensor GPUs."""

    accelerator: str
    """Catalogue name."""
    width: int
    """GPUs in the group, its expert-parallel size."""
    pods_per_group: int
    ranks_per_pod: int
    tensor: int
    data: int
    expert_parallel: bool
    """False for a dense model, and for a group of one GPU, where it means nothing."""
    gpus_per_pod: int
    notes: tuple[str, ...] = ()
    """What the plan assumed, for the `Planned` message (for example that nodes could not be read)."""
    sizing: Sizing | None = None
    """None for a model that the catalogue does not know and that came without a config.json."""
    transport: Transport | None = None
    """None on `cpu`, and in plans of earlier versions."""
    claims: bool = False
    """Whether pods get their GPUs by ResourceClaims (dynamic resource allocation), not as an extended resource."""
    device_products: tuple[str, ...] = ()
    """Product names that the planned nodes' ResourceSlices say: claims ask for one of them, or for one that the
    catalogue knows the accelerator by."""


@dataclass(frozen=True)
class Lift:
    """A change of one field with which there is a plan."""

    field: str
    """Path in the spec."""
    value: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value}"


@dataclass(frozen=True)
class Refusal:
    """No layout: a constant of `api.reasons` and a message with numbers and a way out."""

    reason: str
    message: str
    retry: bool = False
    """True when the cluster may change so that it fits (no such nodes yet), False when only the spec can."""
    lifts: tuple[Lift, ...] = ()
    """Single changes that would make it fit, each tried."""


def plan_to_data(plan: Plan) -> dict[str, Any]:
    """As JSON stores it."""
    return {**asdict(plan), "notes": list(plan.notes), "device_products": list(plan.device_products)}


def plan_from_data(data: Mapping[str, Any]) -> Plan:
    """What `plan_to_data` wrote, in this or an earlier version; fields that are unknown here are left out.

    Raises:
        TypeError: if it is something else.
    """
    known = {f.name: data[f.name] for f in fields(Plan) if f.name in data}
    for name, kind in (("sizing", Sizing), ("transport", Transport)):
        part = known.get(name)
        if part is not None:
            known[name] = kind(**{f.name: part[f.name] for f in fields(kind) if f.name in part})
    lists = {name: tuple(data.get(name) or ()) for name in ("notes", "device_products")}
    return Plan(**{**known, **lists})
