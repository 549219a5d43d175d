"""Groups' lives, samples of them, and results. Wrong here, a policy is charged GPU time it did not take, or sees
what no Prometheus would show."""

import math

import numpy as np
import pytest

from factories.simulation import Scripted, engine, run, together
from moe_operator.simulator import kernel
from moe_operator.simulator.fleet import Life
from moe_operator.simulator.result import Objective
from moe_operator.simulator.scrape import BOUNDS, Fault, View, histogram_quantile
from moe_operator.simulator.trace import Trace, make_trace

IDLE = make_trace([0.0, 1000.0], [8, 8], [1, 1])


def _long(count: int = 8, seconds: int = 300, duration: float = 1000.0) -> Trace:
    """Requests that each take so many seconds, from the beginning."""
    return make_trace([0.0] * count, [8] * count, [seconds] * count, duration=duration)


# --- Lives ---------------------------------------------------------------------------------------


def test_a_group_serves_after_its_cold_start_and_costs_from_its_creation() -> None:
    policy = Scripted({105: 2})
    result = run(IDLE, policy=policy)
    states = dict(policy.seen)
    assert (states[195].ready, states[195].starting) == (1, 1)
    assert (states[210].ready, states[210].starting) == (2, 0)
    assert result.group_seconds[Life.STARTING] == pytest.approx(100)
    assert result.group_seconds[Life.READY] == pytest.approx(1000 + 795)
    assert result.gpu_hours == pytest.approx(1895 / 3600)


def test_cold_starts_vary_by_the_seed_within_their_share() -> None:
    spent = {
        run(IDLE, policy=Scripted({15: 2}), seed=seed, jitter=0.15).group_seconds[Life.STARTING]
        for seed in range(20)
    }
    assert len(spent) == 20
    assert all(85 <= seconds <= 115 for seconds in spent)


def test_starting_groups_are_cancelled_before_a_ready_one_drains() -> None:
    policy = Scripted({15: 4, 60: 2, 90: 1})
    result = run(_long(), policy=policy)
    states = dict(policy.seen)
    assert (states[75].ready, states[75].starting, states[75].draining) == (1, 1, 0)
    assert (states[105].ready, states[105].starting, states[105].draining) == (1, 0, 0)
    assert result.cancelled_seconds == pytest.approx(45 + 45 + 75)
    assert result.wasted_gpu_hours == pytest.approx(165 / 3600)
    assert result.count(kernel.CUT) == 0


def test_a_draining_group_serves_what_it_has_and_then_is_gone() -> None:
    policy = Scripted({30: 1})
    result = run(_long(seconds=300), policy=policy, start_groups=2)
    assert result.count(kernel.FINISHED) == 8
    assert result.group_seconds[Life.DRAINING] == pytest.approx(270), (
        "up to its last token, not to the next look"
    )


def test_a_draining_group_gets_no_new_requests() -> None:
    trace = make_trace([0.0] * 4 + [60.0] * 4, [8] * 8, [300] * 8, duration=1000)
    result = run(trace, engine(slots=2), policy=Scripted({30: 1}), start_groups=2)
    late = np.sort(result.ttft[4:])
    assert late.tolist() == [241.0, 241.0, 541.0, 541.0], (
        "all behind the one group's first two, ended at 300 s"
    )


def test_what_has_not_finished_by_the_drain_deadline_is_cut_and_missed() -> None:
    result = run(_long(seconds=300), policy=Scripted({30: 1}), start_groups=2, drain_deadline=100.0)
    assert result.count(kernel.CUT) == 4
    assert result.count(kernel.FINISHED) == 4
    assert result.group_seconds[Life.DRAINING] == pytest.approx(100)
    assert result.attainment(Objective(ttft=1e9, tpot=1e9)) == 0.5
    assert result.token_attainment(Objective(ttft=1e9, tpot=1e9)) == 0.5


def test_the_group_with_the_fewest_requests_drains() -> None:
    trace = make_trace([0.0, 0.0, 0.1], [8, 8, 8], [500, 10, 500], duration=100)
    policy = Scripted({30: 1})
    result = run(trace, policy=policy, start_groups=2)
    # The third request joined the first group; the second's is idle after 10 s, so it is gone at once.
    assert result.group_seconds[Life.DRAINING] == 0
    assert result.group_seconds[Life.READY] == pytest.approx(130)


def test_a_policy_that_undrains_gets_a_draining_group_back_at_once() -> None:
    for undrain, starting in ((True, 0.0), (False, 100.0)):
        policy = Scripted({30: 1, 60: 2}, undrain=undrain)
        result = run(_long(seconds=300), policy=policy, start_groups=2)
        assert result.group_seconds[Life.STARTING] == pytest.approx(starting)
        assert result.group_seconds[Life.DRAINING] == pytest.approx(30 if undrain else 270)
        assert result.count(kernel.FINISHED) == 8


