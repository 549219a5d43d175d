"""What keeps more groups than `minGroups` for a time: schedules, and the annotation that wakes a deployment. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moe_operator.api import names
from moe_operator.api.reasons import ScalingReason
from moe_operator.api.spec import ScheduleSpec
from moe_operator.api.times import format_time
from moe_operator.autoscaler.schedules import floor_at


@dataclass(frozen=True)
class Floor:
    """Groups that there are at least for a time. Times in seconds since the epoch."""

    groups: int = 0
    due: int = 0
    """Of these, those that have to serve now: the others are made ahead."""
    reason: ScalingReason = ScalingReason.SCHEDULED
    text: str = ""
    """Who asks, and until when."""
    until: float = math.inf
    next_change: float = math.inf
    """When to ask again."""


def floor_of(schedules: Sequence[ScheduleSpec], wake_until: float | None, now: float, lead: float) -> Floor:
    """At `now`, where a group that is ordered serves after `lead` seconds; the highest of all that ask."""
    found = floor_at(schedules, now, lead)
    floor = Floor(
        found.groups, found.due, ScalingReason.SCHEDULED, found.text, found.until, found.next_change
    )
    if wake_until is None or wake_until <= now:
        return floor
    change, due = min(wake_until, floor.next_change), max(1, floor.due)
    if (floor.groups, floor.until) >= (1, wake_until):
        return Floor(floor.groups, due, floor.reason, floor.text, floor.until, change)
    text = f"at least 1 until {format_time(wake_until)} (annotation {names.ANNOTATION_WAKE_UNTIL})"
    return Floor(1, due, ScalingReason.WOKEN, text, wake_until, change)
