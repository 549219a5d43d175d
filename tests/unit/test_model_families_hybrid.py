"""Weights of the families with hybrid and with latent attention: what a plan would get wrong without them."""

from importlib import resources
from typing import Any

import pytest
import yaml

from moe_operator.catalog.models.architecture import Architecture, Component, Section, Split
from moe_operator.catalog.models.catalog import Model, load_models
from moe_operator.catalog.models.config_reader import ConfigError
from moe_operator.catalog.models.read import read_architecture
from moe_operator.catalog.models.storage import tensor_bytes

BIG = "Qwen/Qwen3.5-397B-A17B"
NEXT = "Qwen/Qwen3-Next-80B-A3B-Instruct"
KIMI = "moonshotai/Kimi-K2-Instruct"


def model(name: str) -> Model:
    found = load_models().find(name)
    assert found is not None
    return found


def built(name: str) -> Architecture:
    return model(name).architecture


def config_of(name: str) -> dict[str, Any]:
    """The config.json of an entry that has a whole one."""
    file = resources.files("moe_operator.catalog.models").joinpath(f"entries/{name.replace('/', '--')}.yaml")
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))["config"]
    return found


def billions(parameters: int) -> float:
    return round(parameters / 1e9, 2)


def section_parameters(found: Architecture, section: Section) -> int:
    return sum(tensor.parameters for tensor in found.of(section))


# --- Parameters ---------------------------------------------------------------------------------------

HUB_TOTALS = {
    BIG: 403_397_928_944,
    "Qwen/Qwen3.5-122B-A10B": 125_086_497_008,
    "Qwen/Qwen3.5-35B-A3B": 35_951_822_704,
    "Qwen/Qwen3.5-27B": 27_781_427_952,
    "Qwen/Qwen3.5-9B": 9_653_104_368,
    "Qwen/Qwen3.5-4B": 4_659_865_088,
    "Qwen/Qwen3.5-2B": 2_274_069_824,
    "Qwen/Qwen3.5-0.8B": 873_438_784,
    NEXT: 81_324_862_720,
    "deepseek-ai/DeepSeek-V3": 684_489_845_504,
    "deepseek-ai/DeepSeek-R1": 684_489_845_504,
    "deepseek-ai/DeepSeek-V3.2": 685_355_329_792,
    "zai-org/GLM-5": 753_864_139_008,
}


@pytest.mark.parametrize(("name", "total"), HUB_TOTALS.items())
def test_a_models_weights_are_those_that_the_hub_counts(name: str, total: int) -> None:
    """Otherwise a plan's bytes per GPU would be off by whatever tensor was missed."""
    assert built(name).total_parameters == total


def test_kimi_k2_differs_from_the_hub_by_one_row_of_scales_per_layer() -> None:
    """A known difference: another one would be a lost tensor."""
    hub_without_scales = 1_026_408_235_864
    blocks_of_a_row = 7168 // 128
    assert hub_without_scales - built(KIMI).total_parameters == 61 * blocks_of_a_row


@pytest.mark.parametrize(
    ("name", "published"),
    [("deepseek-ai/DeepSeek-V4-Pro", 1599), ("deepseek-ai/DeepSeek-V4-Flash", 290.9)],
)
def test_deepseek_v4_agrees_with_the_four_published_digits(name: str, published: float) -> None:
    """No exact total is known; a missed kind of tensor would still show."""
    assert built(name).total_parameters / 1e9 == pytest.approx(published, rel=3e-4)


@pytest.mark.parametrize(
    ("name", "routed", "others"),
    [
        (BIG, 386.55, 9.80),
        ("Qwen/Qwen3.5-122B-A10B", 115.96, 6.15),
        ("Qwen/Qwen3.5-35B-A3B", 32.21, 2.45),
        (NEXT, 77.31, 2.36),
        ("deepseek-ai/DeepSeek-V3", 653.91, 17.12),
        ("deepseek-ai/DeepSeek-V3.2", 653.91, 17.97),
        (KIMI, 1014.69, 11.72),
        ("zai-org/GLM-5", 724.78, 19.14),
    ],
)
def test_what_expert_parallelism_divides_and_what_each_rank_repeats(
    name: str, routed: float, others: float
) -> None:
    """A plan for a wider group would shrink the wrong part."""
    found = built(name)
    experts = found.parameters(Component.ROUTED_EXPERTS)
    assert billions(experts) == routed
    assert billions(section_parameters(found, Section.MAIN) - experts) == others


@pytest.mark.parametrize(
    ("name", "active"),
    [
        (BIG, 17.35),
        ("Qwen/Qwen3.5-35B-A3B", 3.45),
        ("deepseek-ai/DeepSeek-R1", 37.55),
        ("zai-org/GLM-5", 41.78),
    ],
)
def test_active_parameters_are_those_of_one_token(name: str, active: float) -> None:
    """Decode speed is estimated from them."""
    assert billions(built(name).active_parameters) == active


