"""Keeps an autoscaler for every deployment: brings what was measured before it, and its decision into the status."""

import logging
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from moe_operator.api import names, reasons
from moe_operator.api.base import parse_duration
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.scaling import FloorStatus, LearnedStatus
from moe_operator.api.spec import ScalingMode
from moe_operator.api.times import format_time, read_rfc3339
from moe_operator.autoscaler.asked_floor import floor_of
from moe_operator.autoscaler.auto import AT_ONCE, TICK, Autoscaler, Numbers, Profile, Want
from moe_operator.autoscaler.cold_start import ColdStart
from moe_operator.autoscaler.decide import (
    Idle,
    ScalingDecision,
    ScalingInputs,
    base,
    decide,
    floor_text,
    limits,
    rests,
)
from moe_operator.autoscaler.deployment_inputs import inputs_of
from moe_operator.autoscaler.idleness import Idleness
from moe_operator.autoscaler.memory import UnusableError
from moe_operator.autoscaler.width import Grounds
from moe_operator.autoscaler.width_units import WidthUnits, chosen_width
from moe_operator.controller.load import Load
from moe_operator.controller.remembering import HAND_OVER, INTERVAL, news, recalled, recalled_starts
from moe_operator.controller.scale import Scale
from moe_operator.controller.scaling_status import scaling_status
from moe_operator.controller.store import Key
from moe_operator.planner.wants import TIME_PER_OUTPUT_TOKEN, TIME_TO_FIRST_TOKEN

log = logging.getLogger(__name__)

#: Seconds after which a look that was due is overdue: what the last one found is not told any longer.
_OVERDUE = 60.0


@dataclass(frozen=True)
class Advice:
    """What Auto has, or would have in the other modes, and of what that was made."""

    key: Key
    groups: int
    """Within the limits, of the width that was chosen: as `status.scaling.desired`, and as `spec.replicas` is taken.
    While a group gives no current figures, or groups move to another width, never fewer than there are."""
    silent: int
    """Groups that serve and give no current figures."""
    numbers: Numbers | None
    """None where nothing was measured, or there is nothing to decide."""
    until: float | None
    """When it is to be renewed, by telemetry's clock; None: when something changes."""


@dataclass
class _Deployment:
    """What is kept of one."""

    autoscaler: Autoscaler
    checked: float
    """When it was looked at last whether what it learned has moved, by telemetry's clock."""
    starts: ColdStart = field(default_factory=ColdStart)
    grounds: Grounds = field(default_factory=Grounds)
    """What a width of groups like these is decided on (`width_keeper`); kept here as it is remembered with the rest."""
    started: str | None = None
    """The group whose start was taken up last, and when it was created."""
    seen: dict[str, float] = field(default_factory=dict)
    """When groups were first seen to serve, by telemetry's clock."""
    found: frozenset[str] | None = None
    """Groups that served at the first look: nobody knows since when."""
    looked: float | None = None
    want: tuple[tuple[int, int, WidthUnits | None], Want] | None = None
    """The number that it goes on from, the floor and what both are counted in; and what is wanted."""
    idleness: Idleness = field(default_factory=Idleness)
    held: bool = False
    """Whether something but requests kept a group at the last look."""

    @property
    def width(self) -> int:
        """GPUs of the groups that the autoscaler counts in; 0: unknown."""
        return self.autoscaler.profile.gpus

    def counts_in_others(self, units: WidthUnits | None) -> bool:
        """Whether these are not the groups that decisions are about."""
        return units is not None and self.width not in (0, units.gpus)

    def born(self, group: str) -> float | None:
        """When it began to serve, where that was seen."""
        return None if self.found is None or group in self.found else self.seen.get(group)


