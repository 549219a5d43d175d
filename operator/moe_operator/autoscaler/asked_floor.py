"""What keeps more groups than `minGroups` for a time: schedules, and the annotation that wakes a deployment. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from moe_operator.api import names
from moe_operator.api.reasons import ScalingReason
from moe_operator.api.spec import ScheduleSpec
from moe_operator.api.times import format_time
from moe_operator.autoscaler.floor import Floor
from moe_operator.autoscaler.schedules import floor_at


def floor_of(schedules: Sequence[ScheduleSpec], wake_until: float | None, now: float, lead: float) -> Floor:
    """At `now`, where a group that is ordered serves after `lead` seconds; the highest of all that ask."""
    floor = floor_at(schedules, now, lead)
    if wake_until is None or wake_until <= now:
        return floor
    change, due = min(wake_until, floor.next_change), max(1, floor.due)
    if (floor.groups, floor.until) >= (1, wake_until):
        return replace(floor, due=due, next_change=change)
    text = f"at least 1 until {format_time(wake_until)} (annotation {names.ANNOTATION_WAKE_UNTIL})"
    return Floor(1, due, ScalingReason.WOKEN, text, wake_until, change)
