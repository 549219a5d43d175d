"""What groups count for while some are of another width than those that are made. Pure.

The wanted number is that of groups of the chosen width. Groups of the width before stand for it in proportion: if d of
them did where D are wanted now, each counts for D/d. Such fractions add up to whole numbers, so a rollout cannot stand
still over parts of groups where one width divides the other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from moe_operator.autoscaler.width_units import WidthUnits
from moe_operator.controller.group_planner import GONE, GroupState, GroupView
from moe_operator.resources.revision import Revision


@dataclass(frozen=True)
class Measures:
    """Of groups that are not as wide as those that are made, by name."""

    desired: int
    """Groups that are wanted, in those that are made."""
    worth: Mapping[str, Fraction] = field(default_factory=dict)
    """What they count for."""
    size: Mapping[str, Fraction] = field(default_factory=dict)
    """Their GPUs, in groups that are made."""

    def surplus(self, views: Sequence[GroupView]) -> int:
        """Groups that need not be there, as others count for more than one."""
        live = [view.name for view in views if view.state not in GONE]
        return math.floor(sum((self.worth[name] - 1 for name in live if name in self.worth), Fraction(0)))


def measures(
    units: WidthUnits | None,
    desired: int,
    floor: int,
    made_of: Revision | None,
    kept: Mapping[str, Revision],
    views: Sequence[GroupView],
) -> Measures:
    """`desired` groups of the chosen width, where groups are made of a revision; `floor`: the least of any width."""
    if units is None or made_of is None or desired == 0:
        return Measures(desired)
    made, least = made_of.plan.width, min(floor, desired)

    def number(width: int) -> Fraction:
        return max(Fraction(least), units.stand_for(width, desired))

    here = number(made)
    worth, size = {}, {}
    for view in views:
        revision = kept.get(view.facts.revision)
        if revision is None or revision.plan.width == made or view.state is GroupState.DELETING:
            continue
        width = revision.plan.width
        worth[view.name] = here / number(width)
        size[view.name] = Fraction(width, made)
    return Measures(math.ceil(here), worth, size)
