"""The KV cache as vLLM 0.32 lays it out. A wrong prediction promises context that the engine then refuses at its
start, or leaves GPUs half empty."""

import json
from pathlib import Path
from typing import Any

import pytest

from moe_operator.catalog.models.architecture import (
    Architecture,
    AttentionCache,
    Cache,
    LatentCache,
    Section,
    StateCache,
)
from moe_operator.catalog.models.read import known_architectures, read_architecture
from moe_operator.planner.kv_backend import Platform, attention_backend
from moe_operator.planner.kv_cache import KvCacheLayout, KvSettings, kv_cache_layout
from verify.kv_cases import CASES, CONFIGS

GOLDEN = Path(__file__).parent / "golden" / "kv_cache_vllm_0_32.json"
ROWS: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text())["cases"]

HOPPER, BLACKWELL = 9, 10


def _attention(layers: int, kv_heads: int, head_size: int, **fields: Any) -> AttentionCache:
    return AttentionCache(layers, kv_heads, head_size, head_size, **fields)


def _state(layers: int, value_heads: int, *, float32_state: bool) -> StateCache:
    return StateCache(layers, 16, 128, value_heads, 128, 4, float32_state)


def _latent(**fields: Any) -> tuple[LatentCache, ...]:
    return LatentCache(4, 512, 64, **fields), LatentCache(
        1, 512, 64, **{**fields, **({"indexer_layers": 1} if fields else {})}, section=Section.MTP
    )


def _compressed(layers: int, ratios: dict[int, int]) -> tuple[Cache, ...]:
    latent = (
        LatentCache(count, 448, 64, 128 if ratio == 4 else 0, count if ratio == 4 else 0, compression=ratio)
        for ratio, count in ratios.items()
    )
    window = AttentionCache(layers, 1, 512, 0, window=128)
    return (window, *latent, AttentionCache(1, 1, 512, 0, window=128, section=Section.MTP))


# What the measured models keep, written down by hand, so that these tests stand without the readers of configs.
CACHES: dict[str, tuple[Cache, ...]] = {
    "qwen3-30b": (_attention(4, 4, 128),),
    "qwen3-next-80b": (
        _attention(12, 2, 256),
        _state(36, 32, float32_state=False),
        _attention(1, 2, 256, section=Section.MTP),
    ),
    "qwen3.5-397b": (
        _attention(15, 2, 256),
        _state(45, 64, float32_state=True),
        _attention(1, 2, 256, section=Section.MTP),
    ),
    "qwen3.5-27b": (
        _attention(2, 4, 256),
        _state(6, 48, float32_state=True),
        _attention(1, 4, 256, section=Section.MTP),
    ),
    "deepseek-v3": _latent(),
    "deepseek-v3.2": _latent(indexer_size=128, indexer_layers=4),
    "glm-5.2": (
        LatentCache(8, 512, 64, 128, 4),
        LatentCache(1, 512, 64, 128, 1, section=Section.MTP),
    ),
    "gpt-oss-uneven": (_attention(4, 8, 64, window=128), _attention(3, 8, 64)),
    "mixtral-windows": (_attention(4, 8, 128, window=4096),),
    "gpt-oss-120b": (_attention(3, 8, 64, window=128), _attention(3, 8, 64)),
    "mixtral-8x22b": (_attention(4, 8, 128),),
    "llama-3.1-8b": (_attention(4, 8, 128),),
    "glm-4.5": (_attention(4, 8, 128), _attention(1, 8, 128, section=Section.MTP)),
    "minimax-m2": (_attention(4, 8, 128),),
    "command-r-35b": (_attention(4, 8, 128),),
    "deepseek-v4-flash": _compressed(43, {4: 21, 128: 20}),
    "deepseek-v4-pro": _compressed(61, {4: 30, 128: 31}),
    "llama-4-scout": (_attention(6, 8, 128, chunk=8192), _attention(2, 8, 128)),
}


def _architecture(*caches: Cache, name: str = "Any", mtp_layers: int = 1) -> Architecture:
    return Architecture(
        name=name,
        family="Any",
        layers=4,
        hidden=256,
        heads=64,
        kv_heads=8,
        vocabulary=512,
        experts=None,
        tensors=(),
        caches=caches,
        context_length=131072,
        dtype="bfloat16",
        mtp_layers=mtp_layers,
    )


def _settings(**fields: Any) -> KvSettings:
    return KvSettings(
        **{
            "tensor": 1,
            "cache_dtype": "auto",
            "model_dtype": "bfloat16",
            "block_size": 16,
            "prefix_caching": True,
            "speculative_tokens": 0,
            "max_batched_tokens": 2048,
            **fields,
        }
    )


def _predicted(architecture: Architecture, row: dict[str, Any]) -> KvCacheLayout:
    measured = row["settings"]
    backend = attention_backend(
        architecture, Platform.CUDA, measured["cache_dtype"], compute_capability=HOPPER
    )
    settings = _settings(
        tensor=measured["tensor"],
        cache_dtype=backend.cache_dtype,
        model_dtype=row.get("modelDtype", "bfloat16"),
        block_size=measured["block_size"],
        prefix_caching=measured["prefix_caching"],
        speculative_tokens=measured["speculative_tokens"],
        max_batched_tokens=measured["max_batched_tokens"],
        concurrent_batches=row["concurrentBatches"],
    )
    return kv_cache_layout(architecture, settings, with_mtp=measured["speculative_tokens"] > 0)


