"""One model, checkpoint and shape on one kind of GPU: what each GPU holds, what fits beside, how fast it will be."""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from moe_operator.catalog.models.architecture import Architecture, Section
from moe_operator.catalog.models.catalog import Checkpoint, Model
from moe_operator.catalog.models.scheme import Precision
from moe_operator.catalog.profile import AcceleratorProfile, Tflops
from moe_operator.planner.balance import Placement, placement
from moe_operator.planner.kv_backend import Platform, attention_backend
from moe_operator.planner.kv_cache import KvCacheLayout, KvSettings, kv_cache_layout
from moe_operator.planner.memory import (
    EngineSizes,
    MemoryBudget,
    activation_bytes,
    buffer_bytes,
    host_budget,
    memory_budget,
    utilization_percent,
)
from moe_operator.planner.roofline import Load, Speeds, Throughput, throughput
from moe_operator.planner.shape import GroupShape
from moe_operator.planner.wants import Wants
from moe_operator.planner.weights import StoredWeights, gpu_weights, stored_weights

#: Requests that vLLM lets a rank run at a time at most (its own default on GPUs of 70 GiB and more).
MOST_SEQUENCES = 1024
#: Tokens of a step: vLLM's default on GPUs of 70 GiB and more, and what it falls to where activations would take
#: more than a twentieth of the GPU.
BATCHED_TOKENS = (8192, 4096, 2048)
_ACTIVATION_SHARE = 20
#: The same on `cpu`: vLLM's defaults for one rank there.
HOST_SEQUENCES, HOST_BATCHED_TOKENS = 128, 2048
#: Contexts chosen by the plan are multiples of this.
_CONTEXT_STEP = 1024


class Limit(StrEnum):
    """What a layout fails by."""

    WEIGHTS = "Weights"
    """Weights and what the engine needs besides leave nothing for a KV cache."""
    CONTEXT = "Context"
    """One request of the wanted length does not fit into the KV cache."""


@dataclass(frozen=True)
class Shortage:
    """Why a layout does not fit. Bytes are those of one GPU."""

    limit: Limit
    needs: int
    has: int
    shape: GroupShape
    checkpoint: Checkpoint
    largest_context: int = 0
    """CONTEXT: the longest request that fits, in tokens."""

    @property
    def missing(self) -> int:
        return self.needs - self.has


@dataclass(frozen=True)
class Sized:
    """A layout that fits."""

    model: Model
    checkpoint: Checkpoint
    shape: GroupShape
    placement: Placement
    sizes: EngineSizes
    context_length: int
    kv_cache_dtype: str
    """As `--kv-cache-dtype`."""
    memory: MemoryBudget
    kv_layout: KvCacheLayout
    concurrency: int
    """Requests of the usual length that the KV cache of a rank holds."""
    throughput: Throughput
    """At the most requests that meet the objective; at one per rank where none does."""
    meets: bool
    """Whether the estimate meets both latencies."""

    @property
    def sections(self) -> tuple[Section, ...]:
        return loaded_sections(self.model, self.checkpoint)

    def kv_tokens(self, request_tokens: int) -> int:
        """Tokens that the KV caches of the group hold in requests of that length."""
        return self.kv_layout.capacity_tokens(self.memory.kv_cache, request_tokens) * self.shape.data


def loaded_sections(model: Model, checkpoint: Checkpoint) -> tuple[Section, ...]:
    """What the engine loads: prediction layers only for speculative decoding, which the plan does not use."""
    found = [Section.MAIN]
    if model.multimodal and Section.VISION not in checkpoint.without:
        found.append(Section.VISION)
    return tuple(found)


