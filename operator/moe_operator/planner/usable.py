"""Shapes that vLLM cannot divide a model over: what it asserts when it builds the model, said before there is a pod."""

from functools import lru_cache

from moe_operator.catalog.models.architecture import Architecture, Component, LatentCache, Section, Split
from moe_operator.catalog.models.catalog import Checkpoint
from moe_operator.catalog.profile import AcceleratorProfile
from moe_operator.planner.identity import ByIdentity
from moe_operator.planner.kv_backend import Platform, platform_of
from moe_operator.planner.shape import GroupShape

#: Matrices whose inputs are divided over the GPUs of a rank (vLLM's `RowParallelLinear`).
INPUTS_DIVIDED = ("o_proj", "down_proj", "out_proj", "fc2", "linear_fc2", "wo_b")
#: Matrices whose outputs are divided, each for itself (`ColumnParallelLinear`). Those that vLLM merges (q, k and v;
#: gate and up) may have slices of any size: it then skips the check.
_OUTPUTS_DIVIDED = ("q_b_proj", "kv_b_proj", "fc1", "linear_fc1", "wq_b", "wo_a")


def no_engine(architecture: Architecture, profile: AcceleratorProfile) -> str | None:
    """Why vLLM cannot run this architecture on this kind of machine at all, or None."""
    latent = (cache for cache in architecture.caches if isinstance(cache, LatentCache))
    # DeepSeek V4's compressed caches have kernels of their own, for CPUs with AMX.
    sparse = any(cache.indexer_size and cache.compression == 1 for cache in latent)
    if sparse and platform_of(profile) is Platform.CPU:
        return f"vLLM has no sparse attention on CPUs, which {architecture.name} needs: choose a GPU"
    return None


def unusable(architecture: Architecture, checkpoint: Checkpoint, shape: GroupShape) -> str | None:
    """Why vLLM would refuse this model in this shape, or None."""
    tensor = shape.tensor
    if architecture.heads % tensor:
        return f"{architecture.heads} attention heads do not divide over {tensor} GPUs of a rank"
    if architecture.kv_heads % tensor and tensor % architecture.kv_heads:
        return f"{architecture.kv_heads} key/value heads and {tensor} GPUs of a rank do not divide each other"
    for what, number in architecture.tensor_divides:
        if number % tensor:
            return f"{number} {what} do not divide over {tensor} GPUs of a rank"
    experts = architecture.experts
    if experts is not None and shape.width > experts.count:
        return f"{experts.count} experts are fewer than the group's {shape.width} GPUs"
    if tensor > 1:
        whole_shared = experts is not None and shape.data > 1
        for name, component, size, block in _blocks(ByIdentity(architecture), ByIdentity(checkpoint)):
            if component is Component.SHARED_EXPERTS and whole_shared:
                continue
            if size % tensor or size // tensor % block:
                return (
                    f"the {size} features of {name} over {tensor} GPUs of a rank are {size / tensor:g} each, not a"
                    f" multiple of the {block} that share a scale in the {checkpoint.precision.value} checkpoint"
                )
    return None


@lru_cache(maxsize=1024)
def _blocks(
    architecture: ByIdentity[Architecture], checkpoint: ByIdentity[Checkpoint]
) -> tuple[tuple[str, Component, int, int], ...]:
    """(name, component, features that are divided, features that share a scale) of quantised matrices: a GPU's slice
    must be whole blocks (vLLM's `validate_fp8_block_shape`, and the group sizes of the 4-bit formats).

    Routed experts are never divided, as groups are expert-parallel.
    """
    found: dict[tuple[str, int, int], tuple[str, Component, int, int]] = {}
    for tensor in architecture.value.of(Section.MAIN, Section.VISION):
        if tensor.split is not Split.TENSOR or not tensor.linear:
            continue
        name = tensor.name.rpartition(".")[2]
        for scheme, _ in checkpoint.value.schemes(tensor):
            if scheme.precision is None:
                continue
            if name in INPUTS_DIVIDED and scheme.block_cols:
                entry = (name, tensor.component, tensor.cols, scheme.block_cols)
            elif name in _OUTPUTS_DIVIDED and scheme.block_rows > 1:
                entry = (name, tensor.component, tensor.rows, scheme.block_rows)
            else:
                continue
            found[(f"{tensor.component}{name}", entry[2], entry[3])] = entry
    return tuple(found.values())
