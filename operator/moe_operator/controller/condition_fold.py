"""What a reconcile learned, as conditions with the numbers behind them. Pure."""

from collections.abc import Sequence

from moe_operator.api import reasons
from moe_operator.api.base import parse_duration
from moe_operator.api.reasons import WaitingReason
from moe_operator.api.scaling import ScalingStatus
from moe_operator.api.times import format_time
from moe_operator.controller.causes import waiting_for
from moe_operator.controller.conditions import Said, was_ready_at
from moe_operator.controller.group_planner import GroupState, GroupView
from moe_operator.controller.learned import Learned
from moe_operator.controller.ledger import create_after
from moe_operator.controller.outlook import described
from moe_operator.controller.planning import Room
from moe_operator.controller.rollout import stands_since
from moe_operator.planner.memory import MIB
from moe_operator.planner.plan import Plan, Sizing
from moe_operator.resources.revision import Revision


def conditions(
    learned: Learned, live: Sequence[GroupView], serving: Sequence[GroupView], updated: Sequence[GroupView]
) -> list[Said]:
    """All that is to be said of the groups that live, of those that serve, and of those of the wanted revision among
    them."""
    trouble = learned.trouble
    if learned.removing:
        return [Said(reasons.READY, False, reasons.DELETING, "removing " + "; ".join(learned.removing))]
    if learned.leaving:
        left = len(learned.groups)
        deadline = learned.deployment.spec.rollout.drain_deadline
        message = (
            f"{left} groups are left; they have rollout.drainDeadline ({deadline}) to finish their requests"
        )
        if learned.hindrance is not None:
            message += f"; {learned.hindrance[1]}"
        return [Said(reasons.READY, False, reasons.DELETING, message)]
    said: list[Said] = []
    if trouble and trouble.spec_at_fault:
        said.append(Said(reasons.PLANNED, False, trouble.reason, trouble.message))
    elif learned.revision:
        plan = learned.revision.plan
        text = f"a group is {described(plan)}"
        if plan.sizing is not None:
            text += f": {_fit(plan.sizing)}"
        said.append(
            Said(reasons.PLANNED, True, reasons.PLANNED_REASON, "; ".join([text, *learned.plan_notes]))
        )
    if learned.weights:
        said.append(learned.weights.said)
    waiting = [waiting_for(g.facts) for g in live if g.state is GroupState.STARTING]
    homeless = [m for r, m in waiting if r == reasons.UNSCHEDULABLE]
    gated = [m for r, m in waiting if r == reasons.SCHEDULING_GATED]
    if homeless and learned.room is not None and learned.room.groups == 0 and learned.revision:
        said.append(
            Said(
                reasons.CAPACITY_AVAILABLE,
                False,
                reasons.CAPACITY_SHORT,
                _capacity_short(learned.revision, learned.room),
            )
        )
    elif homeless:
        words = homeless[0]
        if learned.revision and learned.room is not None and learned.room.offered:
            words = f"{words.rstrip('. ')}; {_claimed(learned.revision.plan)}; {learned.room.offered}"
        said.append(Said(reasons.CAPACITY_AVAILABLE, False, reasons.UNSCHEDULABLE, words))
    elif gated:
        said.append(Said(reasons.CAPACITY_AVAILABLE, False, reasons.SCHEDULING_GATED, gated[0]))
    elif held_back := _held_back(learned):
        said.append(Said(reasons.CAPACITY_AVAILABLE, False, reasons.WAITING_FOR_GPUS, held_back))
    elif claimless := [m for r, m in waiting if r == reasons.CLAIM_PENDING]:
        said.append(Said(reasons.CAPACITY_AVAILABLE, False, reasons.CLAIM_PENDING, claimless[0]))
    elif learned.revision:
        said.append(
            Said(reasons.CAPACITY_AVAILABLE, True, reasons.CAPACITY_SUFFICIENT, "every pod has found a node")
        )
    enough = len(serving) >= learned.desired
    said.append(_groups_ready(learned, live, serving, enough))
    if learned.scaling:
        text = _scaling(learned.scaling)
        said.append(Said(reasons.SCALING_ACTIVE, trouble is None, learned.scaling.reason, text))
    said.append(_ready(learned, serving, updated))
    if trouble and trouble.stalled:
        said.append(Said(reasons.STALLED, True, trouble.reason, trouble.message))
    elif trouble is None and learned.weights is not None and learned.weights.stalled:
        said.append(Said(reasons.STALLED, True, learned.weights.said.reason, learned.weights.said.message))
    elif trouble is None and (movement := _movement(learned, live, updated)):
        said.append(movement)
    return said


