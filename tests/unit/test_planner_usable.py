"""What vLLM asserts as it builds a model, said before there is a pod. Unsaid, it is a crash loop on rented GPUs."""

import pytest

from moe_operator.catalog.models.catalog import Checkpoint, Model, load_models
from moe_operator.planner.balance import can_balance, placement
from moe_operator.planner.kv_backend import Platform
from moe_operator.planner.shape import GroupShape
from moe_operator.planner.sizing import loaded_sections
from moe_operator.planner.usable import unusable
from moe_operator.planner.weights import stored_weights


def _model(name: str, precision: str) -> tuple[Model, Checkpoint]:
    model = load_models().find(name)
    assert model is not None
    checkpoint = model.checkpoint(precision)
    assert checkpoint is not None, model.precisions()
    return model, checkpoint


def _why(name: str, precision: str, tensor: int, data: int = 1) -> str | None:
    model, checkpoint = _model(name, precision)
    return unusable(model.architecture, checkpoint, GroupShape(tensor, data, tensor * data))


def _can(name: str, precision: str, platform: Platform = Platform.CUDA) -> bool:
    model, checkpoint = _model(name, precision)
    stored = stored_weights(model, checkpoint, loaded_sections(model, checkpoint))
    return can_balance(model.architecture, stored.expert_formats, platform)


def test_a_slice_of_fp8_blocks_must_be_whole_blocks() -> None:
    """The shared expert of Qwen3.5-35B has 512 features: over 8 GPUs 64 each, half of a block that has one scale."""
    why = _why("Qwen/Qwen3.5-35B-A3B", "fp8", 8)
    assert why is not None
    assert "512 features of down_proj over 8 GPUs of a rank are 64 each" in why
    assert "128" in why
    assert "fp8" in why


@pytest.mark.parametrize(
    ("precision", "tensor", "data"),
    [("bf16", 8, 1), ("fp8", 4, 1), ("fp8", 1, 8), ("fp8", 8, 2)],
    ids=["not quantised", "whole blocks", "not divided", "shared experts are whole with several ranks"],
)
def test_other_shapes_of_the_same_model_are_taken(precision: str, tensor: int, data: int) -> None:
    assert _why("Qwen/Qwen3.5-35B-A3B", precision, tensor, data) is None


@pytest.mark.parametrize("name", ["Qwen/Qwen3.5-397B-A17B", "deepseek-ai/DeepSeek-V3", "zai-org/GLM-5"])
def test_large_models_divide_over_a_whole_node(name: str) -> None:
    """A check that is too strict would cost layouts that run every day."""
    assert _why(name, "fp8", 8) is None


def test_a_dense_feed_forward_network_in_blocks() -> None:
    """17,408 features of Qwen3.5-27B: 2,176 on each of 8, which is 17 blocks."""
    assert _why("Qwen/Qwen3.5-27B", "fp8", 8) is None


@pytest.mark.parametrize(
    ("name", "precision", "tensor", "said"),
    [
        ("deepseek-ai/DeepSeek-V3", "fp8", 3, "128 attention heads do not divide over 3"),
        ("zai-org/GLM-4.5", "fp8", 3, "8 key/value heads and 3 GPUs of a rank do not divide each other"),
        ("meta-llama/Llama-3.3-70B-Instruct", "bf16", 7, "64 attention heads"),
    ],
)
def test_heads_must_divide(name: str, precision: str, tensor: int, said: str) -> None:
    why = _why(name, precision, tensor)
    assert why is not None
    assert said in why


def test_more_gpus_than_experts_are_refused() -> None:
    why = _why("mistralai/Mixtral-8x7B-Instruct-v0.1", "bf16", 1, 16)
    assert why == "8 experts are fewer than the group's 16 GPUs"


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("deepseek-ai/DeepSeek-V3", "fp8"),
        ("deepseek-ai/DeepSeek-V3.2", "fp8"),
        ("zai-org/GLM-5", "fp8"),
        ("zai-org/GLM-4.5", "fp8"),
        ("Qwen/Qwen3.5-397B-A17B", "nvfp4"),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", "fp8"),
        ("Qwen/Qwen3-235B-A22B", "bf16"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "bf16"),
        ("meta-llama/Llama-4-Scout-17B-16E", "bf16"),
    ],
)
def test_experts_are_moved_where_the_engine_can(name: str, precision: str) -> None:
    assert _can(name, precision)


@pytest.mark.parametrize(
    ("name", "precision", "platform"),
    [
        ("openai/gpt-oss-120b", "mxfp4", Platform.CUDA),
        ("MiniMaxAI/MiniMax-M2", "fp8", Platform.CUDA),
        ("moonshotai/Kimi-K2-Thinking", "int4", Platform.CUDA),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "fp8", Platform.CUDA),
        ("deepseek-ai/DeepSeek-V4-Pro", "mxfp4", Platform.ROCM),
        ("Qwen/Qwen3-30B-A3B", "bf16", Platform.CPU),
    ],
    ids=["gpt-oss", "MiniMax", "integers", "ModelOpt's FP8 by matrix", "DeepSeek V4 on AMD", "cpu"],
)
def test_experts_stay_where_the_engine_would_refuse(name: str, precision: str, platform: Platform) -> None:
    """`EPLB is not supported` ends the engine as it loads."""
    assert not _can(name, precision, platform)


def test_without_moving_experts_there_are_no_copies() -> None:
    """128 over 12: uneven, which vLLM takes; copies without EPLB it refuses."""
    model, _ = _model("openai/gpt-oss-120b", "mxfp4")
    found = placement(model.architecture, 12, movable=False)
    assert (found.per_gpu, found.redundant, found.balanced, found.even) == (11, 0, False, False)


@pytest.mark.parametrize(
    ("width", "per_gpu", "redundant"), [(1, 256, 0), (8, 32, 0), (16, 17, 16), (32, 9, 32), (72, 4, 32)]
)
def test_copies_make_the_experts_of_deepseek_divide(width: int, per_gpu: int, redundant: int) -> None:
    """72 divides not 256 but 288; from 16 GPUs on a copy for each evens the load out."""
    model, _ = _model("deepseek-ai/DeepSeek-V3", "fp8")
    found = placement(model.architecture, width, movable=True)
    assert (found.per_gpu, found.redundant) == (per_gpu, redundant)
    assert (256 + found.redundant) % width == 0