def size(
    model: Model,
    checkpoint: Checkpoint,
    profile: AcceleratorProfile,
    capacity: int | None,
    gpus_per_node: int,
    shape: GroupShape,
    wants: Wants,
) -> Sized | Shortage:
    """Size one layout on GPUs of `capacity` bytes; None on `cpu`, where the KV cache has a size of its own.

    Raises:
        ValueError: heads or caches that vLLM cannot divide over the GPUs of a rank.
    """
    architecture = model.architecture
    expert_parallel = architecture.is_moe and shape.width > 1
    placed = placement(architecture, shape.width)
    stored = stored_weights(model, checkpoint, loaded_sections(model, checkpoint))
    weights = gpu_weights(
        stored,
        tensor=shape.tensor,
        data=shape.data,
        expert_parallel=expert_parallel,
        redundant=placed.redundant,
    )
    buffers = buffer_bytes(
        architecture,
        width=shape.width,
        gpus_per_node=gpus_per_node,
        deepep=False,
        held_expert_bytes=placed.per_gpu * stored.one_expert(),
        balanced=placed.balanced,
    )
    cache_dtype = _cache_dtype(checkpoint, wants)
    sequences = wants.max_sequences or MOST_SEQUENCES
    sizes = _sizes(architecture, shape, capacity, wants, sequences, expert_parallel)
    layout = _kv_layout(architecture, profile, shape, cache_dtype, sizes.max_batched_tokens)

    def budget(engine: EngineSizes) -> MemoryBudget:
        activations = activation_bytes(
            architecture, engine, tensor=shape.tensor, data=shape.data, expert_parallel=expert_parallel
        )
        if capacity is None:
            return host_budget(weights, wants.host_kv_cache, activations=activations, buffers=buffers)
        return memory_budget(capacity, weights, engine, activations=activations, buffers=buffers)

    memory = budget(sizes)
    context = _context(architecture, layout, memory, shape, checkpoint, wants)
    if isinstance(context, Shortage):
        return context
    usual = min(wants.request_tokens, context)
    concurrency = max(1, int(layout.concurrency(memory.kv_cache, usual)))
    if wants.max_sequences is None and concurrency < sizes.max_sequences:
        # Fewer rows of logits, so a little more cache; the number of requests stays.
        sizes = EngineSizes(sizes.max_batched_tokens, concurrency, sizes.utilization)
        memory = budget(sizes)
    load = _load(model, checkpoint, profile, shape, stored, weights.routed_experts, layout, wants)
    best, meets = _busiest(architecture, load, min(concurrency, sizes.max_sequences), wants)
    return Sized(
        model=model,
        checkpoint=checkpoint,
        shape=shape,
        placement=placed,
        sizes=sizes,
        context_length=context,
        kv_cache_dtype=cache_dtype,
        memory=memory,
        kv_layout=layout,
        concurrency=concurrency,
        throughput=best,
        meets=meets,
    )


def _cache_dtype(checkpoint: Checkpoint, wants: Wants) -> str:
    return wants.kv_cache_precision or checkpoint.kv_cache or "auto"


def _sizes(
    architecture: Architecture,
    shape: GroupShape,
    capacity: int | None,
    wants: Wants,
    sequences: int,
    expert_parallel: bool,
) -> EngineSizes:
    """Tokens of a step: what is asked for, else the most that keeps activations small."""
    choices = (wants.max_batched_tokens,) if wants.max_batched_tokens else BATCHED_TOKENS
    if capacity is None:
        tokens = wants.max_batched_tokens or HOST_BATCHED_TOKENS
        return EngineSizes(tokens, min(wants.max_sequences or HOST_SEQUENCES, tokens), 0)
    share = round(wants.utilization * 100) if wants.utilization else utilization_percent(capacity)
    for tokens in choices:
        sizes = EngineSizes(tokens, min(sequences, tokens), share)
        needed = activation_bytes(
            architecture, sizes, tensor=shape.tensor, data=shape.data, expert_parallel=expert_parallel
        )
        if needed * _ACTIVATION_SHARE <= capacity:
            break
    return sizes


@lru_cache(maxsize=1024)
def _cached_layout(architecture_key: "_Key", settings: KvSettings) -> KvCacheLayout:
    return kv_cache_layout(architecture_key.architecture, settings, with_mtp=False)


class _Key:
    """An architecture by identity: comparing all of its tensors would take longer than what is remembered."""

    __slots__ = ("architecture",)

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture

    def __hash__(self) -> int:
        return id(self.architecture)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.architecture is self.architecture


def _kv_layout(
    architecture: Architecture,
    profile: AcceleratorProfile,
    shape: GroupShape,
    cache_dtype: str,
    batched_tokens: int,
) -> KvCacheLayout:
    backend = attention_backend(
        architecture, platform(profile), cache_dtype, compute_capability=_major(profile)
    )
    settings = KvSettings(
        tensor=shape.tensor,
        cache_dtype=backend.cache_dtype,
        model_dtype=architecture.dtype,
        block_size=backend.block_size,
        prefix_caching=True,
        speculative_tokens=0,
        max_batched_tokens=batched_tokens,
    )
    return _cached_layout(_Key(architecture), settings)


