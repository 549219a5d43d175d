"""Over all courses of load and telemetry: the number of groups keeps to its limits, rises with the load, comes to rest,
and never falls for want of figures. A breach is a group given up under load, or GPUs taken for nothing."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories.plant import Plant, plant
from moe_operator.api.reasons import ScalingReason
from moe_operator.api.spec import ScalingMode
from moe_operator.autoscaler.auto import Want
from moe_operator.autoscaler.decide import ScalingInputs, base, decide, limits
from moe_operator.autoscaler.growth import Growth
from moe_operator.autoscaler.lateness import Lateness
from moe_operator.autoscaler.reading import Reading
from moe_operator.autoscaler.sizing import best_room, expected_late, sized, steady_room

_FEW = settings(max_examples=12, deadline=None, derandomize=True)
_MANY = settings(max_examples=200, deadline=None, derandomize=True)


@st.composite
def growths(draw: st.DrawFn) -> Growth:
    growth = Growth(draw(st.sampled_from([150.0, 345.0, 700.0])), highest=draw(st.booleans()))
    for at in range(draw(st.integers(0, 30))):
        growth.observed(draw(st.floats(0.2, 8)), 15.0 * draw(st.integers(1, 40)), 15.0 * at)
    return growth


@st.composite
def latenesses(draw: st.DrawFn) -> Lateness:
    lateness = Lateness()
    for at in range(draw(st.integers(0, 30))):
        judged, first = draw(st.floats(1, 5000)), draw(st.floats(0, 1))
        late = judged * first, judged * (1 - first) * draw(st.floats(0, 1))
        lateness.observed(draw(st.floats(0, 3)), *late, judged, 15.0 * at)
    return lateness


# --- Sizing --------------------------------------------------------------------------------------


@_MANY
@given(growths(), latenesses(), st.floats(0, 60), st.floats(1, 100))
def test_more_groups_never_make_more_requests_late(
    growth: Growth, lateness: Lateness, demand: float, worth: float
) -> None:
    points, curve = growth.points(500.0), lateness.curve(500.0)
    assert math.isclose(sum(weight for _, weight in points), 1.0, rel_tol=1e-6)
    assert list(curve.values) == sorted(curve.values)
    late = [expected_late(points, curve, demand / groups) for groups in range(1, 40)]
    assert all(0 <= each <= 1 for each in late)
    assert all(more <= fewer + 1e-12 for fewer, more in pairwise(late))
    room = best_room(points, curve, worth, steady_room(curve, worth, 0.009))
    for floor, ceiling in ((0, 8), (3, 100)):
        found = sized(demand, room, points, curve, worth, floor, ceiling)
        assert floor <= found.groups <= ceiling


@_MANY
@given(growths(), latenesses(), st.floats(0.1, 30), st.floats(0, 2))
def test_more_demand_never_needs_fewer(
    growth: Growth, lateness: Lateness, demand: float, more: float
) -> None:
    points, curve = growth.points(500.0), lateness.curve(500.0)
    room = best_room(points, curve, 24.0, steady_room(curve, 24.0, 0.009))
    less = sized(demand, room, points, curve, 24.0, 1, 1000)
    assert sized(demand * (1 + more), room, points, curve, 24.0, 1, 1000).groups >= less.groups


# --- Whole courses -------------------------------------------------------------------------------


@st.composite
def waves(draw: st.DrawFn) -> tuple[Plant, float, float, float]:
    """A fleet with a floor and a ceiling, and a rate's mean, swing and period."""
    floor = draw(st.integers(1, 3))
    made = plant(
        floor=floor,
        ceiling=floor + draw(st.integers(0, 8)),
        groups=floor,
        cold_start=draw(st.sampled_from([60.0, 300.0])),
        kv_per_request=draw(st.sampled_from([0.0002, 0.02])),
    )
    mean = made.capacity * draw(st.floats(0, 8))
    return made, mean, draw(st.floats(0, 1)), draw(st.sampled_from([600.0, 3600.0]))


@_FEW
@given(waves())
def test_limits_hold_whatever_is_asked_for(wave: tuple[Plant, float, float, float]) -> None:
    made, mean, swing, period = wave
    made.run(5400, lambda now: mean * (1 + swing * math.sin(2 * math.pi * now / period)))
    assert all(made.floor <= groups <= made.ceiling for _, groups in made.history)


