"""Floors by the time of the day: which of a deployment's schedules asks for groups, and until when. Pure.

A window goes from `from` on one of its days until `to`, on the next day where that is no later. Both are times of its
zone's clock. When the clock is changed a time may come twice, or not at all: the window then begins at the earlier and
ends at the later moment that can be meant, so that it is never shorter than written.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from moe_operator.api.spec import ScheduleSpec, Weekday
from moe_operator.api.time_zones import time_zone
from moe_operator.autoscaler.floor import Floor

_WEEK = tuple(Weekday)
#: Days around today whose windows are looked at: the next of a weekly window, and the first of a week of whole days.
_AROUND = 8


@dataclass(frozen=True)
class _Window:
    schedule: ScheduleSpec
    zone: ZoneInfo
    begins: float
    ends: float


def floor_at(schedules: Sequence[ScheduleSpec], now: float, lead: float) -> Floor:
    """What they ask for at `now` (seconds since the epoch), where a group that is ordered serves after `lead` seconds.

    The schedule with most groups counts; of several the one that lasts longest. Those with a zone that the database
    does not have are left out: `api.rules` refuses them.
    """
    windows = [window for schedule in schedules for window in _windows(schedule, now)]
    edges = [edge for w in windows for edge in (w.begins - lead, w.begins, w.ends) if edge > now]
    change = min(edges, default=math.inf)
    open_now = [w for w in windows if w.begins - lead <= now < w.ends]
    if not open_now:
        return Floor(next_change=change)
    most = max(open_now, key=lambda w: (w.schedule.min_groups, w.ends, w.schedule.name))
    due = max((w.schedule.min_groups for w in open_now if w.begins <= now), default=0)
    return Floor(most.schedule.min_groups, due, text=_text(most, now), until=most.ends, next_change=change)


def _windows(schedule: ScheduleSpec, now: float) -> Iterator[_Window]:
    """Those around now, in order."""
    zone = time_zone(schedule.time_zone)
    if zone is None:
        return
    days = tuple(_WEEK.index(day) for day in schedule.days) if schedule.days is not None else tuple(range(7))
    today = datetime.fromtimestamp(now, zone).date()
    for begins, ends in _spans(days, schedule.begins, schedule.ends, zone, today):
        yield _Window(schedule, zone, begins, ends)


@lru_cache(maxsize=4096)
def _spans(
    days: tuple[int, ...], begins: str, ends: str, zone: ZoneInfo, today: date
) -> tuple[tuple[float, float], ...]:
    """Beginning and end of the windows around a day; such as follow each other without a gap are one."""
    found: list[tuple[float, float]] = []
    next_day = timedelta(days=ends <= begins)
    for offset in range(-_AROUND, _AROUND + 1):
        day = today + timedelta(days=offset)
        if day.weekday() not in days:
            continue
        begin, end = min(_moments(day, begins, zone)), max(_moments(day + next_day, ends, zone))
        if found and begin <= found[-1][1]:
            begin = found.pop()[0]
        found.append((begin, end))
    endless = bool(found) and found[0][1] - found[0][0] > _AROUND * 86400
    return ((found[0][0], math.inf),) if endless else tuple(found)


def _moments(day: date, clock: str, zone: ZoneInfo) -> tuple[float, float]:
    """When the zone's clock shows that time: different where it is changed at that hour (PEP 495)."""
    hour, minute = clock.split(":")
    local = datetime(day.year, day.month, day.day, int(hour), int(minute), tzinfo=zone)
    return local.timestamp(), local.replace(fold=1).timestamp()


def _text(window: _Window, now: float) -> str:
    schedule = window.schedule
    ahead = now < window.begins
    text = f"at least {schedule.min_groups}"
    if ahead:
        text += f" from {schedule.begins}"
    if window.ends < math.inf:
        begins, ends = (datetime.fromtimestamp(at, window.zone).date() for at in (window.begins, window.ends))
        day = "" if begins == ends else f"{_WEEK[ends.weekday()]} "
        text += f" until {day}{schedule.ends} {schedule.time_zone}"
    text += f" (schedule {schedule.name})"
    return f"{text}, made ahead so that they serve then" if ahead else text
