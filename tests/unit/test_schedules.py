"""Floors by the time of the day. Lost otherwise: the requests of each morning's first minutes, an hour of GPUs or of
service at every change of the clocks, or GPUs that are held all night."""

import math
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from factories.deployments import model_deployment
from moe_operator.api.reasons import UNKNOWN_TIME_ZONE, ScalingReason
from moe_operator.api.rules import violations
from moe_operator.api.spec import ScheduleSpec, Weekday
from moe_operator.api.times import read_rfc3339
from moe_operator.autoscaler.asked_floor import floor_of
from moe_operator.autoscaler.schedules import floor_at

WORKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]


def schedule(begins: str = "07:30", ends: str = "19:00", groups: int = 2, **fields: Any) -> ScheduleSpec:
    made = {"name": "office", "from": begins, "to": ends, "minGroups": groups, "timeZone": "Europe/Berlin"}
    return ScheduleSpec.model_validate(made | fields)


def at(text: str) -> float:
    """`2027-01-15 07:30` in Berlin; with `Z` in UTC."""
    if text.endswith("Z"):
        return datetime.fromisoformat(text[:-1]).replace(tzinfo=UTC).timestamp()
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()


def changes(
    schedules: list[ScheduleSpec], begin: float, end: float, lead: float = 0.0
) -> list[tuple[str, int]]:
    """When the floor changes, in UTC, and to what: found as the operator finds it, by the next change."""
    found, now, before = [], begin, floor_at(schedules, begin, lead).groups
    while (now := floor_at(schedules, now, lead).next_change) < end:
        groups = floor_at(schedules, now, lead).groups
        if groups != before:
            found.append((datetime.fromtimestamp(now, UTC).strftime("%a %H:%M:%S"), groups))
        before = groups
    return found


# --- Windows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "groups", "due"),
    [
        ("2027-01-15 07:19:59", 0, 0),
        ("2027-01-15 07:20:00", 2, 0),
        ("2027-01-15 07:30:00", 2, 2),
        ("2027-01-15 18:59:59", 2, 2),
        ("2027-01-15 19:00:00", 0, 0),
        ("2027-01-16 12:00:00", 0, 0),
    ],
)
def test_groups_are_made_a_start_ahead_and_serve_on_time(moment: str, groups: int, due: int) -> None:
    found = floor_at([schedule(days=WORKDAYS)], at(moment), 600.0)
    assert (found.groups, found.due) == (groups, due)


def test_a_week_of_office_hours() -> None:
    """15 January 2027 is a Friday; Berlin is an hour ahead of UTC."""
    week = changes([schedule(days=WORKDAYS)], at("2027-01-15 12:00"), at("2027-01-20 12:00"), 600.0)
    assert week == [
        ("Fri 18:00:00", 0),
        ("Mon 06:20:00", 2),
        ("Mon 18:00:00", 0),
        ("Tue 06:20:00", 2),
        ("Tue 18:00:00", 0),
        ("Wed 06:20:00", 2),
    ]


def test_a_window_may_pass_midnight_and_belongs_to_the_day_on_which_it_begins() -> None:
    night = schedule("22:00", "06:00", days=["Friday"])
    assert changes([night], at("2027-01-15 12:00"), at("2027-01-22 12:00")) == [
        ("Fri 21:00:00", 2),
        ("Sat 05:00:00", 0),
    ]
    assert "until Saturday 06:00 Europe/Berlin" in floor_at([night], at("2027-01-16 02:00"), 0).text


def test_windows_that_follow_each_other_are_one() -> None:
    days = schedule("00:00", "00:00", days=["Monday", "Tuesday"])
    assert changes([days], at("2027-01-15 12:00"), at("2027-01-22 12:00")) == [
        ("Sun 23:00:00", 2),
        ("Tue 23:00:00", 0),
    ]
    assert floor_at([days], at("2027-01-18 01:00"), 0).until == at("2027-01-20 00:00")


