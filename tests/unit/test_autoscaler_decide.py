"""How many groups. A wrong decision costs a group's GPUs, or every user's patience."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

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

IDLE = GroupLoad(running=0, waiting=0, slots=100)
BUSY = GroupLoad(running=60, waiting=0, slots=100, time_to_first_token=0.5, time_per_output_token=0.02)
FULL = GroupLoad(running=100, waiting=7, slots=100, time_to_first_token=0.5, time_per_output_token=0.02)
SLOW_START = replace(BUSY, time_to_first_token=4.0)
SLOW_TOKENS = replace(BUSY, time_per_output_token=0.2)


def _inputs(*serving: GroupLoad | None, **fields: Any) -> ScalingInputs:
    values: dict[str, Any] = {
        "mode": ScalingMode.AUTO,
        "now": 0.0,
        "replicas": 1,
        "min_groups": 1,
        "max_groups": 4,
        "current": max(len(serving), 1),
        "serving": serving,
        "time_to_first_token": 2.0,
        "time_per_output_token": 0.05,
    }
    return ScalingInputs(**{**values, **fields})


def _held(inputs: ScalingInputs, seconds: float, step: float = 5.0) -> ScalingDecision:
    """The decision after the same has been seen for so long, or the first that changes the number."""
    state, at = ScalingState(), 0.0
    while True:
        decision = decide(replace(inputs, now=at), state)
        if decision.desired != inputs.current or at >= seconds:
            return decision
        state, at = decision.state, min(at + step, seconds)


# --- External and Advisory -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", [ScalingMode.EXTERNAL, ScalingMode.ADVISORY])
@pytest.mark.parametrize(
    ("replicas", "low", "high", "desired", "reason"),
    [
        (3, 1, 4, 3, ScalingReason.REPLICAS),
        (0, 0, 4, 0, ScalingReason.REPLICAS),
        (0, 1, 4, 1, ScalingReason.REPLICAS_LIMITED),
        (9, 1, 4, 4, ScalingReason.REPLICAS_LIMITED),
        (9, 1, None, 9, ScalingReason.REPLICAS),
    ],
)
def test_others_decide_within_the_limits(
    mode: ScalingMode, replicas: int, low: int, high: int | None, desired: int, reason: ScalingReason
) -> None:
    decision = decide(_inputs(mode=mode, replicas=replicas, min_groups=low, max_groups=high), ScalingState())
    assert (decision.desired, decision.reason) == (desired, reason)
    assert str(replicas) in decision.message


def test_advisory_follows_replicas_and_says_what_auto_would_do() -> None:
    inputs = _inputs(FULL, FULL, mode=ScalingMode.ADVISORY, replicas=2, max_groups=None)
    decision = _held(inputs, UP_AFTER)
    assert decision.desired == 2
    assert decision.advised == 3
    assert "Auto would have 3 (RequestsWaiting: 14 requests wait on 2 groups for 30 s)" in decision.message


def test_advice_stands_for_as_long_as_what_led_to_it() -> None:
    """Nobody acts within a second: advice that comes and goes cannot be followed."""
    inputs = _inputs(FULL, FULL, mode=ScalingMode.ADVISORY, replicas=2)
    state, advised = ScalingState(), []
    for at in range(0, 121, 10):
        decision = decide(replace(inputs, now=float(at)), state)
        state = decision.state
        advised.append(decision.advised)
    assert advised == [2] * 3 + [3] * 10
    calm = decide(replace(inputs, serving=(BUSY, BUSY), now=130.0), state)
    assert calm.advised == 2


# --- Auto: limits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1, 4, (1, 4)), (2, None, (2, 2)), (0, 3, (1, 3)), (0, None, (1, 1)), (0, 0, (0, 0)), (3, 3, (3, 3))],
)
def test_auto_keeps_a_group_to_measure_unless_none_is_allowed(
    low: int, high: int | None, expected: tuple[int, int]
) -> None:
    assert limits(_inputs(min_groups=low, max_groups=high)) == expected


def test_others_may_ask_for_as_many_groups_as_the_api_allows() -> None:
    assert limits(_inputs(mode=ScalingMode.EXTERNAL, min_groups=0, max_groups=None)) == (0, 256)


def test_a_request_that_waits_counts_as_work_when_latency_is_judged() -> None:
    waiting = replace(SLOW_START, running=0, waiting=1)
    assert _held(_inputs(waiting, replace(SLOW_START, running=0)), UP_AFTER).desired == 3


@pytest.mark.parametrize(("current", "desired"), [(0, 2), (9, 4)])
def test_new_limits_hold_at_once_whatever_is_measured(current: int, desired: int) -> None:
    for load in (IDLE, FULL, None):
        decision = decide(_inputs(load, current=current, min_groups=2), ScalingState())
        assert (decision.desired, decision.reason) == (desired, ScalingReason.LIMITS_CHANGED)
        assert f"{current} groups" in decision.message


def test_equal_limits_leave_no_choice() -> None:
    decision = _held(_inputs(FULL, FULL, min_groups=2, max_groups=2), 600)
    assert (decision.desired, decision.reason) == (2, ScalingReason.WITHIN_OBJECTIVE)


# --- Auto: one more ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loads", "reason", "words"),
    [
        ((FULL, FULL), ScalingReason.REQUESTS_WAITING, "14 requests wait on 2 groups"),
        (
            (SLOW_START, SLOW_START),
            ScalingReason.TIME_TO_FIRST_TOKEN_MISSED,
            "4000 ms, the objective 2000 ms",
        ),
        (
            (SLOW_TOKENS, SLOW_TOKENS),
            ScalingReason.TIME_PER_OUTPUT_TOKEN_MISSED,
            "200 ms, the objective 50 ms",
        ),
        ((SLOW_START, BUSY), ScalingReason.TIME_TO_FIRST_TOKEN_MISSED, "2250 ms, the objective 2000 ms"),
    ],
)
def test_a_lasting_shortage_brings_one_group(
    loads: tuple[GroupLoad, ...], reason: ScalingReason, words: str
) -> None:
    before = _held(_inputs(*loads), UP_AFTER - 1)
    assert (before.desired, before.reason) == (2, ScalingReason.OBSERVING)
    assert before.recheck_after is not None
    assert 0 < before.recheck_after <= UP_AFTER
    decision = _held(_inputs(*loads), UP_AFTER)
    assert (decision.desired, decision.reason) == (3, reason)
    assert words in decision.message
    assert "for 30 s" in decision.message
    assert decision.state == ScalingState(), "the next group needs its own evidence"


@pytest.mark.parametrize(
    "loads",
    [
        pytest.param((FULL, BUSY), id="one group has room"),
        pytest.param((BUSY, BUSY), id="nothing waits"),
        pytest.param((replace(SLOW_START, running=0), replace(SLOW_START, running=0)), id="no work"),
        pytest.param((replace(BUSY, time_to_first_token=2.0),) * 2, id="just met"),
    ],
)
def test_without_a_shortage_there_is_no_group_more(loads: tuple[GroupLoad, ...]) -> None:
    assert _held(_inputs(*loads), 250).desired == 2


def test_latency_counts_only_against_an_objective() -> None:
    inputs = _inputs(SLOW_START, SLOW_TOKENS, time_to_first_token=None, time_per_output_token=None)
    decision = _held(inputs, 250)
    assert (decision.desired, decision.reason) == (2, ScalingReason.WITHIN_OBJECTIVE)


def test_a_shortage_that_ends_in_between_starts_anew() -> None:
    """Bursts shorter than a group's start must not bring groups one after the other."""
    state = decide(_inputs(FULL, now=0), ScalingState()).state
    state = decide(_inputs(BUSY, now=UP_AFTER - 1), state).state
    decision = decide(_inputs(FULL, now=UP_AFTER), state)
    assert (decision.desired, decision.reason) == (1, ScalingReason.OBSERVING)


