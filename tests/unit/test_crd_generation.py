"""The CRD that users install must be the one that the code means, and one that an API server accepts."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, Field

from crd_cases import ACCEPTED, Case
from moe_operator.api import crd, reference
from moe_operator.api.rules import RULES
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.api.structural import (
    NotStructuralError,
    apply_defaults,
    assert_structural,
    to_structural,
    walk,
)
from moe_operator.catalog import reference as accelerators

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "module", [crd, reference, accelerators], ids=["CRD", "API reference", "accelerators"]
)
def test_what_is_committed_is_what_the_code_generates(module: Any) -> None:
    """Else users install, or read of, another API than the operator's."""
    committed = (ROOT / module.FILE).read_text(encoding="utf-8")
    assert committed == module.render(), f"{module.FILE} is stale: run `make generate`"


def test_the_file_reads_back_as_the_definition() -> None:
    """A YAML alias, or text folded in a way that changes it, would."""
    assert yaml.safe_load(crd.render()) == crd.custom_resource_definition()
    assert "&id" not in crd.render()


def test_stays_within_what_kubectl_apply_can_remember() -> None:
    """Client-side apply keeps the whole object in an annotation of at most 262144 bytes."""
    assert len(crd.render()) < 200_000


def test_every_field_is_explained() -> None:
    """`kubectl explain` and the reference would show nothing for it."""
    root = crd.schema()
    for part in ("spec", "status"):
        node = root["properties"][part]
        silent = [
            path
            for path, inner in walk(node)
            if path and not path.endswith(("[]", "{}")) and not inner.get("description")
        ]
        passed_on = ("engine.env[].name", "podTemplate.")
        assert [path for path in silent if not path.startswith(passed_on)] == []


def test_every_text_list_and_map_of_the_spec_is_bounded() -> None:
    """Without bounds the API server counts rules as too dear, and an object may grow past what etcd takes."""
    bound = {"string": "maxLength", "array": "maxItems"}
    for path, node in walk(crd.schema()["properties"]["spec"]):
        if "enum" in node:
            continue
        keyword = bound.get(str(node.get("type")))
        if node.get("additionalProperties"):
            keyword = "maxProperties"
        assert keyword is None or keyword in node, f"{path} has no {keyword}"


def test_numbers_are_whole_and_choices_can_grow() -> None:
    """Floats lose digits between writers, and a boolean cannot get a third value: only `paused`, as in a Deployment."""
    kinds = {node.get("type") for path, node in walk(crd.schema()) if not path.endswith("rollout.paused")}
    assert kinds <= {"object", "array", "string", "integer", None}


def test_rules_say_what_to_do_in_a_line() -> None:
    for rule in RULES:
        assert 20 <= len(rule.message) <= 400, rule.message
        assert "\n" not in rule.message


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.id)
def test_server_and_operator_fill_in_the_same_defaults(case: Case) -> None:
    """Else a user reads one value in the object and the operator follows another."""
    spec = case.manifest()["spec"]
    stored = apply_defaults(crd.schema()["properties"]["spec"], copy.deepcopy(spec))
    read = ModelDeploymentSpec.model_validate(spec)
    assert ModelDeploymentSpec.model_validate(stored) == read
    assert _without_empty(read.wire()) == _without_empty(stored)


def _without_empty(value: Any) -> Any:
    """Empty maps and lists mean the same as none."""
    if isinstance(value, dict):
        kept = {key: _without_empty(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in ({}, [])}
    return value


# --- The generator on models that it must not let pass -------------------------------------------


class _Inner(BaseModel):
    value: int = 1


class _Union(BaseModel):
    either: int | str = 1


class _Recursive(BaseModel):
    inner: "_Recursive | None" = None


class _Bag(BaseModel):
    anything: dict[str, Any] = Field(default_factory=dict)


class _Unmarked(BaseModel):
    items: list[_Inner] = Field(default_factory=list)


class _Float(BaseModel):
    share: float = 0.5


class _Open(BaseModel):
    above: int = Field(default=2, gt=1)


def _structural(model: type[BaseModel]) -> dict[str, Any]:
    schema = to_structural(model.model_json_schema())
    assert_structural(schema)
    return schema


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (_Union, "union of types"),
        (_Recursive, "contains itself"),
        (_Bag, "declare a Kubernetes object"),
        (_Unmarked, "x-kubernetes-list-type"),
        (_Float, "type must be one of"),
        (_Open, "another meaning"),
    ],
)
def test_a_model_that_no_crd_can_express_is_named_before_an_api_server_refuses_it(
    model: type[BaseModel], fault: str
) -> None:
    with pytest.raises(NotStructuralError, match=fault):
        _structural(model)


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "object", "properties": {"a": {"$ref": "#/x", "type": "string"}}}, "keyword .ref"),
        ({"type": "object", "properties": {"a": {"type": "string", "nullable": True}}}, "keyword nullable"),
        ({"type": "object", "properties": {"a": {"type": "object"}}}, "without fields"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]}, "not described"),
        ({"type": "object", "properties": {"a": {"type": "array"}}}, "one schema for its items"),
        ({"type": "object", "properties": {"a": {"type": "string", "default": 1}}}, "default is no string"),
        (
            {
                "type": "object",
                "properties": {
                    "a": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"k": {"type": "string"}}},
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["k"],
                    }
                },
            },
            "map key k",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "additionalProperties": {"type": "string"},
            },
            "exclude each other",
        ),
    ],
)
def test_a_schema_that_an_api_server_refuses_is_recognised(schema: dict[str, Any], fault: str) -> None:
    with pytest.raises(NotStructuralError, match=fault):
        assert_structural(schema)


def test_parents_of_defaults_get_one_too() -> None:
    """The API server fills in only what lies below something that is there."""

    class Outer(BaseModel):
        inner: _Inner = _Inner()

    schema = _structural(Outer)
    assert schema["properties"]["inner"]["default"] == {}
    assert apply_defaults(schema, {}) == {"inner": {"value": 1}}
    assert apply_defaults(schema, {"inner": {"value": 7}}) == {"inner": {"value": 7}}