@pytest.mark.parametrize(
    ("name", "expert"),
    [
        (BIG, 12_582_912),
        ("Qwen/Qwen3.5-122B-A10B", 9_437_184),
        (NEXT, 3_145_728),
        (KIMI, 44_040_192),
        ("zai-org/GLM-5", 37_748_736),
    ],
)
def test_an_expert_has_its_published_size(name: str, expert: int) -> None:
    """Redundant experts cost this much each."""
    experts = built(name).experts
    assert experts is not None
    assert experts.parameters == expert


@pytest.mark.parametrize(
    ("name", "prediction", "vision"),
    [
        (BIG, 6.60, 0.46),
        (NEXT, 1.65, 0),
        ("deepseek-ai/DeepSeek-V3", 13.46, 0),
        (KIMI, 0, 0),
        ("zai-org/GLM-5", 9.95, 0),
    ],
)
def test_parts_that_need_not_be_loaded_are_apart(name: str, prediction: float, vision: float) -> None:
    """Text-only serving without speculation would be charged for them."""
    found = built(name)
    assert billions(section_parameters(found, Section.MTP)) == prediction
    assert billions(section_parameters(found, Section.VISION)) == vision


def test_a_text_only_config_has_the_same_decoder_and_no_encoder() -> None:
    """A text-only fine-tune would be refused, or charged for an encoder."""
    config = config_of(BIG)
    text = {**config["text_config"], "architectures": ["Qwen3_5MoeForCausalLM"]}
    found, whole = read_architecture(text), built(BIG)
    assert section_parameters(found, Section.MAIN) == section_parameters(whole, Section.MAIN)
    assert not list(found.of(Section.VISION))
    assert any(tensor.name == "model.layers.{layer}.self_attn.q_proj" for tensor in found.tensors)
    dense = {**config_of("Qwen/Qwen3.5-9B")["text_config"], "architectures": ["Qwen3_5ForCausalLM"]}
    assert not read_architecture(dense).is_moe


# --- Bytes per rank -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "ranks", "gigabytes"),
    [("nvfp4", 4, 73.96), ("nvfp4", 8, 46.78), ("fp8", 8, 60.32), ("bf16", 16, 67.92)],
)
def test_weights_of_one_rank_of_the_397b_model(precision: str, ranks: int, gigabytes: float) -> None:
    """Half a byte per weight would be promised where attention stays in BF16. Text only, whole experts."""
    found = model(BIG)
    checkpoint = found.checkpoint(precision)
    assert checkpoint is not None
    total = 0.0
    for tensor in found.architecture.of(Section.MAIN):
        size = tensor_bytes(tensor, checkpoint, found.architecture.dtype)
        total += size / (ranks if tensor.split is Split.EXPERTS else 1)
    assert total / 1e9 == pytest.approx(gigabytes, abs=0.01)


def test_linear_attention_limits_the_gpus_of_a_rank() -> None:
    """vLLM would refuse the layout at start."""
    divides = dict(built(BIG).tensor_divides)
    assert divides["linear attention key heads"] == 16
    assert divides["linear attention value heads"] == 64


# --- Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "where", "value", "message"),
    [
        (BIG, "text_config.hidden_size", None, "text_config.hidden_size: is missing"),
        (BIG, "text_config", None, "text_config: is missing; a multimodal config has it"),
        (BIG, "vision_config.depth", -1, "vision_config.depth: -1 is not between 1"),
        (
            BIG,
            "text_config.linear_num_key_heads",
            "x",
            "text_config.linear_num_key_heads: 'x' is not a whole",
        ),
        (BIG, "text_config.layer_types", ["full_attention"], "text_config.layer_types: has 1 entries for 60"),
        (BIG, "text_config.layer_types", ["mamba"] * 60, r"text_config.layer_types\[0\]: 'mamba' is neither"),
        (NEXT, "num_experts", 2.5, "num_experts: 2.5 is not a whole number"),
        (KIMI, "kv_lora_rank", None, "kv_lora_rank: is missing"),
        ("deepseek-ai/DeepSeek-V3.2", "index_head_dim", None, "index_head_dim: is missing"),
        ("zai-org/GLM-5", "indexer_types", ["full"] * 3, "indexer_types: has 3 entries for 78"),
        ("zai-org/GLM-5", "indexer_types", ["none"] * 78, r"indexer_types\[0\]: 'none' is neither"),
        ("deepseek-ai/DeepSeek-V4-Pro", "compress_ratios", None, "compress_ratios: is missing; a list"),
        (
            "deepseek-ai/DeepSeek-V4-Pro",
            "compress_ratios",
            [4] * 60,
            "compress_ratios: has 60 entries for 61",
        ),
        ("deepseek-ai/DeepSeek-V4-Pro", "compress_ratios", ["4"] * 61, r"compress_ratios\[0\]: '4' is not"),
        ("deepseek-ai/DeepSeek-V4-Pro", "o_groups", 3, "o_groups: 3 does not divide 128"),
    ],
)
def test_an_error_names_the_fields_path(name: str, where: str, value: object, message: str) -> None:
    """Someone with their own config.json would not find what to mend."""
    config = config_of(name)
    *parents, key = where.split(".")
    inner = config
    for parent in parents:
        inner = inner[parent]
    inner[key] = value
    with pytest.raises(ConfigError, match="^" + message):
        read_architecture(config)
