"""Knative's autoscaler as the simulator has it, against its own decisions and by hand."""

import json
import math
from pathlib import Path

import pytest

from factories.views import FakeView, each, fleet
from moe_operator.simulator.policies.kpa import Kpa, KpaSettings, Panic
from moe_operator.simulator.policies.readings import newest_sum

RECORD = json.loads((Path(__file__).parent / "golden" / "autoscaler_knative.json").read_text())


@pytest.mark.parametrize("number", range(len(RECORD["cases"])))
def test_as_knative_itself(number: int):
    row = RECORD["cases"][number]
    case = row["case"]
    panic = Panic(KpaSettings(**case["settings"]))
    panic.start(case["ready"], 0.0)
    decided = [
        panic.decide(look["stable"], look["panic"], look["ready"], look["at"]) for look in case["looks"]
    ]
    assert decided == row["decided"]


def test_requests_over_the_target():
    view = FakeView(metrics=each(2, running=60.0, waiting=15.0))
    assert Kpa(KpaSettings(concurrency=70.0)).desired(view, fleet(2), 600.0) == 3  # ceil(150 / 70)


def test_groups_that_start_are_not_asked_for_twice():
    view = FakeView(metrics=each(2, running=100.0, waiting=0.0))
    policy = Kpa(KpaSettings(concurrency=70.0))
    assert policy.desired(view, fleet(2), 600.0) == 3
    assert policy.desired(view, fleet(2, desired=3, starting=1), 602.0) == 3


def test_panics_at_twice_the_ready_groups_and_does_not_scale_in_meanwhile():
    panic = Panic(KpaSettings(concurrency=10.0))
    panic.start(1, 0.0)
    assert panic.decide(10.0, 10.0, 1, 0.0) == 1
    assert panic.decide(12.0, 40.0, 1, 2.0) == 4
    assert panic.decide(12.0, 5.0, 4, 30.0) == 4
    assert panic.decide(12.0, 5.0, 4, 62.0) == 4  # 60 s since: not over yet
    assert panic.decide(12.0, 5.0, 4, 62.1) == 2


def test_halves_at_most():
    panic = Panic(KpaSettings(concurrency=10.0))
    panic.start(1, 0.0)
    assert panic.decide(0.0, 0.0, 8, 100.0) == 4


def test_a_fresh_autoscaler_over_several_groups_keeps_them_at_first():
    view = FakeView(metrics=each(6, running=0.0, waiting=0.0))
    policy = Kpa()
    assert policy.desired(view, fleet(6), 600.0) == 6
    assert policy.desired(view, fleet(6), 660.0) == 6
    assert policy.desired(view, fleet(6), 662.0) == 3


@pytest.mark.parametrize(
    "view",
    [
        FakeView(),
        FakeView(metrics={0: {}}),
        FakeView(metrics=each(2, running=math.nan, waiting=math.nan)),
        FakeView(metrics=each(2, running=[(100.0, 50.0)], waiting=[(100.0, 0.0)])),
    ],
    ids=["no group", "no metric", "NaN", "stale"],
)
def test_without_data_nothing_changes(view: FakeView):
    policy = Kpa()
    assert [policy.desired(view, fleet(4), 600.0 + look) for look in range(100)] == [4] * 100


def test_a_window_ends_with_the_newest_scrape():
    view = FakeView(metrics={0: {"running": [(570.0, 30.0), (585.0, 40.0)]}, 1: {"running": [(570.0, 7.0)]}})
    assert newest_sum(view, ["running", "waiting"]) == (585.0, 47.0)


def test_a_group_that_leaves_does_not_take_its_past_with_it():
    policy = Kpa(KpaSettings(concurrency=10.0))
    four = fleet(4)
    for look in range(5):  # the panic of a fresh autoscaler ends
        now = 600.0 + 15.0 * look
        policy.desired(FakeView(now=now, metrics=each(4, running=5.0, waiting=0.0)), four, now)
    # 20 requests need two. The other two groups drain, with their requests; the view is of the rest.
    left = {0: {"running": [(660.0, 5.0)], "waiting": [(660.0, 0.0)]}}
    now = 662.0
    assert policy.desired(FakeView(now=now, metrics=each(4, running=5.0, waiting=0.0)), four, now) == 2
    assert policy.desired(FakeView(now=664.0, metrics=left), fleet(2, draining=2), 664.0) == 2


def test_means_of_both_windows():
    policy, decided = Kpa(KpaSettings(concurrency=10.0, panic_threshold=100.0)), []
    for look, running in enumerate((10.0, 10.0, 10.0, 50.0, 50.0)):
        now = 600.0 + 15.0 * look
        view = FakeView(
            now=now, metrics={0: {"running": [(now - 15.0, running)], "waiting": [(now - 15.0, 0.0)]}}
        )
        decided.append(policy.desired(view, fleet(1), now))
    # The mean of four scrapes: 10, 10, 10, 20, 30.
    assert decided == [1, 1, 1, 2, 3]
