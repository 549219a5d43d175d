"""The one fold of everything a reconcile learned into `status`. Pure."""

import re
from collections.abc import Sequence
from typing import Any

from moe_operator.api import names, reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.status import (
    GroupsStatus,
    MemoryStatus,
    ModelDeploymentStatus,
    PlanStatus,
    ProvenanceStatus,
    UnhealthyGroup,
)
from moe_operator.api.times import format_time
from moe_operator.controller.causes import waiting_for
from moe_operator.controller.cold_start import newest_start
from moe_operator.controller.condition_fold import conditions
from moe_operator.controller.conditions import merge
from moe_operator.controller.group_planner import GONE, GroupState, GroupView, leader_selector
from moe_operator.controller.learned import Learned
from moe_operator.controller.status_figures import settled
from moe_operator.planner.memory import MIB
from moe_operator.planner.plan import Sizing
from moe_operator.resources.revision import Revision

#: A commit, as hubs name it.
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fold(learned: Learned) -> ModelDeploymentStatus:
    """The status to write; equal to the present one when nothing a reader cares about has changed."""
    deployment, revision = learned.deployment, learned.revision
    old = deployment.status
    figures, new = settled(learned)
    live = [g for g in learned.groups if g.state not in GONE]
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
    status = ModelDeploymentStatus(
        observed_generation=deployment.generation,
        conditions=merge(
            old.conditions, conditions(learned, live, serving, updated), deployment.generation, learned.now
        ),
        plan=plan_status(deployment, revision) if revision else None,
        revision=revision.name if revision else None,
        provenance=_provenance(learned),
        replicas=len(live),
        selector=leader_selector(deployment.name),
        groups=groups,
        throughput=figures.throughput,
        latency=figures.latency,
        hbm=figures.hbm,
        scaling=figures.scaling,
        rollout=learned.rollout,
        recovery=learned.ledger,
        cold_start=newest_start(old.cold_start, learned.groups, learned.observations),
        weights=learned.weights.status if learned.weights else old.weights if learned.leaving else None,
        endpoint=f"http://{deployment.name}.{deployment.namespace}.svc:{names.HTTP_PORT}/v1"
        if revision
        else None,
        cost=old.cost,
        engine_arguments=list(revision.engine_arguments) if revision else [],
    )
    cost = learned.cost
    if cost is not None and (cost.urgent or new or status != old):
        return status.model_copy(update={"cost": cost.make()})
    return status


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
