"""How many groups: one decision at a time, with a typed reason and the numbers behind it. Pure.

What Auto wants is `auto`'s to say; here are the modes, the limits and the words. In mode External `spec.replicas` says
how many groups there are, and Advisory adds what Auto would have.
"""

from dataclasses import dataclass, replace

from moe_operator.api.reasons import ScalingReason
from moe_operator.api.spec import ScalingMode
from moe_operator.autoscaler.auto import Numbers, Want
from moe_operator.autoscaler.capacity import Resource

#: Ceiling in modes External and Advisory where `maxGroups` is not set.
UNLIMITED = 256

_SCARCE = {
    Resource.KV_CACHE: "KV cache",
    Resource.REQUEST_SLOTS: "request slots",
    Resource.STEP_TIME: "time per output token",
}


@dataclass(frozen=True)
class ScalingInputs:
    """What a decision is based on, besides what Auto wants."""

    mode: ScalingMode
    replicas: int
    """`spec.replicas`."""
    min_groups: int
    max_groups: int | None
    current: int
    """The last decision; at first the floor."""
    serving: int
    starting: int = 0
    width: int | None = None
    """GPUs of a group, where that is not as planned: `max_groups` is not what the spec says then."""


@dataclass(frozen=True)
class ScalingDecision:
    """The number of groups wanted, and why."""

    desired: int
    reason: ScalingReason
    message: str
    advised: int | None = None
    """Mode Advisory: what Auto would have."""
    numbers: Numbers | None = None
    """What Auto saw, where it measured anything."""


def limits(inputs: ScalingInputs) -> tuple[int, int]:
    """Floor and ceiling.

    Auto keeps at least one group, unless `maxGroups` is 0: with none there is nothing to measure, and nothing
    would ever bring one back. Without `maxGroups` Auto stays at the floor; the other modes are free.
    """
    auto = inputs.mode is ScalingMode.AUTO
    floor = max(inputs.min_groups, 1) if auto and inputs.max_groups != 0 else inputs.min_groups
    ceiling = inputs.max_groups if inputs.max_groups is not None else floor if auto else UNLIMITED
    return floor, max(floor, ceiling)


def base(inputs: ScalingInputs) -> int:
    """The number that Auto goes on from: the last one, or in the other modes `spec.replicas`, within the limits."""
    floor, ceiling = limits(inputs)
    number = inputs.current if inputs.mode is ScalingMode.AUTO else inputs.replicas
    return min(max(number, floor), ceiling)


def decide(inputs: ScalingInputs, want: Want) -> ScalingDecision:
    """The decision for this moment; `want` goes on from `base`."""
    if inputs.mode is ScalingMode.AUTO:
        return _auto(inputs, want)
    decision = _replicas(inputs)
    if inputs.mode is ScalingMode.EXTERNAL:
        return decision
    auto = _auto(replace(inputs, current=decision.desired), want)
    return replace(
        decision,
        message=f"{decision.message}; Auto would have {auto.desired} ({auto.reason}: {auto.message})",
        advised=auto.desired,
        numbers=auto.numbers,
    )


def _replicas(inputs: ScalingInputs) -> ScalingDecision:
    desired = base(inputs)
    if desired == inputs.replicas:
        return ScalingDecision(desired, ScalingReason.REPLICAS, f"spec.replicas is {desired}")
    floor, ceiling = limits(inputs)
    text = f"spec.replicas is {inputs.replicas}, outside the limits {floor} to {ceiling}"
    return ScalingDecision(desired, ScalingReason.REPLICAS_LIMITED, text)


def _auto(inputs: ScalingInputs, want: Want) -> ScalingDecision:
    floor, ceiling = limits(inputs)
    current = min(max(inputs.current, floor), ceiling)
    numbers = want.numbers

    def hold(reason: ScalingReason, text: str) -> ScalingDecision:
        return ScalingDecision(current, reason, text, numbers=numbers)

    if current != inputs.current:
        text = f"{inputs.current} groups are outside the limits {floor} to {ceiling}"
        return hold(ScalingReason.LIMITS_CHANGED, text)
    if floor == ceiling:
        return hold(ScalingReason.WITHIN_OBJECTIVE, f"the limits leave {floor} as the only number")
    if numbers is None:
        return hold(*_unmeasured(inputs, want))
    if want.groups > current:
        reason = ScalingReason.REQUESTS_WAITING if numbers.saturated else ScalingReason.DEMAND_GROWS
        text = _more(want.groups, numbers)
        if current == ceiling:
            bound = f"maxGroups is {ceiling}"
            if inputs.width is not None:
                bound = f"maxGroups leaves {ceiling} of {inputs.width} GPUs"
            return hold(ScalingReason.AT_MAXIMUM, f"{text}, but {bound}")
        return ScalingDecision(min(want.groups, ceiling), reason, text, numbers=numbers)
    if want.groups < current:
        desired = max(want.groups, floor)
        return ScalingDecision(
            desired, ScalingReason.LOAD_FITS_IN_FEWER, _fewer(desired, numbers), numbers=numbers
        )
    if want.blind:
        text = f"{want.blind} of {inputs.serving} groups give no current figures: none goes meanwhile"
        return hold(ScalingReason.TELEMETRY_MISSING, text)
    if want.held_until is not None:
        text = f"{_load(numbers)}; {numbers.down.groups} would do, not yet for long"
        return hold(ScalingReason.OBSERVING, text)
    return hold(ScalingReason.WITHIN_OBJECTIVE, _load(numbers))


def _unmeasured(inputs: ScalingInputs, want: Want) -> tuple[ScalingReason, str]:
    if want.blind:
        text = f"{want.blind} of {inputs.serving} groups give no current figures"
        return ScalingReason.TELEMETRY_MISSING, text
    if not inputs.serving:
        return ScalingReason.NO_GROUP_SERVES, f"none of {inputs.current} groups serves yet"
    return (
        ScalingReason.OBSERVING,
        f"{inputs.serving} of {inputs.current} groups serve, no figures of them yet",
    )


# --- Words ---------------------------------------------------------------------------------------


def _more(groups: int, numbers: Numbers) -> str:
    text = (
        f"{_load(numbers)}; in {numbers.lead:.0f} s, when another group would serve, {_groups(numbers.forecast)} "
        f"and more may be asked for: {_late(numbers.late_as_is)} late as it is, "
        f"{_late(numbers.up.late)} with {groups}"
    )
    if numbers.waiting:
        text += f"; {numbers.waiting:.0f} requests wait"
    return text


def _fewer(groups: int, numbers: Numbers) -> str:
    return (
        f"{_load(numbers)}; with {groups} {_late(numbers.down.late)} would be late at the most that is "
        f"expected within {numbers.lead:.0f} s"
    )


def _load(numbers: Numbers) -> str:
    text = f"the load is that of {_groups(numbers.level)}"
    if numbers.resource is not None and numbers.level > 0:
        text += f", by {_SCARCE[numbers.resource]}"
    return text


def _groups(number: float) -> str:
    return f"{number:.1f} full groups"


def _late(share: float) -> str:
    return f"{share * 100:.1f} % of requests"
