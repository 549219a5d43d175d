"""All baselines alike: one that crashes on a gap in the metrics, or keeps state between runs, spoils a whole report."""

import math
import random
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from factories.views import FakeView, each, fleet
from moe_operator.simulator.policies import BASELINES, Baseline
from moe_operator.simulator.policies.baseline import Served

SERVED = Served(ttft=5.0, tpot=0.08, ranks=8)
METRICS = ("running", "waiting", "kv_usage", "kv_usage_worst", "running_worst")
COUNTERS = ("output_tokens", "prompt_tokens", "cached_prompt_tokens", "finished", "finished_output_tokens")


@pytest.fixture(params=list(BASELINES.values()), ids=list(BASELINES))
def baseline(request: pytest.FixtureRequest) -> Baseline:
    found: Baseline = request.param
    return found


def test_is_known_by_its_name(baseline: Baseline):
    policy = baseline.make(baseline.published(SERVED))
    assert policy.name == baseline.name
    assert policy.interval > 0
    assert policy.undrain is False


def test_variants_differ_and_contain_no_other_setting(baseline: Baseline):
    variants = list(baseline.variants(SERVED))
    assert len(set(map(repr, variants))) == len(variants) >= 8
    with pytest.raises(FrozenInstanceError):
        setattr(variants[0], baseline.tunable.fields[0], 1.0)


def test_the_published_settings_are_among_what_is_swept(baseline: Baseline):
    published = baseline.published(SERVED)
    values = tuple(getattr(published, field) for field in baseline.tunable.fields)
    assert values in baseline.tunable.grid or baseline.name == "static"


def _odd_view(draw: random.Random, now: float) -> FakeView:
    """Groups with gaps, NaN, stale samples, resets: what a Prometheus in trouble has."""
    metrics: dict[int, dict[str, Any]] = {}
    for group in range(draw.randint(0, 4)):
        metrics[group] = {}
        for metric in METRICS + COUNTERS:
            kind = draw.choice(("none", "number", "nan", "stale", "series", "series"))
            times = [now - 15.0 * back for back in range(5, 0, -1)]
            values = [draw.choice((0.0, 0.5, 3.0, 1e6, math.nan)) for _ in times]
            metrics[group] |= {
                "none": {},
                "number": {metric: draw.uniform(0, 2)},
                "nan": {metric: math.nan},
                "stale": {metric: [(now - 400.0, 5.0)]},
                "series": {metric: list(zip(times, values, strict=True))},
            }[kind]
    quantiles = {name: draw.choice((None, math.nan, 0.01, 9.0, math.inf)) for name in ("ttft", "tpot")}
    frontend = {"arrivals": draw.choice((0.0, 4.0)), "arrived_prompt_tokens": draw.choice((0.0, 4000.0))}
    return FakeView(now=now, metrics=metrics, frontend=frontend, quantiles=quantiles)


def test_survives_metrics_in_trouble(baseline: Baseline):
    draw = random.Random(7)
    policy = baseline.make(baseline.published(SERVED))
    groups = 3
    for look in range(400):
        now = 600.0 + policy.interval * look
        starting = draw.choice((0, 0, 1))
        state = fleet(
            max(0, groups - starting), desired=groups, starting=starting, draining=draw.choice((0, 0, 2))
        )
        wanted = policy.desired(_odd_view(draw, now), state, now)
        assert isinstance(wanted, int)
        groups = min(max(wanted, state.floor), state.ceiling)


def test_nothing_to_see_at_all(baseline: Baseline):
    for state in (fleet(0, desired=0), fleet(0, desired=2, starting=2), fleet(5)):
        policy = baseline.make(baseline.published(SERVED))
        for look in range(50):
            assert isinstance(policy.desired(FakeView(), state, 600.0 + policy.interval * look), int)


def test_two_runs_are_the_same(baseline: Baseline):
    def run() -> list[int]:
        draw, policy = random.Random(3), baseline.make(baseline.published(SERVED))
        groups, decided = 3, []
        for look in range(150):
            now = 600.0 + policy.interval * look
            load = draw.uniform(0, 1)
            view = FakeView(
                now=now,
                metrics=each(
                    groups, running=200 * load, waiting=9 * load, kv_usage=load, kv_usage_worst=load
                ),
                quantiles={"ttft": 5 * load, "tpot": 0.08 * load},
            )
            groups = min(max(policy.desired(view, fleet(groups), now), 1), 20)
            decided.append(groups)
        return decided

    assert run() == run()