def test_without_a_group_requests_wait_at_the_gateway() -> None:
    policy = Scripted({15: 1})
    result = run(together(3, 8, 1), policy=policy, start_groups=0, floor=0)
    assert result.count(kernel.IN_FLIGHT) == 3, "the trace ended before the policy was asked"
    trace = make_trace([0.0, 50.0, 200.0], [8] * 3, [1] * 3)
    result = run(trace, policy=policy, start_groups=0, floor=0)
    assert result.ttft.tolist() == [116.0, 66.0, 1.0]


def test_more_groups_than_there_were_places_for() -> None:
    trace = make_trace([200.0] * 20, [8] * 20, [50] * 20, duration=300)
    result = run(trace, engine(slots=1), Scripted({15: 20}), ceiling=20)
    assert result.ttft.tolist() == [1.0] * 20, "one for each group"
    assert result.samples[:, 2].max() == 20


def test_wishes_beyond_the_bounds_are_cut_off_and_counted_once() -> None:
    policy = Scripted({15: 99, 300: -5, 450: 3})
    result = run(IDLE, policy=policy, ceiling=4, floor=2, start_groups=2)
    assert [(a.time, a.before, a.after) for a in result.actions] == [(15, 2, 4), (300, 4, 2), (450, 2, 3)]
    assert result.reversals(150) == 1
    assert result.reversals(100) == 0
    with pytest.raises(ValueError, match="floor <= start_groups <= ceiling"):
        run(IDLE, start_groups=5, ceiling=4)


def test_a_timeline_by_minute() -> None:
    trace = make_trace([0.0, 30.0, 150.0], [8, 8, 100], [1, 1, 20], duration=180)
    line = run(trace, policy=Scripted({60: 2}), objective=Objective(ttft=1.5, tpot=2)).timeline()
    assert line.minute.tolist() == [0, 1, 2]
    assert line.desired.tolist()[0] == 1
    assert line.desired.tolist()[2] == 2
    assert line.arrivals.tolist() == [2 / 60, 0, 1 / 60]
    assert line.attained[0] == 1.0
    assert math.isnan(line.attained[1])
    assert line.attained[2] == 0.0
    assert line.ttft_p99[2] == pytest.approx(2.0)


# --- Samples -------------------------------------------------------------------------------------


def _watched(trace: Trace, at: float, *faults: Fault, **options: object) -> View:
    """The view at a time."""
    seen: dict[float, View] = {}
    policy = Scripted()

    def keep(view: View, now: float) -> None:
        if now == at:
            # As it is then: later samples are not seen through it.
            seen[now] = view

    policy.watch = keep
    run(trace, policy=policy, faults=faults, **options)  # type: ignore[arg-type]
    return seen[at]


STEADY = make_trace(np.arange(0.0, 990.0, 2.0), np.full(495, 10), np.full(495, 3), duration=1000.0)


def test_a_view_sees_samples_a_delay_late() -> None:
    view = _watched(_long(seconds=5), 15)
    assert view.latest("running") == {0: 0.0}, "the sample of the beginning, before anything arrived"
    assert _watched(_long(seconds=25), 30).latest("running") == {0: 4.0}
    assert _watched(_long(seconds=25), 30).latest("waiting") == {0: 4.0}
    assert _watched(_long(seconds=25), 30, scrape_delay=0.0).latest("output_tokens") == {0: 4 * 25 + 4 * 5}


def test_counters_and_windows() -> None:
    view = _watched(STEADY, 600)
    assert view.groups() == (0,)
    assert view.slots() == 4
    assert view.frontend_increase("arrivals", 60) == 30
    assert view.frontend_increase("arrived_prompt_tokens", 60) == 300
    assert view.increase("prompt_tokens", 60)[0] == pytest.approx(300, abs=10)
    assert view.increase("output_tokens", 60)[0] == pytest.approx(90, abs=3)
    assert view.increase("finished", 60)[0] == pytest.approx(30, abs=1)
    assert view.increase("finished_output_tokens", 60)[0] == 3 * view.increase("finished", 60)[0]
    times, values = view.window("output_tokens", 60)[0]
    assert times.tolist() == [525, 540, 555, 570, 585]
    assert values[-1] - values[0] == view.increase("output_tokens", 60)[0]
    assert math.isnan(_watched(STEADY, 15).frontend_increase("arrivals", 60))
    assert _watched(STEADY, 15).increase("finished", 60) == {}


def test_gauges_of_the_worst_rank() -> None:
    trace = make_trace([0.0, 0.0, 0.0], [160, 16, 16], [100, 100, 100], duration=200)
    view = _watched(trace, 30, model=engine(ranks=2, kv_tokens=320, batch_tokens=256))
    # Ten blocks and one more at one rank; at the other one (and one more) of two requests.
    assert view.latest("running")[0] == 3
    assert view.latest("running_worst")[0] == 2
    assert view.latest("kv_usage_worst")[0] == pytest.approx(11 / 20)
    assert view.latest("kv_usage")[0] == pytest.approx((11 + 4) / 40)


