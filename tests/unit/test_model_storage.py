"""Bytes of checkpoints: a plan that counts too few of them ends in an engine that runs out of memory as it loads."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moe_operator.catalog.models.architecture import Component, Section, Tensor
from moe_operator.catalog.models.catalog import load_models
from moe_operator.catalog.models.custom import model_from_config
from moe_operator.catalog.models.layer_regex import LayerRegex, RegexError
from moe_operator.catalog.models.model import Checkpoint, Rule
from moe_operator.catalog.models.name_patterns import NamePatterns
from moe_operator.catalog.models.scheme import Precision, scheme_named
from moe_operator.catalog.models.storage import checkpoint_bytes, tensor_bytes
from unit.model_entries import (
    CONFIG,
    EXPERTS,
    KEY,
    OUTPUT,
    QUERY,
    TOTAL,
    VALUE,
    catalog,
    config_json,
    entry,
)

ATTENTION = QUERY + KEY + VALUE + OUTPUT


@pytest.mark.parametrize(
    ("scheme", "rows", "cols", "size"),
    [
        ("none", 3, 5, 30),
        ("fp8-block", 256, 256, 65536 + 4 * 4),
        ("fp8-block", 129, 257, 129 * 257 + 2 * 3 * 4),
        ("fp8-tensor", 256, 256, 65536 + 4),
        ("fp8-channel", 256, 100, 25600 + 256 * 4),
        ("nvfp4", 64, 64, 2048 + 64 * 4 + 4),
        ("nvfp4", 2, 17, 2 * 9 + 2 * 2 + 4),
        ("mxfp4", 64, 64, 2048 + 64 * 2),
        ("mxfp8", 64, 64, 4096 + 64 * 2),
        ("int4-g32", 64, 64, 2048 + 64 * 2 * 2),
        ("int4-g128", 64, 200, 6400 + 64 * 2 * 2),
        ("int8-g128", 64, 128, 8192 + 64 * 2),
    ],
)
def test_a_matrix_takes_its_weights_and_all_scales_of_cut_blocks(
    scheme: str, rows: int, cols: int, size: int
) -> None:
    assert scheme_named(scheme).bytes_of(rows, cols, 2) == size


@pytest.mark.parametrize(
    ("quantization", "narrow", "per_weight"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 2 * (ATTENTION + EXPERTS), 1 + 4 / 16384),
        (
            {
                "quant_method": "fp8",
                "weight_block_size": [128, 128],
                "modules_to_not_convert": ["model.layers.1.self_attn", "gate"],
            },
            ATTENTION + 2 * EXPERTS,
            1 + 4 / 16384,
        ),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, 2 * EXPERTS, 0.5 + 1 / 32),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "ignore": ["lm_head", "re:.*self_attn.*"],
                "config_groups": {
                    "group_0": {
                        "targets": ["Linear"],
                        "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32},
                    }
                },
            },
            2 * EXPERTS,
            0.5 + 2 / 32,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "ignore": ["re:^(?!.*experts).*$"],
                "config_groups": {
                    "group_0": {
                        "targets": ["Linear"],
                        "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128},
                    }
                },
            },
            2 * EXPERTS,
            0.5 + 2 / 128,
        ),
        (
            {
                "quant_method": "gptq",
                "bits": 4,
                "group_size": 128,
                "dynamic": {"-:.*attn.*": {}, "lm_head": {}},
            },
            2 * EXPERTS,
            0.5 + 2.5 / 128,
        ),
        (
            {
                "quant_method": "awq",
                "w_bit": 4,
                "q_group_size": 128,
                "modules_to_not_convert": ["self_attn"],
            },
            2 * EXPERTS,
            0.5 + 2.5 / 128,
        ),
    ],
)
def test_a_quantised_config_counts_only_the_layers_that_it_quantises(
    quantization: dict[str, Any], narrow: int, per_weight: float
) -> None:
    model = model_from_config("custom", config_json(quantization_config=quantization))
    size = checkpoint_bytes(model, model.checkpoints[0])
    assert size == (TOTAL - narrow) * 2 + narrow * per_weight


@pytest.mark.parametrize("nested", [True, False])
def test_modelopt_leaves_out_by_wildcard_and_says_the_precision_of_the_cache(nested: bool) -> None:
    """In the form of `hf_quant_config.json` as in that of config.json."""
    kept = ["lm_head", "model.layers.0.self_attn*", "*.block_sparse_moe.gate"]
    block: dict[str, Any] = {"quant_algo": "NVFP4"}
    if nested:
        block = {"quantization": {**block, "exclude_modules": kept, "kv_cache_quant_algo": "FP8"}}
    else:
        block |= {
            "quant_method": "modelopt",
            "ignore": kept,
            "kv_cache_scheme": {"num_bits": 8, "type": "float"},
        }
    model = model_from_config("custom", config_json(quantization_config=block))
    checkpoint = model.checkpoints[0]
    assert checkpoint.precision is Precision.NVFP4
    assert checkpoint.kv_cache == "fp8"
    matrices = 4 + 2 * 4 * 3  # One layer's attention, two layers' experts.
    narrow = ATTENTION + 2 * EXPERTS
    expected = (TOTAL - narrow) * 2 + narrow * 0.5625 + matrices * 4
    assert checkpoint_bytes(model, checkpoint) == expected


def test_mixed_formats_count_each_layer_in_its_own() -> None:
    groups = {
        "all": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}},
        "experts": {
            "targets": ["re:.*experts.*"],
            "weights": {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16},
        },
    }
    block = {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "ignore": ["lm_head"],
        "config_groups": groups,
    }
    model = model_from_config("custom", config_json(quantization_config=block))
    assert model.checkpoints[0].precision is Precision.NVFP4
    rows = 2 * (256 + 256 + 128 + 128)
    expected = (TOTAL - 2 * ATTENTION - 2 * EXPERTS) * 2 + 2 * ATTENTION + rows * 4
    expected += int(2 * EXPERTS * 0.5625) + 24 * 4
    assert checkpoint_bytes(model, model.checkpoints[0]) == expected


def test_modelopt_mixed_precision_reads_the_algorithm_of_every_layer() -> None:
    layers = {
        "model.layers.0.self_attn.q_proj": {"quant_algo": "FP8"},
        "model.layers.1.block_sparse_moe.experts": {"quant_algo": "NVFP4", "group_size": 16},
    }
    block = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    model = model_from_config("custom", config_json(quantization_config=block))
    expected = (TOTAL - QUERY - EXPERTS) * 2 + QUERY + 4 + int(EXPERTS * 0.5625) + 12 * 4
    assert checkpoint_bytes(model, model.checkpoints[0]) == expected


def test_a_fused_name_in_a_list_means_its_parts() -> None:
    """Some checkpoints list `qkv_proj`, as vLLM calls it; their files hold q, k and v."""
    patterns = NamePatterns(modules=("model.layers.3.self_attn.qkv_proj", "model.language_model.layers.4"))
    assert patterns.match("model.layers.3.self_attn.k_proj")
    assert not patterns.match("model.layers.3.self_attn.o_proj")
    assert patterns.match("model.layers.4.mlp.gate_proj")
    assert patterns.match("model.language_model.layers.3.self_attn.v_proj")


def test_a_name_means_whole_parts_between_dots() -> None:
    """`gate` is the router; taking it for `gate_proj` would double a third of the experts' bytes."""
    patterns = NamePatterns(modules=("gate",))
    assert patterns.match("model.layers.0.mlp.gate")
    assert not patterns.match("model.layers.0.mlp.experts.0.gate_proj")


