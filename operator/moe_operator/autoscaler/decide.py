"""How many groups: one decision at a time, with a typed reason and the numbers behind it. Pure.

What Auto wants is `auto`'s to say; here are the modes, the limits and the words. In the other modes `spec.replicas`
says how many groups there are, and what Auto would have is recommended: in a metric, and by Advisory in the status.
Limits hold in every mode; what schedules and the annotation that wakes ask for is part of the lower one.
"""

import re
from dataclasses import dataclass, replace

from moe_operator.api.reasons import ScalingReason
from moe_operator.api.spec import ScalingMode
from moe_operator.autoscaler.auto import Numbers, Want
from moe_operator.autoscaler.floor import Floor
from moe_operator.catalog.saturation import Resource

#: Ceiling in modes External and Advisory where `maxGroups` is not set.
UNLIMITED = 256

#: What a group runs out of, for people.
SCARCE = {
    Resource.KV_CACHE: "KV cache",
    Resource.REQUEST_SLOTS: "request slots",
    Resource.STEP_TIME: "time per output token",
}


@dataclass(frozen=True)
class Idle:
    """What `scaling.scaleToZeroAfter` asks, and what is known of it."""

    after: float
    """Seconds without a request after which no group is kept."""
    written: str
    """The same, as it was written."""
    quiet: float | None = None
    """Seconds for which no request came; None: not known."""
    recent: bool = False
    """Whether a group is there that was seen to have a request within `after`."""

    @property
    def over(self) -> bool:
        return self.quiet is not None and self.quiet >= self.after


_NO_FLOOR = Floor()


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
    floor: Floor = _NO_FLOOR
    """What keeps more than `min_groups` for now."""
    idle: Idle | None = None
    """None: never to zero by itself."""
    held: str | None = None
    """Why there are to be no more groups than now, beyond the floor: the budget is spent. None: nothing holds them."""
    width: int | None = None
    """GPUs of a group, where that is not as planned: `max_groups` is not what the spec says then."""


@dataclass(frozen=True)
class Told:
    """What a message of modes External and Advisory says for long."""

    stands: str
    """Of `spec.replicas`, the limits, and how many groups Auto would have: without parentheses."""
    advice: str | None = None
    """Auto's reason, in mode Advisory."""

    def text(self, why: str) -> str:
        """The message. `why`: Auto's, which changes with every look."""
        return self.stands if self.advice is None else f"{self.stands} ({self.advice}: {why})"

    @staticmethod
    def read(message: str) -> "Told":
        """Of a message that `text` made: the status keeps nothing else of it."""
        found = _TOLD.match(message)
        return Told(message) if found is None else Told(found[1], found[2])


_TOLD = re.compile(r"([^(]*) \((\w+): ")


@dataclass(frozen=True)
class ScalingDecision:
    """The number of groups wanted, and why."""

    desired: int
    reason: ScalingReason
    message: str
    recommended: int
    """What Auto has, or would have."""
    advised: int | None = None
    """The same where the status is to say it: in mode Advisory."""
    told: Told | None = None
    """What of the message is news when it is another; None: nothing is."""
    numbers: Numbers | None = None
    """What Auto saw, where it measured anything."""


def limits(inputs: ScalingInputs) -> tuple[int, int]:
    """Floor and ceiling; of the two the ceiling wins.

    Auto keeps at least one group while it does not rest: with none there is nothing to measure. Without `maxGroups` it
    stays at the floor; the other modes are free.
    """
    auto = inputs.mode is ScalingMode.AUTO
    floor = max(inputs.min_groups, inputs.floor.groups)
    if auto and not rests(inputs):
        floor = max(floor, 1)
    if inputs.max_groups is not None:
        return min(floor, inputs.max_groups), inputs.max_groups
    return floor, floor if auto else max(floor, UNLIMITED)


def rests(inputs: ScalingInputs) -> bool:
    """Whether Auto has no group, as no request came for long: until something asks for one.

    At zero nothing is measured. A request that was seen since, in the last group while it drains, has it back.
    """
    idle = inputs.idle
    if idle is None or inputs.max_groups == 0 or max(inputs.min_groups, inputs.floor.groups) > 0:
        return False
    return idle.over or (inputs.current == 0 and not idle.recent)


def base(inputs: ScalingInputs) -> int:
    """The number that Auto goes on from: the last one, or in the other modes `spec.replicas`, within the limits."""
    floor, ceiling = limits(inputs)
    number = inputs.current if inputs.mode is ScalingMode.AUTO else inputs.replicas
    if inputs.held is not None:
        number = min(number, inputs.current)
    return min(max(number, floor), ceiling)