@pytest.mark.parametrize("begins", ["00:00", "07:30"])
@pytest.mark.parametrize("moment", ["2027-01-15 07:30", "2027-03-28 02:59", "2027-10-31 02:30"])
def test_a_window_of_whole_days_never_ends(begins: str, moment: str) -> None:
    always = floor_at([schedule(begins, begins)], at(moment), 300.0)
    assert (always.groups, always.due, always.until) == (2, 2, math.inf)
    assert always.text == "at least 2 (schedule office)"


def test_the_highest_counts_and_what_holds_afterwards_is_found() -> None:
    both = [schedule(), schedule("12:00", "14:00", 3, name="noon")]
    assert changes(both, at("2027-01-15 00:00"), at("2027-01-15 23:00")) == [
        ("Fri 06:30:00", 2),
        ("Fri 11:00:00", 3),
        ("Fri 13:00:00", 2),
        ("Fri 18:00:00", 0),
    ]
    assert (
        floor_at(both, at("2027-01-15 13:00"), 0).text
        == "at least 3 until 14:00 Europe/Berlin (schedule noon)"
    )
    assert (
        floor_at(both, at("2027-01-15 14:00"), 0).text
        == "at least 2 until 19:00 Europe/Berlin (schedule office)"
    )


def test_what_is_ahead_says_so() -> None:
    text = floor_at([schedule()], at("2027-01-15 07:29"), 600.0).text
    assert text == (
        "at least 2 from 07:30 until 19:00 Europe/Berlin (schedule office), made ahead so that they serve then"
    )


def test_a_lead_longer_than_a_pause_leaves_none() -> None:
    halves = [schedule("08:00", "12:00"), schedule("13:00", "18:00", name="later")]
    assert changes(halves, at("2027-01-15 00:00"), at("2027-01-15 23:00"), 7200.0) == [
        ("Fri 05:00:00", 2),
        ("Fri 17:00:00", 0),
    ]


# --- Clocks that are changed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begins", "ends", "expected"),
    [
        # 02:00 to 03:00 does not exist on 28 March 2027: 01:00Z is 02:00 and 03:00 at once.
        ("01:00", "04:00", [("Sun 00:00:00", 2), ("Sun 02:00:00", 0)]),
        ("02:30", "04:00", [("Sun 00:30:00", 2), ("Sun 02:00:00", 0)]),
        ("01:00", "02:30", [("Sun 00:00:00", 2), ("Sun 01:30:00", 0)]),
        ("02:15", "02:45", [("Sun 00:15:00", 2), ("Sun 01:45:00", 0)]),
        ("07:30", "19:00", [("Sun 05:30:00", 2), ("Sun 17:00:00", 0)]),
    ],
)
def test_in_spring_no_window_is_lost_with_the_hour(begins: str, ends: str, expected: list[Any]) -> None:
    assert changes([schedule(begins, ends)], at("2027-03-27 20:00"), at("2027-03-28 20:00")) == expected


@pytest.mark.parametrize(
    ("begins", "ends", "expected"),
    [
        # 02:00 to 03:00 comes twice on 31 October 2027, at 00:00Z and at 01:00Z.
        ("01:00", "04:00", [("Sat 23:00:00", 2), ("Sun 03:00:00", 0)]),
        ("02:30", "04:00", [("Sun 00:30:00", 2), ("Sun 03:00:00", 0)]),
        ("01:00", "02:30", [("Sat 23:00:00", 2), ("Sun 01:30:00", 0)]),
        ("02:15", "02:45", [("Sun 00:15:00", 2), ("Sun 01:45:00", 0)]),
        ("07:30", "19:00", [("Sun 06:30:00", 2), ("Sun 18:00:00", 0)]),
    ],
)
def test_in_autumn_a_window_in_the_double_hour_is_one(begins: str, ends: str, expected: list[Any]) -> None:
    assert changes([schedule(begins, ends)], at("2027-10-30 20:00"), at("2027-10-31 20:00")) == expected


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]
)
def test_over_a_year_the_clock_on_the_wall_decides(zone: str) -> None:
    """Compared with what a person in that place reads off a clock, every 30 minutes but in the changed hours."""
    office, there = schedule("07:30", "19:00", timeZone=zone, days=WORKDAYS), ZoneInfo(zone)
    begin = at("2027-01-01 00:00Z")
    for step in range(365 * 48):
        moment = begin + 1800.0 * step
        wall = datetime.fromtimestamp(moment, there)
        inside = wall.weekday() < 5 and "07:30" <= wall.strftime("%H:%M") < "19:00"
        assert floor_at([office], moment, 0).groups == (2 if inside else 0), wall


