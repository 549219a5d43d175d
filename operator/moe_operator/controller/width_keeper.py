"""Watches whether another width would do better, says so in the status, and has groups move to it where it may.

What was asked is remembered with what else was learned of groups of this width (`scaling`); what was recommended or
chosen is in the status, and stays until something else was found out. Only quiet times count: in a rollout, with lost
groups, for want of GPUs or of telemetry nothing is learned and nothing changes.

A choice and the number of groups of the new width are one write. From then on the wanted revision is that of the spec
with the chosen width, so that groups move by the rollout's way and within its bounds, and a successor of the operator
goes on with it.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from moe_operator.api import reasons
from moe_operator.api.scaling import ChosenWidthStatus, ScalingStatus
from moe_operator.api.spec import ModelDeploymentSpec, ScalingMode, WidthPolicy
from moe_operator.api.times import format_time, parse_time
from moe_operator.autoscaler.reading import Reading
from moe_operator.autoscaler.width import BETWEEN, Grounds, Limits, Option, WidthAdvisor, needed
from moe_operator.autoscaler.width_units import WidthUnits, chosen_width
from moe_operator.controller.group_planner import GroupState, GroupView
from moe_operator.controller.kube import KubeError
from moe_operator.controller.load import Load
from moe_operator.controller.pass_state import Look, PassState
from moe_operator.controller.planning import Planning
from moe_operator.controller.scale import Scale
from moe_operator.controller.scaling_status import converted
from moe_operator.controller.store import Key
from moe_operator.planner.group_capacity import RequestMix
from moe_operator.planner.wants import WantsError, wants_of
from moe_operator.planner.widths import Width, width_is_given
from moe_operator.resources.revision import Revision

#: Seconds for which a width is not chosen again after its groups did not come to serve.
_SHUNNED = 24 * 3600.0
#: Seconds until the next pass after a choice, which takes it up.
_AT_ONCE = 0.05


@dataclass
class _Kept:
    """What is remembered of one deployment."""

    advisor: WidthAdvisor
    readings: dict[str, Reading] = field(default_factory=dict)
    """The newest of each group."""


class WidthKeeper:
    """Every deployment's advisor."""

    def __init__(self, planning: Planning) -> None:
        self._planning = planning
        self._kept: dict[Key, _Kept] = {}

    def forget(self, key: Key) -> None:
        """The deployment is gone, or is told nothing."""
        self._kept.pop(key, None)

    async def look(self, state: PassState, seen: Look, scale: Scale) -> Scale:
        """The decision with what is said of the width."""
        status, spec = scale.status, state.deployment.spec
        if status is None or state.trouble is not None:
            return scale
        chosen = chosen_width(spec, status)
        revision = state.effective
        if chosen is not None and revision is not None and revision.plan.width != chosen.gpus:
            return self._dropped(state, scale, status, chosen, revision)
        if chosen is not None and self._fails(state, seen.views, chosen):
            return self._given_up(state, scale, status, chosen)
        limits = _limits(state, chosen)
        if revision is None or limits is None:
            self.forget(state.deployment.key)
            scale.grounds.pause()
            return replace(scale, status=_said(status, None, None, state.now, chosen))
        kept = self._of(state, revision, status, chosen, scale.grounds)
        advisor, grounds = kept.advisor, scale.grounds
        _count(kept, seen.load)
        if not _quiet(state, seen):
            grounds.pause()
        elif scale.numbers is None or any(group.reading is None for group in seen.load.serving.values()):
            grounds.history.pause()  # not seen for now, as by a successor at first
        else:
            grounds.history.observed(seen.load.clock, scale.numbers.forecast * scale.numbers.room)
            choice = None
            if advisor.due(state.now):
                # What can wait for the API server must not keep a group from being replaced.
                with suppress(KubeError):
                    await self._consider(state, revision, kept, limits, chosen)
                    choice = await self._choice(state, revision, kept, limits, status, chosen)
            if choice is not None:
                self.forget(state.deployment.key)
                return replace(scale, status=choice, recheck_after=_AT_ONCE)
        advice = advisor.advice
        message = advice.words() if advice and advice.option.gpus == advisor.advised else status.width_message
        return replace(scale, status=_said(status, advisor.advised, message, state.now, chosen))

    # --- what is recommended ----------------------------------------------------------------------

    def _of(
        self,
        state: PassState,
        revision: Revision,
        status: ScalingStatus,
        chosen: ChosenWidthStatus | None,
        grounds: Grounds,
    ) -> _Kept:
        key, width = state.deployment.key, revision.plan.width
        kept = self._kept.get(key)
        if kept is None or kept.advisor.width != width:
            times = [status.width_change_time, chosen.since if chosen else None]
            since = [at for at in map(parse_time, times) if at is not None]
            # What was recommended in place of another width is not in place of this one.
            advised = status.recommended_width if kept is None and status.recommended_width != width else None
            kept = _Kept(WidthAdvisor(width, advised, max(since, default=-math.inf)))
            self._kept[key] = kept
        kept.advisor.grounds = grounds
        return kept

    async def _consider(
        self,
        state: PassState,
        revision: Revision,
        kept: _Kept,
        limits: Limits,
        chosen: ChosenWidthStatus | None,
    ) -> None:
        options = await self._options(state, revision, kept.advisor.grounds.meter.mix)
        shunned = _shunned(chosen, state.now)
        present = next((one for one in options if one.gpus == revision.plan.width), None)
        if present is not None:
            others = [
                one
                for one in options
                if one is not present
                and one.gpus != shunned
                and _holds_schedules(state.deployment.spec, limits, one.gpus)
            ]
            kept.advisor.consider(state.now, present, others, limits)

    async def _options(self, state: PassState, revision: Revision, mix: RequestMix | None) -> list[Option]:
        """All widths that there are, the present one among them; those that cannot meet an objective that the present
        one meets are left out."""
        found = await self._planning.widths(state.deployment, revision)
        try:
            wants = wants_of(state.deployment.spec)
        except WantsError:
            return []
        mix = mix or RequestMix(wants.input_tokens, wants.output_tokens)
        capacities = {one.gpus: one.capacity(mix, wants.time_per_output_token) for one in found}
        here = capacities.get(revision.plan.width)
        if here is None or here.requests_per_second <= 0:
            return []
        return [
            Option(
                one.gpus,
                capacities[one.gpus].requests_per_second / here.requests_per_second,
                capacities[one.gpus].bound,
                one.kv_tokens,
            )
            for one in found
            if one.gpus == revision.plan.width or capacities[one.gpus].meets or not here.meets
        ]

    # --- what is chosen ---------------------------------------------------------------------------

    async def _choice(
        self,
        state: PassState,
        revision: Revision,
        kept: _Kept,
        limits: Limits,
        status: ScalingStatus,
        chosen: ChosenWidthStatus | None,
    ) -> ScalingStatus | None:
        """The status of a move to the recommended width, where that may be carried out now."""
        spec, advice = state.deployment.spec, kept.advisor.advice
        may = spec.scaling.width is WidthPolicy.AUTO and spec.scaling.mode is ScalingMode.AUTO
        if (
            not may
            or advice is None
            or kept.advisor.advised != advice.option.gpus
            or _open(spec.hardware.accelerators)
        ):
            return None
        since = parse_time(chosen.since) if chosen else None
        recent = kept.advisor.grounds.history.recent
        allowed = limits.range(advice.option.gpus)
        if (
            allowed is None
            or not _holds_schedules(spec, limits, advice.option.gpus)
            or (since is not None and state.now - since < BETWEEN)
        ):
            return None
        found = await self._planning.widths(state.deployment, revision, room=True)
        if not _has_room(found, advice.option.gpus):
            return None
        percent = max(1, round(100 * advice.option.worth))
        units = WidthUnits(advice.option.gpus, revision.plan.width, percent)
        number = units.from_groups_of(revision.plan.width, status.desired)
        if recent is not None:
            # Of the present groups some may be there for the floor only, or go soon.
            number = min(number, needed(recent, advice.option))
        least = max(allowed[0], status.floor.groups if status.floor is not None else 0)
        number = min(max(number, least), allowed[1])
        text = f"groups of {units.gpus} GPUs in place of {units.before}"
        moved = converted(status, number, reasons.WIDTH_CHOSEN, text, state.now)
        return moved.model_copy(
            update={
                "granted": None,
                "recommended_width": None,
                "width_message": advice.words(),
                "width_change_time": format_time(state.now),
                "chosen_width": ChosenWidthStatus(
                    gpus=units.gpus,
                    planned=chosen.planned if chosen else revision.plan.width,
                    before=units.before,
                    percent=percent,
                    groups=number,
                    groups_before=status.desired,
                    since=format_time(state.now),
                    given_up=chosen.given_up if chosen else None,
                    given_up_time=chosen.given_up_time if chosen else None,
                ),
            }
        )

    def _fails(self, state: PassState, views: Sequence[GroupView], chosen: ChosenWidthStatus) -> bool:
        """Whether no group of the chosen width came to serve, and no further one is tried for now."""
        if chosen.gpus == chosen.before or state.ledger.parked_until is None or state.effective is None:
            return False
        if state.ledger.revision != state.effective.name:
            return False
        serving = [view.facts.revision for view in views if view.state is GroupState.SERVING]
        widths = {state.kept[name].plan.width for name in serving if name in state.kept}
        return chosen.before in widths and chosen.gpus not in widths

    def _given_up(
        self, state: PassState, scale: Scale, status: ScalingStatus, chosen: ChosenWidthStatus
    ) -> Scale:
        """Back to the width before."""
        self.forget(state.deployment.key)
        units = WidthUnits.of(chosen)
        assert units is not None
        number = math.ceil(units.stand_for(units.before, status.desired))
        text = f"groups of {units.gpus} GPUs did not come to serve, those of {units.before} stay"
        moved = converted(status, number, reasons.WIDTH_GIVEN_UP, text, state.now)
        back = moved.model_copy(
            update={
                "width_message": None,
                "chosen_width": ChosenWidthStatus(
                    gpus=units.before,
                    planned=chosen.planned,
                    before=units.gpus,
                    percent=max(1, round(10000 / units.percent)),
                    groups=number,
                    groups_before=status.desired,
                    since=format_time(state.now),
                    given_up=units.gpus,
                    given_up_time=format_time(state.now),
                ),
            }
        )
        return replace(scale, status=back, recheck_after=_AT_ONCE)

    def _dropped(
        self,
        state: PassState,
        scale: Scale,
        status: ScalingStatus,
        chosen: ChosenWidthStatus,
        revision: Revision,
    ) -> Scale:
        """The spec has changed so that there is no plan of the chosen width: the plan's own, from now on."""
        self.forget(state.deployment.key)
        units = WidthUnits.of(chosen)
        assert units is not None
        number = units.in_groups_of(revision.plan.width, status.desired)
        text = f"groups of {revision.plan.width} GPUs, as there is no plan of {units.gpus} any more"
        moved = converted(status, number, status.reason, text, state.now)
        gone = {"chosen_width": None, "width_message": None, "recommended_width": None}
        return replace(scale, status=moved.model_copy(update=gone), recheck_after=_AT_ONCE)