def test_at_the_maximum_the_shortage_is_reported() -> None:
    decision = _held(_inputs(FULL, FULL, FULL, FULL), UP_AFTER)
    assert (decision.desired, decision.reason) == (4, ScalingReason.AT_MAXIMUM)
    assert "28 requests wait on 4 groups, but maxGroups is 4" in decision.message


# --- Auto: one fewer -----------------------------------------------------------------------------


def test_a_lasting_surplus_takes_one_group() -> None:
    low = replace(BUSY, running=20)
    before = _held(_inputs(low, low), DOWN_AFTER - 1)
    assert (before.desired, before.reason) == (2, ScalingReason.OBSERVING)
    assert before.recheck_after == 1
    decision = _held(_inputs(low, low), DOWN_AFTER)
    assert (decision.desired, decision.reason) == (1, ScalingReason.LOAD_FITS_IN_FEWER)
    assert "40 running requests fit in 1 group with 100 slots for 300 s" in decision.message


@pytest.mark.parametrize(
    ("loads", "fits"),
    [
        pytest.param((replace(IDLE, running=35), replace(IDLE, running=35)), True, id="at the share"),
        pytest.param((replace(IDLE, running=35), replace(IDLE, running=36)), False, id="above the share"),
        pytest.param((IDLE, replace(IDLE, waiting=1)), False, id="a request waits"),
        pytest.param((IDLE, replace(IDLE, slots=0)), False, id="slots unknown"),
        pytest.param(
            (replace(IDLE, running=30, slots=40), replace(IDLE, slots=400)), False, id="the small one stays"
        ),
        pytest.param((replace(IDLE, time_per_output_token=0.02),) * 2, True, id="latency has room"),
        pytest.param((replace(IDLE, time_per_output_token=0.025),) * 2, True, id="latency has just room"),
        pytest.param((replace(IDLE, time_per_output_token=0.03),) * 2, False, id="latency has no room"),
        pytest.param((replace(IDLE, time_to_first_token=1.5),) * 2, False, id="first tokens have no room"),
    ],
)
def test_a_group_goes_only_if_the_rest_carries_the_load_with_room(
    loads: tuple[GroupLoad, GroupLoad], fits: bool
) -> None:
    assert _held(_inputs(*loads), 2 * DOWN_AFTER).desired == (1 if fits else 2)


