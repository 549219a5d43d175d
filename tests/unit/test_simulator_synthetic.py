"""Made-up traces. If these were not like production traffic, settings chosen on them would fail in production."""

from dataclasses import replace

import numpy as np
import pytest

from moe_operator.simulator.synthetic import (
    AGENTS,
    CHAT,
    DAY,
    DOCUMENTS,
    GROWTHS,
    REASONING,
    RECIPES,
    SPAN,
    Load,
    Part,
    Surge,
    generate,
    growth,
    noise,
    shortened,
)
from moe_operator.simulator.trace import Trace, TraceError

CALM = Load("calm", (Part(CHAT, swing=0.0),), rate=10.0, duration=7200.0, growth=(1.0, 1.0), bursts=1.0)


def _counts(trace: Trace, seconds: float) -> list[int]:
    of = (trace.arrival // seconds).astype(np.int64)
    return np.bincount(of, minlength=int(trace.duration // seconds)).tolist()


@pytest.mark.parametrize("name", sorted(GROWTHS))
def test_noise_grows_as_stated_over_ten_minutes(name: str) -> None:
    wanted = GROWTHS[name]
    knots, factors = noise(100 * DAY, wanted, np.random.default_rng(11))
    # Means over each span, of a curve that is linear between its knots.
    fine = np.interp(np.arange(0.0, 100 * DAY, 30.0), knots, factors).reshape(-1, int(SPAN / 30))
    means = fine.mean(axis=1)
    grown = means[1:] / means[:-1]
    # Within 15 % of the growth itself, not of the factor.
    assert np.log(np.quantile(grown, 0.9)) == pytest.approx(np.log(wanted[0]), rel=0.15)
    assert np.log(np.quantile(grown, 0.99)) == pytest.approx(np.log(wanted[1]), rel=0.15)
    assert factors.max() <= 4.0
    assert factors.mean() == pytest.approx(1.0, abs=0.12)


def test_growth_of_a_made_up_trace_is_the_noises_own() -> None:
    load = replace(CALM, duration=20 * DAY, rate=2.0, growth=GROWTHS["large"], clients=20)
    p90, p99 = growth(generate(load, 3))
    # Counting adds a little to the noise: 1200 requests a span, give or take 3 %.
    assert 1.15 < p90 < 1.30
    assert 1.7 < p99 < 2.5


def test_without_noise_the_rate_is_what_was_asked_for() -> None:
    counts = _counts(generate(CALM, 5), SPAN)
    assert np.mean(counts) == pytest.approx(6000, rel=0.02)
    assert max(abs(count - 6000) for count in counts) < 5 * 6000**0.5


def test_the_same_seed_makes_the_same_trace_and_another_seed_another() -> None:
    one, same, other = (generate(shortened(RECIPES["shifting-mix"], 3600), seed) for seed in (1, 1, 2))
    for column in ("arrival", "prompt", "output", "cached"):
        assert np.array_equal(getattr(one, column), getattr(same, column))
    assert len(one) != len(other) or not np.array_equal(one.arrival, other.arrival)


def test_clients_send_in_bursts() -> None:
    # One client, so that the trace's intervals are the client's.
    bursty = generate(replace(CALM, clients=1, bursts=6.0), 7)
    plain = generate(replace(CALM, clients=1), 7)

    def variation(trace: Trace) -> float:
        gaps = np.diff(trace.arrival)
        return float(gaps.var() / gaps.mean() ** 2)

    assert variation(plain) == pytest.approx(1.0, abs=0.1)
    assert variation(bursty) == pytest.approx(6.0, rel=0.15)


def test_the_day_has_its_peak_where_it_was_put() -> None:
    trace = generate(replace(CALM, parts=(Part(CHAT, swing=0.5, peak=6.0),), duration=DAY), 2)
    hours = _counts(trace, 3600)
    assert int(np.argmax(hours)) in (5, 6)
    assert max(hours) == pytest.approx(15 * 3600, rel=0.05)
    assert min(hours) == pytest.approx(5 * 3600, rel=0.05)


def test_surges_multiply_the_rate_while_they_last() -> None:
    surge = Surge(1800, 2.0, rise=0, hold=1800, fall=0)
    counts = _counts(generate(replace(CALM, surges=(surge,)), 4), 900)
    assert counts == pytest.approx([9000, 9000, 18000, 18000, 9000, 9000, 9000, 9000], rel=0.06)
    step = generate(replace(CALM, surges=(Surge(3600, 0.5, rise=600),)), 4)
    assert _counts(step, 900)[-1] == pytest.approx(4500, rel=0.06)


@pytest.mark.parametrize(
    ("kind", "prompt", "output"),
    [
        (CHAT, (600, 1200), (220, 400)),
        (REASONING, (700, 1500), (1300, 2000)),
        (DOCUMENTS, (9_000, 13_000), (200, 350)),
        (AGENTS, (13_000, 18_000), (350, 650)),
    ],
)
def test_kinds_have_the_lengths_that_they_are_for(
    kind: object, prompt: tuple[float, float], output: tuple[float, float]
) -> None:
    trace = generate(replace(CALM, parts=(Part(kind, swing=0.0),), habits=0.0), 9)  # type: ignore[arg-type]
    assert prompt[0] < trace.prompt.mean() < prompt[1]
    assert output[0] < trace.output.mean() < output[1]
    assert np.all(trace.cached <= trace.prompt)
    if kind is REASONING:
        assert np.quantile(trace.output, 0.99) > 8 * np.median(trace.output), "a heavy tail"
    if kind is AGENTS:
        assert trace.cached.sum() / trace.prompt.sum() == pytest.approx(0.75, abs=0.02)


def test_a_mix_shifts_over_the_day() -> None:
    trace = generate(RECIPES["shifting-mix"], 1)
    mean = [
        float(trace.output[(trace.arrival >= hour * 3600) & (trace.arrival < (hour + 2) * 3600)].mean())
        for hour in (11, 21)
    ]
    assert mean[1] > 2 * mean[0], "answers are long at night"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_shortened_recipe_keeps_its_rate(name: str) -> None:
    load = shortened(RECIPES[name], 2 * 3600)
    trace = generate(load, 1)
    assert trace.duration == 7200
    assert len(trace) == pytest.approx(load.rate * 7200, rel=0.45)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0.0}, "makes no request"),
        ({"parts": ()}, "makes no request"),
        ({"growth": (1.3, 1.1)}, "growth"),
        ({"growth": (1.0, 1.5)}, "growth"),
        ({"parts": (Part(CHAT, swing=1.5),)}, "swing"),
    ],
)
def test_recipes_that_make_no_trace_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        replace(CALM, **change)  # type: ignore[arg-type]
