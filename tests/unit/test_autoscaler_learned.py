"""What the autoscaler learns of a deployment: a wrong figure here is a fleet of the wrong size for hours."""

import math

import pytest

from moe_operator.autoscaler.attainment import Within, within
from moe_operator.autoscaler.budget import AIMED, Budget
from moe_operator.autoscaler.capacity import Gauges, Limits, share_of
from moe_operator.autoscaler.cold_start import KEPT, ColdStart
from moe_operator.autoscaler.demand import Demand
from moe_operator.autoscaler.forecast import Forecasts
from moe_operator.autoscaler.idle_step_time import IdleStepTime
from moe_operator.autoscaler.lateness import Lateness, prior
from moe_operator.autoscaler.sizing import steady_room
from moe_operator.autoscaler.usual import Usual, scaled
from moe_operator.catalog.saturation import Resource

BOUNDS = (1.0, 2.5, 5.0, math.inf)


def test_without_an_idle_step_time_gauges_count_as_they_are() -> None:
    share = share_of(Gauges(running=64, slots=256, kv=0.45, step_time=0.05), Limits(step_time=0.08))
    assert share.value == pytest.approx(0.5)
    assert share.resource is Resource.KV_CACHE


def test_by_hand() -> None:
    """t = 2a: half of the step is load. KV at 0.45 of 0.9 would be full at 1/(0.5*0.5+0.5) = 4/3 of the load, the step
    at the objective of 4a at 1/(0.5/0.75) = 1.5 of it."""
    share = share_of(Gauges(64, 256, 0.45, 0.04), Limits(idle_step_time=0.02, step_time=0.08))
    assert share.value == pytest.approx(0.75)
    assert share.resource is Resource.KV_CACHE
    step = share_of(Gauges(64, 256, 0.01, 0.04), Limits(idle_step_time=0.02, step_time=0.041))
    assert step.value == pytest.approx(0.5 / (1 - 0.02 / 0.041))
    assert step.resource is Resource.STEP_TIME


def test_an_idle_group_has_no_share_and_an_objective_below_the_idle_step_is_left_out() -> None:
    assert share_of(Gauges(0, 256, 0.0, 0.03), Limits(0.02, step_time=0.08)).value == pytest.approx(
        0.01 / 0.03 / 0.75
    )
    assert share_of(Gauges(0, 256, 0.0, None), Limits(0.02, step_time=0.08)).value == 0
    assert (
        share_of(Gauges(64, 256, 0.09, 0.03), Limits(0.02, step_time=0.01)).resource is not Resource.STEP_TIME
    )


def test_requests_within_an_objective_that_is_no_bucket_bound() -> None:
    assert within(BOUNDS, (50, 80, 90, 100), 2.5) == Within(80, 100)
    assert within(BOUNDS, (50, 80, 90, 100), 2.0) == Within(50 + 30 * (1.0 / 1.5), 100)
    assert within(BOUNDS, (50, 80, 90, 100), 0.5) == Within(25, 100)
    assert within(BOUNDS, (50, 80, 90, 100), 7.0) == Within(90, 100)
    assert within(BOUNDS, (0, 0, 0, 0), 2.0).share is None
    with pytest.raises(ValueError, match="4 bounds and 1 counts"):
        within(BOUNDS, (1,), 2.0)


def test_cold_starts_seen_take_the_place_of_what_was_expected() -> None:
    start = ColdStart(prior=300)
    assert start.expected == 300
    for _ in range(KEPT):
        start = start.observed(100.0)
    assert start.expected == 100
    assert start.observed(900).expected < 900, "one slow start is no rule"
    assert start.observed(float("nan")) == start.observed(-1) == start


def test_a_single_batch_size_says_nothing_of_the_idle_step() -> None:
    learned = IdleStepTime(prior=0.02)
    for tick in range(50):
        learned = learned.observed(tick * 15.0, 100.0, 0.05)
    assert learned.value is not None
    assert 0.019 <= learned.value <= 0.021
    assert IdleStepTime().value is None
    assert IdleStepTime().observed(0, 100, 0.05).value is None


def test_a_nearly_empty_group_is_no_measure_of_a_step_without_load() -> None:
    """Lost: a fleet of many times the need. Few requests reach few experts, so their steps are shorter than any that
    matters; with that as the step without load each group seems to be at work, and the more of them the more so."""
    learned = IdleStepTime()
    for tick in range(400):
        running = 4.0 + tick % 20
        learned = learned.observed(tick * 15.0, running, 0.030 + 0.001 * running)
    assert learned.value == pytest.approx(0.030, rel=0.01)
    assert learned.observed(6015.0, 0.5, 0.019, 0.1).value == pytest.approx(0.030, rel=0.01)


