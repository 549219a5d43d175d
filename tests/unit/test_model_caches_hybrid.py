"""What requests keep in memory in the families with hybrid and with latent attention."""

import pytest

from moe_operator.catalog.models.architecture import (
    Architecture,
    AttentionCache,
    LatentCache,
    Section,
    StateCache,
)
from moe_operator.catalog.models.catalog import load_models

BIG = "Qwen/Qwen3.5-397B-A17B"
NEXT = "Qwen/Qwen3-Next-80B-A3B-Instruct"
KIMI = "moonshotai/Kimi-K2-Instruct"


def built(name: str) -> Architecture:
    found = load_models().find(name)
    assert found is not None
    return found.architecture


def cached_elements(found: Architecture) -> float:
    """Per token of the main part, indexers and windows aside."""
    total = 0.0
    for cache in found.caches:
        if isinstance(cache, StateCache) or cache.section is not Section.MAIN:
            continue
        if isinstance(cache, AttentionCache) and cache.window is None:
            total += cache.layers * cache.kv_heads * (cache.head_size + cache.value_head_size)
        elif isinstance(cache, LatentCache):
            total += cache.layers * (cache.latent_size + cache.rope_size) / cache.compression
    return total


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        (BIG, 15_360),
        ("Qwen/Qwen3.5-122B-A10B", 12_288),
        ("Qwen/Qwen3.5-35B-A3B", 10_240),
        ("Qwen/Qwen3.5-27B", 32_768),
        ("Qwen/Qwen3.5-4B", 16_384),
        ("Qwen/Qwen3.5-0.8B", 6_144),
        (NEXT, 12_288),
        ("deepseek-ai/DeepSeek-R1", 35_136),
        (KIMI, 35_136),
        ("zai-org/GLM-5", 44_928),
    ],
)
def test_a_token_keeps_so_many_elements(name: str, elements: int) -> None:
    """The number of requests that fit would be wrong in proportion."""
    assert cached_elements(built(name)) == elements


@pytest.mark.parametrize(
    ("name", "mebibytes"),
    [
        (BIG, 183.2),
        ("Qwen/Qwen3.5-122B-A10B", 146.5),
        ("Qwen/Qwen3.5-35B-A3B", 61.4),
        ("Qwen/Qwen3.5-27B", 146.8),
        ("Qwen/Qwen3.5-9B", 49.1),
        ("Qwen/Qwen3.5-2B", 18.6),
    ],
)
def test_a_request_keeps_a_state_whatever_its_length(name: str, mebibytes: float) -> None:
    """Short requests would be thought nearly free: on the 397B model each takes as much as 6,000 tokens."""
    (state,) = (cache for cache in built(name).caches if isinstance(cache, StateCache))
    assert state.float32_state
    assert state_mebibytes(state, 4) == mebibytes


def test_qwen3_next_keeps_its_state_in_bf16() -> None:
    """Its config names no `mamba_ssm_dtype`: half of the requests would be refused room."""
    (state,) = (cache for cache in built(NEXT).caches if isinstance(cache, StateCache))
    assert not state.float32_state
    assert (state_mebibytes(state, 2), state_mebibytes(state, 4)) == (37.7, 73.7)


def state_mebibytes(state: StateCache, recurrent_bytes: int) -> float:
    values = state.value_heads * state.value_head_size
    channels = 2 * state.key_heads * state.key_head_size + values
    layer = 2 * channels * (state.convolution - 1) + recurrent_bytes * values * state.key_head_size
    return round(state.layers * layer / 2**20, 1)


@pytest.mark.parametrize(
    ("name", "indexers"),
    [("deepseek-ai/DeepSeek-V3.2", 61), ("zai-org/GLM-5", 78), ("zai-org/GLM-5.2", 21)],
)
def test_indexer_keys_are_kept_where_a_layer_has_an_indexer(name: str, indexers: int) -> None:
    """GLM-5.2 would be charged for 57 caches that vLLM does not make."""
    main, prediction = built(name).caches
    assert isinstance(main, LatentCache)
    assert isinstance(prediction, LatentCache)
    assert (main.indexer_layers, main.indexer_size) == (indexers, 128)
    assert prediction.indexer_layers == 1


@pytest.mark.parametrize(
    ("name", "token_bytes"),
    [("deepseek-ai/DeepSeek-V4-Pro", 9848), ("deepseek-ai/DeepSeek-V4-Flash", 6880)],
)
def test_deepseek_v4_keeps_compressed_tokens(name: str, token_bytes: int) -> None:
    """vLLM's published figure, 9.62 GiB for 1,048,576 tokens of Pro, in BF16 with the indexer's keys."""
    indexers = sum(
        cache.indexer_layers * cache.indexer_size / cache.compression
        for cache in built(name).caches
        if isinstance(cache, LatentCache)
    )
    assert 2 * (cached_elements(built(name)) + indexers) == token_bytes
