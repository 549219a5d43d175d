"""The simulator's groups against vLLM's rules written out plainly, on loads nobody thought of. Were they to differ,
every verdict on a policy would be on an engine that does not exist."""

import math

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from factories.reference_engine import serve
from factories.simulation import Scripted, engine
from moe_operator.simulator import kernel
from moe_operator.simulator.engine_model import EngineModel
from moe_operator.simulator.fleet import Fleet, Life
from moe_operator.simulator.run import simulate
from moe_operator.simulator.trace import Trace, make_trace

_HEALTH = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def engines(draw: st.DrawFn) -> EngineModel:
    slots = draw(st.integers(1, 8))
    return engine(
        ranks=draw(st.integers(1, 3)),
        slots=slots,
        batch_tokens=slots + draw(st.sampled_from([0, 1, 5, 30, 100])),
        kv_tokens=draw(st.integers(4, 30)) * 16 + draw(st.integers(0, 15)),
        base=draw(st.sampled_from([0.5, 0.01])),
        experts=draw(st.sampled_from([0.0, 0.25])),
        expert_share=draw(st.sampled_from([0.0, 0.1, 1.0])),
        shared=draw(st.sampled_from([0.0, 0.002])),
        decode=draw(st.sampled_from([0.0, 0.125])),
        prefill=draw(st.sampled_from([0.0, 0.0625])),
        kv=draw(st.sampled_from([0.0, 0.001])),
        prefix_cache_share=draw(st.sampled_from([0.0, 0.6, 1.0])),
    )


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from([0.0, 0.0, 0.37, 1.3, 7.1, 40.0]),
                st.integers(1, 150),
                st.integers(1, 60),
                st.integers(0, 150),
            ),
            min_size=1,
            max_size=40,
        )
    )
    gaps, prompt, output, cached = (np.array(column) for column in zip(*rows, strict=True))
    return make_trace(np.cumsum(gaps), prompt, output, np.minimum(cached, prompt))


@_HEALTH
@given(traces(), engines(), st.integers(1, 3))
def test_groups_serve_as_the_rules_written_out_plainly(trace: Trace, model: EngineModel, groups: int) -> None:
    end = 1e7
    requests = kernel.requests(trace, model)
    fleet = Fleet(requests, model, cold_start=0, jitter=0, drain_deadline=0, places=groups, seed=0)
    for _ in range(groups):
        fleet.start(0.0, ready=True)
    # In pieces, as a run does it.
    for time in np.arange(0.0, trace.duration, 2.9):
        fleet.run_until(float(time))
    fleet.run_until(end)
    plain = serve(trace, model, groups, end)

    first = np.array([request.first for request in plain.requests])
    last = np.array([request.last for request in plain.requests])
    np.testing.assert_allclose(requests.first, first, rtol=1e-9)
    np.testing.assert_allclose(requests.last, last, rtol=1e-9)
    wanted = [kernel.REJECTED if r.rejected else kernel.FINISHED for r in plain.requests]
    assert requests.outcome.tolist() == wanted
    assert fleet.preemptions() == plain.preemptions

    served = [request for request in plain.requests if request.done]
    counted = fleet.places.counters.sum(axis=(0, 1))
    assert counted[kernel.OUTPUT] == sum(r.output for r in served)
    assert counted[kernel.PROMPT] == sum(r.prompt for r in served)
    assert counted[kernel.CACHED] == sum(r.hit for r in served)
    assert counted[kernel.ENDED] == len(served)
    gaps = np.array([gap for request in served for gap in request.gaps])
    seen = fleet.places.histograms[:, kernel.ITL, : len(kernel.TOKEN_BUCKETS) + 1].sum(axis=0)
    assert seen.sum() == len(gaps) == counted[kernel.GAPS]
    assert abs(counted[kernel.GAP_TIME] - gaps.sum() * 1e6) <= len(gaps), "to the microsecond"
    # A gap on a bucket's edge may fall on either side by rounding.
    for at, bound in enumerate(kernel.TOKEN_BUCKETS):
        assert (gaps < bound * (1 - 1e-9)).sum() <= seen[: at + 1].sum() <= (gaps <= bound * (1 + 1e-9)).sum()
    for held in (fleet.places.used, fleet.places.tokens, fleet.places.decoding, fleet.places.phase):
        assert not held.any(), "nothing is held when nothing is in flight"


@_HEALTH
@given(
    traces(),
    engines(),
    st.dictionaries(st.integers(0, 20).map(lambda k: 5.0 * k), st.integers(0, 4), max_size=8),
    st.booleans(),
    st.integers(0, 3),
    st.sampled_from([0.0, 7.0, 60.0]),
    st.sampled_from([0.0, 3.0, 50.0]),
)
def test_no_request_and_no_gpu_time_is_lost_however_the_fleet_changes(
    trace: Trace,
    model: EngineModel,
    script: dict[float, int],
    undrain: bool,
    start: int,
    cold_start: float,
    deadline: float,
) -> None:
    policy = Scripted(script, interval=5.0, undrain=undrain)
    result = simulate(
        trace,
        model,
        policy,
        cold_start=cold_start,
        seed=1,
        start_groups=start,
        floor=0,
        ceiling=4,
        drain_deadline=deadline,
        run_out=1e6,
    )
    outcomes = [result.count(o) for o in (kernel.FINISHED, kernel.CUT, kernel.REJECTED, kernel.IN_FLIGHT)]
    assert sum(outcomes) == len(trace)
    finished = result.outcome == kernel.FINISHED
    assert not np.isnan(result.ttft[finished]).any()
    assert (result.ttft[finished] > 0).all()
    assert np.isnan(result.tpot[~finished]).all()
    if result.count(kernel.IN_FLIGHT):
        assert result.samples[-1][2] + result.samples[-1][3] == 0, "only where no group is left to come"
    spent = result.group_seconds
    assert all(seconds >= 0 for seconds in spent.values())
    assert 0 <= result.cancelled_seconds <= spent[Life.STARTING] + 1e-9
    # So many at most at a time, besides draining ones.
    assert spent[Life.READY] + spent[Life.STARTING] <= 4 * trace.duration + 1e-6
    for _, state in policy.seen:
        assert 0 <= state.desired <= 4
        assert state.ready + state.starting in (state.desired, start)


@_HEALTH
@given(traces(), engines())
@example(make_trace([0.0], [1], [1]), engine())
def test_the_same_seed_gives_the_same_run(trace: Trace, model: EngineModel) -> None:
    def once() -> tuple[list[float], float]:
        result = simulate(trace, model, Scripted({5: 3, 30: 1, 60: 2}), cold_start=20, seed=3, start_groups=1)
        return [-1.0 if math.isnan(t) else t for t in result.ttft], result.gpu_hours

    assert once() == once()
