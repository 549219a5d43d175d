"""Bytes of weights on one GPU of a group.

vLLM 0.32 under expert parallelism: a GPU holds whole routed experts, `(E + R) / width` of them; everything else is
divided over the GPUs of its rank (or copied, where it cannot be divided) and is the same on every rank.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from moe_operator.catalog.models.architecture import Component, Section, Split
from moe_operator.catalog.models.catalog import Checkpoint, Model
from moe_operator.catalog.models.scheme import ELEMENT_BYTES
from moe_operator.catalog.models.storage import tensor_bytes


@dataclass(frozen=True)
class StoredWeights:
    """Bytes of a checkpoint's loaded sections, by how they are divided. The same for every layout."""

    by_split: Mapping[tuple[Component, Split], int]
    experts: int
    """Routed experts per layer; 0 for a dense model."""
    expert_layers: int
    kv_heads: int
    expert_formats: frozenset[str] = frozenset()
    """`Scheme.name` of the routed experts; more than one where a checkpoint mixes them."""
    absorbed: int = 0
    """What latent attention (MLA) adds as it loads, whole: vLLM makes 16-bit copies of a quantised `kv_b_proj`
    (`W_UK_T`, `W_UV`) beside the original, which prefill goes on using. An unquantised one is only viewed."""

    @property
    def total(self) -> int:
        """All of it, once."""
        return sum(self.by_split.values())

    @property
    def routed(self) -> int:
        """All routed experts, once."""
        return sum(size for (_, split), size in self.by_split.items() if split is Split.EXPERTS)

    def one_expert(self) -> int:
        """One routed expert in one layer, on average over the layers."""
        return math.ceil(self.routed / (self.experts * self.expert_layers)) if self.experts else 0


@lru_cache(maxsize=512)
def stored_weights(model: Model, checkpoint: Checkpoint, sections: tuple[Section, ...]) -> StoredWeights:
    """The weights of these sections as this checkpoint stores them."""
    architecture = model.architecture
    sizes: dict[tuple[Component, Split], int] = {}
    formats: set[str] = set()
    absorbed = 0
    dtype = checkpoint.dtype(architecture)
    for tensor in architecture.of(*sections):
        if tensor.section is Section.MTP and tensor.component is Component.EMBEDDINGS:
            # vLLM drops the prediction layers' own copies for the model's as soon as both are loaded.
            continue
        key = (tensor.component, tensor.split)
        sizes[key] = sizes.get(key, 0) + tensor_bytes(tensor, checkpoint, dtype)
        if tensor.split is Split.EXPERTS and tensor.linear:
            formats.update(scheme.name for scheme, _ in checkpoint.schemes(tensor))
        if tensor.name.endswith(".kv_b_proj"):
            narrow = sum(
                layers for scheme, layers in checkpoint.schemes(tensor) if scheme.precision is not None
            )
            absorbed += narrow * tensor.rows * tensor.cols * ELEMENT_BYTES[dtype]
    experts = architecture.experts
    layers = 0
    if experts is not None:
        layers = experts.layers + (architecture.mtp_layers if Section.MTP in sections else 0)
    return StoredWeights(
        sizes, experts.count if experts else 0, layers, architecture.kv_heads, frozenset(formats), absorbed
    )


@dataclass(frozen=True)
class GpuWeights:
    """Bytes on the fullest GPU of a group."""

    routed_experts: int
    redundant_experts: int
    """Copies of busy experts beyond one of each (EPLB)."""
    other: int
    """Attention with what it makes as it loads, shared experts, dense layers, router, embeddings, norms."""
    adapters: int = 0
    """Room for LoRA adapters, made before there are any."""

    @property
    def total(self) -> int:
        return self.routed_experts + self.redundant_experts + self.other + self.adapters


def gpu_weights(
    stored: StoredWeights,
    *,
    tensor: int,
    data: int,
    expert_parallel: bool,
    redundant: int = 0,
    adapters: int = 0,
) -> GpuWeights:
    """What one GPU holds when a rank has `tensor` GPUs and the group `data` ranks, with `adapters` bytes for LoRA.

    The fullest GPU counts: with `E mod width` left over, the first GPUs hold one expert more.
    """
    width = tensor * data
    routed = extra = 0
    if stored.experts:
        if expert_parallel:
            per_gpu = math.ceil(stored.experts / width)
            held = math.ceil((stored.experts + redundant) / width)
            routed = math.ceil(stored.routed * per_gpu / stored.experts)
            extra = math.ceil(stored.routed * (held - per_gpu) / stored.experts)
        else:
            routed = math.ceil(stored.routed / width)
    # With experts spread over several GPUs of several ranks, each GPU of a rank passes its own share of the
    # tokens through the experts (sequence parallelism), so shared experts are whole on each.
    whole_shared = expert_parallel and tensor > 1 and data > 1
    other = math.ceil(stored.absorbed / tensor)
    for (component, split), size in stored.by_split.items():
        if split is Split.EXPERTS:
            continue
        if split is Split.REPLICATED or (whole_shared and component is Component.SHARED_EXPERTS):
            other += size
        elif split is Split.KV_HEADS:
            other += math.ceil(size / min(tensor, stored.kv_heads))
        else:
            other += math.ceil(size / tensor)
    return GpuWeights(routed, extra, other, adapters)