def test_parts_that_a_repository_does_not_hold_count_nothing(tmp_path: Path) -> None:
    model = catalog(tmp_path, entry()).find("Org/Small")
    assert model is not None
    mtp = Tensor("mtp.fc", Component.PROJECTION, 256, 512, section=Section.MTP)
    model = replace(
        model, architecture=replace(model.architecture, tensors=(*model.architecture.tensors, mtp))
    )
    whole = model.checkpoints[0]
    shipped = replace(whole, without=frozenset({Section.MTP}))
    assert checkpoint_bytes(model, whole) == 2 * (TOTAL + 256 * 512)
    assert checkpoint_bytes(model, shipped) == 2 * TOTAL
    assert checkpoint_bytes(model, whole, frozenset({Section.MTP})) == 2 * 256 * 512


def test_a_share_of_a_tensor_is_stored_as_the_whole_is() -> None:
    """Ranks hold shares: their bytes must add up to the checkpoint's."""
    rule = Rule(scheme_named("nvfp4"), only=NamePatterns(wildcards=("*.experts.*",)))
    checkpoint = Checkpoint(Precision.NVFP4, rules=(rule,))
    tensor = Tensor(
        "layers.{layer}.experts.{expert}.up", Component.ROUTED_EXPERTS, 64, 64, layers=(0, 1), experts=8
    )
    whole = tensor_bytes(tensor, checkpoint, "bfloat16")
    assert whole == 16 * (2048 + 256 + 4)
    assert 4 * tensor_bytes(replace(tensor, experts=2), checkpoint, "bfloat16") == whole


def test_an_fp16_checkpoint_of_a_model_in_fp32_is_half_as_large(tmp_path: Path) -> None:
    data = entry(checkpoints=[{"precision": p, "repository": f"Org/Small-{p}"} for p in ("fp16", "fp32")])
    data["config"]["torch_dtype"] = "float32"
    model = catalog(tmp_path, data).find("Org/Small")
    assert model is not None
    assert [checkpoint_bytes(model, c) for c in model.checkpoints] == [2 * TOTAL, 4 * TOTAL]


def _published() -> list[Any]:
    known = load_models()
    models = [model for name in known.names() if (model := known.find(name))]
    return [
        pytest.param(model, checkpoint, id=f"{checkpoint.repository}-{checkpoint.precision}")
        for model in models
        for checkpoint in model.checkpoints
        if checkpoint.published_gb is not None
    ]


