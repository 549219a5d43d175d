"""Which precisions of the KV cache vLLM 0.32 has kernels for, by the model's attention and the GPUs.

Sources: what each attention backend declares (`supported_kv_cache_dtypes`, `supports_combination`), and the order in
which platforms try them. Grouped-query attention in FP4 is FlashInfer's alone (its kernels for data centre Blackwell;
elsewhere the older ones, which misread heads of 64 and know no sinks), sparse latent attention in FP4 FlashMLA's, on
data centre Blackwell only.
"""

from moe_operator.catalog.models.architecture import Architecture, AttentionCache, LatentCache
from moe_operator.catalog.profile import AcceleratorProfile
from moe_operator.planner.kv_backend import Platform, compute_capability, platform_of

#: As `model.kvCachePrecision` says them.
PRECISIONS = ("auto", "fp8", "nvfp4")

PACKED_NVFP4 = "nvfp4_ds_mla"
_BLACKWELL = 10
#: Head sizes of FlashInfer.
_FLASHINFER_HEADS = (64, 128, 256, 512)
#: Classes in vLLM whose attention has sinks.
_SINKS = ("GptOssForCausalLM",)


def cache_flag(architecture: Architecture, precision: str) -> str:
    """`--kv-cache-dtype` for a precision as the spec says it."""
    latent = any(isinstance(cache, LatentCache) for cache in architecture.caches)
    return PACKED_NVFP4 if precision == "nvfp4" and latent else precision


def precision_of(flag: str) -> str:
    """What a spec would say for this `--kv-cache-dtype`."""
    return "nvfp4" if flag == PACKED_NVFP4 else flag


def no_such_cache(
    architecture: Architecture, profile: AcceleratorProfile, precision: str, dtype: str = "bfloat16"
) -> str | None:
    """Why vLLM has no KV cache of this precision for this model here, or None. `dtype`: what the model computes in."""
    latent = [cache for cache in architecture.caches if isinstance(cache, LatentCache)]
    platform, major = platform_of(profile), compute_capability(profile)
    if precision == "auto":
        return None
    if precision == "fp8":
        if platform is Platform.CPU and latent and not any(cache.compression > 1 for cache in latent):
            return "on CPUs vLLM keeps the cache of latent attention in the model's precision only"
        return None
    if precision != "nvfp4":
        return None
    if platform is not Platform.CUDA:
        return f"vLLM has an NVFP4 cache on NVIDIA's GPUs only, not on {profile.name}"
    if latent:
        return _no_latent(latent, profile, major)
    heads = {
        size
        for cache in architecture.caches
        if isinstance(cache, AttentionCache)
        for size in (cache.head_size, cache.value_head_size)
    }
    if unknown := sorted(heads - set(_FLASHINFER_HEADS)):
        sizes = ", ".join(map(str, unknown))
        return f"FlashInfer, which alone has an NVFP4 cache, has no kernels for heads of {sizes}"
    if dtype == "float32":
        return "FlashInfer, which alone has an NVFP4 cache, computes in 16 bits"
    if major != _BLACKWELL:
        if 64 in heads:
            return f"on {profile.name} vLLM's kernels for an NVFP4 cache misread heads of 64 (Blackwell's do not)"
        if architecture.name in _SINKS:
            return f"on {profile.name} vLLM's kernels for an NVFP4 cache know no attention sinks (Blackwell's do)"
    return None


def _no_latent(latent: list[LatentCache], profile: AcceleratorProfile, major: int) -> str | None:
    if any(cache.compression > 1 for cache in latent):
        return "vLLM packs the cache of compressed attention in FP8 only"
    if not all(cache.indexer_size for cache in latent):
        return "vLLM has no NVFP4 cache for latent attention (MLA) unless it is sparse (DSA)"
    if major != _BLACKWELL:
        return (
            f"sparse latent attention has an NVFP4 cache on data centre Blackwell only, not on {profile.name}"
        )
    return None


def precisions_on(architecture: Architecture, profile: AcceleratorProfile) -> tuple[str, ...]:
    """All that there are for this model on these GPUs."""
    return tuple(name for name in PRECISIONS if no_such_cache(architecture, profile, name) is None)
