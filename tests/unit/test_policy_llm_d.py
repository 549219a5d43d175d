"""llm-d's autoscalers as the simulator has them: WVA's saturation analyzer and the SLO-aware law of KEDA."""

import math
from itertools import pairwise

import pytest

from factories.views import FakeView, each, fleet
from moe_operator.simulator.policies import slo_aware, wva
from moe_operator.simulator.policies.slo_aware import SloAware, SloAwareSettings
from moe_operator.simulator.policies.wva import Analysis, Replica, Wva, WvaSettings

DEFAULTS = WvaSettings()


@pytest.mark.parametrize(
    ("replicas", "grow", "may_shrink"),
    [
        # What internal/saturationv1/analyzer_test.go @763b1bd expects.
        ([(0.75, 2), (0.76, 2)], True, False),
        ([(0.50, 3), (0.50, 3)], True, False),
        ([(0.50, 1), (0.50, 1)], False, False),
        ([(0.20, 1), (0.30, 1), (0.25, 1)], False, True),
        ([(0.70, 2), (0.75, 2)], True, False),
        ([(0.50, 2)], False, False),
        ([(0.85, 2), (0.50, 6), (0.90, 7)], True, False),
        ([(0.30, 1), (None, None)], False, False),
        ([], False, False),
        # By hand: spare 0.4 on each of three is 0.2 on each of two; spare 0.1 on each of two is too little.
        ([(0.40, 0)] * 3, False, True),
        ([(0.47, 0)] * 3, False, False),
        # A saturated one is left out of the mean of what is spare.
        ([(0.85, 0), (0.10, 0)], False, False),
        ([(0.10, 6), (0.10, 0)], False, False),
    ],
)
def test_analysis(replicas: list[tuple[float | None, float | None]], grow: bool, may_shrink: bool):
    found = wva.analyse(DEFAULTS, [Replica(*replica) for replica in replicas])
    assert found == Analysis(grow, may_shrink)


@pytest.mark.parametrize(
    ("analysis", "current", "asked", "pending", "number"),
    [
        (Analysis(True, False), 2, 0, 0, 3),
        (Analysis(False, True), 2, 0, 0, 1),
        (Analysis(False, True), 1, 0, 0, 1),
        (Analysis(True, False), 2, 4, 0, 4),  # what was asked for is not there yet
        (Analysis(True, False), 3, 0, 1, 3),
        (Analysis(True, True), 3, 3, 0, 4),
        (Analysis(False, False), 3, 3, 0, 3),
    ],
)
def test_one_at_a_time(analysis: Analysis, current: int, asked: int, pending: int, number: int):
    assert wva.target(analysis, current, asked, pending) == number


def _busy(now: float) -> FakeView:
    return FakeView(now=now, metrics=each(2, kv_usage_worst=0.75, waiting=0.0))


def test_the_peak_of_a_minute_counts():
    samples = [(550.0, 0.75), (565.0, 0.1), (580.0, 0.1)]
    view = FakeView(now=600.0, metrics=each(2, kv_usage_worst=samples, waiting=0.0))
    assert Wva(WvaSettings(behaviour=None)).desired(view, fleet(2), 600.0) == 3
    assert Wva(WvaSettings(behaviour=None, peak_window=40.0)).desired(view, fleet(2), 600.0) == 1


def test_decides_once_a_minute():
    policy = Wva(WvaSettings(behaviour=None))
    assert policy.desired(_busy(600.0), fleet(2), 600.0) == 3
    assert policy.desired(_busy(630.0), fleet(3), 630.0) == 3
    assert policy.desired(_busy(660.0), fleet(3), 660.0) == 4


def test_the_hpa_follows_after_its_window():
    policy, groups, seen = Wva(), 2, []
    for look in range(11):
        now = 600.0 + 15.0 * look
        groups = policy.desired(_busy(now), fleet(groups), now)
        seen.append(groups)
    # 120 s of recommendations of 3: the first 2 of the HPA itself holds it for so long.
    assert seen == [2] * 8 + [3] * 3


def test_from_ten_groups_on_one_more_is_within_the_hpas_tolerance():
    def run(behaviour: object, groups: int) -> int:
        policy = Wva(WvaSettings(behaviour=behaviour))  # type: ignore[arg-type]
        for look in range(40):
            now = 600.0 + 15.0 * look
            view = FakeView(now=now, metrics=each(groups, kv_usage_worst=0.75, waiting=0.0))
            groups = policy.desired(view, fleet(groups), now)
        return groups

    assert run(wva.GUIDE, 10) == 10
    assert run(wva.TUNED, 10) > 10


