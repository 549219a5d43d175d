"""Who remembers what was asked decides on the width as who saw it. A breach is a move of every group that the operator
before had not made, or one that never comes as operators are restarted."""

import random
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from factories.memories import memory
from factories.plant import profile
from moe_operator.autoscaler import width
from moe_operator.autoscaler.memory_text import read, version, written
from moe_operator.autoscaler.width import (
    BETWEEN,
    EVIDENCE,
    FOR,
    Grounds,
    Limits,
    Option,
    WidthAdvisor,
    costs,
)
from moe_operator.autoscaler.width_memory import apart, asked, grounds_of
from moe_operator.catalog.saturation import Resource

TICK = 60.0
PRESENT = Option(8, 1.0, Resource.STEP_TIME, 800_000)


def back(grounds: Grounds, now: float, at: float, away: float = 0.0) -> Grounds:
    """What a successor has of it whose clock shows `at`, after so many seconds."""
    text = written(memory(profile(), asked=asked(grounds, now)))
    return grounds_of(read(text, version()).asked.aged(away), at)


@st.composite
def demands(draw: st.DrawFn) -> Callable[[float], float]:
    """Groups over time: day and night, with noise, and now and then a peak."""
    night, day = draw(st.floats(0.0, 3.0)), draw(st.floats(0.1, 12.0))
    noise, peak = draw(st.sampled_from([0.0, 0.05, 0.3])), draw(st.sampled_from([1.0, 2.5]))
    every, lasts = draw(st.integers(3, 30)) * 3600.0, draw(st.integers(0, 20)) * 60.0
    drawn = random.Random(draw(st.integers(0, 1 << 20)))

    def wanted(now: float) -> float:
        level = day if now % 86400 < 43200 else night
        return max(0.0, level * (1 + drawn.gauss(0, noise)) * (peak if now % every < lasts else 1.0))

    return wanted


OPTIONS = st.builds(
    lambda gpus, ratio: Option(gpus, gpus / 8 * ratio, Resource.STEP_TIME, gpus * 100_000),
    st.sampled_from([1, 2, 4, 16, 32]),
    st.floats(0.7, 1.5),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(demands(), OPTIONS, st.integers(1, 3), st.integers(8, 30))
def test_a_width_costs_what_it_cost(
    wanted: Callable[[float], float], option: Option, least: int, hours: int
) -> None:
    grounds = Grounds()
    for at in range(0, hours * 3600, int(TICK)):
        grounds.history.observed(float(at), wanted(at))
    again = back(grounds, hours * 3600.0, at=1e6)
    limits = Limits(least, 96)
    ratios = []
    for each in (PRESENT, option):
        seen, known = (costs(one.history.shares(), each, limits) for one in (grounds, again))
        if seen is None or known is None:
            assert seen is known
            return
        ratios.append(known.gpu_hours / seen.gpu_hours)
        assert abs(known.cut - seen.cut) <= max(1 / 128, width._RARE)
    assert 0.97 < ratios[1] / ratios[0] < 1.03, "far less than is needed for another width"
    assert asked(again, 1e6).demand == asked(grounds, hours * 3600.0).demand, "and it is the same again"
    assert apart(asked(grounds, hours * 3600.0), asked(again, 1e6)) < 0.1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(demands(), OPTIONS, st.integers(1, 3))
def test_who_takes_over_recommends_what_and_when_the_one_before_would_have(
    wanted: Callable[[float], float], option: Option, every: int
) -> None:
    """Restarted every few hours, over three days: at the same time, but for looks at which the two are about as
    good."""
    limits = Limits(1, 96)
    never, often = WidthAdvisor(8), WidthAdvisor(8)
    shift, told = 0.0, []
    for tick in range(1, 3 * 24 * 60):
        now = tick * TICK
        if tick % (every * 150) == 0:
            grounds = back(often.grounds, now + shift, now + shift + 5e5)
            shift += 5e5
            often = WidthAdvisor(8, often.advised, often.changed, grounds=grounds)
        groups = wanted(now)
        for advisor, at in ((never, now), (often, now + shift)):
            advisor.grounds.history.observed(at, groups)
            if advisor.due(now):
                advisor.consider(now, PRESENT, [option], limits)
        told.append((never.advised, often.advised))
    differ = sum(one != other for one, other in told)
    if differ * TICK > 2 * FOR:
        found = [costs(never.grounds.history.shares(), each, limits) for each in (PRESENT, option)]
        assert found[0] is not None
        assert found[1] is not None
        saves = 1 - found[1].gpu_hours / found[0].gpu_hours
        near = min(abs(saves - width.CLEARLY), abs(saves - width.STILL)) < 0.03
        assert near, (saves, differ * TICK / 3600)


def test_what_is_about_to_be_recommended_goes_on() -> None:
    """Lost otherwise: every recommendation, to an operator that is restarted each hour."""
    advisor, shift = WidthAdvisor(8), 0.0
    option = Option(4, 0.5, Resource.STEP_TIME, 400_000)
    for tick in range(1, 10 * 60):
        now = tick * TICK
        if tick % 25 == 0:
            grounds = back(advisor.grounds, now + shift, now + shift - 7e4)
            shift -= 7e4
            advisor = WidthAdvisor(8, advisor.advised, advisor.changed, grounds=grounds)
        advisor.grounds.history.observed(now + shift, 0.4)
        if advisor.due(now):
            advisor.consider(now, PRESENT, [option], Limits(1, 64))
        if advisor.advised is not None:
            break
    assert advisor.advised == 4
    # What lies between the last look and a restart is not seen: two minutes of each 25.
    assert EVIDENCE + FOR <= now <= 1.15 * (EVIDENCE + FOR)


def test_what_was_seen_long_ago_is_not_enough() -> None:
    """Two days later nothing is known of what is asked now."""
    grounds = Grounds()
    for at in range(0, 86400, int(TICK)):
        grounds.history.observed(float(at), 0.4)
    assert back(grounds, 86400.0, 0.0).history.seconds >= EVIDENCE
    assert back(grounds, 86400.0, 0.0, away=BETWEEN).history.seconds >= EVIDENCE
    assert back(grounds, 86400.0, 0.0, away=2 * 86400.0).history.seconds < EVIDENCE / 2


@settings(max_examples=20, deadline=None, derandomize=True)
@given(demands())
def test_it_is_written_a_few_times_a_day(wanted: Callable[[float], float]) -> None:
    """With days and nights that are as far apart as may be, once in an hour or two; where nothing moves, next to
    never."""
    grounds, last, at, times = Grounds(), None, 0.0, []
    for tick in range(1, 4 * 24 * 60):
        now = tick * TICK
        grounds.history.observed(now, wanted(now))
        if tick % 10:
            continue
        seen = asked(grounds, now)
        if last is None or apart(last.aged(now - at), seen) >= 1:
            last, at = seen, now
            times.append(now)
    assert len([each for each in times if each > 86400]) <= 3 * 30