def test_the_last_group_stays() -> None:
    decision = _held(_inputs(IDLE, min_groups=0), 10 * DOWN_AFTER)
    assert (decision.desired, decision.reason) == (1, ScalingReason.WITHIN_OBJECTIVE)


def test_the_minimum_stays_and_says_so() -> None:
    decision = _held(_inputs(IDLE, IDLE, min_groups=2), DOWN_AFTER)
    assert (decision.desired, decision.reason) == (2, ScalingReason.AT_MINIMUM)


def test_unknown_request_slots_are_said_to_keep_groups() -> None:
    unknown = replace(IDLE, slots=0)
    decision = _held(_inputs(unknown, unknown), 2 * DOWN_AFTER)
    assert (decision.desired, decision.reason) == (2, ScalingReason.WITHIN_OBJECTIVE)
    assert "max-num-seqs" in decision.message


# --- Auto: holding -------------------------------------------------------------------------------

HOLDS: dict[str, tuple[Callable[[], ScalingInputs], ScalingReason, str]] = {
    "a group starts": (
        lambda: _inputs(FULL, FULL, current=3, starting=1),
        ScalingReason.GROUPS_STARTING,
        "1 of 3 groups start",
    ),
    "a lost group is yet to be replaced": (
        lambda: _inputs(FULL, FULL, current=3),
        ScalingReason.GROUPS_STARTING,
        "2 of 3 groups serve",
    ),
    "a group is silent": (
        lambda: _inputs(IDLE, None, IDLE),
        ScalingReason.TELEMETRY_MISSING,
        "1 of 3 groups give no current figures",
    ),
    "no group serves": (lambda: _inputs(current=2), ScalingReason.NO_GROUP_SERVES, "none of 2"),
    "a group drains": (
        lambda: _inputs(IDLE, IDLE, draining=1),
        ScalingReason.GROUPS_DRAINING,
        "1 groups drain",
    ),
}


@pytest.mark.parametrize("name", HOLDS)
def test_holds_and_says_why(name: str) -> None:
    make, reason, words = HOLDS[name]
    decision = _held(make(), 3 * DOWN_AFTER)
    assert (decision.desired, decision.reason) == (make().current, reason)
    assert words in decision.message


def test_a_gap_in_the_figures_never_counts_as_a_time_of_little_load() -> None:
    state, at = ScalingState(), 0.0
    for _ in range(100):
        for load in (IDLE, None):
            decision = decide(_inputs(IDLE, load, now=at), state)
            state, at = decision.state, at + DOWN_AFTER / 2
            assert decision.desired == 2


def test_while_groups_start_no_evidence_is_gathered() -> None:
    """What was measured without the new group must not bring yet another one the moment it serves."""
    state = decide(_inputs(FULL, now=0), ScalingState()).state
    started = decide(_inputs(FULL, current=2, starting=1, now=100), state)
    after = decide(_inputs(FULL, FULL, current=2, now=101), started.state)
    assert (after.desired, after.reason) == (2, ScalingReason.OBSERVING)


def test_a_shortage_is_answered_while_groups_drain() -> None:
    """During a rollout there is always one that drains."""
    assert _held(_inputs(FULL, FULL, draining=1), UP_AFTER).desired == 3


def test_a_group_above_the_wanted_number_does_not_count_as_room() -> None:
    """A rollout's extra group goes anyway: what stays must carry the load."""
    loads = (replace(IDLE, running=30),) * 3
    assert _held(_inputs(*loads, current=2), 2 * DOWN_AFTER).desired == 2
    assert _held(_inputs(*(replace(IDLE, running=20),) * 3, current=2), 2 * DOWN_AFTER).desired == 1


def test_a_clock_that_goes_back_delays_and_no_more() -> None:
    decision = decide(_inputs(FULL, now=50), ScalingState(short_since=1000.0))
    assert decision.desired == 1
    assert decision.recheck_after == UP_AFTER
    assert decide(_inputs(FULL, now=50 + UP_AFTER), decision.state).desired == 2


def test_the_state_survives_a_restart_as_json() -> None:
    state = decide(_inputs(FULL, now=12.5), ScalingState()).state
    assert ScalingState(**json.loads(json.dumps(asdict(state)))) == state
    assert state.short_since == 12.5


def test_every_message_has_a_number() -> None:
    """A decision without figures cannot be checked."""
    for make, _, _ in HOLDS.values():
        assert any(char.isdigit() for char in decide(make(), ScalingState()).message)
    for loads in ((BUSY,), (FULL,), (IDLE, IDLE)):
        assert any(char.isdigit() for char in decide(_inputs(*loads), ScalingState()).message)