@pytest.mark.parametrize("load", [0.3, 1.0, 2.5, 4.0, 9.0])
@pytest.mark.parametrize("groups", [1, 5, 9])
@pytest.mark.parametrize("kv", [0.0002, 0.02])
def test_the_same_load_comes_to_rest(load: float, groups: int, kv: float) -> None:
    """Also after a beginning with a fraction of the groups, which is remembered as a surge that may return."""
    made = plant(groups=groups, kv_per_request=kv)
    made.run(8 * 3600, lambda _: load * made.capacity)
    assert max(number for _, number in made.history) <= max(groups, 9 * load + 9)
    last = [number for at, number in made.history if at > 7.5 * 3600]
    assert max(last) - min(last) <= 2, last
    assert sum(fewer != more for fewer, more in pairwise(last)) <= 6, "three times an hour at most"
    assert last[-1] <= max(2, 2 * load), "and not far above what is needed"


@_FEW
@given(st.floats(1.5, 6), st.integers(0, 2**31))
def test_noise_does_not_make_it_flap(load: float, seed: int) -> None:
    """Bursts of 10 % from look to look: at most two reversals an hour once it is settled."""
    made = plant(groups=8)
    made.run(4 * 3600, lambda now: load * made.capacity * (1 + 0.1 * math.sin(now * 7.3 + seed)))
    last = [number for at, number in made.history if at > 3600]
    moves = [b > a for a, b in pairwise(last) if a != b]
    reversals = sum(a and not b for a, b in pairwise(moves))
    assert reversals <= 6


#: Of some fleet.
NUMBERS = plant(plant().capacity)._look().numbers

garbage = st.builds(
    dict,
    running=st.sampled_from([0.0, 3.0, -1.0, math.nan, 1e9]),
    waiting=st.sampled_from([0.0, 50.0, math.inf]),
    kv=st.sampled_from([0.0, 0.5, 1.0, 7.0, math.nan]),
    finished=st.sampled_from([0.0, 1e3, 1e12]),
    gap_seconds=st.sampled_from([0.0, 1e5]),
    ranks=st.sampled_from([0, 7, 8]),
)


@_FEW
@given(st.lists(st.none() | garbage, min_size=1, max_size=8), st.integers(0, 2))
def test_no_page_makes_it_fall_over_or_grow_without_bound(
    pages: list[dict[str, float] | None], which: int
) -> None:
    made = plant(2 * plant().capacity)
    before = made.desired

    def change(name: str, reading: Reading, now: float) -> Reading | None:
        if name != f"g{which}":
            return reading
        page = pages[int(now / 15) % len(pages)]
        return None if page is None else replace(reading, **page)  # type: ignore[arg-type]

    made.change = change
    made.run(1800, lambda _: 2 * made.capacity)
    assert before - 2 <= made.desired <= 60
    assert all(math.isfinite(groups) for _, groups in made.history)


@_FEW
@given(st.floats(0, 4), st.sets(st.integers(0, 4), min_size=1))
def test_no_group_goes_for_want_of_figures(load: float, silent: set[int]) -> None:
    made = plant(3 * plant().capacity)
    before = made.desired
    made.change = lambda name, reading, now: None if int(name[1:]) in silent else reading
    made.run(90, lambda _: 3 * made.capacity)
    blind = any(f"g{at}" in made._serving for at in silent)
    made.run(1800, lambda _: load * made.capacity)
    assert not blind or made.desired >= before


@_FEW
@given(waves())
def test_the_same_is_always_decided_of_the_same(wave: tuple[Plant, float, float, float]) -> None:
    """Nothing but what was seen decides: no clock and no chance."""
    made, mean, swing, period = wave
    again = plant(
        floor=made.floor,
        ceiling=made.ceiling,
        groups=made.floor,
        cold_start=made.cold_start,
        kv_per_request=made.kv_per_request,
    )
    for each in (made, again):
        each.run(1800, lambda now: mean * (1 + swing * math.sin(2 * math.pi * now / period)))
    assert made.history == again.history


# --- Modes ---------------------------------------------------------------------------------------


@_MANY
@given(
    st.sampled_from(list(ScalingMode)),
    st.integers(0, 9),
    st.integers(0, 3),
    st.none() | st.integers(0, 6),
    st.integers(0, 9),
    st.integers(0, 12),
)
def test_every_mode_keeps_to_its_limits(
    mode: ScalingMode, replicas: int, low: int, more: int | None, current: int, wanted: int
) -> None:
    inputs = ScalingInputs(mode, replicas, low, None if more is None else low + more, current, serving=1)
    floor, ceiling = limits(inputs)
    decision = decide(inputs, Want(wanted, NUMBERS))
    assert floor <= decision.desired <= ceiling
    assert decision.message
    if mode is not ScalingMode.AUTO:
        assert decision.desired == base(inputs)
        assert decision.reason in (ScalingReason.REPLICAS, ScalingReason.REPLICAS_LIMITED)
