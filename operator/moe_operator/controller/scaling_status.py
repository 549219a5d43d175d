"""A scaling decision as the status has it. Pure."""

from moe_operator.api.reasons import ScalingReason
from moe_operator.api.scaling import CHANGES_KEPT, ScalingChange, ScalingFigures, ScalingStatus
from moe_operator.api.times import format_time
from moe_operator.autoscaler.auto import Numbers, Want
from moe_operator.autoscaler.decide import ScalingDecision, Told

#: What a look finds that fewer would do, not yet for long, is no news after: under load that comes and goes with every
#: look, and what led to the present number is told meanwhile.
_PASSING = frozenset(
    (
        ScalingReason.WITHIN_OBJECTIVE,
        ScalingReason.OBSERVING,
        ScalingReason.DEMAND_GROWS,
        ScalingReason.REQUESTS_WAITING,
        ScalingReason.LOAD_FITS_IN_FEWER,
        ScalingReason.LIMITS_CHANGED,
        ScalingReason.SCHEDULED,
        ScalingReason.WOKEN,
    )
)
#: Under load one comes and goes with every look beside the other, where neither is followed.
_MORE = frozenset((ScalingReason.DEMAND_GROWS, ScalingReason.REQUESTS_WAITING))
#: What holds until figures tell otherwise: over a restart of the operator, and no longer. Alerts and people act on it.
_HOLDING = frozenset((ScalingReason.AT_MAXIMUM, ScalingReason.TELEMETRY_MISSING, ScalingReason.BUDGET_HOLDS))
#: Figures are others than before when the load moved by this share, and by so many groups.
_STEP, _LEAST_STEP = 0.01, 0.02


def scaling_status(
    old: ScalingStatus | None, decision: ScalingDecision, want: Want, clock: float, now: float
) -> ScalingStatus:
    """The decision, what led to it, and the changes before it. `clock`: telemetry's, to which `want` belongs; `now`:
    seconds since the epoch.

    A decision with the same outcome for the same reason is no news, nor is one that is still being made. Their figures
    are as fresh as others of the status.
    """
    figures = None if decision.numbers is None else figures_of(decision.numbers, want, clock, now)
    same = old is not None and old.desired == decision.desired
    if old and same and old.advised == decision.advised and _no_news(old, decision):
        # After a start nothing is measured for a while: what was is still the best that is known.
        return old if figures is None else old.model_copy(update={"figures": figures})
    return ScalingStatus(
        desired=decision.desired,
        advised=decision.advised,
        reason=decision.reason.value,
        message=decision.message,
        last_change_time=old.last_change_time if old and same else format_time(now),
        figures=figures,
        history=_history(old, decision, figures, now),
        learned=old.learned if old else None,
        # Of the width something is said elsewhere.
        recommended_width=old.recommended_width if old else None,
        width_message=old.width_message if old else None,
        width_change_time=old.width_change_time if old else None,
        chosen_width=old.chosen_width if old else None,
    )


def _no_news(old: ScalingStatus, decision: ScalingDecision) -> bool:
    reason, told = decision.reason.value, decision.told
    if told is None:
        return _goes_on(old, old.reason, reason, decision)
    before = Told.read(old.message)
    if (old.reason, before.stands) != (reason, told.stands):
        return False
    if told.advice is None or before.advice is None:
        return told.advice is before.advice
    return _goes_on(old, before.advice, told.advice, decision)


def _goes_on(old: ScalingStatus, before: str, now: str, decision: ScalingDecision) -> bool:
    """Whether one of Auto's reasons is no news after another, where the number is the same."""
    if now != ScalingReason.OBSERVING:
        return before == now or {before, now} <= _MORE
    if decision.numbers is None:
        return before in _PASSING or before in _HOLDING
    # That there were no figures yet is over.
    return before in _PASSING and (before != now or old.figures is not None)


def _history(
    old: ScalingStatus | None, decision: ScalingDecision, figures: ScalingFigures | None, now: float
) -> list[ScalingChange]:
    if old is None or old.desired == decision.desired:
        return old.history if old else []
    message = decision.message if figures is None else None
    return _with_change(old, decision.desired, decision.reason.value, message, figures, now)


def converted(old: ScalingStatus, desired: int, reason: str, message: str, now: float) -> ScalingStatus:
    """The same with a number that is another as groups are of another width; `now`: seconds since the epoch."""
    if desired == old.desired:
        return old
    return old.model_copy(
        update={
            "desired": desired,
            "last_change_time": format_time(now),
            "history": _with_change(old, desired, reason, message, None, now),
        }
    )


def _with_change(
    old: ScalingStatus,
    desired: int,
    reason: str,
    message: str | None,
    figures: ScalingFigures | None,
    now: float,
) -> list[ScalingChange]:
    change = ScalingChange(
        time=format_time(now),
        before=old.desired,
        after=desired,
        reason=reason,
        message=None if message is None else message[:256],
        figures=figures,
    )
    return [*old.history, change][-CHANGES_KEPT:]


def figures_of(numbers: Numbers, want: Want, clock: float, now: float) -> ScalingFigures:
    """Numbers as the status writes them."""
    held = None if want.held_until is None else now + want.held_until - clock
    return ScalingFigures(
        load=f"{numbers.level:.2f}",
        resource=numbers.resource.value if numbers.resource is not None and numbers.level > 0 else None,
        arrivals=f"{numbers.arrivals:.4g}",
        waiting=round(numbers.waiting),
        forecast=f"{numbers.forecast:.2f}",
        forecaster=numbers.forecaster.value,
        lead_seconds=round(numbers.lead),
        worth_having=numbers.up.groups,
        late_percent=_percent(numbers.late_as_is),
        late_percent_then=_percent(numbers.up.late),
        enough=numbers.down.groups,
        worth=f"{numbers.worth:.1f}",
        held_until=None if held is None else format_time(held),
        silent=want.blind,
    )


def _percent(share: float) -> str:
    return f"{share * 100:.2f}"


def figures_moved(old: ScalingStatus | None, new: ScalingStatus | None) -> bool:
    """Whether what is looked at is worth telling anew."""
    before = old.figures if old else None
    after = new.figures if new else None
    if before is None or after is None:
        return before is not after
    try:
        loads = float(before.load), float(after.load)
    except ValueError:
        return True  # nobody's figure
    step = max(_LEAST_STEP, _STEP * max(loads))
    waits = abs(before.waiting - after.waiting)
    return not abs(loads[0] - loads[1]) <= step or waits > _STEP * max(before.waiting, after.waiting)
