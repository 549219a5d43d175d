"""Kubernetes' autoscaler as the simulator has it: a wrong copy makes every comparison with HPA and KEDA worthless."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from factories.views import FakeView, each, fleet
from moe_operator.simulator.policies.hpa import (
    DOWN,
    UP,
    Autoscaler,
    Behaviour,
    Change,
    Rules,
    average_value,
)
from moe_operator.simulator.policies.hpa_waiting import HpaWaiting, HpaWaitingSettings
from moe_operator.simulator.policies.keda import Keda, KedaSettings

RECORD = json.loads((Path(__file__).parent / "golden" / "autoscaler_kubernetes.json").read_text())


def _rules(given: dict[str, Any] | None, default: Rules) -> Rules:
    if given is None:
        return default
    changes = tuple(Change(**change) for change in given["changes"])
    return Rules(given["stabilization"], changes, given["select"])


@pytest.mark.parametrize("number", range(len(RECORD["cases"])))
def test_as_kubernetes_itself(number: int):
    row = RECORD["cases"][number]
    case = row["case"]
    behaviour = Behaviour(_rules(case["up"], UP), _rules(case["down"], DOWN), plain=case["plain"])
    autoscaler, current = Autoscaler(behaviour), case["start"]
    for index, look in enumerate(case["looks"]):
        proposal = average_value(look["usage"], case["target"], look["replicas"])
        assert proposal == row["decided"]["proposals"][index]
        current = autoscaler.step([proposal], current, case["floor"], case["ceiling"], look["at"])
        assert current == row["decided"]["wanted"][index], f"look {index}"


@pytest.mark.parametrize(
    ("usage", "replicas", "wanted"),
    [
        (10.0, 2, 2),
        (11.0, 2, 2),  # 1.1 times the target is within the tolerance
        (11.1, 2, 3),
        (9.0, 2, 2),
        (8.9, 2, 2),  # beyond it, but ceil(8.9 / 5) is 2 all the same
        (4.9, 2, 1),
        (0.0, 2, 0),
        (12.0, 0, 3),
    ],
)
def test_average_value_by_hand(usage: float, replicas: int, wanted: int):
    assert average_value(usage, 5.0, replicas) == wanted


def test_doubles_or_adds_four_every_15_seconds():
    autoscaler, current, seen = Autoscaler(), 1, []
    for look in range(4):
        current = autoscaler.step([100], current, 1, 100, look * 15.0)
        seen.append(current)
    assert seen == [5, 10, 20, 40]


def test_within_a_period_it_counts_from_the_periods_start():
    autoscaler = Autoscaler()
    assert autoscaler.step([100], 4, 1, 100, 0.0) == 8
    assert autoscaler.step([100], 8, 1, 100, 10.0) == 8


def test_scales_in_to_the_greatest_of_five_minutes():
    autoscaler = Autoscaler()
    assert autoscaler.step([8], 8, 1, 100, 0.0) == 8
    assert autoscaler.step([2], 8, 1, 100, 15.0) == 8
    assert autoscaler.step([3], 8, 1, 100, 299.0) == 8
    # 8 is 300 s old, and no longer within the window.
    assert autoscaler.step([2], 8, 1, 100, 300.0) == 3


def test_without_a_readable_metric_nothing_changes():
    autoscaler = Autoscaler()
    assert autoscaler.step([None], 6, 1, 100, 0.0) == 6
    # One of two: no scaling in, not even once the window has passed, but out.
    assert [autoscaler.step([None, 2], 6, 1, 100, 300.0 + look) for look in (0, 15, 301)] == [6, 6, 6]
    assert autoscaler.step([None, 9], 6, 1, 100, 700.0) == 9


def test_keeps_to_the_limits():
    assert Autoscaler().step([50], 3, 1, 5, 0.0) == 5
    assert Autoscaler().step([3], 9, 1, 5, 0.0) == 5
    assert Autoscaler().step([3], 1, 2, 5, 0.0) == 2


def test_waiting_requests_by_hand():
    policy = HpaWaiting(HpaWaitingSettings(waiting=5.0))
    assert policy.desired(FakeView(metrics=each(3, waiting=9.0)), fleet(3), 600.0) == 6  # ceil(27 / 5)
    assert policy.desired(FakeView(metrics=each(3, waiting=5.2)), fleet(3, desired=6, starting=3), 615.0) == 6


@pytest.mark.parametrize(
    "view",
    [FakeView(), FakeView(metrics={0: {}}), FakeView(metrics=each(2, waiting=math.nan))],
    ids=["no group", "no metric", "NaN"],
)
def test_an_adapter_without_the_metric_holds(view: FakeView):
    policy = HpaWaiting()
    for look in range(60):
        assert policy.desired(view, fleet(4), look * 15.0) == 4


def test_keda_takes_the_greater_trigger():
    policy = Keda(KedaSettings(waiting=30.0, kv=0.6))
    assert policy.desired(FakeView(metrics=each(4, waiting=0.0, kv_usage=0.9)), fleet(4), 0.0) == 6
    policy = Keda(KedaSettings(waiting=30.0, kv=0.6))
    assert policy.desired(FakeView(metrics=each(4, waiting=60.0, kv_usage=0.6)), fleet(4), 0.0) == 8


@pytest.mark.parametrize("view", [FakeView(), FakeView(metrics=each(4, waiting=math.nan, kv_usage=math.inf))])
def test_keda_reads_nothing_as_zero_and_scales_in(view: FakeView):
    policy = Keda()
    assert policy.desired(view, fleet(4), 0.0) == 4
    assert policy.desired(view, fleet(4), 285.0) == 4
    assert policy.desired(view, fleet(4), 300.0) == 1


def test_keda_holds_where_null_values_are_not_ignored():
    policy = Keda(KedaSettings(ignore_null_values=False))
    assert policy.desired(FakeView(), fleet(4), 0.0) == 4
    assert policy.desired(FakeView(), fleet(4), 900.0) == 4
