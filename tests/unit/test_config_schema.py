"""The chart's schema of `config` and the operator's reader of it say the same. Lost where they do not: a section that
Helm lets nobody set, or a mistake that Helm lets through and that keeps the operator from starting."""

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from factories.json_schema import faults
from factories.site_configs import GOOD, ONLY_THE_READER_KNOWS, WRONG
from moe_operator.catalog import config_schema
from moe_operator.catalog.operator_config import OperatorConfigError, read_config

ROOT = Path(__file__).parents[2]

GOOD_DATA: list[dict[str, Any]] = [yaml.safe_load(text) for text in GOOD]

#: Of every JSON type one, and none that means anything anywhere.
STRANGE: dict[str, Any] = {
    "integer": -12345,
    "string": "no such %% thing/ ",
    "array": [["x"]],
    "object": {"zz ": {}},
}


def reads(config: Mapping[str, Any]) -> str | None:
    """What the operator has against it."""
    try:
        read_config(yaml.safe_dump(config))
    except OperatorConfigError as error:
        return str(error)
    return None


def schema() -> dict[str, Any]:
    return config_schema.config_schema()


def test_the_charts_schema_is_made_of_the_operators_readers() -> None:
    """`make generate` writes it."""
    chart = json.loads((ROOT / config_schema.FILE).read_text(encoding="utf-8"))
    assert chart["properties"]["config"] == schema(), "run make generate"


@pytest.mark.parametrize("config", GOOD_DATA, ids=range(len(GOOD)))
def test_what_the_operator_reads_the_chart_lets_through(config: dict[str, Any]) -> None:
    assert reads(config) is None
    assert faults(schema(), config) == []


def test_these_configurations_set_every_field_that_there_is() -> None:
    """Else a new field would be compared by nobody."""
    declared = {path for path, _ in _fields(schema())}
    used = {path for config in GOOD_DATA for path, *_ in _values(schema(), config)}
    assert declared - used == set()


def _fields(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every named field of the schema; `*` for a key or an item of the user's own."""
    for branch in node.get("anyOf", [node]):
        for name, child in branch.get("properties", {}).items():
            yield f"{path}.{name}", child
            yield from _fields(child, f"{path}.{name}")
        for keyword in ("items", "additionalProperties"):
            if isinstance(branch.get(keyword), Mapping):
                yield from _fields(branch[keyword], f"{path}.*")


def _values(
    node: Mapping[str, Any], value: Any, path: str = "", at: tuple[Any, ...] = ()
) -> Iterator[tuple[str, tuple[Any, ...], Mapping[str, Any]]]:
    """(field, where it is in the configuration, its schema) of every value."""
    if at:
        yield path, at, node
    branch = next((b for b in node.get("anyOf", [node]) if not faults(b, value)), node)
    if isinstance(value, dict):
        known, others = branch.get("properties", {}), branch.get("additionalProperties")
        for key, item in value.items():
            child = known.get(key, others)
            if isinstance(child, Mapping):
                yield from _values(child, item, f"{path}.{key if key in known else '*'}", (*at, key))
    elif isinstance(value, list) and isinstance(branch.get("items"), Mapping):
        for index, item in enumerate(value):
            yield from _values(branch["items"], item, f"{path}.*", (*at, index))


def _with(config: dict[str, Any], at: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(config)
    holder: Any = made
    for step in at[:-1]:
        holder = holder[step]
    holder[at[-1]] = value
    return made


def _mistakes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field with a value of a type that it does not have, and every closed mapping with a field more."""
    whole = schema()
    sections = [{name: section} for config in GOOD_DATA for name, section in config.items()]
    for config in sections:
        for path, at, node in _values(whole, config):
            branches = node.get("anyOf", [node])
            kinds = {branch.get("type") for branch in branches}
            for kind, value in STRANGE.items():
                if kind not in kinds:
                    yield f"{path} as {kind}", _with(config, at, value)
            if any(branch.get("additionalProperties") is False for branch in branches) and "object" in kinds:
                holder: Any = config
                for step in at:
                    holder = holder[step]
                if isinstance(holder, dict):
                    yield f"{path} with a field more", _with(config, at, {**holder, "zz": "y"})


def test_a_value_of_another_type_and_an_unknown_field_are_refused_by_both() -> None:
    """Lost: a mistake that Helm lets through, and an operator that does not start."""
    mistakes = list(_mistakes())
    assert len(mistakes) > 250, "the walk lost its way"
    whole = schema()
    verdicts = [(what, reads(config), faults(whole, config)) for what, config in mistakes]
    assert [what for what, read, chart in verdicts if read is None or not chart] == []


@pytest.mark.parametrize("text", WRONG)
def test_what_the_operator_does_not_start_with_helm_refuses(text: str) -> None:
    config = yaml.safe_load(text)
    assert reads(config) is not None
    assert faults(schema(), config) != []


@pytest.mark.parametrize("text", ONLY_THE_READER_KNOWS)
def test_what_only_the_operator_can_tell_is_known(text: str) -> None:
    """What takes the catalogue, or several fields together. What is no longer of these belongs above."""
    config = yaml.safe_load(text)
    assert reads(config) is not None
    assert faults(schema(), config) == []
