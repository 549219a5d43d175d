"""A config.json that cannot be used: each mistake is answered with where it is and what to do, at once."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_operator.catalog.models.catalog import ModelCatalog, load_models
from moe_operator.catalog.models.config_reader import ConfigError
from moe_operator.catalog.models.custom import LARGEST_CONFIG
from moe_operator.catalog.models.scheme import Precision
from unit.model_entries import CONFIG, TOTAL, config_json


def _read(config: str | bytes) -> Any:
    return ModelCatalog(Path("/nonexistent")).from_config("Own/Model", config)


def _refusal(config: str | bytes) -> str:
    with pytest.raises(ConfigError) as refused:
        _read(config)
    return str(refused.value)


def test_a_model_that_the_catalogue_does_not_know_needs_only_its_config() -> None:
    model = _read(config_json(some_new_key={"a": [1]}).encode())
    assert model.custom
    assert model.name == "Own/Model"
    assert model.architecture.total_parameters == TOTAL
    assert model.precisions() == (Precision.BF16,)


def test_a_cut_file_is_refused_with_line_and_column() -> None:
    cut = json.dumps(CONFIG, indent=2)[:60]
    message = _refusal(cut)
    assert message.startswith("config.json: is not JSON: line ")
    assert "column" in message
    assert "cut off" in message


def test_a_file_of_10_mb_is_refused_with_its_size_and_is_not_parsed() -> None:
    message = _refusal(b"[" * 10_000_000)
    assert message == f"config.json: has 10000000 bytes; at most {LARGEST_CONFIG} are read"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"[" * 100_000, "config.json: is nested too deeply"),
        (b'{"hidden_size": ' + b"9" * 5000 + b"}", "config.json: has a number that is too long"),
        (b"\xff\xfe", "config.json: is not UTF-8 at byte 0"),
        ("[1]", "config.json: is not an object"),
        ("", "config.json: is not JSON: line 1, column 1"),
    ],
)
def test_what_is_no_json_object_is_refused(config: str | bytes, message: str) -> None:
    assert _refusal(config).startswith(message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": None}, "hidden_size: is missing; a whole number is needed"),
        ({"hidden_size": -4096}, "hidden_size: -4096 is not between 1 and "),
        ({"hidden_size": "4096"}, "hidden_size: '4096' is not a whole number"),
        ({"hidden_size": 4096.0}, "hidden_size: 4096.0 is not a whole number"),
        ({"num_local_experts": True}, "num_local_experts: True is not a whole number"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings: 1 is neither true nor false"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: 1000000000 is more than any model has"),
        ({"torch_dtype": "int3"}, "torch_dtype: 'int3' is not one of bfloat16, "),
        ({"architectures": ["MixtralForCausalML"]}, "architectures[0]: 'MixtralForCausalML' is not known"),
        ({"architectures": []}, "architectures: is missing"),
    ],
)
def test_a_senseless_value_is_refused_with_the_path_of_its_field(
    fields: dict[str, Any], message: str
) -> None:
    assert _refusal(config_json(**fields)).startswith(message)


def test_a_mistyped_architecture_is_answered_with_the_closest() -> None:
    assert "MixtralForCausalLM" in _refusal(config_json(architectures=["MixtralForCausalML"]))


def test_a_precision_that_cannot_be_counted_is_refused_in_every_family() -> None:
    """Families read it in different places; none may let a plan fail on it later."""
    catalog = load_models()
    for name in ("Qwen/Qwen3.5-35B-A3B", "deepseek-ai/DeepSeek-V3"):
        file = catalog._directory.joinpath(f"{name.replace('/', '--')}.yaml")
        config = yaml.safe_load(file.read_text(encoding="utf-8"))["config"]
        inner = config.get("text_config", config)
        assert _read(json.dumps(config)).custom
        for key in ("torch_dtype", "dtype"):
            inner.pop(key, None)
            config.pop(key, None)
        inner["dtype"] = "float8_e4m3fn"
        assert "dtype: 'float8_e4m3fn' is not one of bfloat16, " in _refusal(json.dumps(config))


GROUP = {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 128}}
COMPRESSED: dict[str, Any] = {"quant_method": "compressed-tensors", "config_groups": {"group_0": GROUP}}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({}, "quantization_config.quant_method: is missing"),
        (
            {"quant_method": "squeezellm"},
            "quantization_config.quant_method: 'squeezellm' is not known; known are awq, ",
        ),
        ([], "quantization_config: is not an object"),
        (
            {"quant_method": "fp8", "weight_block_size": [128]},
            "quantization_config.weight_block_size: [128] is not two",
        ),
        (
            {"quant_method": "fp8", "weight_block_size": [128, 0]},
            "quantization_config.weight_block_size: [128, 0] is not two",
        ),
        (
            {"quant_method": "fp8", "modules_to_not_convert": [1]},
            "quantization_config.modules_to_not_convert[0]: 1 is not a text",
        ),
        (
            {"quant_method": "modelopt", "quant_algo": "NVFP3"},
            "quantization_config.quant_algo: 'NVFP3' is not known",
        ),
        (
            {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"},
            "quantization_config.quantized_layers: is missing",
        ),
        (
            {"quantization": {"quant_algo": "INT3"}},
            "quantization_config.quantization.quant_algo: 'INT3' is not known",
        ),
        (
            {"quant_method": "gptq", "bits": 3, "group_size": 128},
            "quantization_config.bits: 3 is neither 4 nor 8",
        ),
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 0},
            "quantization_config.group_size: 0 is no group size",
        ),
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"-:(": {}}},
            "quantization_config.dynamic.-:(: the expression '('",
        ),
        (
            {"quant_method": "awq", "group_size": 128},
            "quantization_config.bits: is missing; a whole number is needed",
        ),
        (
            {"quant_method": "compressed-tensors"},
            "quantization_config.config_groups: is missing",
        ),
        (
            {**COMPRESSED, "format": "marlin-24"},
            "quantization_config.format: 'marlin-24' is not known",
        ),
        (
            {**COMPRESSED, "config_groups": {"g": {"targets": []}}},
            "quantization_config.config_groups.g.targets: is missing",
        ),
        (
            {
                **COMPRESSED,
                "config_groups": {"g": {**GROUP, "weights": {"num_bits": 3, "type": "int", "group_size": 8}}},
            },
            "quantization_config.config_groups.g.weights.num_bits: int weights of 3 bits with the strategy 'group'",
        ),
        (
            {**COMPRESSED, "ignore": ["lm_head", "re:(a"]},
            "quantization_config.ignore[1]: the expression '(a' ",
        ),
        (
            {**COMPRESSED, "ignore": ["re:a"] * 300},
            "quantization_config.ignore: has 300 patterns; at most 256 are read",
        ),
    ],
)
def test_a_quantisation_that_cannot_be_read_is_refused_with_the_path(block: object, message: str) -> None:
    """Taken for BF16 instead, a plan would ask for twice the GPUs or more."""
    assert _refusal(config_json(quantization_config=block)).startswith(message)


def test_a_message_stays_short_whatever_the_config_holds() -> None:
    """It is written into the object's status, which has a limit."""
    assert len(_refusal(config_json(hidden_size="x" * 500_000))) <= 400
