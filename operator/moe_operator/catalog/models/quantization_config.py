"""`quantization_config` of a config.json, as the common quantisers write it, into a checkpoint's storage rules.

What each method leaves alone by default is as vLLM 0.32 loads it (`model_executor/layers/quantization`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_operator.catalog.models import compressed_tensors, quantization_patterns
from moe_operator.catalog.models.config_reader import ConfigError, ConfigReader
from moe_operator.catalog.models.model import Rule
from moe_operator.catalog.models.name_patterns import NamePatterns
from moe_operator.catalog.models.scheme import Scheme, fp8_block, integer, scheme_named

_ROUTED = NamePatterns(modules=("experts",))
_HEAD = ("lm_head",)
#: Heads are no linear layers to vLLM; DeepSeek's files hold the projection of the prediction layer in 16 bits.
_FP8_KEPT = (*_HEAD, "shared_head.head", "eh_proj")
#: What GPTQ and AWQ do not look at unless told: they go through the blocks of the text model.
_OUTSIDE_BLOCKS = ("visual", "vision_tower", "vision_model", "multi_modal_projector", "mtp")


@dataclass(frozen=True)
class Quantization:
    """What a `quantization_config` says."""

    rules: tuple[Rule, ...]
    kv_cache: str | None = None


def read_quantization(config: Mapping[str, Any]) -> Quantization | None:
    """From the object of a config.json; None where nothing is quantised.

    Raises ConfigError: an unknown method (by name) or a field that is missing or senseless (by path).
    """
    top = ConfigReader(config)
    found = _block(top, config)
    if found is None:
        return None
    block, data = found
    # What is within `quantization` is a copy of ModelOpt's own file, which does not name its method.
    method = "modelopt" if "quantization" in block else block.text("quant_method").lower()
    read = _METHODS.get(method)
    if read is None:
        raise ConfigError(
            f"{block.path('quant_method')}: {method!r} is not known; known are {', '.join(sorted(_METHODS))}"
        )
    return read(block, data, top)


def _block(top: ConfigReader, config: Mapping[str, Any]) -> tuple[ConfigReader, Mapping[str, Any]] | None:
    """The block may stand beside `text_config` or, in some multimodal repositories, within it."""
    if block := top.within("quantization_config"):
        return block, config["quantization_config"]
    text = top.within("text_config")
    if text and (block := text.within("quantization_config")):
        return block, config["text_config"]["quantization_config"]
    return None


def _fp8(block: ConfigReader, _: Mapping[str, Any], top: ConfigReader) -> Quantization:
    scheme = scheme_named("fp8-tensor")
    if sizes := block.items("weight_block_size"):
        if len(sizes) != 2 or not all(
            isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes
        ):
            raise ConfigError(
                f"{block.path('weight_block_size')}: {sizes!r} is not two positive whole numbers"
            )
        scheme = fp8_block(*sizes)
    kept = block.texts("ignored_layers") or block.texts("modules_to_not_convert") or []
    rule = Rule(scheme, keep=NamePatterns(modules=(*_FP8_KEPT, *kept)))
    # DeepSeek V4: experts in FP4 with exponent scales, everything else as this method says.
    if top.text("expert_dtype", "") == "fp4" or block.text("store_dtype", "") == "mxfp4":
        return Quantization((Rule(scheme_named("mxfp4"), only=_ROUTED), rule))
    return Quantization((rule,))


def _mxfp4(block: ConfigReader, _: Mapping[str, Any], __: ConfigReader) -> Quantization:
    # Only experts are stored so, whatever else the list does not name.
    kept = block.texts("modules_to_not_convert") or block.texts("ignored_layers") or []
    return Quantization((Rule(scheme_named("mxfp4"), only=_ROUTED, keep=NamePatterns(modules=tuple(kept))),))


def _mxfp8(block: ConfigReader, _: Mapping[str, Any], __: ConfigReader) -> Quantization:
    kept = block.texts("ignored_layers") or block.texts("modules_to_not_convert") or []
    return Quantization((Rule(scheme_named("mxfp8"), keep=NamePatterns(modules=(*_FP8_KEPT, *kept))),))


_MODELOPT = {
    "FP8": "fp8-tensor",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8-channel",
    "FP8_PB_WO": "fp8-block",
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
    "W4A16_NVFP4": "nvfp4",
    "MXFP8": "mxfp8",
}


def _modelopt(block: ConfigReader, data: Mapping[str, Any], _: ConfigReader) -> Quantization:
    if inner := block.within("quantization"):
        block, data = inner, data["quantization"]
    kept = _modelopt_patterns(block, "exclude_modules" if "exclude_modules" in block else "ignore")
    algorithm = block.text("quant_algo").upper()
    kv_cache = "fp8" if block.text("kv_cache_quant_algo", "").upper() == "FP8" else None
    kv_cache = kv_cache or compressed_tensors.kv_cache(block)
    if algorithm != "MIXED_PRECISION":
        return Quantization((Rule(_algorithm(block, algorithm), keep=kept),), kv_cache)
    layers = block.within("quantized_layers")
    if layers is None:
        raise ConfigError(f"{block.path('quantized_layers')}: is missing; MIXED_PRECISION needs it")
    named: dict[Scheme, list[str]] = {}
    for name in data["quantized_layers"]:
        layer = layers.within(name)
        if layer is None:
            raise ConfigError(f"{layers.path(name)}: is not an object")
        scheme = _algorithm(layer, layer.text("quant_algo").upper())
        named.setdefault(scheme, []).append(name)
    rules = tuple(
        Rule(scheme, only=NamePatterns(modules=tuple(found)), keep=kept) for scheme, found in named.items()
    )
    return Quantization(rules, kv_cache)


def _modelopt_patterns(block: ConfigReader, key: str) -> NamePatterns:
    """Wildcards over whole names; a name without any means what is below it, too."""
    found = block.texts(key) or []
    quantization_patterns.check_wildcards(block.path(key), found)
    wild = tuple(name for name in found if "*" in name)
    return NamePatterns(wildcards=wild, modules=tuple(name for name in found if "*" not in name))


def _algorithm(block: ConfigReader, algorithm: str) -> Scheme:
    name = _MODELOPT.get(algorithm)
    if name is None:
        known = ", ".join((*_MODELOPT, "MIXED_PRECISION"))
        raise ConfigError(f"{block.path('quant_algo')}: {algorithm!r} is not known; known are {known}")
    return scheme_named(name)


def _gptq(block: ConfigReader, data: Mapping[str, Any], _: ConfigReader) -> Quantization:
    kept = () if block.flag("lm_head", False) else _HEAD
    dynamic = block.within("dynamic")
    excluded: list[str] = []
    rules: list[Rule] = []
    for key in data["dynamic"] if dynamic else ():
        sign, pattern = (key[:2], key[2:]) if key[:2] in ("-:", "+:") else ("+:", key)
        assert dynamic is not None
        regexes = quantization_patterns.regexes(dynamic.path(key), [pattern])
        if sign == "-:":
            excluded += regexes
        elif (override := _override(dynamic, key, data)) and ("bits" in override or "group_size" in override):
            rules.append(Rule(_integers(override, block), only=NamePatterns(regexes=tuple(regexes))))
    quantization_patterns.check_count(block.path("dynamic"), [*excluded, *rules])
    exempted = [Rule(scheme_named("none"), only=NamePatterns(regexes=tuple(excluded)))] if excluded else []
    keep = NamePatterns(modules=(*kept, *_OUTSIDE_BLOCKS))
    rest = Rule(_integers(block, block), only=_modules_in_block(block), keep=keep)
    return Quantization((*exempted, *rules, rest))


def _override(dynamic: ConfigReader, key: str, data: Mapping[str, Any]) -> ConfigReader | None:
    return dynamic.within(key) if isinstance(data["dynamic"][key], dict) else None


def _modules_in_block(block: ConfigReader) -> NamePatterns | None:
    """A list of names, or of lists of names that GPTQ quantises together."""
    found = block.items("modules_in_block_to_quantize")
    if not found:
        return None
    flat = [name for item in found for name in (item if isinstance(item, list) else [item])]
    if not all(isinstance(name, str) for name in flat):
        raise ConfigError(f"{block.path('modules_in_block_to_quantize')}: has an item that is not a text")
    return NamePatterns(modules=tuple(flat))


def _awq(block: ConfigReader, _: Mapping[str, Any], __: ConfigReader) -> Quantization:
    kept = block.texts("modules_to_not_convert") or []
    head = () if block.flag("lm_head", False) else _HEAD
    keep = NamePatterns(modules=(*head, *_OUTSIDE_BLOCKS, *kept))
    return Quantization((Rule(_integers(block, block), keep=keep),))


def _integers(block: ConfigReader, default: ConfigReader) -> Scheme:
    """`bits` and `group_size` (-1: a row), older AWQ files calling them `w_bit` and `q_group_size`."""
    source = block if "bits" in block or "w_bit" in block else default
    bits_key: str = "bits" if "bits" in source or "w_bit" not in source else "w_bit"
    bits = source.integer(bits_key)
    if bits not in (4, 8):
        raise ConfigError(f"{source.path(bits_key)}: {bits} is neither 4 nor 8")
    groups = next((b for b in (block, default) if "group_size" in b or "q_group_size" in b), default)
    key = "group_size" if "group_size" in groups or "q_group_size" not in groups else "q_group_size"
    group = groups.integer(key, least=-1)
    if group == 0:
        raise ConfigError(f"{groups.path(key)}: 0 is no group size; -1 means a row")
    return integer(bits, None if group == -1 else group, zeros=True)


def _compressed(block: ConfigReader, data: Mapping[str, Any], _: ConfigReader) -> Quantization:
    return Quantization(compressed_tensors.rules(block, data), compressed_tensors.kv_cache(block))


_Reader = Callable[[ConfigReader, Mapping[str, Any], ConfigReader], Quantization]

_METHODS: Mapping[str, _Reader] = {
    "fp8": _fp8,
    "mxfp4": _mxfp4,
    "mxfp8": _mxfp8,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "modelopt_mixed": _modelopt,
    "compressed-tensors": _compressed,
    "gptq": _gptq,
    "gptq_marlin": _gptq,
    "awq": _awq,
    "awq_marlin": _awq,
}


def known_methods() -> Sequence[str]:
    """Every `quant_method` that can be read."""
    return tuple(sorted(_METHODS))
