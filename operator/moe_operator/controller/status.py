"""The one fold of everything a reconcile learned into `status`. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moe_operator.api import names, reasons
from moe_operator.api.base import parse_duration
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.status import (
    GroupsStatus,
    MemoryStatus,
    ModelDeploymentStatus,
    PlanStatus,
    ProvenanceStatus,
    RecoveryStatus,
    RolloutStatus,
    ScalingStatus,
    ThroughputStatus,
    UnhealthyGroup,
)
from moe_operator.api.times import format_time
from moe_operator.controller.causes import waiting_for
from moe_operator.controller.cold_start import newest_start
from moe_operator.controller.conditions import Said, merge, was_ready_at
from moe_operator.controller.group_planner import GroupState, GroupView, leader_selector
from moe_operator.controller.ledger import create_after
from moe_operator.controller.outlook import described
from moe_operator.controller.planning import Room
from moe_operator.controller.rollout import stands_since
from moe_operator.controller.weights_state import WeightsView
from moe_operator.planner.governance import Provenance
from moe_operator.planner.memory import MIB
from moe_operator.planner.plan import Plan, Sizing
from moe_operator.resources.revision import Revision
from moe_operator.telemetry.observation import PodObservation

#: A commit, as hubs name it.
_COMMIT = re.compile(r"[0-9a-f]{40}")
#: Figures that change often move in status only when one changed by this share ...
_FIGURE_STEP = 0.01
#: ... and at most this often (s).
FIGURE_INTERVAL = 30.0


@dataclass(frozen=True)
class Trouble:
    """Why the spec cannot be carried out. Stalled when only its owner can help, else the operator keeps trying."""

    reason: str
    message: str
    stalled: bool
    spec_at_fault: bool = True
    """False when the cluster is, so that `Planned` is not blamed."""


@dataclass(frozen=True)
class Learned:
    """What one reconcile found out."""

    deployment: ModelDeployment
    now: float
    trouble: Trouble | None
    revision: Revision | None
    """The revision in effect: the wanted one, or in trouble the last good one."""
    plan_notes: tuple[str, ...]
    groups: Sequence[GroupView]
    desired: int
    minimum: int
    """Groups that must serve for Ready."""
    scaling: ScalingStatus | None
    throughput: ThroughputStatus
    ledger: RecoveryStatus
    figures_written_at: float | None
    room: Room | None = None
    """Free GPUs, looked at while a pod finds no node."""
    observations: Mapping[str, PodObservation] = field(default_factory=dict)
    """What telemetry last saw of each pod, by uid."""
    weights: WeightsView | None = None
    """Where the weights of the revision stand."""
    provenance: Provenance | None = None
    """What the revision runs; None where this spec did not lead to it, as in trouble."""
    rollout: RolloutStatus | None = None
    """How far the move to the revision has come, while it is under way."""
    hindrance: tuple[str, str] | None = None
    """Why a write was refused that will not be refused for ever: a reason and a message."""
    leaving: bool = False
    """The deployment is being deleted."""
    removing: Sequence[str] = ()
    """Weights that are removed, after its groups."""


def fold(learned: Learned) -> ModelDeploymentStatus:
    """The status to write; equal to the present one when nothing a reader cares about has changed."""
    deployment, revision = learned.deployment, learned.revision
    old = deployment.status
    live = [
        g
        for g in learned.groups
        if g.state not in (GroupState.BROKEN, GroupState.DRAINING, GroupState.DELETING)
    ]
    serving = [g for g in live if g.state is GroupState.SERVING]
    wanted_name = revision.name if revision and learned.trouble is None else None
    updated = [g for g in serving if g.facts.revision == wanted_name]
    groups = GroupsStatus(
        desired=learned.desired,
        current=len(live),
        ready=len(serving),
        updated=len(updated),
        draining=sum(g.state is GroupState.DRAINING for g in learned.groups),
        summary=f"{len(serving)}/{learned.desired}",
        unhealthy=_unhealthy(learned.groups),
    )
    return ModelDeploymentStatus(
        observed_generation=deployment.generation,
        conditions=merge(
            old.conditions, _conditions(learned, live, serving, updated), deployment.generation, learned.now
        ),
        plan=plan_status(deployment, revision) if revision else None,
        revision=revision.name if revision else None,
        provenance=_provenance(learned),
        replicas=len(live),
        selector=leader_selector(deployment.name),
        groups=groups,
        throughput=_settled_figures(old.throughput, learned),
        scaling=learned.scaling,
        rollout=learned.rollout,
        recovery=learned.ledger,
        cold_start=newest_start(old.cold_start, learned.groups, learned.observations),
        weights=learned.weights.status if learned.weights else old.weights if learned.leaving else None,
        endpoint=f"http://{deployment.name}.{deployment.namespace}.svc:{names.HTTP_PORT}/v1"
        if revision
        else None,
        engine_arguments=list(revision.engine_arguments) if revision else [],
    )


def _provenance(learned: Learned) -> ProvenanceStatus | None:
    """Of the revision in effect. In trouble it is what was said when the spec that led to the revision was accepted:
    the present spec, or the present policy, says nothing of what runs."""
    revision, runs, old = learned.revision, learned.provenance, learned.deployment.status
    if revision is None:
        return None
    if runs is None:
        return old.provenance if old.revision == revision.name else None
    weights = learned.weights.status if learned.weights else None
    pinned = runs.revision if _COMMIT.fullmatch(runs.revision or "") else None
    return ProvenanceStatus(
        model=runs.model,
        licence=runs.licence,
        publisher=runs.publisher,
        source=runs.source,
        revision=runs.revision,
        commit=(weights.commit if weights else None) or pinned,
        precision=runs.precision,
        adapters=list(runs.adapters),
        nodes={key: list(values) for key, values in sorted(runs.nodes.items())},
        pod_security=runs.pod_security.value,
        policy_rule=runs.rule,
    )


def plan_status(deployment: ModelDeployment, revision: Revision) -> PlanStatus:
    """The layout in effect, for readers."""
    plan = revision.plan
    return PlanStatus(
        accelerator=plan.accelerator,
        width=plan.width,
        pods_per_group=plan.pods_per_group,
        ranks_per_pod=plan.ranks_per_pod,
        tensor=plan.tensor,
        data=plan.data,
        expert_parallel=plan.width if plan.expert_parallel else 1,
        fabric=plan.transport.fabric if plan.transport else None,
        all_to_all=plan.transport.all2all if plan.transport else None,
        image=revision.image,
        **_sizes(deployment, plan.sizing),
    )


def _sizes(deployment: ModelDeployment, sizing: Sizing | None) -> dict[str, Any]:
    model = deployment.spec.model
    if sizing is None:
        return {"precision": model.precision or "auto", "context_length": model.context_length}
    memory = MemoryStatus(
        capacity_mib=sizing.capacity_bytes // MIB,
        weights_mib=sizing.weight_bytes // MIB,
        kv_cache_mib=sizing.kv_cache_bytes // MIB,
        buffers_mib=(sizing.activation_bytes + sizing.buffer_bytes) // MIB,
        headroom_mib=sizing.headroom_bytes // MIB,
    )
    return {
        "precision": sizing.precision,
        "context_length": sizing.context_length,
        "kv_cache_precision": sizing.kv_cache_dtype,
        "max_sequences": sizing.max_sequences,
        "memory": memory,
        "kv_cache_tokens": sizing.kv_cache_tokens,
    }


def _unhealthy(groups: Sequence[GroupView]) -> list[UnhealthyGroup]:
    found = []
    for group in groups:
        if group.state in (GroupState.SERVING, GroupState.DRAINING, GroupState.DELETING):
            continue
        if group.cause is not None:
            reason, message = group.cause.reason, group.cause.message
        elif group.canary and group.canary.failures:
            reason, message = reasons.CANARY_FAILED, group.canary.message
        else:
            reason, message = waiting_for(group.facts)
        since = format_time(group.facts.created_at)
        found.append(UnhealthyGroup(name=group.name, reason=reason, message=message[:1024], since=since))
    return found[:8]


def _settled_figures(old: ThroughputStatus, learned: Learned) -> ThroughputStatus:
    new = learned.throughput
    recent = (
        learned.figures_written_at is not None and learned.now - learned.figures_written_at < FIGURE_INTERVAL
    )
    moved = any(
        abs(a - b) > _FIGURE_STEP * max(abs(a), abs(b))
        for a, b in (
            (old.prompt_tokens_per_second, new.prompt_tokens_per_second),
            (old.output_tokens_per_second, new.output_tokens_per_second),
        )
    )
    return new if moved and not recent else old


def _conditions(
    learned: Learned, live: Sequence[GroupView], serving: Sequence[GroupView], updated: Sequence[GroupView]
) -> list[Said]:
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
    elif claimless := [m for r, m in waiting if r == reasons.CLAIM_PENDING]:
        said.append(Said(reasons.CAPACITY_AVAILABLE, False, reasons.CLAIM_PENDING, claimless[0]))
    elif learned.revision:
        said.append(
            Said(reasons.CAPACITY_AVAILABLE, True, reasons.CAPACITY_SUFFICIENT, "every pod has found a node")
        )
    enough = len(serving) >= learned.desired
    said.append(_groups_ready(learned, live, serving, enough))
    if learned.scaling:
        said.append(
            Said(reasons.SCALING_ACTIVE, trouble is None, learned.scaling.reason, learned.scaling.message)
        )
    said.append(_ready(learned, serving, updated))
    if trouble and trouble.stalled:
        said.append(Said(reasons.STALLED, True, trouble.reason, trouble.message))
    elif trouble is None and learned.weights is not None and learned.weights.stalled:
        said.append(Said(reasons.STALLED, True, learned.weights.said.reason, learned.weights.said.message))
    elif trouble is None and (movement := _movement(learned, live, updated)):
        said.append(movement)
    return said


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
    elif weights is not None and (weights.hold or weights.most_groups is not None):
        parts.append(weights.said.message)
    elif due is not None and due > learned.now:
        parts.append(f"the next group is created at {format_time(due)}")
    if failed and cause is not None:
        parts.append(f"last lost: {learned.ledger.last_group}: {cause.message}")
    if not was_ready_at(learned.deployment):
        reason = reasons.STARTING
    else:
        reason = (
            reasons.SCALING if len(serving) >= learned.minimum and not failed else reasons.GROUPS_UNHEALTHY
        )
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
    if learned.minimum == 0 and learned.desired == 0:
        return Said(reasons.READY, True, reasons.SCALED_TO_ZERO, "no groups are wanted")
    if len(updated) >= learned.minimum:
        return Said(
            reasons.READY, True, reasons.SERVING, f"at least {learned.minimum} groups serve {_name(learned)}"
        )
    count = f"{len(updated)} of {learned.minimum} groups serve {_name(learned)}"
    if learned.hindrance is not None:
        return Said(reasons.READY, False, learned.hindrance[0], f"{count}; {learned.hindrance[1]}"[:1024])
    reason = (
        reasons.PARKED
        if learned.ledger.parked_until is not None
        else reasons.GROUPS_UNHEALTHY
        if learned.ledger.failures and was_ready_at(learned.deployment)
        else reasons.STARTING
    )
    return Said(reasons.READY, False, reason, count)


def _name(learned: Learned) -> str:
    return f"revision {learned.revision.name}" if learned.revision else "the wanted revision"


def waits_for_node(group: GroupView) -> bool:
    """Whether a pod of this group finds no node."""
    return group.state is GroupState.STARTING and waiting_for(group.facts)[0] == reasons.UNSCHEDULABLE