def _scaling(scaling: ScalingStatus) -> str:
    """The decision, what keeps groups besides, and what is not followed."""
    floor = scaling.floor.message if scaling.floor and scaling.floor.message not in scaling.message else None
    return "; ".join(part for part in (scaling.message, floor, scaling.ignored) if part)


def _held_back(learned: Learned) -> str | None:
    """What groups wait for that are not made yet, as GPUs are scarce."""
    scaling, room = learned.scaling, learned.room
    if scaling is None or scaling.waiting is None or scaling.granted is None:
        return None
    if not finds_no_room(scaling) or learned.revision is None or room is None or room.groups:
        return scaling.waiting.message
    return f"{scaling.waiting.message} ({_capacity_short(learned.revision, room)})"


def _movement(learned: Learned, live: Sequence[GroupView], updated: Sequence[GroupView]) -> Said | None:
    """Reconciling while groups come up for the first time or move to another revision, Stalled where that stopped."""
    old = [g for g in live if learned.revision and g.facts.revision != learned.revision.name]
    short = len(updated) < learned.minimum
    if not old and not short:
        return None
    count = f"{len(updated)} of {learned.desired if old else learned.minimum} groups serve"
    if old:
        count += f" the wanted revision, {len(old)} are older"
    spec = learned.deployment.spec.rollout
    if old and spec.paused:
        message = f"{count}; rollout.paused is true"
        return Said(reasons.RECONCILING, True, reasons.ROLLOUT_PAUSED, message)
    if learned.ledger.parked_until is not None:
        reason = reasons.ROLLOUT_STOPPED if old else reasons.PARKED
        return Said(reasons.STALLED, True, reason, f"{count}; {_parked(learned)}"[:1024])
    starting = old or not was_ready_at(learned.deployment)
    stood = stands_since(learned.rollout, parse_duration(spec.progress_deadline), learned.now)
    if starting and stood is not None:
        late = next(
            (waiting_for(g.facts)[1] for g in live if g.state is GroupState.STARTING), "no group starts"
        )
        message = (
            f"{count}, and no further one for rollout.progressDeadline ({spec.progress_deadline}): {late}"
        )
        return Said(reasons.STALLED, True, reasons.PROGRESS_DEADLINE, message[:1024])
    if old:
        if learned.hindrance is not None:
            count += f"; {learned.hindrance[1]}"
        return Said(reasons.RECONCILING, True, reasons.ROLLING_OUT, count[:1024])
    return Said(reasons.RECONCILING, True, reasons.STARTING, count) if starting else None


def _parked(learned: Learned) -> str:
    """Why no group is made, and when the next is, for a message."""
    ledger, spec = learned.ledger, learned.deployment.spec.recovery
    cause = ledger.last_cause
    text = (
        f"{ledger.losses_in_window} groups were lost since {ledger.window_start_time}, which is more than"
        f" recovery.restartBudget ({spec.restart_budget}) allows"
        if cause is None or cause.reason != reasons.PROGRESS_DEADLINE
        else "its groups gave their nodes back"
    )
    text += f"; one group is tried at {ledger.parked_until}, or at once when the spec changes"
    return f"{text}; last lost: {ledger.last_group}: {cause.message}" if cause else text


def _fit(sizing: Sizing) -> str:
    """One GPU's memory in a sentence."""
    gib = 1024 * MIB
    return (
        f"of {sizing.capacity_bytes / gib:.0f} GiB per GPU {sizing.weight_bytes / gib:.1f} hold weights"
        f" ({sizing.precision}) and {sizing.kv_cache_bytes / gib:.1f} the KV cache, {sizing.context_length} tokens of"
        f" context, {sizing.kv_cache_tokens} tokens in a group"
    )


def _capacity_short(revision: Revision, room: Room) -> str:
    plan = revision.plan
    if room.shortage is not None:
        return room.shortage
    where = "one node" if plan.pods_per_group == 1 else f"each of {plan.pods_per_group} nodes"
    return (
        f"a group needs {plan.gpus_per_pod} free GPUs on {where}; free are {room.free}, on all"
        f" {plan.accelerator} nodes ({room.nodes}) together: free or add nodes"
    )


def _claimed(plan: Plan) -> str:
    """What the claim of a pod asks for."""
    count = f"{plan.gpus_per_pod} whole GPU" + ("s" if plan.gpus_per_pod > 1 else "")
    seen = f" ({', '.join(plan.device_products)})" if plan.device_products else ""
    return f"its claim asks for {count} of {plan.accelerator}{seen} on one node"