@dataclass
class Scaler:
    """Keeps an autoscaler for every deployment. The last decision, and what was learned, are in the status too: they
    survive the operator."""

    learning_anew: Callable[[str], None] = lambda reason: None
    """Told when what the status remembers is not used: why (`memory.Unusable`)."""
    _kept: dict[Key, _Deployment] = field(default_factory=dict)
    _advice: dict[Key, Advice] = field(default_factory=dict)

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._kept.pop(key, None)
        self._advice.pop(key, None)

    def scale(self, deployment: ModelDeployment, load: Load, now: float, held_by: str | None = None) -> Scale:
        """Decide. `now`: seconds since the epoch; `held_by`: why there are to be no more groups than now."""
        kept, old = self._of(deployment, load, now), deployment.status.scaling
        units = WidthUnits.of(chosen_width(deployment.spec, old))
        moving = units is not None and any(group.width != units.gpus for group in load.serving.values())
        inputs, ignored = _inputs(deployment, load, kept, now, moving=moving)
        inputs = replace(inputs, held=held_by)
        floor, ceiling = limits(inputs)
        number, auto = base(inputs), inputs.mode is ScalingMode.AUTO
        decides = floor < ceiling and not rests(inputs)
        # Whoever else decides has its own pace.
        at_once = AT_ONCE if auto else number
        want = self._want(kept, load, number, floor, at_once, units) if decides else Want(number, None)
        if moving and want.groups < number:
            want = replace(want, groups=number)  # none goes while others are made in their place
        decision = decide(inputs, want)
        numbers = decision.numbers
        minimum, standing = _to_serve(inputs, decision, was_at_zero(deployment))
        # While nothing is asked of the fewest groups, telemetry's news bring the next look.
        asked = numbers.level > 0 if numbers is not None else bool(load.serving)
        busy = asked or want.blind or decision.recommended > max(floor, 1)
        again = TICK if decides and busy else None
        until = None if again is None else load.clock + again
        self._advice[deployment.key] = Advice(
            deployment.key, decision.recommended, want.blind, numbers, until
        )
        status = scaling_status(old, decision, want, load.clock, now).model_copy(
            update={"floor": _floor_status(inputs), "ignored": ignored}
        )
        if learned := self._learned(deployment, load.clock, now):
            status = status.model_copy(update={"learned": learned})
        return Scale(
            decision.desired,
            minimum,
            status,
            _again(inputs, decision, again, now),
            floor=min(floor, decision.desired),
            standing=standing,
            numbers=numbers,
            units=units,
            grounds=kept.grounds,
            losses=None if moving or kept.counts_in_others(units) else _losses(decision, floor),
        )

    def advice(self, clock: float) -> Iterator[Advice]:
        """Of all deployments, but where a look is overdue. `clock`: telemetry's."""
        for one in self._advice.values():
            if one.until is None or clock < one.until + _OVERDUE:
                yield one

    def hand_over(self, deployment: ModelDeployment, clock: float, now: float) -> LearnedStatus | None:
        """What the next leader is to know besides what the status says; None where that is little. `clock`:
        telemetry's."""
        kept = self._kept.get(deployment.key)
        if kept is None:
            return None
        # Where groups are about to go, the window for that is worth it.
        goes = kept.want is not None and kept.want[1].held_until is not None
        return _news(deployment, kept, clock, now, 0.0 if goes else HAND_OVER)

    @property
    def keys(self) -> Sequence[Key]:
        """Deployments of which something is kept."""
        return tuple(self._kept)

    def _learned(self, deployment: ModelDeployment, clock: float, now: float) -> LearnedStatus | None:
        """What is worth writing by now."""
        kept = self._kept.get(deployment.key)
        if kept is None or 0 <= clock - kept.checked < INTERVAL:
            return None
        kept.checked = clock
        return _news(deployment, kept, clock, now)

    def _want(
        self,
        kept: _Deployment,
        load: Load,
        number: int,
        floor: int,
        at_once: int,
        units: WidthUnits | None,
    ) -> Want:
        """Numbers and the answer are in groups of the wanted width; the autoscaler counts in those that it has learned
        of, until the last of them has gone."""
        autoscaler = kept.autoscaler
        everyone = {**load.serving, **load.draining}
        for name, group in everyone.items():
            if group.reading is not None:
                autoscaler.read(name, group.reading, born=kept.born(name), slots=group.slots)
        if kept.looked is None or load.clock - kept.looked >= TICK or load.clock < kept.looked:
            kept.looked, kept.want = load.clock, None
            worth: dict[Hashable, float] = {}
            if units is not None:
                whole = units.worth(kept.width)
                worth = {
                    name: float(units.worth(group.width) / whole)
                    for name, group in everyone.items()
                    if group.width != kept.width
                }
            serving: dict[Hashable, float | None] = {name: kept.seen.get(name) for name in load.serving}
            autoscaler.look(load.clock, serving, load.draining, worth)
        of = number, floor, units
        if kept.want is None or kept.want[0] != of:
            if units is None or not kept.counts_in_others(units):
                want = autoscaler.want(load.clock, number, floor, UNBOUNDED, at_once)
            else:
                there, least, paces = (units.in_groups_of(kept.width, n) for n in (number, floor, at_once))
                want = autoscaler.want(load.clock, there, least, UNBOUNDED, paces)
                asked = number if want.groups == there else units.from_groups_of(kept.width, want.groups)
                want = replace(want, groups=asked)
            kept.want = (of, want)
        return kept.want[1]

    def _of(self, deployment: ModelDeployment, load: Load, now: float) -> _Deployment:
        kept = self._kept.get(deployment.key)
        profile = _profile(deployment, load, kept.autoscaler.profile if kept else None)
        if kept is None or (profile is not None and not kept.autoscaler.profile.like(profile)):
            # Another layout or objective: what was learned is of another group.
            before = kept
            starts, newest_start = (before.starts, before.started) if before else _recalled_starts(deployment)
            kept = self._recalled(deployment, profile, load.clock, now) or _Deployment(
                Autoscaler(profile or Profile(ranks=1, slots=0), starts.expected),
                load.clock,
                starts,
                started=newest_start,
            )
            if before is not None:
                kept.idleness, kept.held = before.idleness, before.held
            self._kept[deployment.key] = kept
        newest = deployment.status.cold_start
        if newest is not None and (start := f"{newest.group} {newest.created_time}") != kept.started:
            kept.started, kept.starts = start, kept.starts.observed(newest.total)
            kept.autoscaler.cold_start = kept.starts.expected
        window = deployment.spec.scaling.scale_down.window
        kept.autoscaler.window = None if window is None else parse_duration(window)
        if kept.found is None:
            kept.found = frozenset((*load.serving, *load.draining))
        kept.found &= {*load.serving, *load.draining}
        kept.seen = {name: kept.seen.get(name, load.clock) for name in (*load.serving, *load.draining)}
        return kept

    def _recalled(
        self, deployment: ModelDeployment, profile: Profile | None, clock: float, now: float
    ) -> _Deployment | None:
        """What the status remembers of groups like these."""
        learned = deployment.status.scaling.learned if deployment.status.scaling else None
        if profile is None or learned is None:
            return None
        try:
            autoscaler, starts, grounds = recalled(learned, profile, clock, now)
        except UnusableError as error:
            log.warning(
                "%s/%s: what its autoscaler had learned is not used, it learns anew: %s",
                *deployment.key,
                error,
            )
            self.learning_anew(error.reason.value)
            return None
        return _Deployment(autoscaler, clock, starts, grounds, learned.last_start)


