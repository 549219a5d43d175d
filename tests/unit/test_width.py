"""Which width is recommended, and when. What it gets wrong costs a rollout that nobody asked for, or GPUs every day."""

import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from moe_operator.autoscaler.width import (
    BETTER,
    BETWEEN,
    CLEARLY,
    EVIDENCE,
    FOR,
    History,
    Limits,
    MixMeter,
    Option,
    WidthAdvisor,
    best,
    costs,
)
from moe_operator.catalog.saturation import Resource

LIMITS = Limits(groups=1, gpus=64)
#: Seconds between samples: longer than in life, as long as none is left out.
TICK = 60.0


def _option(gpus: int, worth: float, bound: Resource = Resource.STEP_TIME) -> Option:
    return Option(gpus, worth, bound, kv_tokens=gpus * 100_000)


EIGHT, SIXTEEN, FOUR = _option(8, 1.0), _option(16, 2.6), _option(4, 0.45)


def _always(wanted: float) -> list[tuple[float, float]]:
    return [(wanted, 1.0)]


@pytest.mark.parametrize(
    ("wanted", "option", "limits", "gpu_hours", "most", "cut"),
    [
        (2.2, EIGHT, LIMITS, 24 * 24, 3, 0.0),
        (2.2, SIXTEEN, LIMITS, 24 * 16, 1, 0.0),
        (2.2, FOUR, LIMITS, 24 * 20, 5, 0.0),
        # Part of a group does not serve, but a hundredth of one is within what is measured.
        (3.01, EIGHT, LIMITS, 24 * 24, 3, 0.0),
        (0.0, EIGHT, LIMITS, 24 * 8, 1, 0.0),
        # The least of groups, of any width; with none of them Auto keeps one.
        (0.1, SIXTEEN, Limits(2, 64), 24 * 32, 2, 0.0),
        (0.1, EIGHT, Limits(0, 64), 24 * 8, 1, 0.0),
        # The most of GPUs.
        (9.0, EIGHT, LIMITS, 24 * 64, 8, 1.0),
        (9.0, SIXTEEN, LIMITS, 24 * 64, 4, 0.0),
    ],
)
def test_a_width_costs_whole_groups_within_the_limits(
    wanted: float, option: Option, limits: Limits, gpu_hours: float, most: int, cut: float
) -> None:
    found = costs(_always(wanted), option, limits)
    assert found is not None
    assert (found.gpu_hours, found.most, found.cut) == (pytest.approx(gpu_hours), most, cut)


def test_a_width_that_the_limits_leave_no_room_for_is_none() -> None:
    """Two groups of 16 are more than the 24 GPUs that may be used: availability is not traded for GPUs."""
    assert costs(_always(1.0), SIXTEEN, Limits(2, 24)) is None


@pytest.mark.parametrize(
    ("shares", "others", "limits", "advised", "found"),
    [
        # Two wide groups for five narrow ones.
        (_always(5.0), [SIXTEEN], LIMITS, None, 16),
        # A coarse unit does not pay for what one narrow group serves ...
        (_always(0.9), [SIXTEEN], LIMITS, None, None),
        # ... and a finer one does at low load.
        (_always(0.4), [FOUR, SIXTEEN], LIMITS, None, 4),
        # One group and no other number: what is asked would not be known any more.
        (_always(1.4), [_option(16, 2.6)], Limits(1, 16), None, None),
        # As much as the present ones: nothing is to be gained.
        (_always(4.0), [_option(16, 2.0)], LIMITS, None, None),
        # 14 % less is not clear ...
        ([(7.0, 1.0)], [_option(16, 2.4)], LIMITS, None, None),
        # ... but enough to stay with it.
        ([(7.0, 1.0)], [_option(16, 2.4)], LIMITS, 16, 16),
        # Half of the time at night counts as half.
        ([(5.0, 0.5), (0.9, 0.5)], [SIXTEEN], LIMITS, None, None),
        # Peaks beyond what the other width may have rule it out, rare ones do not.
        ([(4.4, 0.9), (6.9, 0.1)], [_option(16, 2.2)], Limits(1, 56), None, None),
        ([(4.4, 0.9995), (6.9, 0.0005)], [_option(16, 2.2)], Limits(1, 56), None, 16),
        # What is advised gives way to what is clearly better only.
        (_always(9.8), [_option(16, 2.5), _option(32, 5.0)], Limits(1, 160), 32, 32),
        (_always(9.8), [_option(16, 2.5), _option(32, 10.0)], Limits(1, 160), 16, 32),
    ],
)
def test_which_width_is_best(
    shares: Sequence[tuple[float, float]],
    others: list[Option],
    limits: Limits,
    advised: int | None,
    found: int | None,
) -> None:
    advice = best(shares, EIGHT, others, limits, advised)
    assert (advice.option.gpus if advice else None) == found


def test_the_message_has_the_numbers() -> None:
    narrow = _option(8, 1.0, Resource.KV_CACHE)
    advice = best(_always(5.0), narrow, [SIXTEEN], LIMITS)
    assert advice is not None
    assert advice.words() == (
        "for what was asked of late, groups of 16 GPUs would take 768 GPU-hours a day and groups of 8 take 960 (20%"
        " less): at most 2 groups of 16 GPUs in place of 5 of 8; by estimate a group of 16 serves what 2.60 of 8 do,"
        " which run out of KV cache first (800000 tokens in a group; one of 16 GPUs has 1600000)"
    )


# --- Over time -----------------------------------------------------------------------------------