def _groups_ready(
    learned: Learned, live: Sequence[GroupView], serving: Sequence[GroupView], enough: bool
) -> Said:
    count = f"{len(serving)} of {learned.desired} groups serve"
    moving = [g for g in live if g.facts.leaving is not None]
    if enough and moving:
        return Said(
            reasons.GROUPS_READY, True, reasons.LEAVING_NODES, f"{count}; {_leaving(learned, moving, live)}"
        )
    if enough:
        return Said(reasons.GROUPS_READY, True, reasons.ALL_GROUPS_READY, count)
    due = create_after(learned.ledger)
    cause = learned.ledger.last_cause
    failed = learned.ledger.failures > 0 and cause is not None
    parts = [count]
    late = [g for g in live if g.state is not GroupState.SERVING]
    weights = learned.weights
    if learned.hindrance is not None:
        parts.append(learned.hindrance[1])
    if late:
        parts.append(f"{late[0].name}: {waiting_for(late[0].facts)[1]}")
    elif held_back := _held_back(learned):
        parts.append(held_back)
    elif weights is not None and (weights.hold or weights.most_groups is not None):
        parts.append(weights.said.message)
    elif due is not None and due > learned.now:
        parts.append(f"the next group is created at {format_time(due)}")
    if failed and cause is not None:
        parts.append(f"last lost: {learned.ledger.last_group}: {cause.message}")
    if not was_ready_at(learned.deployment):
        reason = reasons.STARTING
    else:
        # What a schedule or a wake-up asks for was never there: nothing is lost.
        standing = learned.minimum if learned.standing is None else min(learned.minimum, learned.standing)
        stands = len(serving) >= standing
        reason = reasons.SCALING if stands and not failed else reasons.GROUPS_UNHEALTHY
    return Said(reasons.GROUPS_READY, False, reason, "; ".join(parts)[:1024])


def _leaving(learned: Learned, moving: Sequence[GroupView], live: Sequence[GroupView]) -> str:
    """Which groups are to go from which nodes, and what they wait for."""
    more = f" and {len(moving) - 1} more" if len(moving) > 1 else ""
    text = f"group {moving[0].name}{more} moves"
    if place := moving[0].facts.leaving:
        text += f", as node {place[0]} {place[1].why}"
    late = [g for g in live if g.state is GroupState.STARTING and g.facts.leaving is None]
    if late:
        text += f", once {late[0].name} serves: {waiting_for(late[0].facts)[1]}"
    if any(waits_for_node(g) for g in late) and not learned.deployment.spec.rollout.max_unavailable:
        text += "; without free nodes, rollout.maxUnavailable: 1 lets it go first"
    return text[:1024]


def _ready(learned: Learned, serving: Sequence[GroupView], updated: Sequence[GroupView]) -> Said:
    trouble = learned.trouble
    if trouble:
        text = trouble.message
        if serving:
            text += f" ({len(serving)} groups of the last good revision serve on)"
        return Said(reasons.READY, False, trouble.reason, text)
    if learned.minimum == 0 and not updated:
        text = "no groups are wanted" if not learned.desired else "no group has to serve yet"
        return Said(reasons.READY, True, reasons.SCALED_TO_ZERO, text)
    if len(updated) >= learned.minimum:
        return Said(
            reasons.READY, True, reasons.SERVING, f"at least {learned.minimum} groups serve {_name(learned)}"
        )
    count = f"{len(updated)} of {learned.minimum} groups serve {_name(learned)}"
    if learned.hindrance is not None:
        return Said(reasons.READY, False, learned.hindrance[0], f"{count}; {learned.hindrance[1]}"[:1024])
    parked = reasons.ROLLOUT_STOPPED if len(serving) > len(updated) else reasons.PARKED
    reason = (
        parked
        if learned.ledger.parked_until is not None
        else reasons.GROUPS_UNHEALTHY
        if learned.ledger.failures and was_ready_at(learned.deployment)
        else reasons.STARTING
    )
    return Said(reasons.READY, False, reason, count)


def _name(learned: Learned) -> str:
    return f"revision {learned.revision.name}" if learned.revision else "the wanted revision"


def finds_no_room(scaling: ScalingStatus | None) -> bool:
    """Whether groups are not made because no nodes have room for a whole one."""
    waiting = scaling.waiting if scaling is not None and scaling.granted is not None else None
    return waiting is not None and waiting.reason == WaitingReason.NO_ROOM


def waits_for_node(group: GroupView) -> bool:
    """Whether a pod of this group finds no node."""
    return group.state is GroupState.STARTING and waiting_for(group.facts)[0] == reasons.UNSCHEDULABLE
