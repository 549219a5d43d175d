"""What the autoscaler makes of its looks. What it gets wrong costs GPUs for hours, or every user's patience."""

import math
from dataclasses import replace

import pytest

from factories.plant import Plant, plant, profile
from moe_operator.autoscaler.auto import TICK, Autoscaler
from moe_operator.autoscaler.reading import Reading


def _level(made: Plant, rate: float) -> float:
    want = made.run(1800, lambda _: rate, act=False)
    assert want.numbers is not None
    return want.numbers.level


def test_the_level_does_not_depend_on_how_many_groups_carry_it() -> None:
    """Else every change would be the cause of the next."""
    rate = 3 * plant().capacity
    known = profile(idle_step_time=plant().idle)
    levels = [
        _level(plant(autoscaler=Autoscaler(known, 300.0), groups=groups), rate) for groups in (4, 6, 12)
    ]
    assert levels == pytest.approx([3.0] * 3, rel=0.18)
    assert max(levels) < 1.12 * min(levels)


def test_it_comes_to_rest_with_room_but_no_more_than_that() -> None:
    made = plant()
    made.run(2 * 3600, lambda _: 4 * made.capacity)
    assert 5 <= made.desired <= 9
    settled = {groups for at, groups in made.history if at > 5400}
    assert len(settled) <= 2


def test_a_rise_is_answered_at_once_and_once() -> None:
    """Groups that start are there already: nothing is ordered twice while they load."""
    made = plant(2 * plant().capacity)
    before = made.desired
    begun = made.now
    made.run(300, lambda _: 4 * made.capacity)
    after = [groups for at, groups in made.history if at > begun]
    assert after[8] > before, "two minutes after"
    made.run(3600, lambda _: 4 * made.capacity)
    assert max(groups for _, groups in made.history) <= 16
    assert 5 <= made.desired <= 12


def test_a_group_that_starts_is_given_up_sooner_than_one_that_serves() -> None:
    """Lost: the cost of groups that come long after the surge that they were ordered for."""
    made = plant(4 * plant().capacity, cold_start=900.0)
    made.run(3600, lambda _: 4 * made.capacity)
    serving = made.desired
    made.run(150, lambda _: 8 * made.capacity)
    assert made.desired > serving + 1
    begun = made.now
    made.run(600, lambda _: 4 * made.capacity)
    back = next(at - begun for at, groups in made.history if at > begun and groups <= serving + 1)
    assert back < 450, "half a cold start"


def test_a_fall_gives_groups_up_after_the_window_and_down_to_the_floor() -> None:
    made = plant(4 * plant().capacity, floor=2)
    full, begun = made.desired, made.now
    made.run(3600, lambda _: 0.0)
    kept = [at - begun for at, groups in made.history if at > begun and groups == full]
    assert kept[-1] >= 60
    assert made.desired == 2


def test_a_window_of_the_users_holds_instead_of_a_part_of_the_cold_start() -> None:
    """Lost: GPUs for minutes where a start takes seconds, or the only guard against a load that comes and goes."""

    def first_fall(window: float | None) -> float:
        made = plant(4 * plant().capacity)
        made.autoscaler.window = window
        begun = made.now
        made.run(3600, lambda _: 0.3 * made.capacity)
        return min(at for at, groups in made.history if at > begun and groups < made.history[0][1]) - begun

    learned = first_fall(None)
    assert first_fall(0.0) <= learned - 150
    assert first_fall(1800.0) >= learned + 900


@pytest.mark.parametrize("busy", [240.0, 3600.0])
def test_silence_gives_groups_up_too(busy: float) -> None:
    """Lost: all that there were, while nobody asks anything: at night, and after each restart of the operator."""
    made = plant(groups=6)
    made.run(busy, lambda _: 4 * made.capacity, act=False)
    made.run(1800, lambda _: 0.0)
    assert made.desired == 1
    new = plant(groups=6)
    new.run(1200, lambda _: 0.0)
    assert new.desired == 1


@pytest.mark.parametrize("wrong", [0.004, 0.06])
def test_a_wrong_prior_is_mended_within_half_an_hour(wrong: float) -> None:
    start = Autoscaler(profile(idle_step_time=wrong), cold_start=300.0)
    made = plant(autoscaler=start, groups=6)
    want = made.run(1800, lambda now: made.capacity * (3.5 + math.sin(now / 300)), act=False)
    assert want.numbers is not None
    # Over a whole wave the level is that of 3.5 groups, give or take the wave.
    true = 3.5 + math.sin(made.now / 300)
    assert want.numbers.level == pytest.approx(true, rel=0.2)


