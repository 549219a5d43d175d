"""The `quantization_config` of compressed-tensors (LLM Compressor): groups of layers, each with its format.

Fields as in `compressed_tensors.quantization`: `QuantizationConfig`, `QuantizationScheme`, `QuantizationArgs`.
"""

from collections.abc import Mapping
from typing import Any

from moe_operator.catalog.models import quantization_patterns
from moe_operator.catalog.models.config_reader import ConfigError, ConfigReader
from moe_operator.catalog.models.model import Rule
from moe_operator.catalog.models.name_patterns import NamePatterns
from moe_operator.catalog.models.scheme import Scheme, fp8_block, integer, scheme_named

#: Formats that vLLM 0.32 loads; `mixed-precision` leaves the format to the groups.
_FORMATS = (
    "dense",
    "float-quantized",
    "int-quantized",
    "mixed-precision",
    "mxfp4-pack-quantized",
    "mxfp8-quantized",
    "naive-quantized",
    "nvfp4-pack-quantized",
    "pack-quantized",
)

#: A target that is a class and not a name: every linear layer. Embeddings never are.
_EVERY_LINEAR = "Linear"


def rules(block: ConfigReader, data: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Of all groups, in their order, the narrowest first where targets overlap. Raises ConfigError."""
    _check_format(block)
    ignore = block.texts("ignore") or []
    keep = quantization_patterns.names_and_regexes(block.path("ignore"), ignore)
    groups = block.within("config_groups")
    if groups is None:
        raise ConfigError(f"{block.path('config_groups')}: is missing; it says how layers are quantised")
    found: list[Rule] = []
    for name in data["config_groups"]:
        group = groups.within(name)
        if group is None:
            raise ConfigError(f"{groups.path(name)}: is not an object")
        found.append(_group(group, keep))
    # A group for every linear layer is meant for those that no other group names.
    return tuple(sorted(found, key=lambda rule: rule.only is None))


def kv_cache(block: ConfigReader) -> str | None:
    """`fp8` where the checkpoint has scales for such a KV cache."""
    scheme = block.within("kv_cache_scheme")
    if scheme is None:
        return None
    return (
        "fp8" if scheme.integer("num_bits", 0, least=0) == 8 and scheme.text("type", "") == "float" else None
    )


def _check_format(block: ConfigReader) -> None:
    written = block.text("format", "dense")
    if written not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise ConfigError(f"{block.path('format')}: {written!r} is not known; known are {known}")


def _group(group: ConfigReader, keep: NamePatterns) -> Rule:
    _check_format(group)
    targets = group.texts("targets")
    if not targets:
        raise ConfigError(f"{group.path('targets')}: is missing; a list of layers is needed")
    weights = group.within("weights")
    # Only activations or attention are quantised: no bytes of weights change.
    scheme = _scheme(weights) if weights else scheme_named("none")
    if _EVERY_LINEAR in targets:
        return Rule(scheme, keep=keep)
    only = quantization_patterns.names_and_regexes(group.path("targets"), targets)
    return Rule(scheme, only=only, keep=keep)


def _scheme(weights: ConfigReader) -> Scheme:
    bits, kind = weights.integer("num_bits"), weights.text("type", "int")
    group = weights.integer("group_size", -1, least=-1)
    strategy = weights.text("strategy", "group" if group > 0 else "tensor")
    match kind, bits, strategy:
        case "float", 4, "tensor_group" | "group":
            # Both have 4-bit floats; the size of a group tells NVFP4 from MXFP4.
            if group in (16, 32):
                return scheme_named("nvfp4" if group == 16 else "mxfp4")
        case "float", 8, "tensor" | "channel":
            return scheme_named(f"fp8-{strategy}")
        case "float", 8, "block":
            rows, cols = _block_size(weights)
            return fp8_block(rows, cols)
        case "float", 8, "group" if group == 32:
            return scheme_named("mxfp8")
        case "int", 4 | 8, "tensor" | "channel":
            return integer(bits, None)
        case "int", 4 | 8, "group" if group > 0:
            return integer(bits, group, zeros=not weights.flag("symmetric", True))
    raise ConfigError(
        f"{weights.path('num_bits')}: {kind} weights of {bits} bits with the strategy {strategy!r} and a group_size"
        f" of {group} are not known"
    )


def _block_size(weights: ConfigReader) -> tuple[int, int]:
    sizes = weights.items("block_structure")
    if sizes is None or len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
        raise ConfigError(f"{weights.path('block_structure')}: {sizes!r} is not two positive whole numbers")
    return sizes[0], sizes[1]