def test_requests_that_are_late_far_below_full_load_are_so_in_proportion_above() -> None:
    """Lost: groups of a load whose long prompts delay others, given up until twice as many requests are late."""
    seen = Lateness()
    for at in range(100):
        seen.observed(0.32, 0.0, 1.0, 50.0, 15.0 * at)
    curve = seen.curve(1500.0)
    assert prior(0.32) < 1e-5
    assert curve.at(0.32) == pytest.approx(0.02, rel=0.2)
    assert curve.at(0.48) == pytest.approx(1.5 * curve.at(0.32), rel=0.1)
    assert curve.at(0.16) == pytest.approx(curve.at(0.32) / 2, rel=0.1)
    room = steady_room(curve, 36.0, 0.009)
    assert room > 1.5 * steady_room(Lateness().curve(0.0), 36.0, 0.009)
    assert curve.at(1 / room) < 0.01


def test_first_tokens_that_are_late_by_their_own_prompts_are_so_at_any_load() -> None:
    """Lost: groups that are bought though none of them helps."""
    seen = Lateness()
    for at in range(100):
        seen.observed(0.42, 1.0, 0.0, 50.0, 15.0 * at)
    curve = seen.curve(1500.0)
    assert [curve.at(load) for load in (0.1, 0.2, 0.42, 0.6)] == pytest.approx([0.02] * 4, rel=0.15)
    assert steady_room(curve, 36.0, 0.009) < 1 / 0.55, "up to the load at which queues may begin"


def test_what_is_bought_against_requests_that_are_always_late_is_forgotten_within_hours() -> None:
    """Lost: a fleet of many times the need, for the rest of the day after one surge."""
    budget = Budget()
    assert budget.factor(10) == pytest.approx(1)
    budget.observed(0.05 * 36_000, 36_000, 0.0)
    assert budget.spent(10) > AIMED
    assert budget.factor(10) == pytest.approx(1.2)
    assert budget.steady(10) == 0.005
    for hour in range(1, 9):
        budget.observed(0.0, 36_000, 3600.0 * hour)
    assert budget.steady(10) > 0.01
    assert budget.spent(10) > 0.003, "while the budget knows of it all day"


def _demand(level: float) -> Demand:
    return Demand(
        level=level,
        arrivals=level,
        arriving=level,
        waiting=0,
        load=0.5,
        saturated=False,
        pressure=1,
        lasts=30,
        late_first=0,
        late_tokens=0,
        judged=0,
    )


def _expected_growth(first: float, begun: float) -> float:
    """The mean ratio of what may come, where demand went from `first` to four groups in ten minutes."""
    forecasts = Forecasts(300.0)
    for at in range(0, 7200, 15):
        grown = min(max((at - begun) / 600, 0.0), 1.0)
        forecasts.observed(_demand(first + (4 - first) * grown), float(at))
    points = forecasts.points(7200.0)[0]
    return sum(ratio * weight for ratio, weight in points)


def test_that_empty_groups_fill_is_no_growth() -> None:
    """Lost: groups against a surge that is only the first morning's first requests."""
    steady = _expected_growth(4.0, 0.0)
    assert _expected_growth(0.0, 0.0) == pytest.approx(steady, rel=0.01)
    assert _expected_growth(2.0, 3600.0) > 1.01 * steady


def test_a_doubling_at_night_is_not_expected_at_the_peak() -> None:
    """A learned factor that is the same at any demand buys most where there is most to pay for."""
    usual = Usual()
    for _ in range(10):
        usual.observed(8.0, 360.0)
    night, noon, peak = (usual.scale(demand) for demand in (2.0, 8.0, 18.0))
    assert (night, noon, peak) == (2.0, 1.0, pytest.approx(2 / 3))
    at_night = ((1.0, 0.9), (2.0, 0.1))
    usually = scaled(at_night, 1 / night)
    assert usually[1][0] == pytest.approx(math.sqrt(2))
    assert scaled(usually, peak)[1][0] == pytest.approx(2 ** (1 / 3))
    assert sum(weight for _, weight in usually) == 1
    assert 18 * scaled(usually, peak)[1][0] - 18 > 2 * 2.0 - 2.0, "in groups it is more all the same"


def test_growth_is_as_it_comes_until_demand_has_a_past() -> None:
    assert Usual().scale(3.0) == 1.0
    fresh = Usual()
    fresh.observed(0.0, 60.0)
    assert fresh.scale(3.0) == 1.0
    fresh.observed(1e-6, 60.0)
    assert fresh.scale(3.0) == 0.5, "within limits"


def test_growth_is_learned_as_it_would_be_at_the_usual_demand() -> None:
    """Hours at eight groups, then a night that doubles again and again from two: at eight it is no doubling."""
    forecasts = Forecasts(60.0)
    forecasts.filled = 0.0
    now = 0.0
    for _ in range(4 * 240):
        now += 15.0
        forecasts.observed(_demand(8.0), now)
    before = forecasts.points(now)[0][-1][0]
    for _ in range(6):
        for demand in (2.0, 4.0):
            for _ in range(40):
                now += 15.0
                forecasts.observed(_demand(demand), now)
    low = forecasts.points(now)[0][-1][0]
    for _ in range(8):
        now += 15.0
        forecasts.observed(_demand(8.0), now)
    high = forecasts.points(now)[0][-1][0]
    assert low > high > before
    assert math.log(low) > 1.2 * math.log(high)
