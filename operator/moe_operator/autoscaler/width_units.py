"""Numbers of groups, in groups of one width and of another, while a deployment moves between the two. Pure.

Shares of capacity are whole percents, as the status keeps them: an operator that starts in the middle counts as the one
before it did.
"""

from dataclasses import dataclass
from fractions import Fraction

from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.scaling import ChosenWidthStatus, ScalingStatus
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.planner.widths import width_is_given, with_width


def chosen_width(spec: ModelDeploymentSpec, scaling: ScalingStatus | None) -> ChosenWidthStatus | None:
    """What the operator chose, where the spec leaves it the choice."""
    return None if scaling is None or width_is_given(spec) else scaling.chosen_width


def with_chosen_width(deployment: ModelDeployment) -> ModelDeployment:
    """The deployment as if its user had asked for the width that the operator chose; as it is where that is the plan's
    own."""
    chosen = chosen_width(deployment.spec, deployment.status.scaling)
    if chosen is None or chosen.gpus == chosen.planned:
        return deployment
    return with_width(deployment, chosen.gpus)


@dataclass(frozen=True)
class WidthUnits:
    """Of one change of width."""

    gpus: int
    """The width that groups have from now on."""
    before: int
    percent: int
    """What a group of it takes, in percent of one of `before`."""
    groups: int = 1
    groups_before: int = 1
    """So many groups of `before` go for `groups` new ones."""

    @staticmethod
    def of(chosen: ChosenWidthStatus | None) -> "WidthUnits | None":
        """Those of a choice."""
        if chosen is None:
            return None
        return WidthUnits(chosen.gpus, chosen.before, chosen.percent, chosen.groups, chosen.groups_before)

    def stand_for(self, width: int, number: int) -> Fraction:
        """Groups of a width, and parts of them, that may stay for `number` new ones: not what takes as much, but what
        was there when so many were found to do."""
        if width == self.gpus:
            return Fraction(number)
        if width == self.before and self.groups > 0 and self.groups_before > 0:
            return Fraction(number * self.groups_before, self.groups)
        return Fraction(self.in_groups_of(width, number))

    def worth(self, width: int) -> Fraction:
        """A group of a width, in groups of `before`. Of a third one it is told by its GPUs."""
        if width == self.gpus:
            return Fraction(max(1, self.percent), 100)
        return Fraction(width, self.before) if width else Fraction(1)

    def in_groups_of(self, width: int, number: int) -> int:
        """`number` groups of the new width, in groups of another: as many as take no more."""
        if width == self.gpus or number == 0:
            return number
        return max(1, int(number * self.worth(self.gpus) / self.worth(width)))

    def from_groups_of(self, width: int, number: int) -> int:
        """Groups of the new width for `number` groups of another: as many as take no less."""
        if width == self.gpus:
            return number
        return -int(-number * self.worth(width) // self.worth(self.gpus))


def most_groups(
    max_groups: int | None, chosen: ChosenWidthStatus | None, *, moving: bool = False
) -> int | None:
    """`maxGroups` of groups as wide as the plan's own, in groups of the chosen width: no more GPUs than those.

    `moving`: while there are groups of the width before, no more either than as many of those stand for as may be.
    """
    if max_groups is None or chosen is None or max_groups == 0:
        return max_groups
    most = max_groups * chosen.planned // chosen.gpus
    if moving and chosen.groups_before > 0:
        before = max(max_groups * chosen.planned // chosen.before, chosen.groups_before)
        most = min(most, before * chosen.groups // chosen.groups_before)
    return max(1, most)