# --- Values --------------------------------------------------------------------------------------


def _open(accelerators: list[str] | None) -> bool:
    """Whether a new plan may be for other GPUs than those that run: what a group takes of them is not compared."""
    return accelerators is not None and len(accelerators) > 1


def _has_room(found: Sequence[Width], gpus: int) -> bool:
    return any(one.gpus == gpus and (one.room or 0) > 0 for one in found)


def _shunned(chosen: ChosenWidthStatus | None, now: float) -> int | None:
    since = parse_time(chosen.given_up_time) if chosen is not None else None
    return chosen.given_up if chosen is not None and since is not None and now - since < _SHUNNED else None


def _limits(state: PassState, chosen: ChosenWidthStatus | None) -> Limits | None:
    """None where nothing is to be said of the width: it is given, or the number of groups is not by demand."""
    spec, revision = state.deployment.spec, state.effective
    scaling = spec.scaling
    if revision is None or revision.plan.sizing is None or width_is_given(spec):
        return None
    if scaling.width is WidthPolicy.FIXED or scaling.mode is ScalingMode.EXTERNAL:
        return None
    if scaling.max_groups is None or scaling.max_groups <= max(1, scaling.min_groups):
        return None
    planned = chosen.planned if chosen is not None else revision.plan.width
    return Limits(scaling.min_groups, scaling.max_groups * planned)


