"""An autoscaler that was restored wants what one wants that was never interrupted, and one that was told a wrong step
time recovers. A breach is a fleet of the wrong size after every restart, or at every first start."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories.plant import Plant, plant, profile
from moe_operator.autoscaler.auto import AT_ONCE, TICK, Autoscaler, Want
from moe_operator.autoscaler.cold_start import ColdStart
from moe_operator.autoscaler.memory import restored, snapshot
from moe_operator.autoscaler.memory_text import read, version, written
from moe_operator.autoscaler.reading import Reading

_FEW = settings(max_examples=10, deadline=None, derandomize=True)
#: A surge of half an hour, and when it begins.
SURGE, LASTS = 3 * 3600.0, 1800.0
STARTS = ColdStart((300.0,) * 6)
#: Looks that are not compared: readings are averaged over a minute.
_SETTLING = 20


def day(seed: int) -> Callable[[float], float]:
    """Groups' worth of requests: a slow swing, noise of 6 %, and the surge."""
    drawn = random.Random(seed)
    noise = [drawn.gauss(0, 0.06) for _ in range(4000)]

    def load(now: float) -> float:
        surge = 1.7 if SURGE <= now < SURGE + LASTS else 1.0
        return 3 * (1 + 0.4 * math.sin(now / 4000)) * surge * max(0.0, 1 + noise[int(now / TICK)])

    return load


@dataclass
class Beside:
    """Several autoscalers that look at the same fleet; the first one's word counts."""

    every: list[Autoscaler]
    since: float
    wants: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.profile = self.every[0].profile

    def read(self, group: str, reading: Reading, *, born: float | None = None) -> None:
        self.every[0].read(group, reading, born=born)
        for other in self.every[1:]:
            # Of groups that were there before a successor does not know since when.
            other.read(group, reading, born=born if born is not None and born > self.since else None)

    def look(self, *seen: Any) -> None:
        for each in self.every:
            each.look(*seen)

    def want(self, *asked: Any) -> Want:
        found = [each.want(*asked) for each in self.every]
        self.wants.append([want.groups for want in found])
        return found[0]


def course(seed: int, at: float, gap: float = 0.0) -> list[list[int]]:
    """What is wanted in an hour and a half from `at` on: by who was never interrupted, who was restored from what was
    written `gap` seconds before, and who knows nothing."""
    made, load = plant(groups=5), day(seed)

    def rate(now: float) -> float:
        return load(now) * made.capacity

    made.run(at - gap, rate)
    memory = snapshot(made.autoscaler, STARTS, made.now)
    assert memory is not None
    if gap:
        made.run(gap, rate)
    back, _ = restored(read(written(memory), version()), profile(), made.now, gap)
    beside = Beside([made.autoscaler, back, Autoscaler(profile(), STARTS.expected)], made.now)
    made.autoscaler = beside  # type: ignore[assignment]
    made.run(5400, rate)
    return beside.wants[_SETTLING:]


@dataclass(frozen=True)
class Apart:
    """How far a restored one may be from one that was never interrupted."""

    mean: float
    """Groups, on average."""
    more: float
    """Share of looks with more than one."""
    stranger: float
    """Times as far is one that knows nothing, at least."""


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("at", "gap", "most"),
    [
        # Of two forecasters that are as good the other may be used.
        (SURGE - 900, 0.0, Apart(0.25, 0.1, 1.5)),
        (SURGE - 900, 590.0, Apart(0.25, 0.1, 1.5)),
        (SURGE + 600, 0.0, Apart(0.1, 0.0, 10.0)),
        # The room is summed up every two minutes, which are others: a group may come or go that much later.
        (SURGE + LASTS + 900, 0.0, Apart(0.03, 0.0, 10.0)),
    ],
    ids=["before a surge", "before a surge, ten minutes old", "in it", "after it"],
)
def test_restored_it_wants_what_it_would_have_wanted(seed: int, at: float, gap: float, most: Apart) -> None:
    wants = course(seed, at, gap)
    apart = [abs(back - never) for never, back, _ in wants]
    strange = [abs(anew - never) for never, _, anew in wants]
    assert sum(apart) <= most.mean * len(apart)
    assert sum(each > 1 for each in apart) <= most.more * len(apart)
    assert sum(strange) >= most.stranger * sum(apart), "and it is what was learned that makes them alike"


# --- Pauses -------------------------------------------------------------------------------------


@_FEW
@given(
    st.lists(
        # What is asked for, in groups; and for how long it is looked at, and then not.
        st.tuples(
            st.floats(0.2, 6), st.floats(300, 3600), st.sampled_from([0.0, 1200.0, 4 * 3600.0, 86400.0])
        ),
        min_size=2,
        max_size=4,
    )
)
def test_whatever_was_seen_a_successor_can_go_on_from_it(course: list[tuple[float, float, float]]) -> None:
    """Lost: all that was learned, at each start of an operator for a day after nobody could look for some hours."""
    made = plant(groups=4)
    for groups, seen, unseen in course:
        made.run(seen, lambda _, groups=groups: groups * made.capacity)  # type: ignore[misc]
        made.unseen(unseen, lambda _, groups=groups: groups * made.capacity)  # type: ignore[misc]
    made.run(900, lambda _: 3 * made.capacity)
    memory = snapshot(made.autoscaler, STARTS, made.now)
    assert memory is not None
    back = read(written(memory), version())
    demand, seconds = back.usual
    assert demand / seconds == pytest.approx(made.autoscaler._forecasts._usual.value, rel=0.001)


