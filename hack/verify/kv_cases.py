"""The layouts that are measured in vLLM: models under many settings. Standard library only."""

from dataclasses import dataclass, replace

from verify.kv_latent_models import LATENT
from verify.kv_models import HEADED, Config

CONFIGS: dict[str, Config] = {**HEADED, **LATENT}
"""`config.json` by model."""


@dataclass(frozen=True)
class Case:
    """One layout to measure. `engine` runs the real engine on the CPU; else vLLM's model code specifies the
    cache for a model without weights, with a GPU's block sizes and batches in flight."""

    model: str
    dtype: str = "auto"
    tensor: int = 1
    cache_dtype: str = "auto"
    block_size: int = 16
    prefix_caching: bool = True
    speculative_tokens: int = 0
    max_batched_tokens: int = 2048
    context_length: int = 32768
    kv_bytes: int = 8 * 2**30 + 777_777
    engine: bool = False

    @property
    def name(self) -> str:
        """Says what differs from the defaults; unique among the cases."""
        parts = [self.model]
        for key, default in _DEFAULTS.items():
            value = getattr(self, key)
            if value != default:
                parts.append(f"{key}={value}")
        return " ".join(parts)


_DEFAULTS = {
    name: spec.default
    for name, spec in Case.__dataclass_fields__.items()
    if name not in ("model", "kv_bytes")
}


def _cases() -> list[Case]:
    cases: list[Case] = []
    for model, config in CONFIGS.items():
        block = 256 if config["model_type"] == "deepseek_v4" else 16
        cases += [
            Case(model, block_size=block),
            Case(model, block_size=block, tensor=2),
            Case(model, block_size=block, tensor=8),
            Case(model, block_size=block, cache_dtype="fp8"),
        ]
    for model in ("qwen3-30b", "deepseek-v3"):
        cases += [Case(model, tensor=4), Case(model, block_size=64), Case(model, context_length=1000)]
    for model in ("qwen3-next-80b", "qwen3.5-397b", "qwen3.5-27b"):
        cases += [
            Case(model, prefix_caching=False),
            Case(model, speculative_tokens=1),
            Case(model, tensor=4, speculative_tokens=3, prefix_caching=False),
            Case(model, tensor=4, cache_dtype="fp8", speculative_tokens=2),
            Case(model, context_length=262144),
        ]
    for model in ("deepseek-v3", "deepseek-v3.2", "glm-5.2", "glm-4.5"):
        cases += [Case(model, speculative_tokens=1), Case(model, block_size=64, speculative_tokens=2)]
    cases += [
        Case("qwen3-30b", dtype="float32"),
        Case("qwen3-next-80b", dtype="float32"),
        Case("qwen3.5-27b", dtype="float16"),
        Case("deepseek-v3", block_size=32, tensor=4),
        Case("deepseek-v3.2", block_size=64, cache_dtype="fp8"),
        Case("deepseek-v4-flash", block_size=256, context_length=1048576, kv_bytes=80 * 2**30),
        Case(
            "deepseek-v4-pro",
            block_size=256,
            max_batched_tokens=8192,
            context_length=1048576,
            kv_bytes=80 * 2**30,
        ),
        Case("deepseek-v3.2", block_size=64, cache_dtype="nvfp4_ds_mla"),
        Case("deepseek-v3.2", block_size=64, cache_dtype="nvfp4_ds_mla", tensor=8, speculative_tokens=1),
        Case("glm-5.2", block_size=64, cache_dtype="nvfp4_ds_mla"),
        *(
            Case(model, cache_dtype="nvfp4", tensor=tensor)
            for model in (
                "qwen3-30b",
                "qwen3.5-397b",
                "qwen3-next-80b",
                "gpt-oss-120b",
                "glm-4.5",
                "minimax-m2",
            )
            for tensor in (1, 4)
        ),
        Case("qwen3.5-397b", cache_dtype="nvfp4", speculative_tokens=1, context_length=262144),
        Case("glm-4.5", cache_dtype="nvfp4", speculative_tokens=2),
        Case("llama-4-scout", cache_dtype="nvfp4"),
        Case("gpt-oss-120b", max_batched_tokens=8192, context_length=131072),
        Case("gpt-oss-120b", max_batched_tokens=8192, context_length=1000),
        Case("llama-4-scout", context_length=1048576, kv_bytes=80 * 2**30),
    ]
    return [case for case in cases if not _heads_undivided(case)] + _engine_cases()


def _heads_undivided(case: Case) -> bool:
    config = CONFIGS[case.model]
    return any(
        config.get(key, case.tensor) % case.tensor
        for key in ("num_attention_heads", "linear_num_value_heads")
    )


def _engine_cases() -> list[Case]:
    """With the CPU's blocks: 128 tokens, 16 for MLA."""
    small = Case("", engine=True, block_size=128, kv_bytes=2**28 + 12_345, context_length=4096)
    return [
        replace(small, model="qwen3-30b"),
        replace(small, model="qwen3.5-27b"),
        replace(small, model="qwen3.5-27b", prefix_caching=False, speculative_tokens=1),
        replace(small, model="deepseek-v3", block_size=16),
        replace(small, model="gpt-oss-120b"),
        replace(small, model="llama-4-scout"),
    ]


CASES = tuple(_cases())
