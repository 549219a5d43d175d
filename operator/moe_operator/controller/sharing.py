"""Shares scarce GPUs out between all deployments: brings what each has and wants before the allocation pass.

A deployment is reconciled by itself, so what all the others want is what each of them said when it was looked at last;
what they hold is in the cache. A pass is made only while somebody wants more than it has. Nothing is taken from
anybody, and nobody grows, before every deployment that was decided over before has spoken: after a restart that takes
until each has been looked at once. Whose share changes in a pass of another is looked at next.

Not in the queue, and so never granted less than they want: deployments without GPUs, those whose groups a queue admits
(Kueue: it shares out itself), and all of them where nodes or pods may not be read.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.reasons import WaitingReason
from moe_operator.api.status import ScalingStatus, WaitingStatus
from moe_operator.api.times import format_time, parse_time
from moe_operator.autoscaler.allocation import RECLAIM_AFTER, allocate
from moe_operator.autoscaler.claims import LIVE, Allocation, Claim, Held, Phase, Pool, Shape, Share, Waiting
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller.census import Census, Present
from moe_operator.controller.group_planner import GroupState, GroupView
from moe_operator.controller.kube import LEADER_WORKER_SET, MODEL_DEPLOYMENT, NODE, POD, Obj
from moe_operator.controller.mixed_widths import measures
from moe_operator.controller.pass_state import PassState
from moe_operator.controller.placing import Placing
from moe_operator.controller.scaling import Scale
from moe_operator.controller.store import Key, Store
from moe_operator.planner.facts import NodeFacts
from moe_operator.planner.node_selection import admits, selects
from moe_operator.planner.placement import Need
from moe_operator.planner.pod_requests import extended_requests
from moe_operator.resources.place import devices_of, pod_spec, queued
from moe_operator.resources.revision import Revision

#: Seconds for which deployments that do not speak keep all others from growing, after a restart. Then they keep what
#: they hold, and the others go on.
_SILENCE = 60.0
#: Seconds between two looks meanwhile.
_AGAIN = 1.0
#: Seconds until the next look at what a deployment waits for: GPUs that others hold or offer are not watched.
_LOOK = 30.0
#: Seconds for which a pass holds while nobody says anything new.
_HOLDS = 5.0
#: More groups than any deployment has.
_ANY = 1 << 30
#: Labels of nodes that come from a pool of a cloud's or of a node autoscaler's, which may add some: of Karpenter, EKS,
#: GKE and AKS.
_ADDED = (
    "karpenter.sh/nodepool",
    "eks.amazonaws.com/nodegroup",
    "cloud.google.com/gke-nodepool",
    "kubernetes.azure.com/agentpool",
)

_PHASES = {
    GroupState.SERVING: Phase.SERVING,
    GroupState.BROKEN: Phase.ENDING,
    GroupState.DELETING: Phase.ENDING,
    GroupState.DRAINING: Phase.DRAINING,
}


@dataclass(frozen=True)
class _Wish:
    """What a deployment said when it was looked at last."""

    need: Need
    nodes: str
    """Which nodes its groups may run on: alike for those that ask alike."""
    priority: int
    floor: int
    wanted: int
    phases: Mapping[str, Phase]
    """Of its groups, by name, but for those that start."""
    moving: bool
    granted: int
    surplus: int
    """Groups that are wanted besides, and are there in wider ones."""
    revision: Revision = field(compare=False)
    work: Mapping[str, int] = field(compare=False)
    """Requests in its groups, by name."""
    losses: tuple[float, ...] | None = field(default=None, compare=False)
    since: float = field(default=0.0, compare=False)


class Sharing:
    """The last word of all deployments, and what each got of the last pass."""

    def __init__(
        self,
        store: Store,
        census: Census,
        placing: Placing,
        config: OperatorConfig,
        enqueue: Callable[[Key], None],
    ) -> None:
        self._store = store
        self._census = census
        self._placing = placing
        self._catalog = config.catalog
        self._policy = config.policy
        self._enqueue = enqueue
        self._wishes: dict[Key, _Wish] = {}
        self._outside: set[Key] = set()
        """Deployments that are not in the queue."""
        self._shares: dict[Key, Share] = {}
        self._since: dict[Key, float] = {}
        """Since when deployments wait."""
        self._began: float | None = None
        self._version = 0
        self._made: tuple[int, float] | None = None
        """Version of the last pass, and until when it holds."""
        self._pools: dict[str, Pool] = {}
        self._pools_of: object = None
        self._gpus: dict[tuple[Key, str], int] = {}
        """Of each pod, by deployment and revision."""

    def forget(self, key: Key) -> None:
        """The deployment is gone, or holds nothing back any more."""
        self._outside.discard(key)
        if self._wishes.pop(key, None) is None:
            return
        self._shares.pop(key, None)
        self._since.pop(key, None)
        self._placing.kept.pop(key, None)
        self._gpus = {at: count for at, count in self._gpus.items() if at[0] != key}
        self._version += 1
        self._wake(set(self._waiting()))

    async def share(self, state: PassState, views: Sequence[GroupView], scale: Scale) -> Scale:
        """The decision, with the groups that the deployment may have of it."""
        key, now = state.deployment.key, state.now
        self._began = now if self._began is None else self._began
        wish = self._wish(state, views, scale)
        if wish is None:
            self._leave(key)
            return _with(scale, None, state, None)
        self._say(key, wish)
        if not self._complete(key, now):
            return self._as_before(state, wish, scale)
        if self._nothing_to_share(key, wish):
            self._shares[key] = Share(wish.wanted)
            self._placing.kept.pop(key, None)
            self._placing.moving_in.pop(key, None)
            return _with(scale, None, state, None)
        if not self._fresh(now) or key not in self._shares:
            present = await self._census.present()
            if present.inventory.nodes is None or present.inventory.held is None:
                self._leave(key)
                return _with(scale, None, state, None)
            self._pass(present, key, now)
        share = self._shares[key]
        waiting = _waiting_status(share.waiting, wish, self._since.get(key, now)) if share.waiting else None
        again = None
        if waiting is not None:
            due = self._since.get(key, now) + RECLAIM_AFTER - now
            again = due if waiting.reason == WaitingReason.RECLAIM_DUE and due > 0 else _LOOK
        return _with(scale, share, state, waiting, again, wish.surplus)

    def note(self, state: PassState, views: Sequence[GroupView]) -> None:
        """What a deployment has after it was acted on: groups that were made speak for themselves."""
        self._placing.moving_in.pop(state.deployment.key, None)
        known = self._wishes.get(state.deployment.key)
        if known is not None:
            self._say(state.deployment.key, replace(known, phases=_phases(views)))

    # --- what deployments say ---------------------------------------------------------------------

    def _wish(self, state: PassState, views: Sequence[GroupView], scale: Scale) -> _Wish | None:
        """None for a deployment that is not in the queue."""
        deployment, revision = state.deployment, state.effective
        need = devices_of(revision, self._catalog) if revision is not None else None
        if revision is None or need is None or queued(revision):
            return None
        live = sum(
            _PHASES.get(view.state, Phase.STARTING) in (Phase.SERVING, Phase.STARTING) for view in views
        )
        old = deployment.status.scaling
        known = self._shares.get(deployment.key)
        granted = known.granted if known is not None else _granted(old)
        waits = old.waiting if old is not None else None
        # Groups of another width that count for several are several that need not be there.
        surplus = measures(scale.units, scale.desired, scale.floor, revision, state.kept, views).surplus(
            views
        )
        since = self._since.get(deployment.key) or parse_time(waits.since if waits else None) or state.now
        return _Wish(
            revision=revision,
            need=need,
            nodes=_asked(revision, need),
            priority=self._priority(deployment),
            floor=min(scale.floor, scale.desired),
            wanted=min(max(0, scale.desired - max(0, surplus)), _most(state, live)),
            surplus=max(0, surplus),
            phases=_phases(views),
            moving=any(view.facts.revision != revision.name or view.facts.leaving for view in views),
            granted=granted,
            work={view.name: view.requests or 0 for view in views},
            losses=scale.losses,
            since=since,
        )

    def _priority(self, deployment: ModelDeployment) -> int:
        """What the site allows of it, also while the spec is refused for more."""
        rule = self._policy.rule_for(deployment.namespace)
        asked = deployment.spec.scaling.priority
        return asked if rule is None else rule.bounded(asked)

    def _say(self, key: Key, wish: _Wish) -> None:
        self._outside.discard(key)
        if self._wishes.get(key) != wish:
            self._version += 1
        self._wishes[key] = wish

    def _leave(self, key: Key) -> None:
        self.forget(key)
        self._outside.add(key)

    def _complete(self, key: Key, now: float) -> bool:
        """Whether all have spoken that were decided over before."""
        if self._began is None or now - self._began > _SILENCE:
            return True
        keys = self._store.keys()
        for other in keys:
            if other == key or other in self._wishes or other in self._outside:
                continue
            obj = self._store.get(MODEL_DEPLOYMENT, *other) or {}
            decided = ((obj.get("status") or {}).get("scaling")) is not None
            if decided and not obj["metadata"].get("deletionTimestamp"):
                return False
        self._began = float("-inf")  # whoever comes from now on was not there before
        return True

    def _as_before(self, state: PassState, wish: _Wish, scale: Scale) -> Scale:
        """What it had, and no more; what it holds stays whatever was said of it."""
        live = sum(phase in (Phase.SERVING, Phase.STARTING) for phase in wish.phases.values())
        kept = min(wish.wanted, max(wish.granted, live))
        if kept >= wish.wanted:
            return _with(scale, None, state, None)
        old = state.deployment.status.scaling
        return _with(scale, Share(kept), state, old.waiting if old else None, _AGAIN, wish.surplus)

    # --- passes -----------------------------------------------------------------------------------

    def _waiting(self) -> list[Key]:
        return [key for key, share in self._shares.items() if share.waiting is not None]

    def _nothing_to_share(self, key: Key, wish: _Wish) -> bool:
        """Whether it has what it wants, and nobody waits for what it has."""
        placed = [group for group in self._held(key, wish) if group.phase in LIVE and group.nodes]
        halves = any(group.lacks for group in placed)
        return len(placed) >= wish.wanted and not halves and not self._waiting()

    def _fresh(self, now: float) -> bool:
        return self._made is not None and self._made[0] == self._version and now < self._made[1]

    def _pass(self, present: Present, asking: Key, now: float) -> None:
        """All claims at once. Nothing is awaited in it."""
        claims, free = self._claims(present)
        found = allocate(claims, free, now)
        changed = {key for key, share in found.shares.items() if self._shares.get(key) != share}
        self._take_up(found, now)
        holds = _HOLDS if found.recheck_after is None else min(_HOLDS, found.recheck_after)
        self._made = (self._version, now + holds)
        self._wake(changed - {asking})

    def _take_up(self, found: Allocation, now: float) -> None:
        self._shares = dict(found.shares)
        for key, share in found.shares.items():
            wish = self._wishes[key]
            if share.waiting is None:
                self._since.pop(key, None)
            else:
                self._since.setdefault(key, wish.since)
            self._wishes[key] = replace(wish, granted=share.granted, since=self._since.get(key, now))
        self._placing.kept, self._placing.moving_in = dict(found.reserved), dict(found.moving_in)

    def _wake(self, keys: set[Key]) -> None:
        for key in sorted(keys):
            self._enqueue(key)

    def _claims(self, present: Present) -> tuple[list[Claim], dict[str, int]]:
        inventory = present.inventory
        nodes, held = inventory.nodes or (), inventory.held or {}
        stamp = tuple(
            (n["metadata"]["name"], n["metadata"].get("resourceVersion")) for n in self._store.all(NODE)
        )
        if stamp != self._pools_of:
            self._pools, self._pools_of = {}, stamp
        free: dict[str, int] = {}
        claims: list[Claim] = []
        counted: set[Pool] = set()
        for key, wish in sorted(self._wishes.items()):
            pool, resource = self._pool(wish, nodes), wish.need.resource
            claims.append(self._claim(key, wish, pool))
            for node in nodes if pool not in counted else ():
                if node.name in pool.nodes and node.name not in free:
                    used = held.get(node.name, {}).get(resource, 0)
                    free[node.name] = node.allocatable.get(resource, 0) - used
            counted.add(pool)
            if wish.revision.plan.claims:
                for pod in self._store.children(key, POD):
                    node_name = (pod.get("spec") or {}).get("nodeName")
                    if node_name in free and pod["metadata"]["uid"] not in present.looked_at:
                        free[node_name] -= wish.need.gpus  # its claim is newer than the last look at claims
        return claims, free

    def _claim(self, key: Key, wish: _Wish, pool: Pool) -> Claim:
        obj = self._store.get(MODEL_DEPLOYMENT, *key)
        going = obj is None or bool(obj["metadata"].get("deletionTimestamp"))
        groups = tuple(self._held(key, wish))
        if going:
            groups = tuple(
                replace(group, phase=Phase.DRAINING) if group.phase is not Phase.ENDING else group
                for group in groups
            )
        return Claim(
            key=key,
            pool=pool,
            shape=Shape(wish.need.pods, wish.need.gpus),
            floor=0 if going else wish.floor,
            wanted=0 if going else wish.wanted,
            granted=0 if going else wish.granted,
            groups=groups,
            priority=wish.priority,
            losses=wish.losses,
            since=self._since.get(key, wish.since),
            moving=wish.moving,
        )

    def _held(self, key: Key, wish: _Wish) -> list[Held]:
        """Its groups, as the cache has them now."""
        nodes: dict[str, list[str]] = {}
        for pod in self._store.children(key, POD):
            at = (pod.get("spec") or {}).get("nodeName")
            if at and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                group = (pod["metadata"].get("labels") or {}).get(names.LABEL_GROUP, "")
                nodes.setdefault(group, []).append(at)
        found: list[tuple[str, Held]] = []
        for lws in self._store.children(key, LEADER_WORKER_SET):
            meta = lws["metadata"]
            annotations = meta.get("annotations") or {}
            phase = wish.phases.get(meta["name"], Phase.STARTING)
            if meta.get("deletionTimestamp"):
                phase = Phase.ENDING
            elif names.ANNOTATION_DRAINING in annotations and phase is not Phase.ENDING:
                phase = Phase.DRAINING
            domain = annotations.get(names.ANNOTATION_DOMAIN, "").partition("=")[2]
            hint = annotations.get(names.ANNOTATION_NODE) or domain or None
            at_nodes, work = tuple(nodes.get(meta["name"], ())), wish.work.get(meta["name"], 0)
            size = int((lws["spec"].get("leaderWorkerTemplate") or {}).get("size") or 1)
            held = Held(meta["name"], phase, at_nodes, self._gpus_of(key, lws, wish), work, hint, size)
            found.append((annotations.get(names.ANNOTATION_DRAINING, ""), held))
        found.sort(key=lambda one: one[0], reverse=True)
        return [held for _, held in found]

    def _gpus_of(self, key: Key, lws: Obj, wish: _Wish) -> int:
        """GPUs of each of a group's pods."""
        at = (key, (lws["metadata"].get("labels") or {}).get(names.LABEL_REVISION, ""))
        if at not in self._gpus:
            workers = lws["spec"].get("leaderWorkerTemplate") or {}
            asked = extended_requests((workers.get("workerTemplate") or {}).get("spec") or {})
            said = (lws["metadata"].get("annotations") or {}).get(names.ANNOTATION_GPUS_PER_POD, "")
            self._gpus[at] = asked.get(wish.need.resource, int(said) if said.isdigit() else wish.need.gpus)
        return self._gpus[at]

    def _pool(self, wish: _Wish, nodes: Sequence[NodeFacts]) -> Pool:
        if wish.nodes not in self._pools:
            pod, need, domain = pod_spec(wish.revision), wish.need, _domain(wish.revision, wish.need)
            stands = [
                node
                for node in nodes
                if not node.divided
                and need.resource in node.gpus
                and selects(pod, node)
                and admits(node, pod)
            ]
            grows = not stands or any(label in node.labels for node in stands for label in _ADDED)
            where = {node.name: node.labels.get(domain, "") if domain else "" for node in stands}
            if domain:
                where = {name: value for name, value in where.items() if value}
            self._pools[wish.nodes] = Pool(wish.revision.plan.accelerator, where, grows)
        return self._pools[wish.nodes]