def _holds_schedules(spec: ModelDeploymentSpec, limits: Limits, gpus: int) -> bool:
    """Whether the limits leave as many groups of a width as schedules ask for: they count groups of any."""
    asked = max((one.min_groups for one in spec.scaling.schedules), default=0)
    return limits.gpus // gpus >= min(asked, spec.scaling.max_groups or 0)


def _quiet(state: PassState, seen: Look) -> bool:
    """Whether what is asked now says something of other times."""
    old, revision = state.deployment.status.scaling, state.effective
    scarce = old is not None and (old.granted is not None or old.waiting is not None)
    as_wanted = revision is not None and all(
        view.facts.revision == revision.name and view.facts.leaving is None for view in seen.views
    )
    well = not any(view.state in (GroupState.BROKEN, GroupState.SUSPECT) for view in seen.views)
    return (
        not scarce
        and as_wanted
        and well
        and state.ledger.parked_until is None
        and state.rollout is None
        and not (state.held or state.deployment.spec.rollout.paused)
    )


def _count(kept: _Kept, load: Load) -> None:
    """Requests that ended since the last look, by the counters of groups that went on."""
    finished = prompt = cached = output = 0.0
    for name, group in load.serving.items():
        reading, before = group.reading, kept.readings.get(name)
        if reading is None or not reading.usable():
            continue
        kept.readings[name] = reading
        if before is not None and reading.at > before.at and reading.follows(before):
            finished += reading.finished - before.finished
            prompt += reading.prompt_tokens - before.prompt_tokens
            cached += reading.cached_tokens - before.cached_tokens
            output += reading.output_tokens - before.output_tokens
    kept.readings = {name: one for name, one in kept.readings.items() if name in load.serving}
    if finished > 0 or prompt > 0:
        kept.advisor.grounds.meter.observed(load.clock, finished, prompt, cached, output)


def _said(
    status: ScalingStatus,
    recommended: int | None,
    message: str | None,
    now: float,
    chosen: ChosenWidthStatus | None,
) -> ScalingStatus:
    """The status with what is recommended; the numbers are those of when that changed. Of a width that was chosen those
    stay for which it was."""
    changed = recommended != status.recommended_width
    if not changed:
        message = status.width_message
    elif recommended is None:
        message = None
    return status.model_copy(
        update={
            "recommended_width": recommended,
            "width_message": message,
            "width_change_time": format_time(now) if changed else status.width_change_time,
            "chosen_width": chosen,
        }
    )
