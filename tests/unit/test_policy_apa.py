"""AIBrix's autoscaler as the simulator has it, by the numbers that its own tests expect and by hand."""

import math

import pytest

from factories.views import FakeView, each, fleet
from moe_operator.simulator.policies.apa import Apa, ApaSettings, guarded, recommend
from moe_operator.simulator.policies.projector import Projector


@pytest.mark.parametrize(
    ("groups", "use", "max_up", "max_down", "wanted"),
    [
        # What algorithm/apa_test.go @2aff67a expects, target 30.
        (2, 45.0, 2, 2, 3),
        (2, 35.0, 2, 2, 3),
        (2, 90.0, 2, 2, 4),
        (2, 90.0, 2.5, 2, 5),
        (6, 20.0, 2, 2, 4),
        (6, 18.0, 2, 2, 4),
        (6, 10.0, 2, 2, 3),
        (6, 5.0, 2, 2.5, 2),
        (2, 33.0, 2, 2, 2),
        (2, 27.0, 2, 2, 2),
    ],
)
def test_the_rule(groups: int, use: float, max_up: float, max_down: float, wanted: int):
    assert recommend(ApaSettings(target=30.0, max_up=max_up, max_down=max_down), use, groups) == wanted


@pytest.mark.parametrize(
    ("use", "ready", "wanted"),
    [
        (90.0, 4, 8),
        (90.0, 2, 4),  # what starts has no use yet: 4 * 45 / 50
        (90.0, 3, 6),  # 4 * 67.5 / 50
        (10.0, 2, 3),  # what starts is at the target: 4 * 30 / 50
        (10.0, 4, 2),
        (50.0, 1, 4),
    ],
)
def test_pending_groups_dampen_both_ways(use: float, ready: int, wanted: int):
    settings = ApaSettings(target=50.0, max_up=4.0)
    assert guarded(settings, recommend(settings, use, 4), use, 4, ready) == wanted


def _series(*pairs: tuple[float, float]) -> list[tuple[float, float]]:
    return list(pairs)


@pytest.mark.parametrize(
    ("samples", "window", "horizon", "projected"),
    [
        # What prediction/predictor_test.go @7883c07 expects, at time 0.
        (_series((-30, 10), (-20, 20), (-10, 30), (0, 40)), 60, 30, 55.0),
        (_series((-20, 10), (-10, 20)), 60, 30, None),
        (_series((-20, 10), (-15, 20), (-10, 30)), 600, 30, None),
        (_series((-20, 100), (-10, 50), (0, 0)), 40, 100, 0.0),
        (_series((-20, 0), (-10, 0), (0, 1000)), 40, 30, 1000 / 3 * 4),
        (_series((-600, 1000), (-39, 10), (-29, 20), (-19, 30), (10, 5000)), 40, 30, 50.0),
        (_series((-30, 20), (-20, 20), (-10, 20), (0, 20)), 60, 120, 20.0),
        # By hand: a sample as old as the window is none of it.
        (_series((-60, 500), (-30, 20), (-10, 20), (0, 20)), 60, 120, 20.0),
    ],
)
def test_the_projector(
    samples: list[tuple[float, float]], window: float, horizon: float, projected: float | None
):
    assert Projector(horizon, window).project(samples, 0.0) == pytest.approx(projected)


def test_samples_of_one_moment_have_no_slope():
    assert Projector(window=60, least_span=0.0).project([(0.0, 1.0)] * 3, 0.0) is None


def _run(policy: Apa, uses: list[float], groups: int) -> list[int]:
    decided = []
    for look, use in enumerate(uses):
        view = FakeView(now=1000.0 + 10.0 * look, metrics=each(2, kv_usage=use))
        groups = policy.desired(view, fleet(groups), view.now)
        decided.append(groups)
    return decided


def test_averages_three_minutes():
    # Of 18 looks, 10 at 0.8 have a mean of 0.53, which is within the tolerance; 11 have 0.57.
    policy = Apa(ApaSettings(target=0.5))
    decided = [_look(policy, use, 4, 10.0 * look) for look, use in enumerate([0.2] * 18 + [0.8] * 11)]
    assert decided[26:] == [4, 4, 5]


def _look(policy: Apa, use: float, groups: int, at: float) -> int:
    return policy.desired(FakeView(now=at, metrics=each(2, kv_usage=use)), fleet(groups), at)


@pytest.mark.parametrize(("holds_down", "last"), [(False, 2), (True, 4)])
def test_a_cooldown_that_takes_the_least_goes_straight_back(holds_down: bool, last: int):
    policy = Apa(ApaSettings(target=0.5, window=10.0, holds_down=holds_down))
    assert _look(policy, 0.25, 4, 0.0) == 2
    assert _look(policy, 0.90, 2, 10.0) == 4
    # 0.3 asks for three. AIBrix's own cooldown finds the two of 20 s ago; repaired, it finds the four.
    assert _look(policy, 0.30, 4, 20.0) == last


def test_the_projection_acts_before_the_mean_does():
    ramp = [0.2 + 0.015 * look for look in range(19)]
    plain = _run(Apa(ApaSettings(target=0.5)), ramp, 2)
    projected = _run(Apa(ApaSettings(target=0.5, projector=Projector())), ramp, 2)
    assert max(plain) <= 2 < max(projected)


@pytest.mark.parametrize(
    "view",
    [FakeView(), FakeView(metrics={0: {}}), FakeView(metrics=each(2, kv_usage=math.nan))],
    ids=["no group", "no metric", "NaN"],
)
def test_without_data_nothing_changes(view: FakeView):
    policy = Apa(ApaSettings(projector=Projector()))
    assert [policy.desired(view, fleet(4), 600.0 + 10 * look) for look in range(60)] == [4] * 60
