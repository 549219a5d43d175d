"""Families with grouped-query attention: their sizes against the hub's counts, and errors in their configs."""

from copy import deepcopy
from typing import Any

import pytest

from moe_operator.catalog.models.architecture import (
    Architecture,
    AttentionCache,
    Component,
    Section,
    Split,
)
from moe_operator.catalog.models.catalog import load_models
from moe_operator.catalog.models.config_reader import ConfigError
from moe_operator.catalog.models.read import known_architectures, read_architecture

_CATALOG = load_models()

#: What the Hugging Face hub counts for the unquantised repository (gpt-oss: unpacked), MTP and vision included.
_HUB_TOTALS = {
    "Qwen/Qwen3-235B-A22B": 235_093_634_560,
    "Qwen/Qwen3-235B-A22B-Instruct-2507": 235_093_634_560,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "openai/gpt-oss-120b": 116_829_156_672,
    "openai/gpt-oss-20b": 20_914_757_184,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "mistralai/Mixtral-8x22B-Instruct-v0.1": 140_630_071_296,
    "zai-org/GLM-4.5": 358_337_791_296,
    "zai-org/GLM-4.6": 356_785_898_816,
    "zai-org/GLM-4.7": 358_337_791_296,
    "MiniMaxAI/MiniMax-M2": 228_689_764_864,
    "MiniMaxAI/MiniMax-M2.7": 228_689_764_864,
    "meta-llama/Llama-4-Scout-17B-16E": 108_641_793_536,
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": 401_583_781_376,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-70B-Instruct": 70_553_706_496,
    "CohereLabs/c4ai-command-r-plus-08-2024": 103_810_674_688,
}


def _architecture(name: str) -> Architecture:
    model = _CATALOG.find(name)
    assert model is not None, name
    return model.architecture


@pytest.mark.parametrize(("name", "total"), _HUB_TOTALS.items())
def test_total_equals_the_hubs_count_so_that_no_plan_is_short_of_memory(name: str, total: int) -> None:
    model = _CATALOG.find(name)
    assert model is not None
    assert model.architecture.total_parameters == total
    assert model.hub_parameters == total


@pytest.mark.parametrize(
    ("name", "routed", "others", "one"),
    [
        ("Qwen/Qwen3-235B-A22B", 227.10, 8.00, 18_874_368),
        ("Qwen/Qwen3-30B-A3B", 28.99, 1.54, 4_718_592),
        ("openai/gpt-oss-120b", 114.66, 2.17, 24_883_200 + 8_640),
        ("openai/gpt-oss-20b", 19.11, 1.80, 24_883_200 + 8_640),
        ("mistralai/Mixtral-8x7B-v0.1", 45.10, 1.61, 176_160_768),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", 135.29, 5.34, 301_989_888),
        ("zai-org/GLM-4.5", 335.96, 16.83, 23_592_960),
        ("MiniMaxAI/MiniMax-M2", 224.68, 4.01, 14_155_776),
        ("meta-llama/Llama-4-Scout-17B-16E", 96.64, 11.13, 125_829_120),
        ("meta-llama/Llama-4-Maverick-17B-128E", 386.55, 14.16, 125_829_120),
    ],
)
def test_experts_and_the_rest_are_told_apart_so_that_more_gpus_divide_only_experts(
    name: str, routed: float, others: float, one: int
) -> None:
    """Billions of parameters of the main section. gpt-oss' published split counts experts without biases."""
    architecture = _architecture(name)
    matrices = sum(
        t.parameters for t in architecture.of(Section.MAIN) if t.split is Split.EXPERTS and t.linear
    )
    main = sum(t.parameters for t in architecture.of(Section.MAIN))
    assert round(matrices / 1e9, 2) == routed
    assert abs((main - matrices) / 1e9 - others) < 0.0051
    experts = architecture.experts
    assert experts is not None
    assert experts.parameters == one
    assert one * experts.count * experts.layers == architecture.parameters(Component.ROUTED_EXPERTS)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen/Qwen3-235B-A22B", 22.2),
        ("Qwen/Qwen3-30B-A3B", 3.35),
        ("openai/gpt-oss-120b", 5.71),
        ("openai/gpt-oss-20b", 4.19),
        ("mistralai/Mixtral-8x7B-v0.1", 12.88),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", 39.16),
        ("zai-org/GLM-4.7", 33.6),
        ("MiniMaxAI/MiniMax-M2.5", 11.0),
        ("meta-llama/Llama-4-Scout-17B-16E", 17.2),
        ("meta-llama/Llama-4-Maverick-17B-128E", 17.2),
        ("meta-llama/Llama-3.3-70B-Instruct", 70.55),
    ],
)
def test_active_parameters_are_those_marketed_so_that_throughput_is_not_misjudged(
    name: str, billions: float
) -> None:
    assert _architecture(name).active_parameters / 1e9 == pytest.approx(billions, rel=4e-3)