# --- Pauses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [1200.0, 4 * 3600.0], ids=["20 min", "4 h"])
@pytest.mark.parametrize("after", [3.0, 3.6], ids=["the same demand", "more"])
def test_a_time_that_nobody_saw_is_no_evidence(pause: float, after: float) -> None:
    """Lost: GPUs for a day, to growth within hours in which telemetry was away, or limits left one number, that is
    taken for growth within one cold start."""
    looked, unseen = plant(groups=4), plant(groups=4)
    began = 3 * 3600.0

    def rate(now: float) -> float:
        risen = min(1.0, max(0.0, now - began) / pause)
        return looked.capacity * (3 + (after - 3) * risen + 0.05 * math.sin(now / 200))

    for made in (looked, unseen):
        made.run(began, rate)
    looked.run(pause, rate)
    unseen.unseen(pause, rate)
    for made in (looked, unseen):
        made.run(2 * 3600, rate)
    forecasts = unseen.autoscaler._forecasts
    seen = unseen.now - pause
    assert all(sum(each._seen.present(unseen.now)) <= seen for both in forecasts._growth for each in both)
    assert forecasts._usual.seconds <= seen
    assert abs(unseen.desired - looked.desired) <= 1
    most = max(groups for at, groups in looked.history if at > began)
    assert max(groups for at, groups in unseen.history if at > began) <= most + 1


def test_the_first_look_after_a_pause_changes_nothing_and_the_second_is_of_now() -> None:
    """Lost: groups to what came in hours that are over, as if it came now; or minutes without a figure."""
    made = plant(2 * plant().capacity)
    before = made.desired
    made.unseen(1200, lambda now: made.capacity * (3 if now < 4500 else 1))
    made.unseen(1800, lambda _: made.capacity)
    want = made.run(TICK, lambda _: made.capacity)
    assert want.groups == before
    assert want.numbers is not None, "looks at a settled deployment are seldom, and none is without figures"
    want = made.run(TICK, lambda _: made.capacity)
    assert want.numbers is not None
    assert want.numbers.level == pytest.approx(1.0, rel=0.2)
    assert want.numbers.forecast == pytest.approx(1.0, rel=0.2)
    assert want.numbers.arrivals == pytest.approx(made.capacity, rel=0.05)


def test_more_than_groups_can_do_after_a_pause_is_answered_at_the_second_look() -> None:
    """Lost: minutes of full groups; or as many groups again as there may be, since none was counted to end yet."""
    made = plant(3 * plant().capacity)
    before = made.desired
    made.unseen(1800, lambda _: 1.2 * before * made.capacity)
    made.run(2 * TICK, lambda _: 1.2 * before * made.capacity)
    assert before < made.desired <= 2 * before + 1


# --- Telemetry -----------------------------------------------------------------------------------


def test_no_group_goes_while_one_of_them_says_nothing() -> None:
    made = plant(4 * plant().capacity)
    full, lost = made.desired, made.now
    made.change = lambda name, reading, now: None if name == next(iter(made._serving)) else reading
    want = made.run(1800, lambda _: 0.5 * made.capacity)
    assert made.desired >= full
    assert want.blind == 1
    made.change = lambda name, reading, now: reading
    made.run(1800, lambda _: 0.5 * made.capacity)
    assert made.desired < full
    assert made.now - lost == 3600


def test_nothing_is_known_while_all_say_nothing() -> None:
    made = plant(4 * plant().capacity)
    full = made.desired
    made.change = lambda name, reading, now: None
    want = made.run(1800, lambda _: 0.0)
    assert (made.desired, want.numbers, want.blind) == (full, None, len(made._serving))


@pytest.mark.parametrize(
    "fault",
    [
        {"kv": math.nan},
        {"running": -3.0},
        {"gap_seconds": math.inf},
        {"ranks": 7},
    ],
)
def test_a_reading_that_cannot_be_is_none(fault: dict[str, float]) -> None:
    made = plant(2 * plant().capacity)
    before = made.desired
    made.change = lambda name, reading, now: replace(reading, **fault)  # type: ignore[arg-type]
    want = made.run(600, lambda _: 2 * made.capacity)
    assert (want.groups, want.blind) == (before, len(made._serving))


def test_counters_that_begin_anew_are_no_load() -> None:
    made = plant(2 * plant().capacity)
    before, reset = made.desired, made.now + 60

    def restart(name: str, reading: Reading, now: float) -> Reading:
        return replace(reading, finished=0.0, gaps=0.0, gap_seconds=0.0) if now == reset else reading

    made.change = restart
    made.run(600, lambda _: 2 * made.capacity)
    assert max(groups for at, groups in made.history if at > reset - 60) <= before + 1


def test_readings_of_the_past_and_twice_the_same_change_nothing() -> None:
    one, two = plant(), plant()
    two.change = lambda name, reading, now: (
        two.autoscaler.read(name, reading) or replace(reading, at=now - 5)  # type: ignore[func-returns-value]
    )
    for made in (one, two):
        made.run(1800, lambda _: 3 * plant().capacity)
    assert one.history == two.history


# --- Numbers -------------------------------------------------------------------------------------


def test_every_look_has_its_numbers() -> None:
    made = plant()
    want = made.run(1800, lambda _: 3 * made.capacity)
    numbers = want.numbers
    assert numbers is not None
    assert numbers.lead == 300 + TICK + 30
    losses = numbers.losses.up_to(numbers.up.groups + 2)
    assert len(losses) == numbers.up.groups + 2 - made.floor + 1
    assert list(losses) == sorted(losses, reverse=True)
    assert losses[-1] == losses[-3], "beyond those that are worth having another avoids none"
    assert losses[:2] == numbers.losses.up_to(made.floor + 1)
    assert numbers.arrivals == pytest.approx(3 * made.capacity, rel=0.05)
    assert numbers.up.late <= numbers.late_as_is + 1e-9 or numbers.up.groups <= made.desired