def test_a_queue_is_shared_out_over_the_ranks():
    view = FakeView(metrics=each(2, kv_usage_worst=0.5, waiting=8.0))
    assert Wva(WvaSettings(behaviour=None)).desired(view, fleet(2), 600.0) == 3
    assert Wva(WvaSettings(behaviour=None, ranks=8)).desired(view, fleet(2), 600.0) == 2


@pytest.mark.parametrize("view", [FakeView(), FakeView(metrics={0: {}})], ids=["no group", "no metric"])
def test_wva_without_any_metric_holds(view: FakeView):
    policy = Wva()
    assert [policy.desired(view, fleet(4), 600.0 + 15 * look) for look in range(60)] == [4] * 60


def test_wva_takes_a_missing_metric_for_saturated():
    view = FakeView(metrics=each(2, kv_usage_worst=math.nan, waiting=0.0))
    assert Wva(WvaSettings(behaviour=None)).desired(view, fleet(2), 600.0) == 3


@pytest.mark.parametrize(
    ("saturation", "provisioned", "ready", "number"),
    [
        (0.55, 4, 4, 4),
        (0.40, 4, 4, 4),
        (0.66, 5, 5, 6),  # 5 + ceil(5 * 0.2)
        (2.0, 3, 3, 11),  # 3 + ceil(3 * 2.636)
        (2.0, 6, 3, 11),  # the credit: 6 + ceil(6 * (1.818 - 1))
        (0.6, 6, 3, 4),  # credited below one: 6 + ceil(6 * -0.4545)
        (0.20, 6, 6, 3),
        (0.20, 6, 3, 3),  # no credit on the way down
        (0.0, 6, 6, 0),
        (0.39, 4, 4, 4),  # 4 - floor(0.1)
    ],
)
def test_the_control_law(saturation: float, provisioned: int, ready: int, number: int):
    assert slo_aware.wanted(SloAwareSettings(), saturation, provisioned, ready) == number


def _late(ttft: float | None, tpot: float | None = 0.02) -> FakeView:
    return FakeView(metrics=each(4, running=1.0), quantiles={"ttft": ttft, "tpot": tpot})


def _settled(view: FakeView, groups: int, looks: int = 60, behaviour: object = slo_aware.GUIDE) -> list[int]:
    policy = SloAware(SloAwareSettings(ttft=5.0, tpot=0.08, behaviour=behaviour))  # type: ignore[arg-type]
    seen = []
    for look in range(looks):
        groups = policy.desired(view, fleet(groups), 15.0 * look)
        seen.append(groups)
    return seen


def test_scales_out_after_30_seconds_on_the_worse_of_both():
    # 4.4 s of 5 s are 0.88: 4 + ceil(4 * 0.6).
    assert _settled(_late(4.4), 4, looks=3) == [4, 4, 7]
    # 70.4 ms of 80 ms as well.
    assert _settled(_late(0.1, 0.0704), 4, looks=3) == [4, 4, 7]


def test_a_spike_is_clamped_and_averaged():
    policy = SloAware(SloAwareSettings(ttft=5.0, tpot=0.08))
    for look in range(3):
        policy.desired(_late(0.1), fleet(4), 15.0 * look)
    policy.desired(_late(500.0), fleet(4), 45.0)
    # (2.0 + 0.25 + 0.25) / 3 and not 33.
    assert [value for _, value in policy._signal] == [0.25, 0.25, 2.0]


def test_gives_up_one_group_every_two_minutes():
    seen = _settled(_late(0.5, 0.008), 8, looks=41)
    changes = [look * 15 for look in range(1, 41) if seen[look] != seen[look - 1]]
    assert changes[0] == 180
    assert all(later - earlier == 120 for earlier, later in pairwise(changes))
    assert seen[-1] == 8 - len(changes)


@pytest.mark.parametrize("latency", [None, math.nan])
def test_no_traffic_reads_as_idle(latency: float | None):
    assert _settled(_late(latency, latency), 3, looks=80)[-1] == 1


def test_one_more_of_ten_is_within_the_hpas_tolerance():
    view = _late(3.0)  # 0.6: 10 + ceil(10 * 0.09)
    assert _settled(view, 10, looks=10)[-1] == 10
    assert _settled(view, 10, looks=4, behaviour=slo_aware.TUNED)[-1] == 11
