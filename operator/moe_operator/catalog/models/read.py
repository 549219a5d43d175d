"""From a `config.json` to an `Architecture`: finds the family by `architectures[0]`."""

import difflib
from collections.abc import Callable, Mapping

from moe_operator.catalog.models.architecture import Architecture
from moe_operator.catalog.models.config_reader import ConfigError, ConfigReader
from moe_operator.catalog.models.families import (
    cohere,
    deepseek_v3,
    deepseek_v4,
    glm4_moe,
    glm_moe_dsa,
    gpt_oss,
    llama,
    llama4,
    minimax_m2,
    mixtral,
    qwen3_5,
    qwen3_moe,
    qwen3_next,
)

_FAMILIES = (
    cohere,
    deepseek_v3,
    deepseek_v4,
    glm4_moe,
    glm_moe_dsa,
    gpt_oss,
    llama,
    llama4,
    minimax_m2,
    mixtral,
    qwen3_5,
    qwen3_moe,
    qwen3_next,
)

_BUILDERS: Mapping[str, Callable[[ConfigReader, str], Architecture]] = {
    name: family.build for family in _FAMILIES for name in family.ARCHITECTURES
}


def known_architectures() -> tuple[str, ...]:
    """Every `architectures[0]` that can be read."""
    return tuple(sorted(_BUILDERS))


def read_architecture(data: object) -> Architecture:
    """Raises ConfigError: not an object, an unknown architecture (by name, with the closest known ones), or a
    field that is missing or senseless (by path)."""
    if not isinstance(data, dict):
        raise ConfigError("config.json: is not an object")
    config = ConfigReader(data)
    names = config.texts("architectures")
    if not names:
        raise ConfigError("architectures: is missing; a list with the model's class is needed")
    build = _BUILDERS.get(names[0])
    if build is None:
        close = difflib.get_close_matches(names[0], _BUILDERS, n=3, cutoff=0.5) or sorted(_BUILDERS)
        raise ConfigError(f"architectures[0]: {names[0]!r} is not known; known are {', '.join(close)}")
    return build(config, names[0])
