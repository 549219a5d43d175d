"""The estimate of speed: what it must know to choose between layouts. Where it is blind, the wrong one is run."""

from dataclasses import replace

import pytest

from moe_operator.catalog.models.architecture import Architecture
from moe_operator.catalog.models.catalog import load_models
from moe_operator.catalog.models.scheme import Precision
from moe_operator.catalog.profile import Tflops
from moe_operator.planner.arithmetic import decode_flops, prompt_flops, reached, token_seconds
from moe_operator.planner.roofline import Load, Serving, Speeds, Step, busiest, exchange_seconds, prefill_rate

B200 = Tflops(bf16=2250, fp8=4500, fp4=9000)
B300 = Tflops(bf16=2250, fp8=4500, fp4=14000)
H100 = Tflops(bf16=989, fp8=1979, fp4=None)


def _architecture(name: str) -> Architecture:
    found = load_models().find(name)
    assert found is not None
    return found.architecture


QWEN = _architecture("Qwen/Qwen3.5-397B-A17B")

LOAD = Load(
    speeds=Speeds(memory=8e12, token=2e-5, attention=2250e12, link=900e9),
    tensor=1,
    data=8,
    expert_parallel=True,
    exchange_bandwidth=900e9,
    exchange_latency=15e-6,
    routed_bytes=30 * 10**9,
    other_bytes=18 * 10**9,
    context=2304,
    kv_bytes_per_sequence=400 * 10**6,
)


def test_the_busiest_is_the_most_that_is_on_time() -> None:
    """Found by doubling alone it would be up to half of that, and larger GPUs could seem slower."""
    serving = Serving(QWEN, LOAD, 2048, 512)
    found, meets = busiest(serving, 1000, 2.0, 0.05)
    assert meets
    assert found.time_per_output_token <= 0.05 < serving.times(found.sequences_per_rank + 1)[1]


def test_room_bounds_the_requests() -> None:
    found, meets = busiest(Serving(QWEN, LOAD, 2048, 512), 7, 2.0, 0.05)
    assert (found.sequences_per_rank, meets) == (7, True)


@pytest.mark.parametrize(("first", "each"), [(1e-6, 0.05), (2.0, 1e-6)])
def test_late_from_the_first_request_on_is_late(first: float, each: float) -> None:
    found, meets = busiest(Serving(QWEN, LOAD, 2048, 512), 64, first, each)
    assert not meets
    assert found.sequences_per_rank >= 1


def test_the_network_is_slower_than_nvlink() -> None:
    outside = replace(LOAD, exchange_bandwidth=50e9, exchange_latency=60e-6)
    assert Step(QWEN, outside).seconds(64) > 1.3 * Step(QWEN, LOAD).seconds(64)


def test_all_to_all_is_part_of_a_step() -> None:
    """Notes of a plan say how much of a step it is: it must be what the step was made with."""
    slow = replace(LOAD, exchange_bandwidth=1.5e9)
    more = exchange_seconds(QWEN, slow, 64) - exchange_seconds(QWEN, LOAD, 64)
    assert Step(QWEN, slow).seconds(64) - Step(QWEN, LOAD).seconds(64) == pytest.approx(more)
    assert exchange_seconds(QWEN, replace(LOAD, tensor=8, data=1), 64) == 0


def test_tokens_for_all_cost_more_in_a_wide_group_than_tokens_for_some() -> None:
    """vLLM's default gathers every token on every GPU: 64 GPUs receive six times what 10 experts' GPUs would."""
    wide = replace(LOAD, data=64)
    assert Step(QWEN, wide).seconds(64) > Step(QWEN, replace(wide, sparse_dispatch=True)).seconds(64)


def test_few_requests_read_few_experts() -> None:
    """At one request of ten experts a step must not seem to read all 512."""
    one, many = Step(QWEN, replace(LOAD, data=1)).seconds(1), Step(QWEN, replace(LOAD, data=1)).seconds(256)
    read_all = LOAD.routed_bytes / LOAD.speeds.memory
    assert many - one > 0.9 * read_all


def test_four_bit_experts_do_not_make_16_bit_attention_faster() -> None:
    """397B in NVFP4 spends most of a prompt's time in what stayed in 16 bits: four times FP8's speed is a dream."""
    model = load_models().find("Qwen/Qwen3.5-397B-A17B")
    assert model is not None
    nvfp4, fp8 = model.checkpoint("nvfp4"), model.checkpoint("fp8")
    assert nvfp4 is not None
    assert fp8 is not None
    ratio = token_seconds(QWEN, fp8, B200) / token_seconds(QWEN, nvfp4, B200)
    assert 0.5 < ratio < 1.5


def test_formats_that_the_hardware_lacks_bring_no_speed() -> None:
    assert reached(H100, Precision.NVFP4) == reached(H100, Precision.BF16) == reached(H100, None)
    assert reached(B200, Precision.INT4) == reached(B200, None)
    assert reached(B300, Precision.NVFP4) == reached(B200, Precision.NVFP4)
    assert reached(B200, Precision.MXFP4) == reached(B200, Precision.FP8)


def test_long_prompts_take_more_than_their_share() -> None:
    """Attention grows with the square: 100,000 tokens of DeepSeek R1 are read at well under half the rate of 1,000."""
    deepseek = _architecture("deepseek-ai/DeepSeek-R1")
    assert prefill_rate(deepseek, LOAD, 100_000) < 0.5 * prefill_rate(deepseek, LOAD, 1000)


def test_sparse_attention_does_not_grow_for_ever() -> None:
    sparse, full = _architecture("deepseek-ai/DeepSeek-V3.2"), _architecture("deepseek-ai/DeepSeek-V3")
    assert decode_flops(sparse, 100_000) == decode_flops(sparse, 4096)
    assert decode_flops(full, 100_000) > 20 * decode_flops(full, 4096)


def test_latent_attention_decodes_on_its_compressed_vectors() -> None:
    """128 heads meet vectors of 512 + 64 elements, and 512 again: counted as 128 heads of 192 it would be a fifth."""
    deepseek = _architecture("deepseek-ai/DeepSeek-V3")
    assert decode_flops(deepseek, 1000) == 2 * 128 * 61 * (512 + 64 + 512) * 1000
    assert prompt_flops(deepseek, 2000) == 2 * 128 * 61 * (128 + 128 + 64) * 1000