def _recalled_starts(deployment: ModelDeployment) -> tuple[ColdStart, str | None]:
    """The starts that the status remembers, and the newest of them: how early schedules serve hangs on them, also
    where no group serves that would say whether the rest of it is of groups like these."""
    learned = deployment.status.scaling.learned if deployment.status.scaling else None
    if learned is None:
        return ColdStart(), None
    try:
        return recalled_starts(learned), learned.last_start
    except UnusableError:
        return ColdStart(), None  # why is told once there are groups that it could be of


def _news(
    deployment: ModelDeployment, kept: _Deployment, clock: float, now: float, least: float = 1.0
) -> LearnedStatus | None:
    old = deployment.status.scaling.learned if deployment.status.scaling else None
    return news(old, kept.autoscaler, kept.starts, kept.grounds, kept.started, clock, now, least)


def _inputs(
    deployment: ModelDeployment, load: Load, kept: _Deployment, now: float, *, moving: bool
) -> tuple[ScalingInputs, str | None]:
    """What the decision is based on, and what of it cannot be followed. `moving`: groups of another width serve."""
    spec = deployment.spec.scaling
    wake_until, ignored = _wake_until(deployment.wake_until)
    floor = floor_of(spec.schedules, wake_until, now, kept.autoscaler.lead)
    kept.idleness.look(load.clock, load.activity)
    if floor.groups or kept.held:
        kept.idleness.begin(load.clock)  # who asked for it gets all of the time to use it
    kept.held = floor.groups > 0
    idle = None
    if spec.scale_to_zero_after is not None:
        after, seen = parse_duration(spec.scale_to_zero_after), kept.idleness.requested_at
        idle = Idle(
            after,
            spec.scale_to_zero_after,
            kept.idleness.quiet(load.clock),
            recent=bool(load.activity) and seen is not None and load.clock - seen < after,
        )
    return inputs_of(deployment, floor, idle, serving=len(load.serving), moving=moving), ignored


