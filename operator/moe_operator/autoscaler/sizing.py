"""How many groups are worth having: what another group costs against the late requests that it avoids. Pure."""

import math
from dataclasses import dataclass

from moe_operator.autoscaler.growth import Points
from moe_operator.autoscaler.lateness import Curve

#: Groups for each group's worth of demand, at most: whoever shall take more than a threefold surge in their stride needs
#: a higher floor, not an autoscaler.
_MOST = 3.0


@dataclass(frozen=True, slots=True)
class Sized:
    """A number of groups, and the share of requests that will be late with it."""

    groups: int
    late: float


def expected_late(demand: float, points: Points, curve: Curve, groups: int) -> float:
    """Share of requests that will be late with so many groups, for a demand (in groups) and how it may turn out."""
    if groups < 1:
        return 1.0 if demand > 0 else 0.0
    each = demand / groups
    late = whole = 0.0
    for ratio, weight in points:
        # The more there are, the more of them are late.
        late += ratio * weight * curve.at(each * ratio)
        whole += ratio * weight
    return late / whole


def needed(demand: float, points: Points, curve: Curve, worth: float, floor: int, ceiling: int) -> Sized:
    """The number of groups with the least cost: groups + worth x demand x share of late requests.

    `worth`: groups that one pays for rather than have all requests of one group late.
    """
    least = max(floor, math.ceil(demand * 0.6))
    most = max(least, math.ceil(demand * _MOST) + 1)
    least, most = min(least, ceiling), min(most, ceiling)
    best = Sized(least, expected_late(demand, points, curve, least))
    cost = best.groups + worth * demand * best.late
    for groups in range(least + 1, most + 1):
        if groups >= cost:
            break  # even with no late request
        late = expected_late(demand, points, curve, groups)
        if groups + worth * demand * late < cost:
            best, cost = Sized(groups, late), groups + worth * demand * late
    return best
