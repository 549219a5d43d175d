"""Floating-point operations of a token, and how fast they are made.

Weights cost two per weight that a token passes, at the speed of the format that each is stored in: a 4-bit checkpoint
that leaves attention in 16 bits spends most of its time there. Attention itself costs what grows with the context:
each query meets every key and value that it attends to, with two operations per element of either. Latent attention
(MLA) decodes on the compressed vectors, the same for all of its heads, which is why it is bound by arithmetic where
grouped-query attention is bound by memory; prompts are read with the vectors expanded, which is cheaper there.
"""

from functools import lru_cache

from moe_operator.catalog.models.architecture import (
    Architecture,
    AttentionCache,
    Component,
    LatentCache,
    Section,
    Split,
)
from moe_operator.catalog.models.catalog import Checkpoint
from moe_operator.catalog.models.scheme import Precision
from moe_operator.catalog.profile import Tflops
from moe_operator.planner.identity import ByIdentity

#: Shares of the data sheet's dense FLOPS that whole models reach in prefill, by the format of the weights; narrower
#: formats spend more on quantising activations and on scales. Set so that DeepSeek R1 comes out as published for H100
#: and GB200 in FP8, and for GB200 in NVFP4 with 16-bit attention.
EFFICIENCY_16_BIT = 0.4
EFFICIENCY_8_BIT = 0.28
EFFICIENCY_4_BIT = 0.25

#: Tokens that sparse attention (DSA) attends to: `index_topk` of DeepSeek V3.2 and GLM-5. Its indexer, in 8 bits, is
#: left out.
SPARSE_TOKENS = 2048


def token_seconds(architecture: Architecture, checkpoint: Checkpoint, tflops: Tflops) -> float:
    """Seconds of one GPU for the weights that one token passes."""
    return sum(
        2.0 * count / (reached(tflops, precision) * 1e12)
        for precision, count in _active(ByIdentity(architecture), ByIdentity(checkpoint))
    )


def reached(tflops: Tflops, precision: Precision | None) -> float:
    """TFLOPS that products with weights of this precision reach; None: 16 bits.

    Formats that the hardware lacks, and integers, are widened to 16 bits as they are used. MXFP4 is multiplied with
    8-bit activations (DeepSeek V4, gpt-oss). Of FP4 no more than twice FP8 counts: the B300's extra half shows in no
    published serving figure.
    """
    wide = tflops.bf16 * EFFICIENCY_16_BIT
    if precision is Precision.FP8 or (precision is Precision.MXFP4 and tflops.fp4):
        return tflops.fp8 * EFFICIENCY_8_BIT if tflops.fp8 else wide
    if precision is Precision.NVFP4 and tflops.fp4:
        return min(tflops.fp4, 2 * (tflops.fp8 or tflops.fp4)) * EFFICIENCY_4_BIT
    return wide


@lru_cache(maxsize=512)
def _active(
    architecture: ByIdentity[Architecture], checkpoint: ByIdentity[Checkpoint]
) -> tuple[tuple[Precision | None, float], ...]:
    """(format, weights that one token passes) of the main section. The input embedding is looked up, not multiplied,
    unless it is the output head too."""
    model = architecture.value
    experts = model.experts
    found: dict[Precision | None, float] = {}
    for tensor in model.of(Section.MAIN):
        if tensor.component is Component.EMBEDDINGS and not tensor.linear and not model.tied_embeddings:
            continue
        share = experts.active / experts.count if experts and tensor.split is Split.EXPERTS else 1.0
        for scheme, layers in checkpoint.value.schemes(tensor):
            count = tensor.rows * tensor.cols * tensor.experts * layers * share
            found[scheme.precision] = found.get(scheme.precision, 0.0) + count
    return tuple(found.items())


def decode_flops(architecture: Architecture, context: int) -> float:
    """Of one output token behind `context` others."""
    total = 0.0
    for cache in architecture.caches:
        if getattr(cache, "section", Section.MAIN) is not Section.MAIN:
            continue
        if isinstance(cache, LatentCache):
            size = 2 * cache.latent_size + cache.rope_size
            total += cache.layers * size * _seen(cache, context)
        elif isinstance(cache, AttentionCache):
            total += cache.layers * (cache.head_size + cache.value_head_size) * _kept(cache, context)
    return 2.0 * architecture.heads * total


def prompt_flops(architecture: Architecture, prompt: int) -> float:
    """Of one prompt token, on average over a prompt of this length: half of it lies before."""
    before = max(1, prompt // 2)
    expanded = _expanded_size(architecture)
    total = 0.0
    for cache in architecture.caches:
        if getattr(cache, "section", Section.MAIN) is not Section.MAIN:
            continue
        if isinstance(cache, LatentCache):
            size = expanded or 2 * cache.latent_size + cache.rope_size
            total += cache.layers * (size + (cache.rope_size if expanded else 0)) * _seen(cache, before)
        elif isinstance(cache, AttentionCache):
            total += cache.layers * (cache.head_size + cache.value_head_size) * _kept(cache, before)
    return 2.0 * architecture.heads * total


def _seen(cache: LatentCache, tokens: int) -> int:
    """Vectors that a query meets."""
    kept = max(1, tokens // cache.compression)
    return min(kept, SPARSE_TOKENS) if cache.indexer_size else kept


def _kept(cache: AttentionCache, tokens: int) -> int:
    return min(tokens, cache.window or cache.chunk or tokens)


def _expanded_size(architecture: Architecture) -> int:
    """Elements of one head's key, position aside, and value, that MLA expands latents to; 0 where it does not."""
    rows = next((t.rows for t in architecture.tensors if t.name.endswith(".kv_b_proj")), 0)
    return rows // architecture.heads