def was_at_zero(deployment: ModelDeployment) -> bool:
    """Whether the status says that no group was to serve."""
    return any(
        c.type == reasons.READY and c.reason == reasons.SCALED_TO_ZERO for c in deployment.status.conditions
    )


def _to_serve(inputs: ScalingInputs, decision: ScalingDecision, at_zero: bool) -> tuple[int, int]:
    """Groups that must serve for the deployment to be Ready, and those of them that nobody asks for but the spec.

    What a schedule has made ahead need not serve yet: else a deployment would be unready each morning.
    """
    floor, desired = inputs.floor, decision.desired
    if inputs.mode is not ScalingMode.AUTO:
        due, alone = (base(replace(inputs, floor=replace(floor, groups=asked))) for asked in (floor.due, 0))
        return min(due, desired), min(alone, desired)
    ahead = at_zero and floor.groups > floor.due
    least = max(inputs.min_groups, floor.due, 0 if ahead else 1)
    return min(least, desired), min(inputs.min_groups if floor.groups else least, desired)


def _again(inputs: ScalingInputs, decision: ScalingDecision, tick: float | None, now: float) -> float | None:
    """Seconds until the next look, though nothing may tell of a reason."""
    due = [tick] if tick is not None else []
    if inputs.floor.next_change < math.inf:
        due.append(inputs.floor.next_change - now)
    idle = inputs.idle
    if idle is not None and decision.desired and not max(inputs.min_groups, inputs.floor.groups):
        if idle.quiet is None:
            due += [TICK] if inputs.serving else []
        else:
            due += [idle.after - idle.quiet] if not idle.over else []
    return min(due, default=None)


def _wake_until(written: str | None) -> tuple[float | None, str | None]:
    """Until when the annotation asks for a group; and why it cannot be followed."""
    if written is None:
        return None, None
    try:
        return read_rfc3339(written), None
    except ValueError as error:
        return None, f"annotation {names.ANNOTATION_WAKE_UNTIL}: {error}"


def _floor_status(inputs: ScalingInputs) -> FloorStatus | None:
    text, floor = floor_text(inputs), inputs.floor
    if text is None:
        return None
    until = format_time(floor.until) if floor.until < math.inf else None
    return FloorStatus(groups=floor.groups, message=text, until=until)


def _losses(decision: ScalingDecision, floor: int) -> Callable[[], tuple[float, ...]] | None:
    """With `floor` to `desired` groups."""
    numbers, desired = decision.numbers, decision.desired
    if numbers is None or numbers.up.groups < floor or desired < floor:
        return None
    losses = numbers.losses
    return cache(lambda: losses.up_to(desired))


#: `maxGroups` is for the decision to keep to: what would be wanted without is told.
UNBOUNDED = 1 << 20


def _profile(deployment: ModelDeployment, load: Load, before: Profile | None) -> Profile | None:
    """Of the groups that serve, as before while one of them is like that; None while none has been read: how many
    requests it works on at once is in the same page."""
    objective = deployment.spec.objective
    first, later = objective.time_to_first_token, objective.time_per_output_token
    known = [
        Profile(
            ranks=group.ranks,
            slots=group.slots,
            ttft=parse_duration(first) if first else TIME_TO_FIRST_TOKEN,
            tpot=parse_duration(later) if later else TIME_PER_OUTPUT_TOKEN,
            idle_step_time=group.idle_step_time,
            gpus=group.width,
        )
        for group in load.serving.values()
        if group.reading is not None
    ]
    like = (one for one in known if before is not None and one.like(before))
    return next(like, known[0] if known else None)
