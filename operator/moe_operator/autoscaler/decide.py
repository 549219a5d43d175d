"""How many groups: one decision at a time, with a typed reason and the numbers behind it.

The rule is a threshold with time. One group more when requests wait on every group, or the objective is
missed, for `UP_AFTER`; one group fewer when the load would have fitted in one fewer for `DOWN_AFTER`. Nothing
changes while groups start, as they are the answer to an earlier decision, and nothing goes down without
current figures of every group. Times are seconds; `now` is an argument.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moe_operator.api.reasons import ScalingReason
from moe_operator.api.spec import ScalingMode

#: A shortage must last this long: shorter ones are over before a group has loaded its weights.
UP_AFTER = 30.0
#: A surplus must last this long: a group given up too early costs a cold start.
DOWN_AFTER = 300.0
#: Share of the request slots that the remaining groups may fill for a group to go. The rest is for the load
#: that comes while a new group would start.
DOWN_FILL = 0.7
#: Ceiling in modes External and Advisory where `maxGroups` is not set.
UNLIMITED = 256


@dataclass(frozen=True)
class GroupLoad:
    """One serving group. Means are over the telemetry window, None where nothing happened in it."""

    running: int
    waiting: int
    slots: int
    """Requests that the group can compute at once; 0: unknown."""
    time_to_first_token: float | None = None
    time_per_output_token: float | None = None


@dataclass(frozen=True)
class ScalingInputs:
    """What a decision is based on."""

    mode: ScalingMode
    now: float
    replicas: int
    """`spec.replicas`."""
    min_groups: int
    max_groups: int | None
    current: int
    """The last decision; at first the floor."""
    serving: tuple[GroupLoad | None, ...]
    """Serving groups; None for one without current figures."""
    starting: int = 0
    draining: int = 0
    time_to_first_token: float | None = None
    """The objective; None: none."""
    time_per_output_token: float | None = None


@dataclass(frozen=True)
class ScalingState:
    """What is remembered between decisions: since when a shortage or a surplus lasts.

    Losing it delays a change, no more.
    """

    short_since: float | None = None
    spare_since: float | None = None


@dataclass(frozen=True)
class ScalingDecision:
    """The number of groups wanted, and why."""

    desired: int
    reason: ScalingReason
    message: str
    state: ScalingState
    recheck_after: float | None = None
    """Seconds until time alone may change the decision."""
    advised: int | None = None
    """Mode Advisory: what Auto would have."""


def limits(inputs: ScalingInputs) -> tuple[int, int]:
    """Floor and ceiling.

    Auto keeps at least one group, unless `maxGroups` is 0: with none there is nothing to measure, and nothing
    would ever bring one back. Without `maxGroups` Auto stays at the floor; the other modes are free.
    """
    auto = inputs.mode is ScalingMode.AUTO
    floor = max(inputs.min_groups, 1) if auto and inputs.max_groups != 0 else inputs.min_groups
    ceiling = inputs.max_groups if inputs.max_groups is not None else floor if auto else UNLIMITED
    return floor, max(floor, ceiling)


def decide(inputs: ScalingInputs, state: ScalingState) -> ScalingDecision:
    """The decision for this moment."""
    if inputs.mode is ScalingMode.AUTO:
        return _auto(inputs, state)
    decision = _replicas(inputs)
    return decision if inputs.mode is ScalingMode.EXTERNAL else _advise(decision, inputs, state)


def _replicas(inputs: ScalingInputs) -> ScalingDecision:
    floor, ceiling = limits(inputs)
    desired = min(max(inputs.replicas, floor), ceiling)
    if desired == inputs.replicas:
        return ScalingDecision(desired, ScalingReason.REPLICAS, f"spec.replicas is {desired}", ScalingState())
    text = f"spec.replicas is {inputs.replicas}, outside the limits {floor} to {ceiling}"
    return ScalingDecision(desired, ScalingReason.REPLICAS_LIMITED, text, ScalingState())


def _advise(decision: ScalingDecision, inputs: ScalingInputs, state: ScalingState) -> ScalingDecision:
    """The decision with what Auto would do from there."""
    _, ceiling = limits(inputs)
    auto = replace(inputs, mode=ScalingMode.AUTO, max_groups=ceiling, current=decision.desired)
    advice = _auto(auto, state)
    changes = advice.desired != decision.desired
    return replace(
        decision,
        message=f"{decision.message}; Auto would have {advice.desired} ({advice.reason}: {advice.message})",
        # Nobody follows the advice at once: it holds for as long as what led to it.
        state=state if changes else advice.state,
        recheck_after=advice.recheck_after,
        advised=advice.desired,
    )


# --- Auto ----------------------------------------------------------------------------------------


def _auto(inputs: ScalingInputs, state: ScalingState) -> ScalingDecision:
    floor, ceiling = limits(inputs)
    current = min(max(inputs.current, floor), ceiling)
    if current != inputs.current:
        text = f"{inputs.current} groups are outside the limits {floor} to {ceiling}"
        return ScalingDecision(current, ScalingReason.LIMITS_CHANGED, text, ScalingState())
    blocked = _blocked(inputs, floor, ceiling)
    if blocked is not None:
        return blocked
    loads = [load for load in inputs.serving if load is not None]
    shortage = _shortage(inputs, loads)
    if shortage is not None:
        return _grow(inputs, state, ceiling, *shortage)
    surplus = _surplus(inputs, loads)
    if surplus is not None:
        return _shrink(inputs, state, floor, surplus)
    return _hold(inputs, ScalingReason.WITHIN_OBJECTIVE, _load_text(loads))


def _hold(
    inputs: ScalingInputs,
    reason: ScalingReason,
    text: str,
    state: ScalingState | None = None,
    recheck_after: float | None = None,
) -> ScalingDecision:
    """As many as before. Without a state, whatever lasted ends here."""
    return ScalingDecision(inputs.current, reason, text, state or ScalingState(), recheck_after)


def _blocked(inputs: ScalingInputs, floor: int, ceiling: int) -> ScalingDecision | None:
    """A decision that does not depend on the load, because there is no choice or nothing to judge by."""
    if floor == ceiling:
        return _hold(inputs, ScalingReason.WITHIN_OBJECTIVE, f"the limits leave {floor} as the only number")
    if inputs.starting:
        # What is measured now was measured without them.
        text = f"{inputs.starting} of {inputs.current} groups start"
        return _hold(inputs, ScalingReason.GROUPS_STARTING, text)
    if not inputs.serving:
        return _hold(inputs, ScalingReason.NO_GROUP_SERVES, f"none of {inputs.current} groups serves yet")
    if len(inputs.serving) < inputs.current:
        text = f"{len(inputs.serving)} of {inputs.current} groups serve, the others are yet to start"
        return _hold(inputs, ScalingReason.GROUPS_STARTING, text)
    blind = sum(load is None for load in inputs.serving)
    if blind:
        text = f"{blind} of {len(inputs.serving)} groups give no current figures"
        return _hold(inputs, ScalingReason.TELEMETRY_MISSING, text)
    return None


def _grow(
    inputs: ScalingInputs, state: ScalingState, ceiling: int, reason: ScalingReason, text: str
) -> ScalingDecision:
    since = inputs.now if state.short_since is None else min(state.short_since, inputs.now)
    lasted, held = inputs.now - since, ScalingState(short_since=since)
    if lasted < UP_AFTER:
        return _hold(inputs, ScalingReason.OBSERVING, f"{text}, not yet for long", held, UP_AFTER - lasted)
    if inputs.current >= ceiling:
        return _hold(inputs, ScalingReason.AT_MAXIMUM, f"{text}, but maxGroups is {ceiling}", held)
    return ScalingDecision(inputs.current + 1, reason, f"{text} for {lasted:.0f} s", ScalingState())


def _shrink(inputs: ScalingInputs, state: ScalingState, floor: int, text: str) -> ScalingDecision:
    since = inputs.now if state.spare_since is None else min(state.spare_since, inputs.now)
    lasted, held = inputs.now - since, ScalingState(spare_since=since)
    if inputs.draining:
        return _hold(inputs, ScalingReason.GROUPS_DRAINING, f"{inputs.draining} groups drain", held)
    if lasted < DOWN_AFTER:
        return _hold(inputs, ScalingReason.OBSERVING, f"{text}, not yet for long", held, DOWN_AFTER - lasted)
    if inputs.current <= floor:
        return _hold(inputs, ScalingReason.AT_MINIMUM, f"{text}, but the least is {floor}", held)
    text = f"{text} for {lasted:.0f} s"
    return ScalingDecision(inputs.current - 1, ScalingReason.LOAD_FITS_IN_FEWER, text, ScalingState())


# --- Judging the load ----------------------------------------------------------------------------


def _shortage(inputs: ScalingInputs, loads: Sequence[GroupLoad]) -> tuple[ScalingReason, str] | None:
    if all(load.waiting > 0 for load in loads):
        waiting = sum(load.waiting for load in loads)
        return ScalingReason.REQUESTS_WAITING, f"{waiting} requests wait on {len(loads)} groups"
    if not any(load.running or load.waiting for load in loads):
        return None
    for reason, what, objective, mean in _latencies(inputs, loads):
        if mean > objective:
            return reason, f"the mean {what} is {mean * 1e3:.0f} ms, the objective {objective * 1e3:.0f} ms"
    return None


def _surplus(inputs: ScalingInputs, loads: Sequence[GroupLoad]) -> str | None:
    """Words for it where the load would fit in one group fewer than wanted."""
    remaining = inputs.current - 1
    if remaining < 1 or any(load.waiting or not load.slots for load in loads):
        return None
    running = sum(load.running for load in loads)
    rest = sum(sorted(load.slots for load in loads)[:remaining])
    if running > DOWN_FILL * rest:
        return None
    # Latency grows at most in proportion to the load per group: so it must keep to the objective.
    share = len(loads) / remaining
    if any(mean * share > objective for _, _, objective, mean in _latencies(inputs, loads)):
        return None
    slots = (
        f"{remaining} group with {rest} slots" if remaining == 1 else f"{remaining} groups with {rest} slots"
    )
    return f"{running} running requests fit in {slots}"


def _latencies(
    inputs: ScalingInputs, loads: Sequence[GroupLoad]
) -> list[tuple[ScalingReason, str, float, float]]:
    """(reason, words, objective, mean over the groups) where both are known."""
    first = _mean([load.time_to_first_token for load in loads])
    later = _mean([load.time_per_output_token for load in loads])
    missed_first, missed_later = (
        ScalingReason.TIME_TO_FIRST_TOKEN_MISSED,
        ScalingReason.TIME_PER_OUTPUT_TOKEN_MISSED,
    )
    found = (
        (missed_first, "time to first token", inputs.time_to_first_token, first),
        (missed_later, "time per output token", inputs.time_per_output_token, later),
    )
    return [
        (reason, what, objective, mean)
        for reason, what, objective, mean in found
        if objective is not None and mean is not None
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _load_text(loads: Sequence[GroupLoad]) -> str:
    running, waiting = sum(load.running for load in loads), sum(load.waiting for load in loads)
    text = f"{running} requests run and {waiting} wait in {len(loads)} groups"
    if not all(load.slots for load in loads):
        text += "; their request slots are unknown, so none is given up: set engine.args max-num-seqs"
    return text