def test_starting_groups_are_not_sampled_and_draining_ones_only_when_asked_for() -> None:
    seen: dict[float, tuple[object, ...]] = {}
    policy = Scripted({30: 1, 60: 2})

    def keep(view: View, now: float) -> None:
        seen[now] = (
            view.groups(),
            view.draining(),
            view.latest("running"),
            view.latest("running", draining=True),
        )

    policy.watch = keep
    run(_long(seconds=300), policy=policy, start_groups=2)
    assert seen[45] == ((0,), (1,), {0: 4.0}, {0: 4.0, 1: 4.0})
    assert seen[75] == ((0,), (1,), {0: 4.0}, {0: 4.0, 1: 4.0})
    assert seen[165][0] == (0, 2)
    assert set(seen[165][2]) == {0}, "ready since 160 s, not sampled yet"


def test_gaps_stale_samples_and_numbers_that_are_none() -> None:
    gap = _watched(STEADY, 600, Fault("gap", 500, 595))
    assert gap.window("running", 60)[0][0].tolist() == []
    assert set(gap.latest("running")) == {0}, "up to five minutes old"
    assert gap.increase("output_tokens", 60) == {}
    assert _watched(STEADY, 600, Fault("gap", 100, 595)).latest("running") == {}
    # Only the gateway and a group that is not there are concerned.
    assert _watched(STEADY, 600, Fault("gap", 0, group=7)).increase("finished", 60)[0] > 0

    stale = _watched(STEADY, 600, Fault("stale", 500))
    assert stale.increase("output_tokens", 60) == {0: 0.0}
    assert len(stale.window("running", 60)[0][0]) == 5
    assert stale.frontend_increase("arrivals", 60) == 0

    none = _watched(STEADY, 600, Fault("nan", 570))
    assert math.isnan(none.latest("running")[0])
    assert none.increase("finished", 60)[0] == pytest.approx(15, abs=1), (
        "between the samples that are numbers"
    )
    assert none.quantile("ttft", 0.5, 60) is not None


def test_a_counter_that_begins_anew_costs_what_was_counted_in_between_only() -> None:
    plain = _watched(STEADY, 600)
    reset = _watched(STEADY, 600, Fault("reset", 550))
    for counter in ("output_tokens", "finished"):
        lost = plain.increase(counter, 60)[0] - reset.increase(counter, 60)[0]
        assert 0 <= lost <= plain.increase(counter, 15)[0] + 1
    assert reset.frontend_increase("arrivals", 60) == pytest.approx(30, abs=8)
    assert reset.latest("output_tokens")[0] < plain.latest("output_tokens")[0]


def test_a_rank_that_stops_telling_is_missing_from_sums() -> None:
    trace = make_trace([0.0] * 4, [8] * 4, [500] * 4, duration=400)
    whole = _watched(trace, 300, model=engine(ranks=2))
    less = _watched(trace, 300, Fault("missing_rank", 100, rank=1), model=engine(ranks=2))
    assert whole.latest("running")[0] == 4
    assert less.latest("running")[0] == 2
    assert less.latest("output_tokens")[0] == whole.latest("output_tokens")[0] / 2


def test_quantiles_of_what_was_observed() -> None:
    trace = make_trace(np.arange(0.0, 900.0, 30.0), np.full(30, 8), np.full(30, 11), duration=1000.0)
    view = _watched(trace, 600, model=engine(base=0.06))
    # All in the bucket from 0.05 to 0.075, in the middle of which the median then is.
    assert view.quantile("itl", 0.5, 300) == pytest.approx(0.0625)
    assert view.quantile("tpot", 0.5, 300) == pytest.approx(0.0625)
    # A prompt's step takes 0.06 s as well, and vLLM's buckets of first tokens are others: from 0.06 on, by rounding.
    assert view.quantile("ttft", 0.5, 300) == pytest.approx(0.06, abs=0.0101)
    assert view.buckets("itl", 300).sum() == 100
    assert _watched(IDLE, 600).quantile("ttft", 0.5, 300) is None


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9, 0.99])
def test_a_histograms_quantile_is_within_the_bucket_of_the_true_one(q: float) -> None:
    rng = np.random.default_rng(1)
    values = rng.lognormal(-1, 1, 10_000)
    bounds = BOUNDS["ttft"]
    counts = np.bincount(np.searchsorted(bounds, values, "left"), minlength=len(bounds) + 1).astype(float)
    found = histogram_quantile(q, bounds, counts)
    true = np.quantile(values, q)
    at = np.searchsorted(bounds, true)
    assert found is not None
    assert bounds[at - 1] <= found <= bounds[at]
    uniform = histogram_quantile(q, np.array([1.0, 2.0]), np.array([50.0, 50.0, 0.0]))
    assert uniform == pytest.approx(2 * q)


def test_a_quantile_beyond_all_buckets_is_the_highest_bound() -> None:
    assert histogram_quantile(0.5, np.array([1.0, 2.0]), np.array([0.0, 0.0, 3.0])) == 2.0
    assert histogram_quantile(0.5, np.array([1.0, 2.0]), np.zeros(3)) is None
