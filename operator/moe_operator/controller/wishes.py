"""What a deployment wants of scarce GPUs: what one look at it says, to be kept until the next."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.scaling import ScalingStatus
from moe_operator.api.times import parse_time
from moe_operator.autoscaler.claims import LIVE, Phase
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller.group_planner import GroupState, GroupView
from moe_operator.controller.mixed_widths import measures
from moe_operator.controller.pass_state import PassState
from moe_operator.controller.scale import Scale
from moe_operator.planner.placement import Need
from moe_operator.resources.place import devices_of, pod_spec, queued
from moe_operator.resources.revision import Revision

#: More groups than any deployment has.
_ANY = 1 << 30

_PHASES = {
    GroupState.SERVING: Phase.SERVING,
    GroupState.BROKEN: Phase.ENDING,
    GroupState.DELETING: Phase.ENDING,
    GroupState.DRAINING: Phase.DRAINING,
}


@dataclass(frozen=True)
class Wish:
    """What a deployment said when it was looked at last."""

    need: Need
    nodes: str
    """Which nodes its groups may run on: alike for those that ask alike."""
    priority: int
    floor: int
    wanted: int
    phases: Mapping[str, Phase]
    """Of its groups, by name."""
    moving: bool
    granted: int
    surplus: int
    """Groups that are wanted besides, and are there in wider ones."""
    revision: Revision = field(compare=False)
    work: Mapping[str, int] = field(compare=False)
    """Requests in its groups, by name."""
    losses: Callable[[], tuple[float, ...]] | None = field(default=None, compare=False)
    since: float = field(default=0.0, compare=False)

    @property
    def live(self) -> int:
        """Groups that it has and keeps."""
        return _live(self.phases)


def wish_of(
    state: PassState,
    views: Sequence[GroupView],
    scale: Scale,
    config: OperatorConfig,
    granted: int | None,
    since: float | None,
) -> Wish | None:
    """None for a deployment that is not in the queue. `granted` groups of the last pass, and `since` when it waits
    (s): None where only the status says it."""
    deployment, revision = state.deployment, state.effective
    need = devices_of(revision, config.catalog) if revision is not None else None
    if revision is None or need is None or queued(revision):
        return None
    phases = phases_of(views)
    old = deployment.status.scaling
    waits = old.waiting if old is not None else None
    # Groups of another width that count for several are several that need not be there.
    surplus = measures(scale.units, scale.desired, scale.floor, revision, state.kept, views).surplus(views)
    return Wish(
        revision=revision,
        need=need,
        nodes=_asked(revision, need),
        priority=_priority(deployment, config),
        floor=min(scale.floor, scale.desired),
        wanted=min(max(0, scale.desired - max(0, surplus)), _most(state, _live(phases))),
        surplus=max(0, surplus),
        phases=phases,
        moving=any(view.facts.revision != revision.name or view.facts.leaving for view in views),
        granted=_granted(old) if granted is None else granted,
        work={view.name: view.requests or 0 for view in views},
        losses=scale.losses,
        since=since or parse_time(waits.since if waits else None) or state.now,
    )


def _live(phases: Mapping[str, Phase]) -> int:
    return sum(phase in LIVE for phase in phases.values())


def _priority(deployment: ModelDeployment, config: OperatorConfig) -> int:
    """What the site allows of it, also while the spec is refused for more."""
    rule = config.policy.rule_for(deployment.namespace)
    asked = deployment.spec.scaling.priority
    return asked if rule is None else rule.bounded(asked)


def domain_label(revision: Revision, need: Need) -> str | None:
    """Label of which all nodes of a group must have one value; None: wherever they are."""
    transport = revision.plan.transport
    bound = transport is not None and transport.domain_required and need.pods > 1
    return need.domain if bound else None


def _asked(revision: Revision, need: Need) -> str:
    """All that says which nodes take the groups."""
    pod = pod_spec(revision)
    required = (pod.get("affinity") or {}).get("nodeAffinity")
    within = domain_label(revision, need)
    asked = [need.resource, within, pod.get("nodeSelector"), required, pod.get("tolerations")]
    return json.dumps(asked, sort_keys=True)


def _most(state: PassState, live: int) -> int:
    """Groups that can be made at all: room for others is not asked for."""
    if stopped(state):
        return live
    most = state.weights.most_groups if state.weights is not None else None
    return max(most, live) if most is not None else _ANY


def stopped(state: PassState) -> bool:
    """Whether no group is made for now."""
    parked = parse_time(state.ledger.parked_until)
    return state.held or (parked is not None and state.now < parked)


def phases_of(views: Sequence[GroupView]) -> dict[str, Phase]:
    return {view.name: _PHASES.get(view.state, Phase.STARTING) for view in views}


def _granted(old: ScalingStatus | None) -> int:
    """What the status says that a deployment may have."""
    if old is None:
        return 0
    return old.desired if old.granted is None else old.granted