def _domain(revision: Revision, need: Need) -> str | None:
    """Label of which all nodes of a group must have one value; None: wherever they are."""
    transport = revision.plan.transport
    bound = transport is not None and transport.domain_required and need.pods > 1
    return need.domain if bound else None


def _asked(revision: Revision, need: Need) -> str:
    """All that says which nodes take the groups."""
    pod = pod_spec(revision)
    required = (pod.get("affinity") or {}).get("nodeAffinity")
    within = _domain(revision, need)
    asked = [need.resource, within, pod.get("nodeSelector"), required, pod.get("tolerations")]
    return json.dumps(asked, sort_keys=True)


def _most(state: PassState, live: int) -> int:
    """Groups that can be made at all: room for others is not asked for."""
    if _stopped(state):
        return live
    most = state.weights.most_groups if state.weights is not None else None
    return max(most, live) if most is not None else _ANY


def _stopped(state: PassState) -> bool:
    """Whether no group is made for now."""
    parked = parse_time(state.ledger.parked_until)
    return state.held or (parked is not None and state.now < parked)


def _phases(views: Sequence[GroupView]) -> dict[str, Phase]:
    return {view.name: _PHASES.get(view.state, Phase.STARTING) for view in views}


def _granted(old: ScalingStatus | None) -> int:
    """What the status says that a deployment may have."""
    if old is None:
        return 0
    return old.desired if old.granted is None else old.granted


