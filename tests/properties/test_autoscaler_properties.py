"""Over all courses of load: the number of groups keeps to its limits and changes one at a time, with evidence.

A breach is a group given up under load, or GPUs taken for nothing.
"""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from moe_operator.api.reasons import ScalingReason
from moe_operator.api.spec import ScalingMode
from moe_operator.autoscaler.decide import (
    DOWN_AFTER,
    UP_AFTER,
    GroupLoad,
    ScalingDecision,
    ScalingInputs,
    ScalingState,
    decide,
    limits,
)

latencies = st.none() | st.floats(0.001, 10)
loads = st.builds(
    GroupLoad,
    running=st.integers(0, 120),
    waiting=st.sampled_from([0, 0, 0, 1, 50]),
    slots=st.sampled_from([0, 100, 100, 100]),
    time_to_first_token=latencies,
    time_per_output_token=latencies,
)


@st.composite
def inputs(draw: st.DrawFn) -> ScalingInputs:
    low = draw(st.integers(0, 3))
    return ScalingInputs(
        mode=draw(st.sampled_from(list(ScalingMode))),
        now=0.0,
        replicas=draw(st.integers(0, 8)),
        min_groups=low,
        max_groups=draw(st.none() | st.integers(low, 6)),
        current=draw(st.integers(0, 8)),
        serving=tuple(draw(st.lists(st.one_of(loads, loads, loads, st.none()), max_size=3))),
        starting=draw(st.sampled_from([0, 0, 0, 1])),
        draining=draw(st.sampled_from([0, 0, 0, 1])),
        time_to_first_token=draw(st.none() | st.just(2.0)),
        time_per_output_token=draw(st.none() | st.just(0.05)),
    )


@st.composite
def courses(draw: st.DrawFn) -> list[tuple[float, ScalingInputs]]:
    """(seconds until the next look, what is seen) in mode Auto, within one pair of limits.

    What is seen stays for a while, as most decisions need it to.
    """
    low = draw(st.integers(0, 2))
    high = low + draw(st.integers(0, 4))
    first = draw(st.integers(low, high))
    course = []
    for _ in range(draw(st.integers(1, 6))):
        seen = replace(draw(inputs()), mode=ScalingMode.AUTO, min_groups=low, max_groups=high, current=first)
        step = draw(st.sampled_from([1.0, 10.0, 31.0, 301.0]))
        course += [(step, seen)] * draw(st.integers(1, 8))
    return course


def _follow(
    course: list[tuple[float, ScalingInputs]],
) -> list[tuple[ScalingInputs, ScalingState, ScalingDecision]]:
    """Each look with the number that the decision before it gave, as the controller has it.

    As many groups serve as are wanted, in turn with the loads that the look has, less one that starts.
    """
    state, now, current, seen = ScalingState(), 0.0, course[0][1].current, []
    for wait, look in course:
        pattern = look.serving or (GroupLoad(0, 0, 100),)
        serving = tuple(pattern[i % len(pattern)] for i in range(max(current - look.starting, 0)))
        look = replace(look, now=now, current=current, serving=serving)
        decision = decide(look, state)
        seen.append((look, state, decision))
        state, now, current = decision.state, now + wait, decision.desired
    return seen


@settings(max_examples=250, deadline=None, derandomize=True)
@given(courses())
def test_keeps_to_the_limits_and_moves_one_at_a_time_for_cause(
    course: list[tuple[float, ScalingInputs]],
) -> None:
    for look, state, decision in _follow(course):
        low, high = limits(look)
        assert low <= decision.desired <= high
        assert decision.message
        assert decision.recheck_after is None or decision.recheck_after > 0
        if look.mode is ScalingMode.AUTO and low <= look.current <= high:
            _check_change(look, state, decision)


def _check_change(look: ScalingInputs, state: ScalingState, decision: ScalingDecision) -> None:
    change = decision.desired - look.current
    assert abs(change) <= 1
    if change == 0:
        return
    assert not look.starting, "what starts is the answer to an earlier decision"
    assert None not in look.serving, "no change without everybody's figures"
    assert len(look.serving) >= look.current
    if change > 0:
        assert state.short_since is not None
        assert look.now - state.short_since >= UP_AFTER
    else:
        assert state.spare_since is not None
        assert look.now - state.spare_since >= DOWN_AFTER
        assert not look.draining
        assert not any(load.waiting for load in look.serving if load)
        assert decision.desired >= 1, "Auto never takes the last group"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(inputs(), st.floats(0, 1e9), st.floats(0, 1e9))
def test_the_same_is_always_decided_of_the_same(look: ScalingInputs, short: float, spare: float) -> None:
    """Two replicas of the operator, or two looks at once, must agree."""
    for state in (ScalingState(), ScalingState(short_since=short), ScalingState(spare_since=spare)):
        assert decide(look, state) == decide(look, state)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(inputs())
def test_the_same_load_for_ever_comes_to_rest(look: ScalingInputs) -> None:
    """Figures that depend on nothing but the wanted number must not make it swing for ever.

    All groups are alike and share a fixed load evenly, as a balancer would make them.
    """
    work = sum(load.running + load.waiting for load in look.serving if load)
    state, current, moves = ScalingState(), look.current, []
    for tick in range(160):
        each = work / max(current, 1)
        running = min(round(each), 100)
        group = GroupLoad(running=running, waiting=max(round(each) - 100, 0), slots=100)
        now = tick * 20.0
        decision = decide(
            replace(look, now=now, current=current, serving=(group,) * current, starting=0, draining=0), state
        )
        if decision.desired != current:
            moves.append(decision.desired - current)
        state, current = decision.state, decision.desired
    assert len(moves) <= 16
    directions = [move > 0 for move in moves[1:]]
    assert len(set(directions)) <= 1, f"up and down again: {moves}"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(inputs())
def test_advice_is_what_auto_would_do(look: ScalingInputs) -> None:
    advisory = replace(look, mode=ScalingMode.ADVISORY)
    decision = decide(advisory, ScalingState())
    auto = replace(look, mode=ScalingMode.AUTO, current=decision.desired, max_groups=limits(advisory)[1])
    assert decision.advised == decide(auto, ScalingState()).desired
    assert decision.reason in (ScalingReason.REPLICAS, ScalingReason.REPLICAS_LIMITED)
