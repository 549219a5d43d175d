"""How the simulator's engine is compared with vLLM's, and policies by two judges: were a figure let through that is
off, or an order called the same that is not, wrong verdicts would be believed."""

import math

import numpy as np
import pytest

from bench.second_judge.page import Entry, Outcome, Verdict, page, summary
from bench.second_judge.ranks import kendall, spearman
from verify.engine_figures import Figure, compare
from verify.simulated_engine import Course, real_course
from verify.simulator_loads import Load, Request, batches, in_turn, poisson, with_prefixes
from verify.step_times import fit

# --- Step times ----------------------------------------------------------------------------------


def test_constants_of_steps_are_found_again():
    rng = np.random.default_rng(0)
    steps = []
    for _ in range(400):
        decode, prefill, kv = rng.integers(0, 17), rng.integers(0, 200), rng.integers(0, 3000)
        touched = 1 - 0.75 ** (decode + prefill)
        seconds = 0.004 + 0.002 * touched + 6e-5 * decode + 5e-5 * prefill + 4e-7 * kv
        steps.append((seconds * rng.uniform(0.9, 1.1), decode, prefill, kv))
    found = fit(steps, 0.25)
    assert found.base + found.experts == pytest.approx(0.006, rel=0.03)
    assert found.prefill == pytest.approx(5e-5, rel=0.05)
    assert found.kv == pytest.approx(4e-7, rel=0.1)
    assert found.error == pytest.approx(0.05, abs=0.01)
    slower = [(1.2 * seconds, *rest) for seconds, *rest in steps]
    assert found.bias_on(slower, 0.25) == pytest.approx(1 / 1.2 - 1, abs=0.01)


def test_no_constant_is_below_nothing():
    rng = np.random.default_rng(1)
    steps = [(0.01 - 1e-6 * kv, 1, 0, kv) for kv in rng.integers(0, 3000, 50).tolist()]
    assert fit(steps, 0.25).kv == 0.0


# --- Loads ---------------------------------------------------------------------------------------


def test_loads_are_the_same_for_the_same_seed():
    assert poisson("a", 3, 5.0, 20.0) == poisson("a", 3, 5.0, 20.0)
    assert poisson("a", 3, 5.0, 20.0).requests != poisson("a", 4, 5.0, 20.0).requests


def test_batches_come_apart():
    load = batches(1, (1, 3), (16, 64), 8)
    assert len(load.requests) == 8
    assert len({request.arrival for request in load.requests}) == 4


def test_only_the_first_of_a_family_finds_nothing():
    load = poisson("a", 3, 5.0, 20.0)
    shared = with_prefixes(load, in_turn(load, 4), length=100, block=32)
    assert [request.known for request in shared.requests[:5]] == [0, 0, 0, 0, 96]
    assert all(
        request.prompt == plain.prompt + 100
        for request, plain in zip(shared.requests, load.requests, strict=True)
    )


# --- Figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "held"),
    [
        (Figure("x", "s", 1.0, 1.14), True),
        (Figure("x", "s", 1.0, 1.16), False),
        (Figure("x", "s", 1.0, 0.84), False),
        (Figure("x", "s", 0.01, 0.05, floor=0.05), True),
        (Figure("x", "s", 0.01, 0.07, floor=0.05), False),
        (Figure("x", "", 0.0, 0.0), True),
        (Figure("x", "", 0.0, 3.0, floor=5.0), True),
        # Of a course its distance counts, not that its mean is right.
        (Figure("x", "", 10.0, 10.0, apart=2.0), False),
        (Figure("x", "", 10.0, 20.0, known=True), True),
    ],
)
def test_figures_are_near_within_a_share_or_a_floor(figure: Figure, held: bool):
    assert figure.held is held
    assert ("OFF" in figure.text()) is not held


def answer(load: Load, step: float) -> dict:
    """vLLM's words for an engine that serves one request after another, a token a step."""
    steps, first, last, now = [], [], [], 0.0
    for request in load.requests:
        now = max(now, request.arrival)
        for token in range(request.output):
            steps.append((now, now + step, 1, 0, 0, 1, 0, 0.1, 0, 1))
            now += step
            if token == 0:
                first.append(now)
        last.append(now)
    return {"steps": steps, "first": first, "last": last, "prefix_hits": 0}


def test_the_same_course_twice_is_held_and_a_slower_one_is_not():
    load = Load("x", 0, tuple(Request(float(at), 10, 8, at) for at in range(20)), 20.0)
    usual = real_course(load, answer(load, 0.1), 0.25)
    assert all(figure.held for figure in compare(load, usual, usual))
    slow = real_course(load, answer(load, 0.12), 0.25)
    off = {figure.name for figure in compare(load, usual, slow) if not figure.held}
    assert "per further token, mean" in off
    assert usual.tokens[-1] == 160
    assert isinstance(usual, Course)


# --- Judges --------------------------------------------------------------------------------------


def test_orders_are_compared():
    assert spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert kendall([1, 2, 3], [30, 20, 10]) == pytest.approx(-1)
    assert kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert spearman([1, 1, 2], [5, 5, 9]) == pytest.approx(1)
    assert math.isnan(spearman([1], [2]))
    assert math.isnan(kendall([1, 1], [2, 3]))


def entry(policy: str, setting: str, ours: tuple, theirs: tuple) -> Entry:
    return Entry(policy, setting, setting == "as it comes", Verdict(*ours, 1), Verdict(*theirs, 1))


def test_the_operator_is_placed_as_it_comes_among_what_holds():
    outcome = Outcome(
        (
            entry("operator", "as it comes", (0.995, 20.0), (0.992, 22.0)),
            entry("operator", "worth 6", (0.995, 10.0), (0.992, 10.0)),
            entry("apa-kv", "as it comes", (0.5, 5.0), (0.6, 6.0)),
            entry("apa-kv", "kv 0.1", (0.999, 30.0), (0.999, 21.0)),
            entry("static", "9 groups", (1.0, 1.0), (1.0, 1.0)),
        ),
        {"Date": "today"},
    )
    assert (outcome.place("ours"), outcome.place("theirs")) == (1, 2)
    assert len(outcome.held) == 3
    assert "the operator is first" in summary(outcome)
    assert "| 1 | `operator`, as it comes | 20.0 | `apa-kv`, kv 0.1 | 21.0 |" in page(outcome)