def _assert_equal(layout: KvCacheLayout, row: dict[str, Any]) -> None:
    settings = row["settings"]
    memory, context = settings["kv_bytes"], settings["context_length"]
    assert layout.blocks(memory) == row["numBlocks"]
    assert layout.concurrency(memory, context) == row["concurrency"]
    assert layout.capacity_tokens(memory, context) == row["capacityTokens"]
    if row["way"] == "model code":
        assert layout.bytes_per_block == row["bytesPerBlock"]
        assert layout.block_size == row["blockSize"]
        assert sorted([group.layers, group.block_size] for group in layout.groups) == row["groups"]
        assert layout.largest_context(row["scarceBytes"], context) == row["scarceContext"]


@pytest.mark.parametrize("name", ROWS)
def test_predicts_what_the_engine_measured(name: str) -> None:
    """A block more or less than vLLM's is a promise that it does not keep."""
    row = ROWS[name]
    _assert_equal(_predicted(_architecture(*CACHES[row["settings"]["model"]]), row), row)


@pytest.mark.parametrize("model", CONFIGS)
def test_config_read_from_the_hub_leads_to_the_measured_cache(model: str) -> None:
    """A reader that miscounts layers or heads sizes every group of that family wrongly."""
    config = CONFIGS[model]
    if config["architectures"][0] not in known_architectures():
        pytest.skip(f"{config['architectures'][0]} has no reader")
    architecture = read_architecture(config)
    for row in ROWS.values():
        if row["settings"]["model"] == model:
            _assert_equal(_predicted(architecture, row), row)


def test_every_case_is_recorded() -> None:
    """A case that was added but never measured guards nothing."""
    assert set(ROWS) == {case.name for case in CASES}


def test_heads_that_gpus_cannot_share_are_refused() -> None:
    """vLLM would crash at its start; the number of heads says what to change."""
    with pytest.raises(ValueError, match="8 key/value heads cannot be divided over 3 GPUs"):
        kv_cache_layout(_architecture(_attention(4, 8, 128)), _settings(tensor=3), with_mtp=False)


def test_unknown_cache_precision_is_refused() -> None:
    """A guess would promise twice the context, or half of it."""
    with pytest.raises(ValueError, match="'fp6' cannot be sized"):
        kv_cache_layout(_architecture(_attention(4, 8, 128)), _settings(cache_dtype="fp6"), with_mtp=False)


@pytest.mark.parametrize(
    ("caches", "fields", "message"),
    [
        (_compressed(43, {4: 21, 128: 20}), {"block_size": 256}, "sized for fp8_ds_mla only, not auto"),
        (
            _compressed(43, {4: 21, 128: 20}),
            {"block_size": 64, "cache_dtype": "fp8_ds_mla"},
            "these are 512 and 64",
        ),
        (_latent(), {"cache_dtype": "fp8_ds_mla"}, "a format of sparse MLA"),
        (
            (_attention(2, 8, 256), _state(6, 48, float32_state=True)),
            {"tensor": 64},
            "cannot be divided over 64",
        ),
        ((_attention(2, 4, 64, window=128), _attention(2, 8, 64)), {}, "one kind with a window"),
    ],
)
def test_layouts_that_were_never_compared_are_refused(
    caches: tuple[Cache, ...], fields: dict[str, Any], message: str
) -> None:
    """A number that nobody has compared with vLLM's looks as sure as the others."""
    with pytest.raises(ValueError, match=message):
        kv_cache_layout(_architecture(*caches), _settings(**fields), with_mtp=False)


def test_too_little_memory_holds_no_context() -> None:
    """Memory for less than one block must not be rounded up to a context."""
    layout = kv_cache_layout(_architecture(_attention(4, 8, 128)), _settings(), with_mtp=False)
    assert layout.largest_context(layout.bytes_per_block, 4096) == 0
    assert layout.largest_context(-5, 4096) == 0


def test_published_figure_of_qwen3_next_is_met() -> None:
    """The blocks of 544 tokens that vLLM logs for this model at full size."""
    caches = (_attention(12, 2, 256), StateCache(36, 16, 128, 32, 128, 4, False))
    layout = kv_cache_layout(_architecture(*caches), _settings(), with_mtp=False)
    assert (layout.block_size, layout.bytes_per_block, len(layout.groups)) == (544, 13369344, 4)
    assert layout.request_blocks(544 * 10) == 10 + 3 * 2


@pytest.mark.parametrize(
    ("capability", "cache_dtype", "block_size", "stored"),
    [
        (HOPPER, "auto", 64, "auto"),
        (HOPPER, "fp8", 64, "fp8_ds_mla"),
        (BLACKWELL, "auto", 64, "fp8_e4m3"),
        (BLACKWELL, "fp8", 64, "fp8"),
    ],
)
def test_glm_5_is_stored_as_its_gpus_kernels_want(
    capability: int, cache_dtype: str, block_size: int, stored: str
) -> None:
    """The same flag takes 656 bytes a token on Hopper and 576 on Blackwell: a plan must not mix them up."""
    architecture = _architecture(*_latent(indexer_size=128, indexer_layers=4), name="GlmMoeDsaForCausalLM")
    found = attention_backend(architecture, Platform.CUDA, cache_dtype, compute_capability=capability)
    assert (found.block_size, found.cache_dtype) == (block_size, stored)


@pytest.mark.parametrize(
    ("platform", "capability", "cache_dtype", "block_size"),
    [
        (Platform.CUDA, HOPPER, "auto", 16),
        (Platform.CUDA, HOPPER, "fp8", 64),
        (Platform.CUDA, BLACKWELL, "auto", 32),
        (Platform.CPU, 0, "auto", 16),
    ],
)
def test_latent_attention_has_the_blocks_of_its_kernel(
    platform: Platform, capability: int, cache_dtype: str, block_size: int
) -> None:
    """Prefix caching works in whole blocks, and capacity is counted in them."""
    found = attention_backend(_architecture(*_latent()), platform, cache_dtype, compute_capability=capability)
    assert (found.block_size, found.cache_dtype) == (block_size, cache_dtype)
