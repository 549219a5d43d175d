"""How many groups: one decision at a time, with a typed reason and the numbers behind it.

The rule is a threshold with time: one group more when requests wait on every group, or the objective is missed,
for `UP_AFTER`; one group fewer when the load would have fitted in one fewer for `DOWN_AFTER`. It holds while
groups start or drain (they are the answer to an earlier decision), and without figures it never goes down.
Times are seconds; `now` is an argument.
"""

from dataclasses import dataclass, replace

from moe_operator.api.reasons import ScalingReason
from moe_operator.api.spec import ScalingMode

#: A shortage must last this long: shorter ones are over before a group has loaded its weights.
UP_AFTER = 30.0
#: A surplus must last this long: a group given up too early costs a cold start.
DOWN_AFTER = 300.0
#: Share of the request slots that the remaining groups may fill for a group to go.
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
    """What is remembered between decisions: since when a shortage or a surplus lasts. Losing it delays, no more."""

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


def limits(inputs: ScalingInputs) -> tuple[int, int]:
    """Floor and ceiling. Without `maxGroups` Auto stays at the floor; the other modes are free."""
    free = UNLIMITED if inputs.mode is not ScalingMode.AUTO else inputs.min_groups
    ceiling = inputs.max_groups if inputs.max_groups is not None else free
    return inputs.min_groups, max(inputs.min_groups, ceiling)


def decide(inputs: ScalingInputs, state: ScalingState) -> ScalingDecision:
    """The decision for this moment."""
    if inputs.mode is ScalingMode.AUTO:
        return _auto(inputs, state)
    decision = _replicas(inputs)
    if inputs.mode is ScalingMode.ADVISORY:
        floor, ceiling = limits(inputs)
        advice = _auto(replace(inputs, mode=ScalingMode.AUTO, min_groups=floor, max_groups=ceiling,
                               current=decision.desired), state)  # fmt: skip
        text = f"{decision.message}; Auto would have {advice.desired} ({advice.reason}: {advice.message})"
        return replace(decision, message=text, state=advice.state, recheck_after=advice.recheck_after)
    return decision


def _replicas(inputs: ScalingInputs) -> ScalingDecision:
    floor, ceiling = limits(inputs)
    desired = min(max(inputs.replicas, floor), ceiling)
    if desired == inputs.replicas:
        return ScalingDecision(desired, ScalingReason.REPLICAS, f"spec.replicas is {desired}", ScalingState())
    text = f"spec.replicas is {inputs.replicas}, outside the limits {floor} to {ceiling}"
    return ScalingDecision(desired, ScalingReason.REPLICAS_LIMITED, text, ScalingState())


def _auto(inputs: ScalingInputs, state: ScalingState) -> ScalingDecision:
    floor, ceiling = limits(inputs)
    current = min(max(inputs.current, floor), ceiling)
    if current != inputs.current:
        text = f"{inputs.current} groups are outside the limits {floor} to {ceiling}"
        return ScalingDecision(current, ScalingReason.LIMITS_CHANGED, text, ScalingState())

    def hold(
        reason: ScalingReason, text: str, state: ScalingState, recheck: float | None = None
    ) -> ScalingDecision:
        return ScalingDecision(current, reason, text, state, recheck)

    if floor == ceiling:
        reason = ScalingReason.WITHIN_OBJECTIVE
        return hold(reason, f"minGroups and maxGroups are both {floor}", ScalingState())
    if not inputs.serving:
        return hold(ScalingReason.NO_GROUP_SERVES, "no group serves yet", ScalingState())
    blind = sum(load is None for load in inputs.serving)
    if blind:
        text = f"{blind} of {len(inputs.serving)} groups give no current figures"
        return hold(ScalingReason.TELEMETRY_MISSING, text, ScalingState())
    loads = [load for load in inputs.serving if load is not None]
    shortage = _shortage(inputs, loads)
    if shortage:
        reason, text = shortage
        since = state.short_since if state.short_since is not None else inputs.now
        held = ScalingState(short_since=since)
        if inputs.starting:
            return hold(ScalingReason.GROUPS_STARTING, f"{text}; {inputs.starting} groups start", held)
        lasted = inputs.now - since
        if lasted < UP_AFTER:
            text = f"{text} for {lasted:.0f} s; one group more after {UP_AFTER:.0f} s"
            return hold(ScalingReason.OBSERVING, text, held, UP_AFTER - lasted)
        if current >= ceiling:
            return hold(ScalingReason.AT_MAXIMUM, f"{text}, but maxGroups is {ceiling}", held)
        return ScalingDecision(current + 1, reason, f"{text} for {lasted:.0f} s", ScalingState())
    return _surplus(inputs, state, loads, current, floor)


def _shortage(inputs: ScalingInputs, loads: list[GroupLoad]) -> tuple[ScalingReason, str] | None:
    waiting = sum(load.waiting for load in loads)
    if all(load.waiting > 0 for load in loads):
        return ScalingReason.REQUESTS_WAITING, f"{waiting} requests wait on {len(loads)} groups"
    for reason, objective, what, measured in (
        (ScalingReason.TIME_TO_FIRST_TOKEN_MISSED, inputs.time_to_first_token, "time to first token",
         [load.time_to_first_token for load in loads]),
        (ScalingReason.TIME_PER_OUTPUT_TOKEN_MISSED, inputs.time_per_output_token, "time per output token",
         [load.time_per_output_token for load in loads]),
    ):  # fmt: skip
        known = [value for value in measured if value is not None]
        if objective is None or not known:
            continue
        mean = sum(known) / len(known)
        if mean > objective:
            return reason, f"the mean {what} is {mean * 1e3:.0f} ms, the objective {objective * 1e3:.0f} ms"
    return None


def _surplus(
    inputs: ScalingInputs, state: ScalingState, loads: list[GroupLoad], current: int, floor: int
) -> ScalingDecision:
    running, slots = sum(load.running for load in loads), [load.slots for load in loads]
    rest = sum(slots) - max(slots)
    fits = (
        all(slots)
        and len(loads) > 1
        and not any(load.waiting for load in loads)
        and running <= DOWN_FILL * rest
    )
    idle_to_zero = len(loads) == 1 and floor == 0 and running == 0
    if not (fits or idle_to_zero):
        text = f"{running} requests run in {len(loads)} groups"
        return ScalingDecision(current, ScalingReason.WITHIN_OBJECTIVE, text, ScalingState())
    text = f"{running} requests would fit in {len(loads) - 1} groups with {rest} slots"
    if inputs.starting:
        return ScalingDecision(
            current, ScalingReason.GROUPS_STARTING, f"{inputs.starting} groups start", ScalingState()
        )
    if inputs.draining:
        held = ScalingState(spare_since=state.spare_since)
        return ScalingDecision(
            current, ScalingReason.GROUPS_DRAINING, f"{inputs.draining} groups drain", held
        )
    if current <= floor:
        return ScalingDecision(
            current, ScalingReason.AT_MINIMUM, f"{text}, but minGroups is {floor}", ScalingState()
        )
    since = state.spare_since if state.spare_since is not None else inputs.now
    lasted = inputs.now - since
    held = ScalingState(spare_since=since)
    if lasted < DOWN_AFTER:
        text = f"{text} for {lasted:.0f} s; one group fewer after {DOWN_AFTER:.0f} s"
        return ScalingDecision(current, ScalingReason.OBSERVING, text, held, DOWN_AFTER - lasted)
    return ScalingDecision(
        current - 1, ScalingReason.LOAD_FITS_IN_FEWER, f"{text} for {lasted:.0f} s", ScalingState()
    )
