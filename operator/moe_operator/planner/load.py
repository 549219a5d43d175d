"""What one layout holds and moves in a step, for the roofline."""

from moe_operator.catalog.fabrics import Backend, Sends
from moe_operator.catalog.models.architecture import Architecture, Component
from moe_operator.catalog.models.catalog import Checkpoint, Model
from moe_operator.catalog.profile import AcceleratorProfile
from moe_operator.planner.arithmetic import token_seconds
from moe_operator.planner.kv_cache import KvCacheLayout
from moe_operator.planner.kv_layers import PageKind
from moe_operator.planner.link import Link
from moe_operator.planner.roofline import Load, Speeds
from moe_operator.planner.shape import GroupShape
from moe_operator.planner.wants import Wants
from moe_operator.planner.weights import GpuWeights, StoredWeights


def load_of(
    model: Model,
    checkpoint: Checkpoint,
    profile: AcceleratorProfile,
    shape: GroupShape,
    stored: StoredWeights,
    weights: GpuWeights,
    layout: KvCacheLayout,
    wants: Wants,
    link: Link,
    backend: Backend | None,
) -> Load:
    """The load of one layout with requests of the usual length."""
    architecture = model.architecture
    each = speeds(profile, architecture, checkpoint)
    # Of the input embedding a step reads single rows, unless it is the output head too.
    lookup = 0 if architecture.tied_embeddings else 2 * architecture.vocabulary * architecture.hidden
    vision = sum(size for (part, _), size in stored.by_split.items() if part is Component.VISION)
    average = wants.input_tokens + wants.output_tokens // 2
    return Load(
        speeds=each,
        tensor=shape.tensor,
        data=shape.data,
        expert_parallel=architecture.is_moe and shape.width > 1,
        exchange_bandwidth=each.link if link.bandwidth is None else link.bandwidth,
        exchange_latency=link.latency,
        routed_bytes=weights.routed_experts,
        other_bytes=max(0, weights.other - (lookup + vision) // shape.tensor),
        context=average,
        kv_bytes_per_sequence=_read_per_step(layout, average),
        sparse_dispatch=backend is not None and backend.sends is Sends.CHOSEN,
        drafted=wants.features.drafted(architecture) if wants.features.own_drafts else 0,
    )


def _read_per_step(layout: KvCacheLayout, tokens: int) -> int:
    """Bytes of the KV cache that one GPU reads to give a sequence of so many tokens the next one; a recurrent state
    is read and written. Less than the sequence holds: of a window only what is attended to."""
    total = 0
    for group in layout.groups:
        if group.kind is PageKind.STATE:
            total += 2 * group.bytes
        else:
            seen = min(tokens, group.window) if group.window else tokens
            total += -(-seen // group.block_size) * group.bytes
    return total


def speeds(profile: AcceleratorProfile, architecture: Architecture, checkpoint: Checkpoint) -> Speeds:
    """What one GPU of this kind does with these weights; a laptop's worth for `cpu`, which is for trying out."""
    if profile.memory_bandwidth is None or profile.tflops is None:
        flops = 0.2e12
        return Speeds(20e9, 2.0 * architecture.active_parameters / flops, flops, 10e9)
    return Speeds(
        memory=profile.memory_bandwidth * 1e9,
        token=token_seconds(architecture, checkpoint, profile.tflops),
        attention=profile.tflops.bf16 * 1e12,
        link=(profile.interconnect_bandwidth or 50) * 1e9,
    )
