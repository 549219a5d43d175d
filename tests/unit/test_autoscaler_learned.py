"""What the autoscaler learns of a deployment: a wrong figure here is a fleet of the wrong size for hours."""

import math

import pytest

from moe_operator.autoscaler.attainment import Within, within
from moe_operator.autoscaler.capacity import Gauges, Limits, Resource, share_of
from moe_operator.autoscaler.cold_start import KEPT, ColdStart
from moe_operator.autoscaler.idle_step_time import IdleStepTime

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
