"""One group, calculated by hand. A simulator that is wrong here ranks policies by an engine that does not exist."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from factories.simulation import engine, run, together
from moe_operator.simulator import kernel
from moe_operator.simulator.engine_model import engines
from moe_operator.simulator.result import Result
from moe_operator.simulator.trace import make_trace


def _last(result: Result) -> list[float]:
    """When each request had its last token."""
    return (result.trace.arrival + result.ttft + result.tpot * (result.trace.output - 1)).tolist()


def test_one_request_alone_takes_what_the_formula_says() -> None:
    model = engine(
        base=0.1, experts=0.4, expert_share=0.25, shared=0.003, decode=0.02, prefill=0.001, kv=1e-5
    )
    result = run(make_trace([2.5], [32], [3]), model)
    first = 0.1 + 0.4 * (1 - 0.75**32) + 0.003 * 32 + 0.001 * 32
    # A step that decodes reads what is in the cache: 32 tokens, then 33.
    later = [0.1 + 0.4 * 0.25 + 0.003 + 0.02 + 1e-5 * kv for kv in (32, 33)]
    assert result.ttft[0] == pytest.approx(first)
    assert result.tpot[0] == pytest.approx(sum(later) / 2)
    assert model.step_seconds(0, 32, 0) == pytest.approx(first)
    assert model.step_seconds(1, 0, 32) == pytest.approx(later[0])


def test_what_arrives_in_a_step_waits_for_the_next_and_what_arrives_at_its_end_does_not() -> None:
    result = run(make_trace([0.0, 0.5, 3.0], [8, 8, 8], [9, 1, 1]))
    assert result.ttft.tolist() == [1.0, 1.5, 1.0]


def test_with_all_slots_taken_a_request_waits_for_one() -> None:
    result = run(together(3, 8, 4), engine(slots=2))
    assert result.ttft.tolist() == [1.0, 1.0, 5.0], "the first two end with the fourth step"
    assert result.tpot.tolist() == [1.0, 1.0, 1.0]


def test_a_prompt_is_computed_in_chunks_beside_those_that_decode() -> None:
    # 64 tokens a step: 64 of the first, then its other 36 with 28 of the second, whose 72 left share with one decoding
    # request: 63, then 9.
    result = run(together(2, 100, 5), engine(batch_tokens=64))
    assert result.ttft.tolist() == [2.0, 4.0]
    assert _last(result) == [6.0, 8.0]


def test_cached_tokens_are_not_computed_but_take_blocks() -> None:
    trace = make_trace([0.0, 100.0], [100, 100], [1, 1], [99, 31])
    plain = run(trace, engine(prefill=0.01, prefix_cache_share=0.0))
    assert plain.ttft.tolist() == pytest.approx([1.64 + 1.36, 3.0])
    cached = run(trace, engine(prefill=0.01))
    # Whole blocks only: 96 and 16 tokens are found.
    assert cached.ttft.tolist() == pytest.approx([1.04, 1.64 + 1.20])
    full = run(together(2, 64, 1).__class__(*_columns(), duration=0.0), engine(kv_tokens=96, prefill=0.01))
    assert full.ttft.tolist() == pytest.approx([1.16, 2.32]), "found or not, four blocks of six are taken"


def _columns() -> tuple[np.ndarray, ...]:
    return (
        np.zeros(2),
        np.full(2, 64, dtype=np.int32),
        np.full(2, 1, dtype=np.int32),
        np.full(2, 63, dtype=np.int32),
    )


def test_the_last_admitted_is_preempted_and_computes_again() -> None:
    # Four blocks. Both prompts take one, and with the second token each takes its second. The 33rd tokens of both come
    # at once (17 generated): the first takes the second's blocks.
    result = run(together(2, 16, 30), engine(kv_tokens=64))
    assert result.preemptions == 1
    assert _last(result)[0] == 30.0
    # Preempted in the step that would bring its 18th token, it waits until the first ends with the 30th step, computes
    # 16 + 17 tokens, which brings the 18th, and goes on.
    assert _last(result)[1] == 31.0 + 12
    assert result.ttft.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("share", "computed"), [(1.0, 17), (0.0, 33)])
def test_a_preempted_request_finds_the_blocks_that_nobody_took(share: float, computed: int) -> None:
    # As above: two full blocks when it is preempted. The first takes one of them, its last; the other is found.
    result = run(together(2, 16, 30), engine(kv_tokens=64, prefill=0.01, prefix_cache_share=share))
    assert result.preemptions == 1
    assert _last(result)[0] == pytest.approx(30.32)
    assert _last(result)[1] == pytest.approx(30.32 + 1 + 0.01 * computed + 12)


@pytest.mark.parametrize(("output", "computed"), [(40, [52]), (85, [64, 20])])
def test_blank_blocks_are_given_out_before_those_of_a_preempted_request(
    output: int, computed: list[int]
) -> None:
    # Eight blocks. The first step computes 16 tokens of the one and 48 of the other; in the second, four blocks for the
    # rest are too many, and the other waits with three full ones behind three blank ones. The one takes two more blocks
    # in all, or five: the last two of those three.
    result = run(make_trace([0.0, 0.0], [16, 100], [output, 1]), engine(kv_tokens=128, prefill=0.01))
    assert result.preemptions == 1
    alone = 1.64 + output - 1
    assert result.ttft.tolist() == pytest.approx(
        [1.64, alone + sum(1 + 0.01 * tokens for tokens in computed)]
    )


def test_a_request_that_no_rank_can_hold_is_rejected_and_holds_up_nobody() -> None:
    result = run(make_trace([0.0, 0.0], [40, 8], [26, 1]), engine(kv_tokens=64))
    assert result.outcome.tolist() == [kernel.REJECTED, kernel.FINISHED]
    assert result.ttft[1] == 1.0
    fits = run(make_trace([0.0], [40], [25]), engine(kv_tokens=64))
    assert fits.outcome.tolist() == [kernel.FINISHED]


def test_ranks_step_together_at_the_pace_of_the_slowest() -> None:
    model = engine(ranks=2, batch_tokens=1000, prefill=0.01)
    result = run(make_trace([0.0, 0.0], [500, 10], [1, 3]), model)
    assert result.ttft.tolist() == pytest.approx([6.0, 6.0]), (
        "the short prompt's rank waits for the long one's"
    )
    assert result.tpot[1] == pytest.approx(1.0)
    alone = run(make_trace([0.0], [10], [3]), model)
    assert alone.ttft[0] == pytest.approx(1.1)


def test_requests_go_where_the_fewest_are_in_flight() -> None:
    model = engine(ranks=2, slots=1)
    result = run(together(4, 8, 5), model, start_groups=2)
    assert result.ttft.tolist() == [1.0] * 4, "one for each rank of each group"


def test_requests_in_flight_are_their_rate_times_their_time() -> None:
    rng = np.random.default_rng(4)
    arrival = np.cumsum(rng.exponential(0.5, 20_000))
    trace = make_trace(arrival, rng.integers(1, 400, 20_000), rng.integers(1, 200, 20_000))
    model = engine(ranks=4, slots=64, batch_tokens=512, base=0.05, decode=0.001, prefill=1e-4)
    result = run(trace, model, start_groups=2)
    seconds = result.ttft + result.tpot * (trace.output - 1)
    in_flight = (result.samples[:, 5] + result.samples[:, 6]).mean()
    assert in_flight == pytest.approx(trace.rate * seconds.mean(), rel=0.02)


def test_a_million_requests_in_one_second_are_served_or_missed_but_not_lost() -> None:
    n = 1_000_000
    trace = make_trace(np.linspace(0, 1, n), np.full(n, 8), np.full(n, 1))
    model = engine(ranks=2, slots=256, batch_tokens=8192, kv_tokens=100_000, base=0.01)
    result = run(trace, model, run_out=10.0)
    assert result.count(kernel.FINISHED) + result.count(kernel.IN_FLIGHT) == n
    assert result.count(kernel.FINISHED) == pytest.approx(1100 * 2 * 256, rel=0.02)
    assert result.attainment() < 0.5


def test_impossible_constants_are_refused() -> None:
    with pytest.raises(ValidationError, match="batch_tokens 8 is less than slots 9"):
        engine(slots=9, batch_tokens=8)
    for wrong in (
        {"base": 0.0},
        {"kv": -1.0},
        {"base": math.nan},
        {"ranks": 0},
        {"expert_share": 1.5},
        {"speed": 1},
    ):
        with pytest.raises(ValidationError):
            engine(**wrong)


def test_the_engines_that_come_along_say_where_they_are_from() -> None:
    assert len(engines()) >= 3
    for name, model in engines().items():
        assert model.name == name
        assert "aiconfigurator" in model.source
        assert "errors" in model.source


def _closed_to(arrivals: np.ndarray) -> tuple[float, float]:
    """Mean time per token (s) and running requests of R1 on one group, of 1270 and 1530 tokens each."""
    n = len(arrivals)
    trace = make_trace(arrivals, np.full(n, 1270), np.full(n, 1530))
    result = run(trace, engines()["deepseek-r1-8xh200"])
    samples = len(result.samples)
    half = result.samples[samples // 4 : 3 * samples // 4, 5].mean()
    return float(np.mean(result.tpot[n // 4 : 3 * n // 4])), float(half)


def test_deepseek_r1_serves_about_what_its_tables_say() -> None:
    """aiconfigurator puts a group at 448 requests of 1270 and 1530 tokens at 4.73 requests/s, 61 ms a token. It has all
    ranks compute prompts in the same steps, as requests do that arrive eight at a time."""
    n = 12_000
    each, running = _closed_to(np.repeat(np.arange(n // 8) * 8 / 4.73, 8))
    assert each == pytest.approx(0.0615, rel=0.15)
    assert running == pytest.approx(448, rel=0.15)


def test_prompts_one_at_a_time_cost_all_ranks_more_than_eight_together() -> None:
    """What tables of balanced ranks do not show: each step waits for the one rank that computes a prompt."""
    n = 12_000
    apart, _ = _closed_to(np.arange(n) / 4.73)
    together, _ = _closed_to(np.repeat(np.arange(n // 8) * 8 / 4.73, 8))
    assert apart > 1.2 * together
