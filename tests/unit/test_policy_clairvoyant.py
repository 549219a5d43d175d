"""The bound: one that is too high flatters every policy, one that is too low none can be measured by."""

import math

import pytest

from factories.views import FakeView, fleet
from moe_operator.simulator.policies.clairvoyant import (
    Clairvoyant,
    ClairvoyantSettings,
    kept_on,
    needed_groups,
    started_early,
)


def test_needed_groups():
    assert needed_groups([0.0, 0.5, 0.9, 0.91, 1.8, 3.7], 0.9) == [1, 1, 1, 2, 2, 5]
    assert needed_groups([0.0, 2.1], 1.0, least=0) == [0, 3]


@pytest.mark.parametrize("work", [[math.nan], [-1.0], [math.inf]])
def test_work_that_is_none_is_refused(work: list[float]):
    with pytest.raises(ValueError, match="interval 0"):
        needed_groups(work, 0.9)


@pytest.mark.parametrize("utilisation", [0.0, -0.5, 1.1, math.nan])
def test_utilisation_is_a_share(utilisation: float):
    with pytest.raises(ValueError, match="utilisation"):
        needed_groups([1.0], utilisation)


@pytest.mark.parametrize(
    ("needed", "gap", "kept"),
    [
        ([2, 1, 2], 2, [2, 2, 2]),  # off for 1 interval, a start takes 2
        ([2, 1, 1, 2], 2, [2, 1, 1, 2]),  # off for 2: as dear either way, so off
        ([3, 1, 2, 1, 3], 2, [3, 2, 2, 2, 3]),  # levels apart: only the second is bridged
        ([3, 1, 2, 1, 3], 4, [3, 3, 3, 3, 3]),
        ([1, 2, 2, 1], 9, [1, 2, 2, 1]),  # nothing before or after
        ([], 3, []),
    ],
)
def test_short_gaps_stay_on(needed: list[int], gap: int, kept: list[int]):
    assert kept_on(needed, gap) == kept


def test_starts_early():
    assert started_early([1, 1, 1, 1, 3, 1, 1], 2) == [1, 1, 3, 3, 3, 1, 1]


def test_follows_the_schedule():
    work = [0.5] * 20 + [2.5] * 20 + [0.5] * 60
    settings = ClairvoyantSettings(utilisation=1.0, cold_start=300.0)
    policy = Clairvoyant(work, 60.0, settings)
    groups = [policy.desired(FakeView(), fleet(1), 60.0 * minute) for minute in range(110)]
    assert groups == [1] * 15 + [3] * 25 + [1] * 70


def test_is_the_cheapest_of_all_schedules_that_meet_the_need():
    """One level, every way to bridge its gaps: what it costs to start (a cold start each) is minimal."""
    needed, lead = [1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 1], 3

    def cost(on: list[int]) -> int:
        starts = sum(here > before for before, here in zip([0, *on], on, strict=False))
        return sum(on) + lead * starts

    off = [index for index, number in enumerate(needed) if not number]
    every = []
    for choice in range(2 ** len(off)):
        on = list(needed)
        for bit, index in enumerate(off):
            on[index] = choice >> bit & 1
        every.append(cost(on))
    assert cost(kept_on(needed, lead)) == min(every)


def test_an_empty_trace_stays_at_the_floor():
    assert Clairvoyant([], 60.0).desired(FakeView(), fleet(1, floor=2), 0.0) == 2