# --- A wrong prior -------------------------------------------------------------------------------


@st.composite
def fleets(draw: st.DrawFn) -> tuple[float, Callable[[float], float]]:
    """A factor by which the plan was wrong, and groups' worth of requests."""
    mean, swing = draw(st.floats(1, 4)), draw(st.floats(0, 0.5))
    period = draw(st.sampled_from([900.0, 1900.0, 7200.0]))
    factor = draw(st.sampled_from([1 / 3, 3.0]))
    return factor, lambda now: mean * (1 + swing * math.sin(2 * math.pi * now / period))


def told(factor: float | None) -> Plant:
    """A fleet that is told so many times its idle step time."""
    made = plant(groups=6)
    known = profile(idle_step_time=None if factor is None else made.idle * factor)
    made.autoscaler = Autoscaler(known, cold_start=300.0)
    return made


@_FEW
@given(fleets())
def test_a_step_time_that_was_planned_wrong_is_mended_within_half_an_hour(
    fleet: tuple[float, Callable[[float], float]],
) -> None:
    factor, load = fleet
    wrong, right = told(factor), told(1.0)
    wants = [
        made.run(1800, lambda now, made=made: load(now) * made.capacity)  # type: ignore[misc]
        for made in (wrong, right)
    ]
    learned, known = wrong.autoscaler._idle.value, right.autoscaler._idle.value
    assert learned is not None
    assert known is not None
    assert learned == pytest.approx(known, rel=0.3)
    # Not what there is: one of them may still hold what a wave asked for.
    enough = [want.numbers.down.groups for want in wants if want.numbers is not None]
    assert abs(enough[0] - enough[1]) <= 2
    most = max(groups for _, groups in wrong.history)
    assert most <= max(groups for _, groups in right.history) * 1.6 + 1, "nor does it cost a fleet meanwhile"


def test_a_prior_that_a_step_has_refuted_is_none() -> None:
    """Else a load that never changes would look like none at all."""
    refuted, unknown = told(3.0), told(None)
    for made in (refuted, unknown):
        made.run(900, lambda _, made=made: 2.0 * made.capacity)  # type: ignore[misc]
    assert refuted.history == unknown.history


def test_a_group_goes_when_it_would_have_gone() -> None:
    """A load that falls, and a successor in the middle of the window before groups go: at the same look; one of which
    that window begins anew keeps a group for longer."""
    made = plant(groups=5)
    made.run(5400, lambda _: 3.5 * made.capacity)
    before = made.desired

    def falls(now: float) -> float:
        return made.capacity

    while (want := made.run(TICK, falls)).held_until is None:
        assert made.desired == before
    made.run((want.held_until - made.now) / 2, falls)
    memory = snapshot(made.autoscaler, STARTS, made.now)
    assert memory is not None
    assert memory.downs
    told = [memory, replace(memory, downs=())]
    goes, anew = (restored(read(written(one), version()), profile(), made.now, 5.0)[0] for one in told)
    beside = Beside([made.autoscaler, goes, anew], made.now)
    made.autoscaler = beside  # type: ignore[assignment]
    made.run(1800, falls)
    first = [next(at for at, want in enumerate(beside.wants) if want[one] < before) for one in range(3)]
    assert first[0] == first[1] < first[2], "from when it goes, all are asked for what is left"


def test_the_next_groups_go_when_they_would_have_gone() -> None:
    """A load that falls far, and a successor after the first have gone: of what fewer do as much is seen; one that
    does not know when some went lets more go at once."""
    made = plant(groups=12)
    made.run(5400, lambda _: 8 * made.capacity)
    # More were late than may be: else there is hardly a time between two steps.
    made.autoscaler._budget.observed(1e4, 1e6, made.now)

    def falls(now: float) -> float:
        return made.capacity

    before = made.autoscaler.serving
    while made.desired >= before:
        made.run(TICK, falls)
    made.run(TICK, falls)
    assert made.desired == before - AT_ONCE
    memory = snapshot(made.autoscaler, STARTS, made.now)
    assert memory is not None
    told = [memory, replace(memory, fell=None), replace(memory, fell=None, groups=before)]
    back = [restored(read(written(one), version()), profile(), made.now, 0.0)[0] for one in told]
    beside = Beside([made.autoscaler, *back], made.now)
    made.autoscaler = beside  # type: ignore[assignment]
    made.run(900, falls)
    next_, goes, at_once, since = (
        next(at for at, want in enumerate(beside.wants) if want[one] < before - AT_ONCE) for one in range(4)
    )
    assert at_once < next_ == goes
    # Those that went after the last word of the one before are as good as seen to go now.
    assert goes <= since <= goes + 2
