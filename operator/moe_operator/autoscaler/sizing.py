"""How many groups are worth having: what another group costs against the late requests that it avoids. Pure.

Cost is groups + worth x demand x share of late requests. Per group's worth of demand it depends on the room alone, that
is groups for each group's worth of demand; so the best room is found once, and serves for any demand.
"""

import math
from dataclasses import dataclass

from moe_operator.autoscaler.growth import Points
from moe_operator.autoscaler.lateness import Curve

#: The rooms that are looked at first, and steps around the best of them. Whoever shall take more than a doubling in
#: their stride needs a higher floor, not an autoscaler: one that was seen would be paid for over hours.
_ROOMS = tuple(0.7 + 0.15 * step for step in range(10))
_STEPS = (-0.1, -0.05, 0.05, 0.1)
#: Rooms for demand that does not change: long prompts make requests late far below full load. What is late at a seventh
#: of it is so for another reason, such as an overload that is not forgotten yet.
_STEADY_ROOMS = tuple(1 / (0.025 * step) for step in range(44, 5, -1))
#: What a late request costs beyond those that may be, in those that may.
_EXCESS = 40.0
#: More room has to save that share of the cost: rare surges are not to make it jump up and down.
_CLEARLY = 0.05


@dataclass(frozen=True, slots=True)
class Sized:
    """A number of groups, and the share of requests that will be late with it."""

    groups: int
    late: float


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """What would be late with fewer groups than are wanted. Found when it is asked for: only who shares out scarce GPUs
    asks, and it is most of the work of a decision."""

    arrivals: float
    """Requests per second."""
    demand: float
    points: Points
    curve: Curve
    floor: int
    most: int
    """Those that are worth having: further ones avoid nothing."""

    def up_to(self, groups: int) -> tuple[float, ...]:
        """Requests per second that would be late with `floor`, `floor` + 1, ... `groups`."""
        known = [
            self.arrivals * late_with(each, self.demand, self.points, self.curve)
            for each in range(self.floor, min(groups, self.most) + 1)
        ]
        return (*known, *known[-1:] * (groups - self.most))


def late_with(groups: int, demand: float, points: Points, curve: Curve) -> float:
    """Share of requests that will be late with so many groups."""
    if groups < 1:
        return 1.0 if demand > 0 else 0.0
    return expected_late(points, curve, demand / groups)


def expected_late(points: Points, curve: Curve, load: float) -> float:
    """Share of requests that will be late where the forecast is `load` for each group, and may turn out as in
    `points`."""
    late = whole = 0.0
    for ratio, weight in points:
        # The more there are, the more of them are late.
        late += ratio * weight * curve.at(load * ratio)
        whole += ratio * weight
    return late / whole


def steady_room(curve: Curve, worth: float, allowed: float) -> float:
    """Groups for each group's worth of demand, with the least cost if demand stays as it is, where a share of `allowed`
    may be late: beyond it another costs more, but not any number of groups, as there may be none that helps.
    """

    def cost(room: float) -> float:
        late = curve.at(1 / room)
        return room + worth * late + _EXCESS * worth * max(0.0, late - allowed)

    return min(_STEADY_ROOMS, key=cost)


def best_room(points: Points, curve: Curve, worth: float, least: float) -> float:
    """Groups for each group's worth of demand, with the least cost where it may turn out as in `points`; no fewer than
    `least`.

    `worth`: groups that one pays for rather than have all requests of one group late.
    """
    best, cost = _ROOMS[0], math.inf
    for room in _ROOMS:
        if room < least:
            continue
        if room >= cost:
            break  # even with no late request
        mine = room + worth * expected_late(points, curve, 1 / room)
        if mine < cost * (1 - _CLEARLY * (room - best)):
            best, cost = room, mine
    for room in [max(least, best + step) for step in _STEPS]:
        mine = room + worth * expected_late(points, curve, 1 / room)
        if mine < cost:
            best, cost = room, mine
    return best


def sized(
    demand: float, room: float, points: Points, curve: Curve, worth: float, floor: int, ceiling: int
) -> Sized:
    """The whole number of groups nearest to that room, below or above by cost."""
    if demand <= 0:
        return Sized(min(floor, ceiling), 0.0)
    fewer = max(1, floor, math.floor(demand * room))
    groups, late = fewer, expected_late(points, curve, demand / fewer)
    if fewer < demand * room:
        then = expected_late(points, curve, demand / (fewer + 1))
        if worth * demand * (late - then) > 1:
            groups, late = fewer + 1, then
    if groups > ceiling:
        groups, late = ceiling, expected_late(points, curve, demand / ceiling) if ceiling else 1.0
    return Sized(groups, late)
