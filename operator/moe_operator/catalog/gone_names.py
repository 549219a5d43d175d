"""Environment variables that older guides set and vLLM 0.32 no longer reads: they change nothing, without a word."""

#: Name -> what to set instead. vLLM prints a warning at most; `--fail-on-environ-validation` would end it.
GONE: dict[str, str] = {
    "VLLM_ALL2ALL_BACKEND": "--all2all-backend, which the fabric chooses",
    "VLLM_USE_FLASHINFER_MOE_FP4": "--moe-backend",
    "VLLM_USE_FLASHINFER_MOE_FP8": "--moe-backend",
    "VLLM_USE_FLASHINFER_MOE_FP16": "--moe-backend",
    "VLLM_FLASHINFER_MOE_BACKEND": "--moe-backend",
    "VLLM_MOE_DP_CHUNK_SIZE": "--max-num-batched-tokens",
    "VLLM_FUSED_MOE_CHUNK_SIZE": "--max-num-batched-tokens",
    "VLLM_ENABLE_MOE_DP_CHUNK": "--max-num-batched-tokens",
    "VLLM_DEEPEP_LOW_LATENCY_ALLOW_NVLINK": "nothing: it is always allowed",
    "VLLM_USE_V1": "nothing: there is no other engine",
}


def gone(name: str) -> str | None:
    """Why this variable must not be set, or None."""
    instead = GONE.get(name)
    return None if instead is None else f"vLLM 0.32 no longer reads {name}: use {instead}"
