"""Without these, an object that the API server would refuse reaches the planner once it is stored."""

import copy

import pytest

from crd_cases import ACCEPTED, CASES, CHANGES, REFUSED, Case, merged
from moe_operator.api.deployment import InvalidSpecError, ModelDeployment, parse
from moe_operator.api.rules import violations


def _parse(case: Case) -> ModelDeployment:
    obj = copy.deepcopy(case.manifest())
    obj["metadata"]["uid"] = "u"
    return parse(obj)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.id)
def test_what_may_be_written_is_read_without_objection(case: Case) -> None:
    assert violations(_parse(case)) == []


@pytest.mark.parametrize("case", [c for c in REFUSED if not c.server_only], ids=lambda case: case.id)
def test_what_may_not_be_written_is_refused_with_what_to_do(case: Case) -> None:
    try:
        messages = [violation.message for violation in violations(_parse(case))]
    except InvalidSpecError as error:
        messages = [str(error)]
    assert any(case.refused in message for message in messages), messages


@pytest.mark.parametrize("case", [c for c in REFUSED if c.server_only], ids=lambda case: case.id)
def test_what_only_the_server_refuses_is_still_readable_when_stored(case: Case) -> None:
    assert violations(_parse(case)) == []


def test_the_table_is_about_different_things() -> None:
    for table in (CASES, CHANGES):
        ids = [row.id for row in table]
        assert len(ids) == len(set(ids))


def test_merging_a_case_leaves_the_base_alone() -> None:
    base = {"a": {"b": 1}}
    assert merged(base, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    assert base == {"a": {"b": 1}}


def test_a_refusal_names_the_flag_at_fault_as_it_was_written() -> None:
    case = Case("", {"engine": {"args": {"tensor_parallel_siz": "2", "max-num-seqs": "1"}}})
    (violation,) = violations(_parse(case))
    assert violation.message == ("engine.args must not set tensor_parallel_siz: use spec.parallelism.tensor")
    assert violation.reason == "ReservedArgument"