@pytest.mark.parametrize(("model", "checkpoint"), _published())
def test_a_shipped_checkpoint_is_as_large_as_published(model: Any, checkpoint: Checkpoint) -> None:
    size = checkpoint_bytes(model, checkpoint) / 1e9
    assert size == pytest.approx(checkpoint.published_gb, rel=0.005)


@pytest.mark.parametrize(
    ("name", "gigabytes", "quantization"),
    [
        (
            "deepseek-ai/DeepSeek-V3",
            688.55,
            {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
        ),
        (
            "openai/gpt-oss-120b",
            65.25,
            {
                "quant_method": "mxfp4",
                "modules_to_not_convert": [
                    "model.layers.*.self_attn",
                    "model.layers.*.mlp.router",
                    "model.embed_tokens",
                    "lm_head",
                ],
            },
        ),
        (
            "moonshotai/Kimi-K2-Thinking",
            594.2,
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {
                    "group_0": {
                        "targets": ["Linear"],
                        "weights": {
                            "num_bits": 4,
                            "type": "int",
                            "strategy": "group",
                            "group_size": 32,
                            "symmetric": True,
                        },
                    }
                },
                "ignore": [
                    "lm_head",
                    "re:.*self_attn.*",
                    "re:.*shared_experts.*",
                    r"re:.*mlp\.(gate|up|gate_up|down)_proj.*",
                ],
            },
        ),
        (
            # With the prediction layer, which a config cannot say is missing.
            "Qwen/Qwen3.5-397B-A17B",
            251.1,
            {
                "quant_method": "modelopt",
                "quant_algo": "NVFP4",
                "ignore": [
                    "lm_head",
                    *(f"model.language_model.layers.{i}.linear_attn*" for i in range(60)),
                    *(f"model.language_model.layers.{i}.self_attn*" for i in range(60)),
                    *(f"model.language_model.layers.{i}.mlp.shared_expert*" for i in range(60)),
                    "model.visual*",
                    "mtp*",
                ],
            },
        ),
    ],
)
def test_a_config_as_publishers_write_it_gives_the_published_size(
    name: str, gigabytes: float, quantization: dict[str, Any]
) -> None:
    """The way of models that the catalogue does not know, on some that it does."""
    known = load_models().find(name)
    if known is None:
        pytest.skip(f"{name} is not shipped")
    file = load_models()._directory.joinpath(f"{name.replace('/', '--')}.yaml")
    data = load_models()._resolved(file.name.removesuffix(".yaml"))
    model = model_from_config(name, json.dumps({**data["config"], "quantization_config": quantization}))
    assert checkpoint_bytes(model, model.checkpoints[0]) / 1e9 == pytest.approx(gigabytes, rel=0.005)


# --- Expressions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        (".*mlp.gate$", "model.layers.0.mlp.gate", True),
        (".*mlp.gate$", "model.layers.0.mlp.gate_proj", False),
        ("model", "model.layers", True),
        ("layers", "model.layers", False),
        (r".*layers\.(0|1[0-9])\.self.*", "model.layers.17.self_attn", True),
        (r".*layers\.(0|1[0-9])\.self.*", "model.layers.27.self_attn", False),
        (r"model\.layers\.\d{2}\.", "model.layers.42.mlp", True),
        (r"model\.layers\.\d{2}\.", "model.layers.4.mlp", False),
        (r"(?!.*experts).*", "model.layers.0.self_attn", True),
        (r"^(?!.*experts).*$", "model.layers.0.experts.0", False),
        (r".*[^a-c]x?y+$", "model.dxyy", True),
        (r".*[^a-c]x+y+$", "model.ay", False),
        (r"(a*)*b", "aaaab", True),
        (r"(?:a|ab)(?:c|bcd)$", "abcd", True),
    ],
)
def test_expressions_mean_what_they_mean_to_vllm(pattern: str, name: str, matches: bool) -> None:
    assert bool(re.match(pattern, name)) is matches
    assert LayerRegex(pattern).match(name) is matches


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "a**",
        "[a",
        "(?=a)",
        r"(a)\1",
        "a{9999}",
        "x" * 5000,
        "((a{99}){99})",
        "a{2,1}",
    ],
)
def test_an_expression_that_cannot_be_matched_in_bounded_time_is_refused(pattern: str) -> None:
    with pytest.raises(RegexError):
        LayerRegex(pattern)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("expression", ["(a|a)*(a|a)*(.*)*z$", ".*.*.*.*.*.*.*.*.*.*z$", "(.*e){40}.{40}q$"])
def test_an_expression_cannot_keep_the_operator_busy(expression: str) -> None:
    """Whoever may create a ModelDeployment may write one that Python's `re` would take years for."""
    block = {
        "quant_method": "compressed-tensors",
        "ignore": [f"re:{expression}"],
        "config_groups": {
            "g": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "tensor"}}
        },
    }
    config = json.dumps({**CONFIG, "num_hidden_layers": 512, "quantization_config": block})
    assert model_from_config("custom", config).custom