def decide(inputs: ScalingInputs, want: Want) -> ScalingDecision:
    """The decision for this moment; `want` goes on from `base`."""
    if inputs.mode is ScalingMode.AUTO:
        return _auto(inputs, want)
    desired = base(inputs)
    auto = _auto(replace(inputs, current=desired), want)
    reason, message = _replicas(inputs, desired)
    decision = ScalingDecision(desired, reason, message, auto.recommended, numbers=auto.numbers)
    told = Told(message)
    if inputs.mode is ScalingMode.ADVISORY:
        told = Told(f"{message}; Auto would have {_advised(inputs, auto.desired)}", auto.reason.value)
        decision = replace(decision, message=told.text(auto.message), advised=auto.recommended)
    # What is spent grows while groups run.
    return decision if reason is ScalingReason.BUDGET_HOLDS else replace(decision, told=told)


def _replicas(inputs: ScalingInputs, desired: int) -> tuple[ScalingReason, str]:
    if desired == inputs.replicas:
        return ScalingReason.REPLICAS, f"spec.replicas is {desired}"
    floor, ceiling = limits(inputs)
    if inputs.held is not None and desired < min(inputs.replicas, ceiling):
        return ScalingReason.BUDGET_HOLDS, f"spec.replicas is {inputs.replicas}, but {inputs.held}"
    text = f"spec.replicas is {inputs.replicas}, outside the limits {floor} to {ceiling}"
    return ScalingReason.REPLICAS_LIMITED, text


def _auto(inputs: ScalingInputs, want: Want) -> ScalingDecision:
    idle = inputs.idle
    if idle is not None and rests(inputs):
        return ScalingDecision(0, ScalingReason.IDLE, _idle(idle), 0)
    floor, ceiling = limits(inputs)
    floor = min(max(floor, 1), ceiling)
    current = min(max(inputs.current, floor), ceiling)
    numbers = want.numbers

    def hold(reason: ScalingReason, text: str) -> ScalingDecision:
        return ScalingDecision(current, reason, text, current, numbers=numbers)

    if inputs.current < current <= inputs.floor.groups:
        return hold(inputs.floor.reason, _held(inputs))
    if idle is not None and idle.recent and inputs.current == 0:
        return hold(ScalingReason.WOKEN, "a request came as the last group left the traffic")
    if current != inputs.current:
        text = f"{inputs.current} groups are outside the limits {floor} to {ceiling}"
        return hold(ScalingReason.LIMITS_CHANGED, text)
    if floor == ceiling:
        return hold(ScalingReason.LIMITS_LEAVE_ONE, f"the limits leave {floor} as the only number")
    if numbers is None:
        return hold(*_unmeasured(inputs, want))
    if want.groups > current:
        reason = ScalingReason.REQUESTS_WAITING if numbers.saturated else ScalingReason.DEMAND_GROWS
        text = _more(want.groups, numbers)
        if want.groups > ceiling:
            text += f", but {ceiling_text(inputs, ceiling)}"
        if current == ceiling:
            return hold(ScalingReason.AT_MAXIMUM, text)
        if inputs.held is not None:
            return hold(ScalingReason.BUDGET_HOLDS, f"{text}, but {inputs.held}")
        desired = min(want.groups, ceiling)
        return ScalingDecision(desired, reason, text, desired, numbers=numbers)
    if want.groups < current:
        desired = max(want.groups, floor)
        text = _fewer(desired, numbers)
        return ScalingDecision(desired, ScalingReason.LOAD_FITS_IN_FEWER, text, desired, numbers=numbers)
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


def floor_text(inputs: ScalingInputs) -> str | None:
    """What keeps more than `minGroups` for now; None: nothing does."""
    return _held(inputs) if inputs.floor.groups > inputs.min_groups else None


def _held(inputs: ScalingInputs) -> str:
    most = inputs.max_groups
    if most is None or inputs.floor.groups <= most:
        return inputs.floor.text
    return f"{inputs.floor.text}, but {ceiling_text(inputs, most)}"


def ceiling_text(inputs: ScalingInputs, most: int) -> str:
    """What `maxGroups` comes to, where it is set."""
    if inputs.width is None:
        return f"maxGroups is {most}"
    return f"maxGroups leaves {most} of {inputs.width} GPUs"


def _advised(inputs: ScalingInputs, groups: int) -> str:
    """Auto goes no higher than its floor without `maxGroups`; Advisory says what it would do with one."""
    _, most = limits(replace(inputs, mode=ScalingMode.AUTO))
    if inputs.max_groups is not None or groups <= most:
        return str(groups)
    return f"{groups} with a maxGroups that allows it, and stays at {most} without one"


def _idle(idle: Idle) -> str:
    why = (
        f"no request came for {idle.written} (scaling.scaleToZeroAfter)"
        if idle.over
        else "there is none that a request could come to"
    )
    return f"{why}: the next group is made when a schedule or kubectl moe wake asks for one"


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
        text += f", by {SCARCE[numbers.resource]}"
    return text


def _groups(number: float) -> str:
    return f"{number:.1f} full groups"


def _late(share: float) -> str:
    return f"{share * 100:.1f} % of requests"
