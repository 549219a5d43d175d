"""Dynamo's planner as the simulator has it, against its own decisions and by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from factories.views import FakeView, each, fleet
from moe_operator.simulator.policies.baseline import Served
from moe_operator.simulator.policies.dynamo import Counts, Dynamo, DynamoSettings, EngineLoad, Planner
from moe_operator.simulator.policies.dynamo_model import Average, Step, StepModel, least_squares

RECORD = json.loads((Path(__file__).parent / "golden" / "autoscaler_dynamo.json").read_text())
SERVED = Served(ttft=1.0, tpot=0.05, slots=256, batched_tokens=8192, kv_tokens=700_000)


def _planner(case: dict[str, Any]) -> Planner:
    settings = DynamoSettings(served=Served(**case["served"]), target=case["target"])
    model = StepModel(settings.samples, settings.least_samples, settings.buckets)
    for step in case["steps"]:
        model.add(Step(*step))
    return Planner(settings, model)


@pytest.mark.parametrize("number", range(len(RECORD["cases"])))
def test_as_dynamo_itself(number: int):
    row = RECORD["cases"][number]
    case, served = row["case"], Served(**row["case"]["served"])
    planner = _planner(case)
    for question, answer in zip(case["questions"], row["decided"]["answers"], strict=True):
        model, cached = planner.model, question["cached"]
        rate = model.best_rate(
            question["isl"],
            question["osl"],
            batched_tokens=served.batched_tokens,
            ttft=served.ttft,
            itl=served.tpot,
            kv_tokens=served.kv_tokens,
            slots=served.slots,
            cached=cached,
        )
        ttft = model.next_ttft(question["queued"], served.batched_tokens, question["kv"], cached)
        found = {"rate": rate, "ttft": ttft, "itl": model.next_itl(question["kv"], 0.0)}
        assert [value is None for value in found.values()] == [answer[key] is None for key in found]
        assert [value or 0.0 for value in found.values()] == pytest.approx(
            [answer[key] or 0.0 for key in found], rel=1e-6
        )
    for index, (look, decided) in enumerate(zip(case["looks"], row["decided"]["decisions"], strict=True)):
        planner.cached = look["cached"]
        traffic = look["traffic"]
        if traffic and case["target"] == "sla":
            planner.plan_floor(traffic["num_req"] / 180.0, traffic["isl"], traffic["osl"], look["ready"])
        pending = 0 if look["blocked"] else look["pending"]
        counts = Counts(look["ready"], pending, look["blocked"])
        groups = planner.decide([EngineLoad(**load) for load in look["loads"]], counts)
        assert (planner.floor, groups) == (decided["floor"], decided["groups"]), f"look {index}"


def _learnt() -> StepModel:
    """20 ms, 30 us a prefill token, 40 ns a KV token: exactly."""
    model = StepModel()
    for prefill in (0, 100, 200, 500):
        for kv in (10_000, 100_000, 400_000):
            model.add(Step(prefill, 0, kv, 100, 0.02 + 30e-6 * prefill + 40e-9 * kv))
    return model


def test_finds_the_line_again():
    assert _learnt().fit == pytest.approx((0.02, 30e-6, 40e-9), rel=1e-9)


def test_the_solution_of_least_norm_where_there_are_several():
    constant, by_x, by_y = least_squares([(1.0, 2.0, 3.0), (2.0, 4.0, 6.0)])
    # z = 0.6 x + 1.2 y: along the direction in which the points lie.
    assert (constant, by_x, by_y) == pytest.approx((0.0, 0.6, 1.2))
    assert least_squares([(1.0, 1.0, 5.0)] * 3) == (5.0, 0.0, 0.0)


def test_a_line_by_which_more_work_takes_less_time_is_refused():
    model = StepModel()
    for kv in (1e5, 2e5, 3e5, 4e5, 5e5):
        model.add(Step(0, 0, kv, 10, 1.0 - kv * 1e-6))
    assert model.fit is None
    assert model.step(0, 1e5) is None


def test_the_sample_stays_spread_out():
    model = StepModel(samples=16, buckets=16)
    model.add(Step(0, 0, 0, 1, 0.02))
    model.add(Step(8000, 0, 600_000, 1, 0.3))
    for _ in range(100):
        model.add(Step(4000, 0, 300_000, 1, 0.15))
    assert model.count == 16
    assert model.step(8000, 600_000) == pytest.approx(0.3, rel=0.05)


def test_an_average_starts_with_the_first_traffic():
    average = Average(3)
    for value in (0.0, 0.0, 6.0, 0.0):
        average.add(value)
    assert average.value == 3.0


def _decide(loads: list[EngineLoad], counts: Counts, **settings: Any) -> int | None:
    return Planner(DynamoSettings(served=SERVED, **settings), _learnt()).decide(loads, counts)


LIGHT, HEAVY = EngineLoad(kv=20_000, queued_prefill=0), EngineLoad(kv=650_000, queued_prefill=400_000)


def test_one_more_only_when_every_engine_misses():
    assert _decide([HEAVY, HEAVY], Counts(2)) == 3
    assert _decide([HEAVY, LIGHT], Counts(2)) is None


def test_one_fewer_when_the_rest_could_carry_it():
    assert _decide([LIGHT] * 3, Counts(3)) == 2
    assert _decide([LIGHT], Counts(1)) is None


def test_what_starts_is_not_added_to_and_may_be_cancelled():
    assert _decide([HEAVY] * 2, Counts(2, pending=1)) is None
    assert _decide([LIGHT] * 2, Counts(2, pending=1)) == 1


def test_a_drain_or_a_group_without_figures_holds():
    assert _decide([HEAVY] * 2, Counts(2, blocked=True)) is None
    assert _decide([HEAVY], Counts(2)) is None
    assert _decide([], Counts(0)) is None


def test_static_thresholds():
    assert _decide([EngineLoad(kv=710_000, queued_prefill=0), LIGHT], Counts(2), target="easy") == 3
    assert _decide([EngineLoad(kv=300_000, queued_prefill=0), LIGHT], Counts(2), target="easy") == 1
    assert _decide([EngineLoad(kv=430_000, queued_prefill=0), LIGHT], Counts(2), target="easy") is None
    # 0.55 on each of two would be 1.1 on the one that stays.
    both = [EngineLoad(kv=385_000, queued_prefill=0)] * 2
    assert _decide(both, Counts(2), target="easy") == 2


def test_the_floor_is_the_rate_over_one_engines():
    planner = Planner(DynamoSettings(served=SERVED), _learnt())
    one = planner.model.best_rate(
        1000, 500, batched_tokens=8192, ttft=1.0, itl=0.05, kv_tokens=700_000, slots=256
    )
    assert one > 0
    planner.plan_floor(one * 4.5, 1000, 500, ready=3)
    assert planner.floor == 5
    planner.plan_floor(one * 40, 1000, 500, ready=3)
    assert planner.floor == 11  # 8 more than are ready, at most
    planner.least = 20
    planner.plan_floor(0.0, 1000, 500, ready=3)
    assert planner.floor == 20  # but never below the least


def test_where_prefill_binds_even_one_request_is_limited_by_it():
    # 99 of 100 tokens a step for prompts of 1000: a request every 10.1 steps, though 5 tokens take but 5.
    model = StepModel()
    for kv in (0.0, 1.0, 2.0, 3.0, 4.0):
        model.add(Step(0, 0, kv, 0, 0.1))
    rate = model.best_rate(1000.0, 5.0, batched_tokens=100, ttft=1e9, itl=1.0)
    assert rate == pytest.approx(99 / 1000 / 0.1)


@pytest.mark.parametrize(
    ("load", "wanted"),
    [
        # Twice 12,000 queued tokens on the one that stays take 3 steps, 0.78 s.
        (EngineLoad(kv=0, queued_prefill=12_000), 1),
        # Twice 13,000 take 4, 0.86 s: between 80 % and all of what the objective of 1 s leaves.
        (EngineLoad(kv=0, queued_prefill=13_000), None),
        # Twice 0.55 of the cache does not fit, however fast it would be.
        (EngineLoad(kv=385_000, queued_prefill=0), None),
        (EngineLoad(kv=335_000, queued_prefill=0), 1),
    ],
)
def test_one_fewer_keeps_to_the_cache_and_to_a_share_of_the_objective(load: EngineLoad, wanted: int | None):
    served = replace(SERVED, tpot=10.0)
    settings = DynamoSettings(served=served)
    assert Planner(settings, _learnt()).decide([load] * 2, Counts(2)) == wanted


def _counter(rate: float, now: float) -> list[tuple[float, float]]:
    return [(at, rate * at) for at in (now - 45.0, now - 30.0, now - 15.0)]


def _serving(now: float, running: float, step: float, kv: float) -> dict[int, dict[str, Any]]:
    """Two groups of 4 ranks in steady state: every running request gets a token each step."""
    return {
        group: {
            "running": running,
            "waiting": 0.0,
            "kv_usage": kv,
            "kv_usage_worst": kv,
            "output_tokens": _counter(running / step, now),
            "prompt_tokens": _counter(4000.0, now),
            "cached_prompt_tokens": _counter(1000.0, now),
        }
        for group in (0, 1)
    }


def test_learns_steps_from_scrapes():
    policy = Dynamo(DynamoSettings(served=Served(1.0, 0.05, ranks=4, kv_tokens=700_000)))
    for look, (running, step, kv) in enumerate([(80, 0.03, 0.1), (160, 0.04, 0.4), (240, 0.05, 0.7)]):
        now = 600.0 + 60.0 * look
        view = FakeView(now=now, metrics=_serving(now, running, step, kv))
        policy.desired(view, fleet(2), now)
        policy.desired(view, fleet(2), now + 5.0)  # the same scrape again teaches nothing
    model = policy.planner.model
    assert model.count == 6
    # 3000 uncached tokens per second on 4 ranks, in steps of 30 to 50 ms.
    assert model.prefill_tokens.value == pytest.approx(750 * 0.04)
    assert model.step(750 * 0.04, 0.4 * 700_000) == pytest.approx(0.04, rel=0.02)


@pytest.mark.parametrize(
    "view",
    [
        FakeView(),
        FakeView(metrics={0: {}, 1: {}}),
        FakeView(metrics=each(2, kv_usage_worst=math.nan, waiting=0.0, output_tokens=math.nan)),
        FakeView(metrics=_serving(600.0, 0.0, 0.03, 0.0)),
    ],
    ids=["no group", "no metric", "NaN", "idle"],
)
@pytest.mark.parametrize("target", ["sla", "easy"])
def test_without_figures_nothing_is_added(view: FakeView, target: Any):
    policy = Dynamo(DynamoSettings(served=SERVED, target=target))
    decided = {policy.desired(view, fleet(2), 600.0 + 5.0 * look) for look in range(80)}
    assert decided <= {2, 1 if target == "easy" and view.latest("kv_usage_worst") else 2}