def platform(profile: AcceleratorProfile) -> Platform:
    """What vLLM calls this kind of machine."""
    if profile.resource_name is None:
        return Platform.CPU
    return Platform.ROCM if profile.resource_name.startswith("amd.com/") else Platform.CUDA


def _major(profile: AcceleratorProfile) -> int:
    """NVIDIA's compute capability before the dot; 0 for others (`gfx942`)."""
    digits = (profile.compute_capability or "").partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def _context(
    architecture: Architecture,
    layout: KvCacheLayout,
    memory: MemoryBudget,
    shape: GroupShape,
    checkpoint: Checkpoint,
    wants: Wants,
) -> int | Shortage:
    """The longest request: as asked for, else the model's own or the most that fits."""
    wanted = wants.context_length or architecture.context_length
    least = wanted if wants.context_length else min(wants.request_tokens, wanted)
    needed = layout.request_bytes(least) + layout.bytes_per_block
    if memory.kv_cache < needed:
        limit = Limit.WEIGHTS if memory.kv_cache <= 0 else Limit.CONTEXT
        largest = layout.largest_context(memory.kv_cache, wanted) if limit is Limit.CONTEXT else 0
        has = memory.capacity - memory.headroom
        return Shortage(limit, has - memory.kv_cache + needed, has, shape, checkpoint, largest)
    if wants.context_length:
        return wanted
    fits = layout.largest_context(memory.kv_cache, wanted)
    return fits if fits == wanted else max(least, fits // _CONTEXT_STEP * _CONTEXT_STEP)


def _load(
    model: Model,
    checkpoint: Checkpoint,
    profile: AcceleratorProfile,
    shape: GroupShape,
    stored: StoredWeights,
    routed_bytes: int,
    layout: KvCacheLayout,
    wants: Wants,
) -> Load:
    architecture = model.architecture
    # Of the input embedding a step reads single rows, unless it is the output head too.
    lookup = 0 if architecture.tied_embeddings else 2 * architecture.vocabulary * architecture.hidden
    plain = gpu_weights(stored, tensor=shape.tensor, data=shape.data, expert_parallel=False)
    average = wants.input_tokens + wants.output_tokens // 2
    return Load(
        speeds=speeds(profile, checkpoint.precision),
        tensor=shape.tensor,
        data=shape.data,
        expert_parallel=architecture.is_moe and shape.width > 1,
        leaves_domain=shape.width > max(profile.nvlink_domain, 1),
        routed_bytes=routed_bytes,
        other_bytes=max(0, plain.other - lookup // shape.tensor),
        kv_bytes_per_sequence=layout.request_bytes(average),
    )


def speeds(profile: AcceleratorProfile, precision: Precision) -> Speeds:
    """What one GPU of this kind does with weights of this precision; a laptop's worth for `cpu`, which is for
    trying out."""
    if profile.memory_bandwidth is None or profile.tflops is None:
        return Speeds(memory=20e9, compute=0.2e12, link=10e9)
    return Speeds(
        memory=profile.memory_bandwidth * 1e9,
        compute=compute_rate(profile.tflops, precision) * 1e12,
        link=(profile.interconnect_bandwidth or 50) * 1e9,
    )


def compute_rate(tflops: Tflops, precision: Precision) -> int:
    """TFLOPS at which products with weights of this precision are made: 4-bit integers are widened to 16 bits, and
    formats that the hardware lacks to the next that it has."""
    if precision in (Precision.NVFP4, Precision.MXFP4):
        return tflops.fp4 or tflops.bf16
    return (tflops.fp8 or tflops.bf16) if precision is Precision.FP8 else tflops.bf16


def _busiest(architecture: Architecture, load: Load, most: int, wants: Wants) -> tuple[Throughput, bool]:
    """The most requests per rank that meet the objective's latencies, doubling up to `most`."""

    def at(sequences: int) -> Throughput:
        return throughput(architecture, load, sequences, wants.input_tokens, wants.output_tokens)

    best = at(1)
    meets = (
        best.time_to_first_token <= wants.time_to_first_token
        and best.time_per_output_token <= wants.time_per_output_token
    )
    sequences = 1
    while sequences < most:
        sequences = min(sequences * 2, most)
        found = at(sequences)
        if found.time_per_output_token > wants.time_per_output_token:
            break
        best = found
    return best, meets
