"""Groups that move to another width: at every step enough of them serve, GPUs are bounded, and the move ends.

A breach here is an outage in the middle of a change that nobody asked for, or one that never ends.
"""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories.deployments import revision_of_width
from factories.groups import NOW, admitted, group, view, wanted
from moe_operator.autoscaler.width_units import WidthUnits
from moe_operator.controller.group_planner import GONE, GroupState, GroupView, Wanted
from moe_operator.controller.mixed_widths import measures
from moe_operator.resources.revision import Revision
from properties.test_group_planner_properties import serving, step

OLD, NEW = "tiny-old", "tiny-a"


def _measured(
    target: Wanted, units: WidthUnits, floor: int, kept: dict[str, Revision], groups: dict[int, GroupView]
) -> Wanted:
    found = measures(units, target.desired, floor, kept[NEW], kept, list(groups.values()))
    assert found.desired == target.desired
    return replace(target, worth=found.worth, size=found.size)


def _capacity(units: WidthUnits, groups: dict[int, GroupView]) -> Fraction:
    """Of those that serve, in groups of the width before."""
    return sum(
        (
            Fraction(units.percent, 100) if g.facts.revision == NEW else Fraction(1)
            for g in groups.values()
            if g.state is GroupState.SERVING
        ),
        Fraction(0),
    )


def _gpus(units: WidthUnits, groups: dict[int, GroupView]) -> int:
    there = [g for g in groups.values() if g.state is not GroupState.DELETING]
    return sum(units.gpus if g.facts.revision == NEW else units.before for g in there)


@settings(max_examples=300, deadline=None)
@given(
    widths=st.sampled_from([(8, 16), (8, 32), (4, 8), (16, 8), (32, 8), (8, 4), (8, 1)]),
    gain=st.integers(60, 200),
    before=st.integers(1, 9),
    surge=st.integers(0, 3),
    unavailable=st.integers(0, 2),
    floor=st.integers(1, 4),
    less=st.integers(0, 12),
    more=st.integers(0, 5),
)
def test_a_move_keeps_what_serves_and_ends(
    widths: tuple[int, int],
    gain: int,
    before: int,
    surge: int,
    unavailable: int,
    floor: int,
    less: int,
    more: int,
) -> None:
    """`less`: how many fewer groups will do than take as much as those before; `more`: how many more are wanted since
    that was found."""
    if surge == 0 and unavailable == 0:
        surge = 1
    old, new = widths
    units = WidthUnits(new, old, max(1, gain * new // old))
    floor = min(floor, before)
    chosen = max(floor, units.from_groups_of(old, before) - less)
    units = replace(units, groups=chosen, groups_before=before)
    number = chosen + more
    kept = {OLD: revision_of_width(OLD, old), NEW: revision_of_width(NEW, new)}
    target = wanted(desired=number, revision=NEW, max_surge=surge, max_unavailable=unavailable)
    groups = {slot: view(replace(admitted(group(slot)), revision=OLD), requests=0) for slot in range(before)}
    there = max(Fraction(floor), units.stand_for(old, number))
    # One group may be missing for each that is allowed to, of the kind that takes most.
    each = Fraction(units.percent, 100)
    least = min(before, there, number * each) - unavailable * max(there / number, each, Fraction(1))
    most = max(number * new, there * old, before * old) + surge * max(new, old)
    now = NOW
    for _ in range(400):
        groups, settled = step(_measured(target, units, floor, kept, groups), groups, now)
        assert _capacity(units, groups) >= least
        assert serving(groups) >= min(floor, number) - unavailable * max(1, math.ceil(there / number))
        assert _gpus(units, groups) <= most
        now += 10
        if settled:
            break
    else:
        pytest.fail("no end")
    assert {g.facts.revision for g in groups.values()} == {NEW}
    assert len([g for g in groups.values() if g.state not in GONE]) == number