def test_asking_at_the_next_change_misses_none() -> None:
    many = [schedule("22:00", "02:30", 3, name="a"), schedule("02:15", "09:00", 1, name="b", timeZone="UTC")]
    begin, end, lead = at("2027-03-26 00:00"), at("2027-03-30 00:00"), 450.0
    edges = [begin]
    while edges[-1] < end:
        edges.append(floor_at(many, edges[-1], lead).next_change)
    for one, other in pairwise(edges):
        inside = {
            floor_at(many, one + (other - one) * share, lead).groups for share in (0.0, 0.01, 0.5, 0.99)
        }
        assert len(inside) == 1, (one, other)


# --- Zones ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "Europe", "Berlin", "posix", "GMT+25"])
def test_an_unknown_zone_is_refused_with_what_to_write_and_asks_for_nothing(zone: str) -> None:
    """Lost: a floor that silently never holds."""
    bad = {"name": "office", "from": "07:30", "to": "19:00", "minGroups": 2, "timeZone": zone}
    good = {**bad, "name": "b", "timeZone": "Europe/Berlin", "minGroups": 1}
    deployment = model_deployment(scaling={"maxGroups": 3, "schedules": [bad, good]})
    (found,) = violations(deployment)
    assert found.reason == UNKNOWN_TIME_ZONE
    assert (
        f"office: the time zone database has no {zone}: write a name such as Europe/Berlin" in found.message
    )
    floor = floor_at(deployment.spec.scaling.schedules, at("2027-01-15 12:00"), 0)
    assert floor.groups == 1, "the others hold"


def test_all_days_have_their_place() -> None:
    found = [
        changes([schedule(days=[day])], at("2027-01-11 00:00"), at("2027-01-18 00:00")) for day in Weekday
    ]
    assert [week[0][0][:3] for week in found] == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


# --- With the annotation -------------------------------------------------------------------------


NOON = at("2027-01-15 12:00Z")


@pytest.mark.parametrize(
    ("schedules", "until", "groups", "reason"),
    [
        ([], None, 0, ScalingReason.SCHEDULED),
        ([], NOON, 0, ScalingReason.SCHEDULED),
        ([], NOON + 60, 1, ScalingReason.WOKEN),
        ([schedule()], NOON + 60, 2, ScalingReason.SCHEDULED),
        ([schedule(groups=1)], NOON + 60, 1, ScalingReason.SCHEDULED),
        ([schedule(groups=1)], NOON + 86400, 1, ScalingReason.WOKEN),
    ],
)
def test_the_highest_floor_holds_and_says_whose_it_is(
    schedules: list[ScheduleSpec], until: float | None, groups: int, reason: ScalingReason
) -> None:
    floor = floor_of(schedules, until, NOON, 300.0)
    assert (floor.groups, floor.reason) == (groups, reason)
    if until is not None and until > NOON:
        assert floor.next_change <= until
        assert floor.due >= 1
    if reason is ScalingReason.WOKEN:
        assert "annotation moe-operator.dev/wake-until" in floor.text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2027-01-15T12:00:00Z", NOON),
        ("2027-01-15t12:00:00z", NOON),
        ("2027-01-15T13:00:00+01:00", NOON),
        ("2027-01-15 12:00:00.5Z", NOON + 0.5),
    ],
)
def test_times_of_people_are_read_as_the_rfc_has_them(text: str, seconds: float) -> None:
    assert read_rfc3339(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2h",
        "2027-01-15",
        "2027-01-15T12:00:00",
        "1800000000",
        "2027-13-15T12:00:00Z",
        "9999-12-31T23:59:59-01:00",
    ],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    """One without its offset would be another moment wherever the operator runs."""
    with pytest.raises(ValueError, match="write it as 2027-01-15T18:00:00Z"):
        read_rfc3339(text)