def _with(
    scale: Scale,
    share: Share | None,
    state: PassState,
    waiting: WaitingStatus | None,
    recheck: float | None = None,
    surplus: int = 0,
) -> Scale:
    """The decision with what came of it; None: all that it wants."""
    granted = scale.desired
    if share is not None and not _stopped(state):
        granted = min(share.granted + surplus, scale.desired)
    given_up = frozenset((*share.given_up, *share.gone)) if share is not None else frozenset[str]()
    if share is not None and share.given_up:
        granted = min(granted, share.granted + surplus)
    fewer = granted < scale.desired
    status = scale.status
    if status is not None:
        status = status.model_copy(update={"granted": granted if fewer else None, "waiting": waiting})
    due = [seconds for seconds in (scale.recheck_after, recheck) if seconds is not None]
    return replace(
        scale,
        status=status,
        granted=granted,
        surge=share is None or share.surge,
        given_up=given_up,
        # What is not granted cannot be waited for: the floor is what makes it Ready.
        minimum=min(scale.minimum, max(scale.floor, granted)),
        recheck_after=min(due, default=None),
    )


def _name(key: Key) -> str:
    return "/".join(key)


def _waiting_status(waiting: Waiting, wish: _Wish, since: float) -> WaitingStatus:
    plan, count = wish.revision.plan, waiting.groups
    gpus = wish.need.pods * wish.need.gpus
    groups = "1 group" if count == 1 else f"{count} groups"
    behind = waiting.reason is not WaitingReason.NO_ROOM
    ahead = [_name(key) for key in waiting.ahead] if behind else []
    return WaitingStatus(
        groups=count,
        gpus_per_group=gpus,
        accelerator=plan.accelerator,
        reason=waiting.reason.value,
        message=f"waits for {groups} of {gpus} GPUs ({plan.accelerator}): {_for_what(waiting)}",
        behind=ahead,
        since=format_time(since),
    )


def _for_what(waiting: Waiting) -> str:
    named = ", ".join(_name(key) for key in waiting.ahead)
    match waiting.reason:
        case WaitingReason.BEHIND:
            return f"behind {named}"
        case WaitingReason.RECLAIMING:
            groups = ", ".join(f"{key[0]}/{group}" for key, group in waiting.reclaimed[:3])
            more = len(waiting.reclaimed) - 3
            return f"{groups}" + (f" and {more} more" if more > 0 else "") + " of lower priority drain for it"
        case WaitingReason.RECLAIM_DUE:
            return f"groups of lower priority are drained for it once it has waited for {RECLAIM_AFTER:.0f} s"
        case WaitingReason.DRAINING:
            return "groups that drain make room for it"
        case _:
            held = f"; most are held by {named}" if named else ""
            return f"first in the queue, and no nodes have room for a whole one{held}: free or add nodes"