@pytest.mark.parametrize(
    ("name", "everything", "windowed", "chunked"),
    [
        ("Qwen/Qwen3-235B-A22B", 96_256, 0, 0),
        ("Qwen/Qwen3-30B-A3B", 49_152, 0, 0),
        ("openai/gpt-oss-120b", 18_432, 18_432, 0),
        ("openai/gpt-oss-20b", 12_288, 12_288, 0),
        ("mistralai/Mixtral-8x7B-v0.1", 65_536, 0, 0),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", 114_688, 0, 0),
        ("zai-org/GLM-4.5", 188_416, 0, 0),
        ("MiniMaxAI/MiniMax-M2", 126_976, 0, 0),
        ("meta-llama/Llama-4-Scout-17B-16E", 24_576, 0, 73_728),
        ("meta-llama/Meta-Llama-3-8B", 65_536, 0, 0),
        ("meta-llama/Llama-3.1-70B", 163_840, 0, 0),
        ("CohereLabs/c4ai-command-r-plus", 131_072, 0, 0),
    ],
)
def test_cache_elements_per_token_so_that_requests_promised_do_fit(
    name: str, everything: int, windowed: int, chunked: int
) -> None:
    found = {"everything": 0, "windowed": 0, "chunked": 0}
    for cache in _architecture(name).caches:
        assert isinstance(cache, AttentionCache)
        if cache.section is Section.MAIN:
            kind = "windowed" if cache.window else "chunked" if cache.chunk else "everything"
            found[kind] += cache.layers * cache.kv_heads * (cache.head_size + cache.value_head_size)
    assert found == {"everything": everything, "windowed": windowed, "chunked": chunked}


def test_a_sliding_window_and_chunks_keep_their_reach_so_that_caches_are_not_counted_unbounded() -> None:
    windows = {c.window for c in _architecture("openai/gpt-oss-20b").caches if isinstance(c, AttentionCache)}
    chunks = {
        c.chunk
        for c in _architecture("meta-llama/Llama-4-Scout-17B-16E").caches
        if isinstance(c, AttentionCache)
    }
    assert (windows, chunks) == ({None, 128}, {None, 8192})


def test_vision_of_llama_4_is_a_section_of_its_own_so_that_serving_text_saves_it() -> None:
    for name in ("meta-llama/Llama-4-Scout-17B-16E", "meta-llama/Llama-4-Maverick-17B-128E"):
        architecture = _architecture(name)
        assert architecture.parameters(Component.VISION, section=Section.VISION) == 871_932_416
        assert architecture.tensor_divides == (("vision attention heads", 16),)


def test_prediction_layer_of_glm_is_a_section_so_that_it_is_not_loaded_unless_wanted() -> None:
    """GLM-4.6 shares the embedding and the head with its prediction layer; GLM-4.5 and 4.7 have their own."""
    own, shares = _architecture("zai-org/GLM-4.5"), _architecture("zai-org/GLM-4.6")
    assert own.mtp_layers == shares.mtp_layers == 1
    assert own.parameters(*Component) == shares.parameters(*Component) == 352_797_829_024
    assert {t.layers for t in own.of(Section.MTP)} == {(92,)}
    assert own.total_parameters - shares.total_parameters == 2 * 151_552 * 5120


def test_context_is_native_so_that_longer_requests_are_not_promised_unasked() -> None:
    expected = {
        "Qwen/Qwen3-235B-A22B": (40_960, 131_072),
        "Qwen/Qwen3-235B-A22B-Thinking-2507": (262_144, None),
        "openai/gpt-oss-120b": (131_072, None),
        "MiniMaxAI/MiniMax-M2.7": (204_800, None),
        "meta-llama/Llama-3.1-8B-Instruct": (131_072, None),
        "CohereLabs/c4ai-command-r-plus": (131_072, None),
    }
    for name, (native, stretched) in expected.items():
        model = _CATALOG.find(name)
        assert model is not None
        assert (model.architecture.context_length, model.stretch and model.stretch.up_to) == (
            native,
            stretched,
        )


# --- Configs that a user supplies ---------------------------------------------------------------------

_SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 512,
    "max_position_embeddings": 1024,
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
}
_TEXT = _SMALL | {"intermediate_size_mlp": 128, "interleave_moe_layer_step": 2}
_CONFIGS: dict[str, dict[str, Any]] = {
    "MixtralForCausalLM": _SMALL,
    "GptOssForCausalLM": _SMALL,
    "MiniMaxM2ForCausalLM": _SMALL,
    "LlamaForCausalLM": _SMALL,
    "CohereForCausalLM": _SMALL,
    "Qwen3MoeForCausalLM": _SMALL | {"moe_intermediate_size": 32, "num_experts": 8},
    "Glm4MoeForCausalLM": _SMALL | {"moe_intermediate_size": 32, "n_routed_experts": 8},
    "Llama4ForConditionalGeneration": {"text_config": _TEXT},
    "Llama4ForCausalLM": _TEXT,
}


def _read(name: str, **changes: Any) -> Architecture:
    config = deepcopy(_CONFIGS[name]) | {"architectures": [name]}
    (config["text_config"] if name == "Llama4ForConditionalGeneration" else config).update(changes)
    return read_architecture(config)


@pytest.mark.parametrize("name", _CONFIGS)
def test_a_fields_error_names_its_path_so_that_the_user_finds_it(name: str) -> None:
    assert name in known_architectures()
    assert _read(name).total_parameters > 0
    prefix = "text_config." if name == "Llama4ForConditionalGeneration" else ""
    for value, says in (
        (None, "is missing; a whole number is needed"),
        (-64, "-64 is not between 1"),
        ("64", "'64' is not a whole number"),
        (64.5, "64.5 is not a whole number"),
        (True, "True is not a whole number"),
        (2**60, "is not between 1"),
    ):
        with pytest.raises(ConfigError) as error:
            _read(name, hidden_size=value)
        assert str(error.value).startswith(f"{prefix}hidden_size: ")
        assert says in str(error.value)
    with pytest.raises(ConfigError, match=rf"^{prefix}num_hidden_layers: 5000000 is more than 4096$"):
        _read(name, num_hidden_layers=5_000_000)
    with pytest.raises(ConfigError, match=rf"^{prefix}num_key_value_heads: 3 does not divide"):
        _read(name, num_key_value_heads=3)
    with pytest.raises(ConfigError, match=rf"^{prefix}torch_dtype: 'int8' is not one of"):
        _read(name, torch_dtype="int8")


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("MixtralForCausalLM", {"num_experts_per_tok": 9}, "num_experts_per_tok: 9 is more than"),
        ("Qwen3MoeForCausalLM", {"mlp_only_layers": [4]}, r"mlp_only_layers\[0\]: 4 is not a layer's index"),
        ("GptOssForCausalLM", {"layer_types": ["full_attention"]}, "layer_types: has 1 entries"),
        ("GptOssForCausalLM", {"layer_types": ["x"] * 4}, r"layer_types\[0\]: 'x' is not one of"),
        ("Glm4MoeForCausalLM", {"first_k_dense_replace": 4}, "first_k_dense_replace: 4 leaves no layer"),
        ("Glm4MoeForCausalLM", {"num_nextn_predict_layers": 9}, "num_nextn_predict_layers: 9 is more"),
        ("Llama4ForCausalLM", {"interleave_moe_layer_step": 5}, "interleave_moe_layer_step: 5 leaves no"),
        ("Llama4ForCausalLM", {"no_rope_layers": [1, 0]}, "no_rope_layers: must have a 0 or 1"),
        ("CohereForCausalLM", {"use_qk_norm": "yes"}, "use_qk_norm: 'yes' is neither true nor false"),
    ],
)
def test_fields_that_contradict_each_other_are_refused_and_not_planned_with(
    name: str, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        _read(name, **changes)


def test_llama_4_without_its_text_config_is_refused_by_name_of_the_missing_part() -> None:
    with pytest.raises(ConfigError, match=r"^text_config: is missing"):
        read_architecture({"architectures": ["Llama4ForConditionalGeneration"]})
    vision = {"text_config": _TEXT, "vision_config": {"hidden_size": 8}}
    with pytest.raises(ConfigError, match=r"^vision_config\.intermediate_size: is missing"):
        read_architecture({"architectures": ["Llama4ForConditionalGeneration"], **vision})


def test_dense_layers_among_sparse_ones_are_counted_as_dense() -> None:
    """A Qwen3 MoE with every other layer dense needs less than one with experts everywhere."""
    alternating = _read("Qwen3MoeForCausalLM", decoder_sparse_step=2, mlp_only_layers=[1])
    assert alternating.experts is not None
    assert alternating.experts.layers == 1
    assert alternating.parameters(Component.DENSE_FFN) == 3 * 3 * 64 * 96
    assert alternating.widest_ffn == 96
