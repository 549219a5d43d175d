"""Patterns of a `quantization_config`, checked where they stand so that errors name the field."""

from collections.abc import Sequence

from moe_operator.catalog.models.config_reader import ConfigError
from moe_operator.catalog.models.layer_regex import LayerRegex, RegexError
from moe_operator.catalog.models.name_patterns import NamePatterns

#: Each is tried on every layer's names; checkpoints in use have about 20.
_MOST_PATTERNS = 256


def names_and_regexes(path: str, items: Sequence[str]) -> NamePatterns:
    """compressed-tensors' lists: names, and expressions after `re:`."""
    expressions = [(index, item[3:]) for index, item in enumerate(items) if item.startswith("re:")]
    check_count(path, expressions)
    found = [e for index, text in expressions for e in regexes(f"{path}[{index}]", [text])]
    return NamePatterns(
        modules=tuple(item for item in items if not item.startswith("re:")), regexes=tuple(found)
    )


def regexes(path: str, patterns: Sequence[str]) -> list[str]:
    """The patterns, if all can be matched. Raises ConfigError."""
    for pattern in patterns:
        try:
            LayerRegex(pattern)
        except RegexError as error:
            raise ConfigError(f"{path}: the expression {pattern[:60]!r} {error}") from error
    return list(patterns)


def check_wildcards(path: str, patterns: Sequence[str]) -> None:
    """Raises ConfigError if there are too many that cannot be looked up."""
    check_count(path, [p for p in patterns if "*" in p[:-1] or "?" in p or "[" in p])


def check_count(path: str, patterns: Sequence[object]) -> None:
    """Raises ConfigError if there are more than can be tried on every layer."""
    if len(patterns) > _MOST_PATTERNS:
        raise ConfigError(
            f"{path}: has {len(patterns)} patterns; at most {_MOST_PATTERNS} are read: name modules instead"
        )
