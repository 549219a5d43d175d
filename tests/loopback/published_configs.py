"""A directory per published checkpoint, with what vLLM reads of it before it loads weights: config.json as the
catalogue's entry has it, with the quantisation that its scheme means, and a small tokenizer."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from engine.tiny_model import tiny_model
from moe_operator.catalog.models import catalog as models
from moe_operator.catalog.models.entry import inherit
from moe_operator.catalog.models.model import Checkpoint

_ENTRIES = Path(models.__file__).with_name("entries")

#: `model_type` of config.json by its class: which of transformers' or vLLM's configurations reads it.
MODEL_TYPES = {
    "CohereForCausalLM": "cohere",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "DeepseekV32ForCausalLM": "deepseek_v32",
    "DeepseekV4ForCausalLM": "deepseek_v4",
    "Glm4MoeForCausalLM": "glm4_moe",
    "GlmMoeDsaForCausalLM": "glm_moe_dsa",
    "GptOssForCausalLM": "gpt_oss",
    "Llama4ForConditionalGeneration": "llama4",
    "LlamaForCausalLM": "llama",
    "MiniMaxM2ForCausalLM": "minimax_m2",
    "MixtralForCausalLM": "mixtral",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "Qwen3NextForCausalLM": "qwen3_next",
    "Qwen3_5ForConditionalGeneration": "qwen3_5",
    "Qwen3_5MoeForConditionalGeneration": "qwen3_5_moe",
}
_INNER_TYPES = {"llama4": {"text_config": "llama4_text", "vision_config": "llama4_vision_model"}}

_REASONING_TOKENS = ("<think>", "</think>")

_COMPRESSED: dict[str, Any] = {"quant_method": "compressed-tensors", "ignore": ["lm_head"]}


def _compressed(form: str, weights: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": {"symmetric": True, **weights}, "input_activations": inputs}
    return {**_COMPRESSED, "format": form, "config_groups": {"group_0": group}}


_FP8 = {"num_bits": 8, "type": "float"}
#: `quantization_config` by scheme: the publisher's form where all of a scheme's repositories share one.
_QUANTIZATION: dict[str, dict[str, Any]] = {
    "fp8-block": {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
    },
    "fp8-channel": _compressed(
        "float-quantized",
        {**_FP8, "strategy": "channel"},
        {**_FP8, "strategy": "token", "dynamic": True, "symmetric": True},
    ),
    "fp8-tensor": _compressed(
        "float-quantized",
        {**_FP8, "strategy": "tensor"},
        {**_FP8, "strategy": "tensor", "dynamic": False, "symmetric": True},
    ),
    "int4-g32": _compressed(
        "pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}, None
    ),
    "mxfp4": {"quant_method": "mxfp4"},
}
_MODELOPT = {"nvfp4": "NVFP4", "fp8-tensor": "FP8"}


def quantization_config(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """As the repository has it, without its list of modules left alone: they matter only to the loader."""
    schemes = [rule.scheme.name for rule in checkpoint.rules]
    if not schemes:
        return None
    if (checkpoint.repository or "").startswith("nvidia/"):
        named = {_MODELOPT[name] for name in schemes if name in _MODELOPT}
        algorithm = named.pop() if len(named) == 1 else "NVFP4"
        return {
            "quant_method": "modelopt",
            "quantization": {
                "quant_algo": algorithm,
                "group_size": 16,
                "exclude_modules": [],
                "kv_cache_quant_algo": "FP8" if checkpoint.kv_cache else None,
            },
        }
    if "mxfp4" in schemes and "fp8-block" in schemes:
        return _QUANTIZATION["fp8-block"]  # DeepSeek V4 names the format of its experts elsewhere
    return _QUANTIZATION[schemes[0]]


def config_json(name: str) -> dict[str, Any]:
    """Of the entry with this name, with the fields that say which class reads it."""
    config = dict(_resolved(name)["config"])
    kind = MODEL_TYPES[config["architectures"][0]]
    config["model_type"] = kind
    for key, inner in _INNER_TYPES.get(kind, {}).items():
        config[key] = {**config[key], "model_type": inner}
    return config


def write_checkpoint(folder: Path, name: str, checkpoint: Checkpoint) -> Path:
    """The folder, for use in the place of the repository."""
    folder.mkdir(parents=True)
    config = config_json(name)
    if quantization := quantization_config(checkpoint):
        config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((tiny_model() / "tokenizer.json").read_text())
    known = tokenizer["added_tokens"]
    # Reasoning parsers look up the tokens that they wait for.
    for token in _REASONING_TOKENS:
        known.append({**known[0], "id": known[-1]["id"] + 1, "content": token})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").symlink_to(tiny_model() / "tokenizer_config.json")
    return folder


@cache
def _resolved(name: str) -> dict[str, Any]:
    own: dict[str, Any] = yaml.safe_load((_ENTRIES / f"{name.replace('/', '--')}.yaml").read_text())
    return inherit(_resolved(own["like"]), own) if own.get("like") else own
