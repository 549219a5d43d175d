"""One model, checkpoint and shape on one kind of GPU: what each GPU holds, what fits beside, how fast it will be."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from moe_operator.catalog.fabrics import Backend
from moe_operator.catalog.models.architecture import Architecture, Section
from moe_operator.catalog.models.catalog import Checkpoint, Model
from moe_operator.catalog.profile import AcceleratorProfile
from moe_operator.planner.adapters import adapter_bytes, changes_experts
from moe_operator.planner.balance import Placement, can_balance, placement
from moe_operator.planner.exchange import exchange_bytes
from moe_operator.planner.features import NOTHING, Features
from moe_operator.planner.identity import ByIdentity
from moe_operator.planner.kv_backend import attention_backend, compute_capability, platform_of
from moe_operator.planner.kv_cache import KvCacheLayout, KvSettings, kv_cache_layout
from moe_operator.planner.kv_precision import cache_flag
from moe_operator.planner.link import Link, usual_link
from moe_operator.planner.load import load_of
from moe_operator.planner.memory import (
    EngineSizes,
    MemoryBudget,
    activation_bytes,
    buffer_bytes,
    host_budget,
    memory_budget,
    utilization_percent,
)
from moe_operator.planner.roofline import Load, Serving, Throughput, busiest
from moe_operator.planner.shape import GroupShape
from moe_operator.planner.wants import Wants
from moe_operator.planner.weights import gpu_weights, stored_weights

#: Requests that vLLM lets a rank run at a time at most (its own default on GPUs of 70 GiB and more).
MOST_SEQUENCES = 1024
#: Tokens of a step: vLLM's default on GPUs of 70 GiB and more, and what it falls to where activations would take
#: more than a twentieth of the GPU, or where the model would not fit otherwise.
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
    load: Load
    """What the estimate was made of."""
    backend: Backend | None = None
    """Of the all-to-all; None for a group that has none."""
    features: Features = NOTHING

    @property
    def sections(self) -> tuple[Section, ...]:
        return loaded_sections(self.model, self.checkpoint, self.features)

    def kv_tokens(self, request_tokens: int) -> int:
        """Tokens that the KV caches of the group hold in requests of that length."""
        return self.kv_layout.capacity_tokens(self.memory.kv_cache, request_tokens) * self.shape.data


def loaded_sections(
    model: Model, checkpoint: Checkpoint, features: Features = NOTHING
) -> tuple[Section, ...]:
    """What the engine loads: prediction layers only for speculative decoding with them."""
    found = [Section.MAIN]
    if features.own_drafts:
        found.append(Section.MTP)
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
    link: Link | None = None,
) -> Sized | Shortage:
    """Size one layout on GPUs of `capacity` bytes; None on `cpu`, where the KV cache has a size of its own.

    `link`: what the group's GPUs reach each other over; None: what is usual. Remembered: an operator plans the same
    few again and again.

    Raises:
        ValueError: heads or caches that vLLM cannot divide over the GPUs of a rank.
    """
    link = link or usual_link(profile, shape, gpus_per_node)
    return _size(
        ByIdentity(model), checkpoint, ByIdentity(profile), capacity, gpus_per_node, shape, wants, link
    )


def forget() -> None:
    """Drop the layouts that are remembered: for measuring."""
    _size.cache_clear()


@lru_cache(maxsize=8192)
def _size(
    model_key: ByIdentity[Model],
    checkpoint: Checkpoint,
    profile_key: ByIdentity[AcceleratorProfile],
    capacity: int | None,
    gpus_per_node: int,
    shape: GroupShape,
    wants: Wants,
    link: Link,
) -> Sized | Shortage:
    model, profile, features = model_key.value, profile_key.value, wants.features
    architecture = model.architecture
    expert_parallel = architecture.is_moe and shape.width > 1
    drafted = features.drafted(architecture)
    stored = stored_weights(model, checkpoint, loaded_sections(model, checkpoint, features))
    placed = placement(
        architecture,
        shape.width,
        # Experts that are moved would leave their adapters behind.
        movable=can_balance(architecture, stored.expert_formats, platform_of(profile))
        and not (features.adapters and changes_experts(ByIdentity(architecture), features.adapters)),
        asked=features.balancing,
    )
    adapters = 0
    if features.adapters is not None:
        adapters = adapter_bytes(ByIdentity(architecture), features.adapters, shape.tensor, placed.per_gpu)
    weights = gpu_weights(
        stored,
        tensor=shape.tensor,
        data=shape.data,
        expert_parallel=expert_parallel,
        redundant=placed.redundant,
        adapters=adapters,
    )
    precision = checkpoint.precision.value
    backend = None
    if expert_parallel and shape.data > 1:
        backend = link.backend(precision, balanced=placed.balanced)
    cache_dtype = cache_flag(architecture, wants.kv_cache_precision or checkpoint.kv_cache or "auto")

    def budget(engine: EngineSizes) -> MemoryBudget:
        activations = activation_bytes(
            architecture, engine, tensor=shape.tensor, data=shape.data, expert_parallel=expert_parallel
        )
        exchange = exchange_bytes(
            architecture,
            backend,
            width=shape.width,
            tokens=engine.max_batched_tokens,
            precision=precision,
            network=link.network,
        )
        buffers = buffer_bytes(
            architecture,
            width=shape.width,
            gpus_per_node=gpus_per_node,
            exchange=exchange,
            held_expert_bytes=placed.per_gpu * stored.one_expert(),
            balanced=placed.balanced,
            drafted=drafted,
            adapters=features.adapters is not None,
        )
        if capacity is None:
            return host_budget(weights, wants.host_kv_cache, activations=activations, buffers=buffers)
        return memory_budget(capacity, weights, engine, activations=activations, buffers=buffers)

    context: int | Shortage
    for sizes in _sizes(architecture, shape, capacity, wants, expert_parallel, drafted, backend):
        layout = _kv_layout(model, checkpoint, profile, shape, cache_dtype, sizes, features)
        memory = budget(sizes)
        context = _context(architecture, layout, memory, shape, checkpoint, wants)
        if not isinstance(context, Shortage):
            break
    if isinstance(context, Shortage):
        return context
    usual = min(wants.request_tokens, context)
    concurrency = max(1, int(layout.concurrency(memory.kv_cache, usual)))
    if wants.max_sequences is None and concurrency < sizes.max_sequences:
        # Fewer rows of logits, so a little more cache; the number of requests stays.
        sizes = EngineSizes(sizes.max_batched_tokens, concurrency, sizes.utilization, drafted)
        memory = budget(sizes)
        concurrency = max(1, int(layout.concurrency(memory.kv_cache, usual)))
    load = load_of(model, checkpoint, profile, shape, stored, weights, layout, wants, link, backend)
    serving = Serving(architecture, load, wants.input_tokens, wants.output_tokens)
    most = min(concurrency, sizes.max_sequences)
    if backend is not None and backend.tokens_per_step:
        # Prompts and answers share so small a step: of each request's tokens one is its answer's next.
        share = wants.output_tokens / (wants.input_tokens + wants.output_tokens)
        most = max(1, min(most, int(sizes.max_batched_tokens * share)))
    best, meets = busiest(
        serving,
        most,
        wants.time_to_first_token,
        wants.time_per_output_token,
    )
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
        load=load,
        backend=backend,
        features=features,
    )


def _sizes(
    architecture: Architecture,
    shape: GroupShape,
    capacity: int | None,
    wants: Wants,
    expert_parallel: bool,
    drafted: int,
    backend: Backend | None,
) -> Iterator[EngineSizes]:
    """What the engine may be told, the most tokens of a step first: what is asked for, else those that keep
    activations small. The last needs least memory. All requests fit into one step, with what is drafted for them."""
    if capacity is None:
        tokens = wants.max_batched_tokens or HOST_BATCHED_TOKENS
        most = max(1, tokens // (1 + drafted))
        yield EngineSizes(tokens, min(wants.max_sequences or HOST_SEQUENCES, most), 0, drafted)
        return
    bound = backend.tokens_per_step if backend is not None else None
    choices = (
        (wants.max_batched_tokens,) if wants.max_batched_tokens else (bound,) if bound else BATCHED_TOKENS
    )
    share = round(wants.utilization * 100) if wants.utilization else utilization_percent(capacity)
    for tokens in choices:
        most = max(1, tokens // (1 + drafted))
        sizes = EngineSizes(tokens, min(wants.max_sequences or MOST_SEQUENCES, most), share, drafted)
        needed = activation_bytes(
            architecture, sizes, tensor=shape.tensor, data=shape.data, expert_parallel=expert_parallel
        )
        if needed * _ACTIVATION_SHARE <= capacity or tokens == choices[-1]:
            yield sizes


@lru_cache(maxsize=1024)
def _cached_layout(
    architecture: ByIdentity[Architecture], settings: KvSettings, with_mtp: bool
) -> KvCacheLayout:
    return kv_cache_layout(architecture.value, settings, with_mtp=with_mtp)


def _kv_layout(
    model: Model,
    checkpoint: Checkpoint,
    profile: AcceleratorProfile,
    shape: GroupShape,
    cache_dtype: str,
    sizes: EngineSizes,
    features: Features,
) -> KvCacheLayout:
    architecture = model.architecture
    backend = attention_backend(
        architecture, platform_of(profile), cache_dtype, compute_capability=compute_capability(profile)
    )
    settings = KvSettings(
        tensor=shape.tensor,
        cache_dtype=backend.cache_dtype,
        model_dtype=checkpoint.dtype(architecture),
        block_size=backend.block_size,
        prefix_caching=features.shares_prefixes(architecture, on_cpu=profile.resource_name is None),
        speculative_tokens=sizes.drafted,
        max_batched_tokens=sizes.max_batched_tokens,
        # Asynchronous scheduling has a second batch in flight; vLLM's CPU platform has none.
        concurrent_batches=2 if features.async_scheduling and profile.resource_name else 1,
    )
    return _cached_layout(ByIdentity(architecture), settings, features.own_drafts)


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
