"""What a group sustains, and the bound that comes of it. A wrong one would make every policy look good, or none."""

from typing import Any

import numpy as np
import pytest

from factories.simulation import engine, run
from moe_operator.simulator import capacity as capacity_module
from moe_operator.simulator.capacity import Capacity, needed, sustained
from moe_operator.simulator.engine_model import EngineModel
from moe_operator.simulator.hindsight import bound, starting_groups
from moe_operator.simulator.policies.clairvoyant import Clairvoyant, ClairvoyantSettings
from moe_operator.simulator.policies.static import Static
from moe_operator.simulator.result import Objective
from moe_operator.simulator.run import simulate
from moe_operator.simulator.trace import Trace, TraceError, make_trace, step_load

GOAL = Objective(ttft=3.0, tpot=0.2)


@pytest.fixture(autouse=True)
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """These requests last seconds, not minutes."""
    monkeypatch.setattr(capacity_module, "_WARM_UP", 60.0)
    monkeypatch.setattr(capacity_module, "_COUNTED", 400.0)


def _quick(**fields: Any) -> EngineModel:
    """Ten requests at a time of 0.1 s a step, and no more: a slot is what binds."""
    return engine(**{"slots": 10, "base": 0.1, "decode": 1e-6, "prefill": 1e-6, **fields})


def _even(rate: float, duration: float, output: int = 20) -> Trace:
    times = np.arange(0.0, duration, 1 / rate)
    return make_trace(times.tolist(), [16] * len(times), [output] * len(times), duration=duration)


def test_a_group_sustains_what_its_slots_let_through() -> None:
    # 20 steps of 0.1 s each, ten at a time: 5 a second at the very most.
    capacity = sustained(_even(1.0, 600), _quick(), GOAL)
    assert 4.0 < capacity.rate < 5.0
    assert capacity.tpot == pytest.approx(0.1, rel=0.01)


def test_longer_outputs_let_fewer_requests_through() -> None:
    short, long = (sustained(_even(1.0, 600, output), _quick(), GOAL).rate for output in (20, 80))
    # Fewer at a time: the same bursts are worse.
    assert short / 5 < long < short / 4


def test_an_objective_that_one_request_alone_misses_is_refused() -> None:
    with pytest.raises(TraceError, match="even one by one"):
        sustained(_even(1.0, 600), _quick(base=0.5), GOAL)


def test_an_even_load_needs_its_share_of_the_capacity() -> None:
    trace, model = _even(2.0, 3600), _quick(slots=1000, batch_tokens=1000, kv_tokens=10**6)
    capacity = sustained(_even(2.0, 600), _quick(), GOAL)
    need = needed(trace, model, capacity, 15.0)
    assert len(need) == 240
    # But for the beginning, when outputs are still short.
    assert need[4:].mean() == pytest.approx(2.0 / capacity.rate, rel=0.02)
    assert need[4:].std() < 0.02


def test_work_is_spread_over_the_time_that_an_output_takes() -> None:
    trace = make_trace([0.0], [1], [1000], duration=300.0)
    need = needed(trace, _quick(slots=1, kv_tokens=16_000), Capacity(rate=1.0, tpot=0.1, work=1.0), 15.0)
    # 100 s at one of one slot.
    assert need.tolist() == pytest.approx([1.0] * 6 + [2 / 3] + [0.0] * 13, abs=1e-6)


def test_what_the_cache_holds_counts_where_it_binds() -> None:
    trace = make_trace([0.0], [8000], [100], duration=60.0)
    need = needed(trace, _quick(slots=1000, batch_tokens=1000), Capacity(1.0, 0.6, 1e6), 15.0)
    assert need[0] == pytest.approx(8050 / 16_000, rel=0.01)


def test_other_lengths_than_those_of_the_calibration_need_other_groups() -> None:
    model = _quick(slots=10_000, batch_tokens=10_000, kv_tokens=10**8, prefill=0.0)
    capacity = sustained(_even(1.0, 600), _quick(prefill=0.0), GOAL)
    short, long = (needed(_even(2.0, 1200, output), model, capacity)[10:-1].mean() for output in (20, 40))
    assert long == pytest.approx(2 * short, rel=0.05)


def test_the_bound_holds_and_costs_less_than_a_fleet_for_the_peak() -> None:
    model = _quick()
    lengths = _even(2.0, 600)
    trace = step_load(lengths, duration=7200, base=4.0, steps={2400: 3.0, 4800: 1.0}, seed=3)
    capacity = sustained(lengths, model, GOAL)
    need = needed(trace, model, capacity)
    found = bound(trace, model, need, 15.0, cold_start=120.0, seed=1, floor=1, ceiling=8, objective=GOAL)
    assert found.held
    assert found.result.attainment() >= 0.99
    peak = 3
    static = simulate(
        trace, model, Static(), cold_start=120.0, seed=1, start_groups=peak, ceiling=peak, objective=GOAL
    )
    assert found.result.gpu_hours < 0.9 * static.gpu_hours
    assert found.result.gpu_hours > need.sum() * 15 / 3600 * 0.9
    # No schedule that holds is cheaper, and one to the same utilisation costs about the same.
    for share in (0.6, 0.8, 1.0, 1.1, 1.2, found.utilisation):
        policy = Clairvoyant((need / share).tolist(), 15.0, ClairvoyantSettings(1.0, 120.0, margin=18.0))
        other = simulate(
            trace,
            model,
            policy,
            cold_start=120.0,
            seed=1,
            start_groups=policy.existing[0],
            ceiling=8,
            objective=GOAL,
        )
        assert other.attainment() < 0.99 or other.gpu_hours >= 0.98 * found.result.gpu_hours
    assert other.gpu_hours == pytest.approx(found.result.gpu_hours, rel=0.1)


def test_a_bound_that_cannot_hold_says_so() -> None:
    trace = _even(20.0, 1200)
    need = needed(trace, _quick(), Capacity(4.0, 0.1, 1.0))
    found = bound(trace, _quick(), need, 15.0, cold_start=60.0, seed=1, floor=1, ceiling=2, objective=GOAL)
    assert not found.held
    assert found.result.attainment() < 0.99


def test_a_fleet_starts_with_what_the_first_minutes_need() -> None:
    need = np.array([3.4] * 40 + [9.0] * 40)
    assert starting_groups(need, 15.0, 1, 32, 0.7) == 5
    assert starting_groups(need, 15.0, 1, 4, 0.7) == 4
    assert starting_groups(np.array([]), 15.0, 2, 4) == 2


def test_while_a_run_settles_nothing_is_scaled_in() -> None:
    class One:
        name, interval, undrain = "one", 15.0, False
        floors: tuple[int, ...] = ()

        def desired(self, view: object, fleet: Any, now: float) -> int:
            self.floors = (*self.floors, fleet.floor)
            return 1

    policy = One()
    result = run(_even(1.0, 120), _quick(), policy, start_groups=3, settle=60.0)  # type: ignore[arg-type]
    assert [(action.time, action.after) for action in result.actions] == [(60.0, 1)]
    assert policy.floors == (3, 3, 3, 1, 1, 1, 1)
