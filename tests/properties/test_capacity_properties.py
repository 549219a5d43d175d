"""A group's share is proportional to its load. Were it not, a fleet would be sized rightly at one load only: too large
or too small at every other."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moe_operator.autoscaler.capacity import Gauges, Limits, share_of
from moe_operator.autoscaler.idle_step_time import IdleStepTime
from moe_operator.catalog.saturation import Resource

IDLE = st.floats(0.004, 0.04)
PART = st.floats(0.0, 0.9)
OUTPUT, PROMPT = st.integers(2, 4000), st.integers(1, 20000)
SLOTS, KV_TOKENS = 4096, 2e8


class Engine:
    """The model of `capacity`: step time a / (1 - y), y proportional to arrivals."""

    def __init__(self, idle: float, busy_per_arrival: float, prompt: int, output: int) -> None:
        self.idle, self.busy, self.prompt, self.output = idle, busy_per_arrival, prompt, output

    def gauges(self, arrivals: float) -> Gauges:
        step = self.idle / (1 - arrivals * self.busy)
        running = arrivals * self.output * step
        return Gauges(
            running=running,
            slots=SLOTS,
            kv=running * (self.prompt + self.output / 2) / KV_TOKENS,
            step_time=step,
        )


@given(IDLE, PART, st.floats(0.05, 1.0), PROMPT, OUTPUT, st.floats(1.1, 4.0))
def test_shares_grow_as_the_load_does(
    idle: float, busy: float, less: float, prompt: int, output: int, objective: float
) -> None:
    engine = Engine(idle, busy / 10, prompt, output)
    limits = Limits(idle_step_time=idle, step_time=idle * objective)
    full, part = share_of(engine.gauges(10), limits), share_of(engine.gauges(10 * less), limits)
    assume(full.resource is part.resource)
    assert part.value == pytest.approx(full.value * less, rel=1e-6, abs=1e-9)


@given(IDLE, st.floats(0.01, 0.9), PROMPT, OUTPUT, st.floats(1.1, 4.0))
def test_at_share_one_a_limit_is_met_and_none_is_passed(
    idle: float, busy: float, prompt: int, output: int, objective: float
) -> None:
    engine = Engine(idle, busy / 10, prompt, output)
    limits = Limits(idle_step_time=idle, step_time=idle * objective)
    share = share_of(engine.gauges(1.0), limits)
    at = engine.gauges(1.0 / share.value)
    filled = {
        Resource.KV_CACHE: at.kv / limits.kv,
        Resource.REQUEST_SLOTS: at.running / SLOTS,
        Resource.STEP_TIME: (at.step_time or 0) / (idle * objective),
    }
    assert filled[share.resource] == pytest.approx(1.0, rel=1e-6)
    assert max(filled.values()) <= 1.0 + 1e-6


@given(IDLE, st.floats(0.2, 0.85), OUTPUT, st.floats(0.5, 2.0))
def test_the_idle_step_time_is_found_from_a_wrong_prior_in_half_an_hour(
    idle: float, busy: float, output: int, wrong: float
) -> None:
    engine = Engine(idle, busy / 10, 1000, output)
    learned = IdleStepTime(prior=idle * wrong)
    for tick in range(120):
        arrivals = 10 * (0.4 + 0.6 * (tick % 40) / 40)
        gauges = engine.gauges(arrivals)
        assert gauges.step_time is not None
        learned = learned.observed(tick * 15.0, gauges.running, gauges.step_time)
    assert learned.value == pytest.approx(idle, rel=0.25)
