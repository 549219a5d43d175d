"""The attention backend that vLLM 0.32 picks by default, as far as it decides the layout of the KV cache.

Sources: `_get_backend_priorities` and `get_attn_backend_cls` of vLLM's platforms; the block sizes and cache
precisions that each backend declares; `models/config.py` for GLM-5's default.
"""

from dataclasses import dataclass
from enum import StrEnum

from moe_operator.catalog.models.architecture import Architecture, LatentCache
from moe_operator.catalog.profile import AcceleratorProfile

_QUANTISED = ("fp8", "fp8_e4m3")


class Platform(StrEnum):
    """vLLM's platforms."""

    CUDA = "cuda"
    ROCM = "rocm"
    CPU = "cpu"


def platform_of(profile: AcceleratorProfile) -> Platform:
    """What vLLM calls this kind of machine."""
    if profile.resource_name is None:
        return Platform.CPU
    return Platform.ROCM if profile.resource_name.startswith("amd.com/") else Platform.CUDA


def compute_capability(profile: AcceleratorProfile) -> int:
    """NVIDIA's compute capability before the dot; 0 for others (`gfx942`)."""
    digits = (profile.compute_capability or "").partition(".")[0]
    return int(digits) if digits.isdigit() else 0


@dataclass(frozen=True, slots=True)
class AttentionBackend:
    """What the layout needs to know of a backend."""

    block_size: int
    """Tokens per block where `--block-size` is not set."""
    cache_dtype: str
    """How values are stored, for `KvSettings.cache_dtype`."""


def attention_backend(
    architecture: Architecture, platform: Platform, cache_dtype: str, *, compute_capability: int = 0
) -> AttentionBackend:
    """The default backend for `--kv-cache-dtype CACHE_DTYPE`.

    `compute_capability` is NVIDIA's major number (9 Hopper, 10 Blackwell data centre, 12 Blackwell desktop).
    ROCm's and desktop cards' rows are read from the source only; CPU means one without AMX.
    """
    latent = [cache for cache in architecture.caches if isinstance(cache, LatentCache)]
    if not latent:
        return AttentionBackend(128 if platform is Platform.CPU else 16, cache_dtype)
    sparse = any(cache.indexer_size for cache in latent)
    if any(cache.compression > 1 for cache in latent):
        # FlashMLA's kernels, on every platform but with FlashInfer asked for by name.
        return AttentionBackend(256, "fp8_ds_mla" if cache_dtype in ("auto", *_QUANTISED) else cache_dtype)
    if platform is not Platform.CUDA:
        return AttentionBackend(16, cache_dtype)
    if not sparse:
        return AttentionBackend(_latent_block(compute_capability, cache_dtype), cache_dtype)
    if architecture.name == "GlmMoeDsaForCausalLM" and cache_dtype == "auto" and compute_capability == 10:
        cache_dtype = "fp8_e4m3"
    # FlashMLA (Hopper) and FlashInfer's kernel for desktop Blackwell store FP8 packed with its scales; the
    # latter stores `auto` so too.
    packed = cache_dtype in _QUANTISED and compute_capability in (9, 12)
    if packed or (cache_dtype == "auto" and compute_capability == 12):
        cache_dtype = "fp8_ds_mla"
    # The indexer's kernels read pages of 64 tokens.
    return AttentionBackend(64, cache_dtype)


def _latent_block(compute_capability: int, cache_dtype: str) -> int:
    if compute_capability == 10:
        return 32  # FlashInfer
    if compute_capability == 9 and cache_dtype in _QUANTISED:
        return 64  # FlashMLA: FlashAttention, which comes first, has no FP8 cache
    return 16  # FlashAttention, Triton
