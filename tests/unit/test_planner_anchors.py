"""The roofline held against published figures. Off by more than a factor of two, it buys a fleet of the wrong size."""

import math
from pathlib import Path

import pytest

from moe_operator.catalog.accelerators import load_catalog
from moe_operator.catalog.models.catalog import load_models
from moe_operator.planner import arithmetic, memory, reference, roofline
from moe_operator.planner.anchors import ANCHORS, Anchor, estimate

COMPARABLE = [anchor for anchor in ANCHORS if not anchor.remark]


def _name(anchor: Anchor) -> str:
    model = anchor.model.partition("/")[2]
    return (
        f"{model}-{anchor.precision}-{anchor.accelerator}-{anchor.rate.name.lower()}-{anchor.published:.0f}"
    )


def _off(anchor: Anchor) -> float:
    return estimate(anchor, load_catalog(), load_models()) / anchor.published


def test_enough_was_published_to_compare_with() -> None:
    assert len(COMPARABLE) >= 16


@pytest.mark.parametrize("anchor", COMPARABLE, ids=_name)
def test_the_estimate_is_within_a_factor_of_two(anchor: Anchor) -> None:
    assert 0.5 <= _off(anchor) <= 2.0


def test_estimates_are_not_all_off_to_one_side() -> None:
    """A bias would be one constant that is wrong."""
    mean = math.exp(sum(math.log(_off(anchor)) for anchor in COMPARABLE) / len(COMPARABLE))
    assert 0.8 <= mean <= 1.25


@pytest.mark.parametrize("anchor", [anchor for anchor in ANCHORS if anchor.remark], ids=_name)
def test_a_remark_is_only_where_it_is_needed(anchor: Anchor) -> None:
    assert not 0.5 <= _off(anchor) <= 2.0


def test_the_page_says_every_constant_with_its_reason() -> None:
    """A number without a reason cannot be corrected by anyone."""
    for module in (memory, roofline, arithmetic):
        named = {name for name, _, reason in reference.constants(module) if len(reason) > 20}
        units = {"MIB", "GIB"}
        public = {
            name
            for name, value in vars(module).items()
            if name.isupper() and not name.startswith("_") and isinstance(value, int | float)
        }
        assert public - units <= named


def test_the_page_is_current() -> None:
    root = Path(__file__).resolve().parents[2]
    assert (root / reference.FILE).read_text(encoding="utf-8") == reference.render(), (
        "run `python -m generate` in hack/"
    )
