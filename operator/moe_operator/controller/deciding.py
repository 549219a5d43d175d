"""What to do about the groups of one look: brings scale, ledger and rollout before the group planner. Pure but for the
pass, whose ledger, rollout and revision in use it keeps."""

from collections.abc import Sequence

from moe_operator.api import reasons
from moe_operator.api.base import parse_duration
from moe_operator.api.status import RecoveryStatus, RolloutStatus
from moe_operator.api.times import parse_time
from moe_operator.controller import ledger, revisions, rollout
from moe_operator.controller.conditions import was_ready_at
from moe_operator.controller.group_planner import GONE, GroupState, GroupView, Wanted, plan_groups
from moe_operator.controller.mixed_widths import measures
from moe_operator.controller.pass_state import Decision, Look, PassState
from moe_operator.controller.scale import Scale
from moe_operator.resources.revision import Revision


def decide(state: PassState, look: Look, scale: Scale) -> Decision:
    """What the wanted number of groups of the wanted revision asks of those that there are."""
    spec, views = state.deployment.spec.rollout, look.views
    state.made_of = _made_of(state, views)
    made_of = state.made_of.name if state.made_of else None
    state.ledger = _ledger_of(state, made_of, views)
    state.rollout = _progress(state, views, scale)
    granted = scale.desired if scale.granted is None else scale.granted
    measured = measures(scale.units, granted, scale.floor, state.made_of, state.kept, views)
    desired = measured.desired
    if state.made_of is not state.effective or spec.paused:
        # All groups count as wanted, and none goes because others are worth more.
        desired -= measured.surplus(views)
    wanted = Wanted(
        desired=_mountable(state, desired, views),
        revision=made_of,
        # Who waits for GPUs does not take any for a surge: they are for those ahead.
        max_surge=spec.max_surge if scale.surge and granted >= scale.desired else 0,
        max_unavailable=spec.max_unavailable,
        drain_deadline=parse_duration(spec.drain_deadline),
        create_after=ledger.create_after(state.ledger),
        occupied_slots=look.occupied_slots,
        hold=state.held and state.made_of is state.effective,
        frozen=spec.paused,
        probing=state.ledger.parked_until is not None,
        reclaimed=scale.given_up,
        worth=measured.worth,
        size=measured.size,
    )
    return Decision(views, plan_groups(wanted, views, state.now), scale, look.load)


def decide_to_leave(state: PassState, look: Look) -> Decision:
    """How the groups of a deployment that is being deleted go."""
    rollout_spec = state.deployment.spec.rollout
    wanted = Wanted(
        desired=0,
        revision=state.effective.name if state.effective else None,
        max_surge=0,
        max_unavailable=0,
        drain_deadline=parse_duration(rollout_spec.drain_deadline) if state.drains else 0.0,
        create_after=None,
        occupied_slots=frozenset(),
        leave=reasons.DELETING,
    )
    scale = Scale(0, 0, state.deployment.status.scaling, None)
    return Decision(look.views, plan_groups(wanted, look.views, state.now), scale, look.load)


def _made_of(state: PassState, views: Sequence[GroupView]) -> Revision | None:
    if not (state.held or state.deployment.spec.rollout.paused):
        return state.effective
    lost = ledger.lately_lost(state.ledger, state.now)
    return revisions.running((view.facts for view in views), state.kept, lost) or state.effective


def _ledger_of(state: PassState, made_of: str | None, views: Sequence[GroupView]) -> RecoveryStatus:
    """The ledger as it concerns the revision that groups are made of now."""
    of_it = [
        v.facts.created_at for v in views if v.state is GroupState.SERVING and v.facts.revision == made_of
    ]
    return ledger.unparked(ledger.of_revision(state.ledger, made_of), max(of_it, default=None))


def _progress(state: PassState, views: Sequence[GroupView], scale: Scale) -> RolloutStatus | None:
    """How far the move to the wanted revision has come, while it is under way."""
    wanted = state.effective.name if state.effective else None
    live = [v for v in views if v.state not in GONE]
    updated = sum(v.state is GroupState.SERVING and v.facts.revision == wanted for v in live)
    older = any(v.facts.revision != wanted for v in live)
    parked = parse_time(state.ledger.parked_until)
    under_way = (
        state.trouble is None
        and state.made_of is state.effective
        and not state.deployment.spec.rollout.paused
        and not state.held
        and (parked is None or state.now >= parked)
        and (older or (updated < scale.minimum and not was_ready_at(state.deployment)))
    )
    return rollout.progress(state.rollout, wanted, updated, under_way, state.now)


def _mountable(state: PassState, desired: int, views: Sequence[GroupView]) -> int:
    """No more groups than can mount the weights; those that there are stay."""
    most = state.weights.most_groups if state.weights is not None else None
    if most is None:
        return desired
    return min(desired, max(most, sum(view.state not in GONE for view in views)))
