"""A reason that is not explained leaves a user with a word."""

import ast
import re
from pathlib import Path

import pytest

from moe_operator.api import reasons
from moe_operator.api.reasons import ScalingReason

PACKAGE = Path(reasons.__file__).parents[1]
SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_names_are_what_kubernetes_allows_and_unique() -> None:
    names = [reason.name for reason in reasons.all_reasons()]
    assert len(names) == len(set(names))
    for name in [*names, *(c.name for c in reasons.condition_types())]:
        assert re.fullmatch(r"[A-Z][A-Za-z]{2,62}", name), name


def test_each_says_when_it_holds_in_whole_sentences() -> None:
    for reason in reasons.all_reasons():
        assert reason.when.endswith("."), reason
        assert not reason.remedy or reason.remedy.endswith("."), reason


def test_every_scaling_reason_is_explained() -> None:
    assert all(reasons.describe(reason.value) for reason in ScalingReason)


def test_an_unknown_name_has_no_explanation() -> None:
    assert reasons.describe("NoSuchReason") is None


def test_the_same_name_cannot_mean_two_things() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        reasons._reason("General", reasons.SERVING, "Again.")
    assert reasons.describe(reasons.SERVING) is not None


def test_every_reason_that_the_code_gives_exists() -> None:
    """A misspelt constant would raise in the very moment in which something has gone wrong."""
    used = {
        node.attr
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "reasons"
        and node.attr.isupper()
    }
    assert len(used) > 20
    assert [name for name in sorted(used) if not hasattr(reasons, name)] == []