def _live(
    advisor: WidthAdvisor,
    wanted: Callable[[float], float],
    hours: float,
    *,
    begin: float = 0.0,
    others: Sequence[Option] = (SIXTEEN,),
    limits: Limits = LIMITS,
) -> list[tuple[float, int | None]]:
    """What is advised, whenever that changes."""
    changes: list[tuple[float, int | None]] = []
    now = begin
    while now < begin + hours * 3600:
        now += TICK
        advisor.grounds.history.observed(now, wanted(now))
        before = advisor.advised
        if advisor.due(now):
            advisor.consider(now, EIGHT, others, limits)
        if advisor.advised != before:
            changes.append((now, advisor.advised))
    return changes


def test_nothing_is_said_before_enough_was_seen_and_it_stayed_so() -> None:
    advisor = WidthAdvisor(8)
    changes = _live(advisor, lambda now: 5.0, 12)
    assert [width for _, width in changes] == [16]
    assert EVIDENCE + FOR <= changes[0][0] <= EVIDENCE + FOR + 300


def test_it_is_withdrawn_when_it_no_longer_holds_and_not_soon() -> None:
    advisor = WidthAdvisor(8)
    _live(advisor, lambda now: 5.0, 8)
    assert advisor.advised == 16
    changes = _live(advisor, lambda now: 0.9, 30, begin=8 * 3600)
    assert [width for _, width in changes] == [None]
    assert changes[0][0] - 7 * 3600 >= BETWEEN


def test_a_short_quiet_time_changes_nothing() -> None:
    advisor = WidthAdvisor(8)
    _live(advisor, lambda now: 5.0, 16)
    assert not _live(advisor, lambda now: 0.5, 1, begin=16 * 3600)
    assert not _live(advisor, lambda now: 5.0, 8, begin=17 * 3600)


def test_what_was_about_to_change_waits_anew_after_a_pause() -> None:
    """A rollout in between says nothing of what is asked."""
    advisor = WidthAdvisor(8)
    _live(advisor, lambda now: 5.0, (EVIDENCE + FOR) / 3600 - 0.1)
    advisor.grounds.pause()
    assert not _live(advisor, lambda now: 5.0, 0.9, begin=EVIDENCE + FOR)
    assert _live(advisor, lambda now: 5.0, 0.3, begin=EVIDENCE + FOR + 0.9 * 3600)


def test_a_successor_keeps_what_was_recommended() -> None:
    """It knows nothing at first, and what it does not know is no reason."""
    advisor = WidthAdvisor(8, advised=16, changed=0.0)
    assert not _live(advisor, lambda now: 5.0, 24)
    assert advisor.advised == 16
    assert advisor.advice is not None, "with the numbers of now"


@pytest.mark.parametrize("seed", range(8))
def test_noise_does_not_make_it_flap(seed: int) -> None:
    """Demand just where two widths cost about the same, for four noisy days: no more changes than the distance between
    two allows, and in fact next to none."""
    draw = random.Random(seed)
    level, drift = draw.uniform(2.0, 6.5), 0.0

    def wanted(now: float) -> float:
        nonlocal drift
        drift = 0.999 * drift + draw.gauss(0, 0.01)
        wave = 1 + 0.3 * math.sin(2 * math.pi * now / 86400)
        return max(0.0, level * wave * (1 + drift) * (1 + draw.gauss(0, 0.1)))

    changes = _live(WidthAdvisor(8), wanted, 96, others=(_option(16, 2.35), FOUR))
    times = [at for at, _ in changes]
    assert all(later - earlier >= BETWEEN for earlier, later in pairwise(times))
    assert len(changes) <= 3


def test_margins_leave_a_gap() -> None:
    """Else one change would be the reason for the one back."""
    assert CLEARLY > 2 * BETTER >= BETTER > 0


def test_what_lingers_counts_for_ten_minutes() -> None:
    history = History()
    for at in range(0, 3600, 15):
        history.observed(float(at), 4.0 if at == 0 else 1.0)
    share = sum(share for wanted, share in history.shares() if wanted > 3)
    assert share == pytest.approx(600 / 3585, rel=0.05)


def test_what_was_not_seen_of_ten_minutes_may_have_been_the_most_that_ever_was() -> None:
    """Lost: requests, if a width were chosen by a lull; GPUs, if groups that are there for a floor all counted."""
    history = History()
    assert history.recent is None
    for at, wanted in [(0, 0.5), *((60 * n, 0.1) for n in range(1, 40))]:
        history.observed(float(at), wanted)
    assert history.recent == 0.1
    history.pause()
    assert history.recent == pytest.approx(0.5, rel=0.02)
    for at in range(2400, 2400 + 660, 60):
        assert history.recent == pytest.approx(0.5, rel=0.02)
        history.observed(float(at), 0.2)
    assert history.recent == 0.2
    history.pause()
    history.observed(3060.0, 3.0)
    assert history.recent == 3.0, "seen just now, though not for long"


def test_a_gap_in_what_was_seen_counts_for_no_more_than_a_minute() -> None:
    history = History()
    history.observed(0.0, 4.0)
    history.observed(7200.0, 1.0)
    assert history.seconds == 60.0


# --- What requests are like ----------------------------------------------------------------------


def test_the_mix_is_what_ended() -> None:
    meter = MixMeter()
    meter.observed(0.0, 60, 120_000, 30_000, 24_000)
    assert meter.mix is None, "too few"
    meter.observed(60.0, 60, 120_000, 30_000, 24_000)
    mix = meter.mix
    assert mix is not None
    assert (mix.prompt, mix.output, mix.cached) == pytest.approx((2000, 400, 0.25))


def test_the_mix_of_yesterday_is_forgotten() -> None:
    meter = MixMeter()
    meter.observed(0.0, 1000, 1_000_000, 0, 100_000)
    meter.observed(86400.0, 1000, 9_000_000, 0, 900_000)
    mix = meter.mix
    assert mix is not None
    assert mix.prompt == pytest.approx(7400)
