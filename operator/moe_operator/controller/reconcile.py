"""observe -> decide -> render -> apply -> status, for one ModelDeployment.

Level-triggered: everything is derived from the objects as they are. The order of writes makes a crash after any
of them harmless: traffic goes off first, before anything is asked of the API server; a cause is in the ledger before
its group is deleted; what a group needs is there before the group.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from moe_operator.api import names, reasons
from moe_operator.api.base import parse_duration
from moe_operator.api.deployment import InvalidSpecError, ModelDeployment, parse, without_spec
from moe_operator.api.rules import violations
from moe_operator.api.spec import GroupsOnDeletion, ModelDeploymentSpec
from moe_operator.api.status import Cause, RecoveryStatus, RolloutStatus
from moe_operator.api.times import parse_time
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller import ledger, revisions, rollout
from moe_operator.controller.agent_tokens import AgentTokens
from moe_operator.controller.canary import Asker, CanaryRunner
from moe_operator.controller.census import Census
from moe_operator.controller.children import NameConflictError
from moe_operator.controller.condition_fold import waits_for_node
from moe_operator.controller.conditions import was_ready_at
from moe_operator.controller.deletion import FinalizerKeeper, overdue
from moe_operator.controller.events import EventSink, LossObserver
from moe_operator.controller.evidence import with_logs
from moe_operator.controller.executor import Executor
from moe_operator.controller.faulty_nodes import with_faulty_accelerators
from moe_operator.controller.group_planner import (
    Action,
    CreateGroup,
    DeleteGroup,
    GroupPlan,
    GroupState,
    GroupView,
    StartDrain,
    TrafficOff,
    TrafficOn,
    Wanted,
    plan_groups,
    unfit,
)
from moe_operator.controller.idle_canary import IdleCanaries
from moe_operator.controller.incarnation import admitted_incarnations
from moe_operator.controller.judging import groups_of, judge, occupied_slots
from moe_operator.controller.keeper import ChildKeeper
from moe_operator.controller.kube import (
    MODEL_DEPLOYMENT,
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeClient,
    KubeError,
    NotFoundError,
    Obj,
)
from moe_operator.controller.learned import Learned, Trouble
from moe_operator.controller.neighbours import ComputeDomains
from moe_operator.controller.notices import Notice, Notices
from moe_operator.controller.observed import GroupFacts
from moe_operator.controller.placing import Placing
from moe_operator.controller.planning import Planning, Room
from moe_operator.controller.scaling import Load, Scale, Scaler, load_of
from moe_operator.controller.status import FIGURE_INTERVAL, fold
from moe_operator.controller.store import Key, Store
from moe_operator.controller.webhooks import unavailable
from moe_operator.controller.weights import WeightsKeeper
from moe_operator.controller.weights_removal import removal_note, removes
from moe_operator.controller.weights_state import WeightsView
from moe_operator.planner.governance import Provenance
from moe_operator.planner.plan import Plan, Refusal
from moe_operator.resources.compute_domain import needs_compute_domain
from moe_operator.resources.revision import Revision
from moe_operator.telemetry.accelerator_faults import AcceleratorFault
from moe_operator.telemetry.engine import EngineClient
from moe_operator.telemetry.observation import Snapshot
from moe_operator.telemetry.own_requests import OwnRequests

#: Least seconds until the next look: what is due in less than a clock tells apart would be looked at without end.
_LEAST = 0.05
#: Seconds until the next try when the cluster, not the spec, is at fault.
_RETRY = 20.0
#: ... when an admission webhook does not answer.
_HINDERED = 5.0
#: ... when a pod finds no node: GPUs that others hold or offer are not watched.
_LOOK = 30.0
#: ... and when what is in the way goes by itself.
_SOON = 2.0


@dataclass(frozen=True)
class Result:
    """When to look again at the latest; None: only when something changes."""

    requeue_after: float | None = None


@dataclass
class _Memory:
    """What one deployment's reconciles remember of each other. Losing it is harmless."""

    figures_written_at: float | None = None


class Reconciler:
    """Brings one ModelDeployment at a time closer to its spec. Never called twice at once for one key."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        config: OperatorConfig,
        engine: EngineClient,
        events: EventSink,
        *,
        snapshot: Callable[[], Snapshot],
        leader_worker_set: Callable[[], Awaitable[Refusal | None]],
        provisions: Callable[[Plan], Awaitable[Refusal | None]],
        enqueue: Callable[[Key], None],
        clock: Callable[[], float],
        losses: LossObserver,
        tokens: AgentTokens | None = None,
        own: OwnRequests | None = None,
        faults: Callable[[], Sequence[AcceleratorFault]] = lambda: (),
    ) -> None:
        """`clock` gives seconds since the epoch; `leader_worker_set` why LeaderWorkerSet cannot be used, or None;
        `provisions` what the cluster lacks for a plan, or None; `own`: where what the operator asks of engines is
        counted, for telemetry to leave out; `faults`: of GPUs, as telemetry saw them come."""
        self._client = client
        self._store = store
        self._config = config
        self._faults = faults
        census = Census(client, store, config, clock)
        self._domains = ComputeDomains(client, store)
        self._placing = Placing(store, census, config.catalog, self._domains, config.unhealthy_conditions)
        self._planning = Planning(client, config, census, self._placing, clock)
        self._weights = WeightsKeeper(client, store, config, clock)
        self._notices = Notices(client)
        self._keeper = ChildKeeper(client, store, config, self._weights)
        self._finalizer = FinalizerKeeper(client, store)
        self._events = events
        self._losses = losses
        self._snapshot = snapshot
        self._leader_worker_set = leader_worker_set
        self._provisions = provisions
        self._clock = clock
        asker = Asker(engine, own or OwnRequests())
        self._canaries = CanaryRunner(asker, enqueue)
        self._idle = IdleCanaries(asker, enqueue, clock)
        self._tokens = tokens or AgentTokens()
        self._executor = Executor(client, store, engine, self._canaries, self._tokens, self._placing)
        self._scaler = Scaler()
        self._memory: dict[Key, _Memory] = {}

    async def close(self) -> None:
        """Stop what runs beside the reconciles."""
        await self._canaries.close()
        await self._idle.close()

    async def reconcile(self, key: Key) -> Result:
        """One pass. Raises KubeError where a retry with back-off is right."""
        obj = self._store.get(MODEL_DEPLOYMENT, *key)
        meta = obj["metadata"] if obj is not None else {}
        ending = meta.get("deletionTimestamp")
        if obj is None or (ending and names.FINALIZER not in (meta.get("finalizers") or [])):
            # Owner references let the garbage collector take the children.
            self._memory.pop(key, None)
            self._idle.forget(key)
            self._scaler.forget(key)
            self._planning.forget(key)
            self._weights.forget(key)
            self._losses.forget_losses(*key)
            return Result()
        trouble = None
        try:
            deployment = parse(obj)
        except InvalidSpecError as error:
            deployment = without_spec(obj)
            trouble = Trouble(reasons.INVALID_SPEC, f"the stored spec cannot be read: {error}", stalled=True)
        if ending:
            return await _Pass(self, deployment, deployment.spec, self._clock()).leave(ending)
        written = deployment.spec
        if trouble is None:
            deployment = self._planning.constrained(deployment)
        return await _Pass(self, deployment, written, self._clock()).run(trouble)


@dataclass(frozen=True)
class _Seen:
    """The groups as judged at one moment, and what to do about them."""

    views: list[GroupView]
    plan: GroupPlan
    scale: Scale
    load: Load


class ParentGoneError(Exception):
    """The ModelDeployment in the cache is no longer the one in the cluster."""

    def __init__(self, result: Result) -> None:
        super().__init__("the ModelDeployment is gone")
        self.result = result


class _Pass:
    """The state of one reconcile."""

    def __init__(
        self, owner: Reconciler, deployment: ModelDeployment, written: ModelDeploymentSpec, now: float
    ) -> None:
        """`written`: the spec without what the policy adds to it."""
        self._o = owner
        self._d = deployment
        self._written = written
        self._now = now
        self._memory = owner._memory.setdefault(deployment.key, _Memory())
        self._store = owner._store
        self._client = owner._client
        self._ledger = deployment.status.recovery
        self._rollout = deployment.status.rollout
        self._kept = revisions.kept(self._store, deployment)
        self._effective: Revision | None = None
        """The wanted revision; in trouble the last good one."""
        self._made_of: Revision | None = None
        """What groups are made of: the wanted revision, or what runs while that is paused or has no weights yet."""
        self._notes: tuple[str, ...] = ()
        self._provenance: Provenance | None = None
        self._parent_seen = False
        self._room: Room | None = None
        self._given_up: dict[str, Cause] = {}
        self._told: dict[str, Notice] = {}
        """What Events say of groups that wait, by uid."""
        self._hindrance: Notice | None = None
        """Why a write was refused that will not be refused for ever."""
        self._weights: WeightsView | None = None
        self._leaving = False
        """Whether the deployment is being deleted."""
        self._removing: tuple[str, ...] = ()
        """Weights that are being removed, after that."""

    async def run(self, trouble: Trouble | None) -> Result:
        await self._traffic_off()
        trouble = trouble or await self._choose_revision()
        if trouble:
            self._effective = self._kept.get(self._d.status.revision or "")
        groups = self._groups()
        self._told = await self._o._notices.look(self._d.namespace, groups, self._now)
        self._given_up = await self._look_elsewhere(groups)
        if self._effective is not None and needs_compute_domain(self._effective.plan):
            note = await self._o._domains.note(self._d)
            self._notes = (*self._notes, note) if note else self._notes
        if self._effective is not None and (note := removal_note(self._d, self._effective)):
            self._notes = (*self._notes, note)
        scale = None
        if self._effective is not None:
            scale = self._scale()
            self._weights = await self._o._weights.look(
                self._d, self._effective, scale.desired, scale.minimum
            )
        seen = self._decide(scale, trouble)
        try:
            await self._act(trouble, seen)
        except ParentGoneError as gone:
            return gone.result
        except NameConflictError as error:
            trouble = Trouble(
                reasons.NAME_CONFLICT, str(error), stalled=not error.passing, spec_at_fault=False
            )
        except (ForbiddenError, InvalidError, NotFoundError) as error:
            trouble = _refused(error)
        except KubeError as error:
            self._hindered(error)
        after = self._decide(seen.scale, trouble)
        try:
            self._room = await self._room_for(after)
            await self._write_status(trouble, after)
        except NotFoundError:
            return self._parent_is_gone(None).result
        if trouble and not (trouble.stalled and trouble.spec_at_fault):
            passing = trouble.reason == reasons.NAME_CONFLICT and not trouble.stalled
            after.plan.again(_SOON if passing else _RETRY)
        elif after.plan.actions and after.plan.actions != seen.plan.actions:
            after.plan.again(0.05)  # what was just written opened the way to the next step
        if self._room is not None:
            after.plan.again(_LOOK)
        if self._hindrance is not None:
            after.plan.again(_HINDERED)
        waits = (
            seen.plan.requeue_after,
            after.plan.requeue_after,
            seen.scale.recheck_after,
            self._figures_due(after),
            self._weights.again if self._weights else None,
            rollout.due_in(self._rollout, self._progress_deadline, self._now),
            self._ask_idle_groups(after.views),
        )
        soonest = min((w for w in waits if w is not None), default=None)
        return Result(None if soonest is None else max(_LEAST, soonest))

    async def leave(self, since: str) -> Result:
        """The deployment is being deleted: its groups finish their requests, then the finalizer lets it go."""
        self._leaving = True
        self._effective = self._made_of = self._kept.get(self._d.status.revision or "")
        seen = self._decide_to_leave()
        at_once = not self._drains and not self._drops
        if at_once or not seen.views or overdue(self._d, since, self._now):
            return await self._let_go(seen)
        try:
            try:
                await self._act_on_groups(None, seen)
            except KubeError as error:
                self._hindered(error)
            after = self._decide_to_leave()
            await self._write_status(None, after)
        except NotFoundError:
            return self._parent_is_gone(None).result
        if self._hindrance is not None:
            after.plan.again(_HINDERED)
        if after.plan.actions and after.plan.actions != seen.plan.actions:
            after.plan.again(0.05)
        after.plan.again(_RETRY)
        return Result(after.plan.requeue_after)

    async def _let_go(self, seen: _Seen) -> Result:
        """The groups are gone, or hold nobody any more: the weights go, then the finalizer."""
        if self._drops:
            removal = await self._o._weights.removal.step(self._d, self._kept.values())
            if removal.pending:
                self._removing = tuple(removal.pending)
                try:
                    await self._write_status(None, seen)
                except NotFoundError:
                    return self._parent_is_gone(None).result
                return Result(removal.again)
            for type_, reason, note in removal.told:
                await self._tell(type_, reason, "RemoveWeights", note)
        await self._o._finalizer.ensure(self._d, wanted=False)
        return Result()

    @property
    def _progress_deadline(self) -> float:
        return parse_duration(self._d.spec.rollout.progress_deadline)

    def _groups(self) -> list[GroupFacts]:
        return groups_of(self._store, self._d, self._o._config.unhealthy_conditions)

    def _ask_idle_groups(self, views: list[GroupView]) -> float | None:
        period = parse_duration(self._d.spec.recovery.idle_canary)
        return self._o._idle.look(
            self._d.key, views, period, lambda group: self._o._tokens.token(self._d.uid, group.name)
        )

    async def _room_for(self, seen: _Seen) -> Room | None:
        """Asked only while a pod finds no node: it costs a list of all pods."""
        if self._effective is None or not any(waits_for_node(view) for view in seen.views):
            return None
        return await self._o._planning.room(self._d, self._effective)

    # --- decide -----------------------------------------------------------------------------------

    async def _choose_revision(self) -> Trouble | None:
        found = violations(self._d)
        if found:
            return Trouble(found[0].reason, "; ".join(v.message for v in found), stalled=True)
        lacking = await self._o._leader_worker_set()
        if lacking:
            return Trouble(lacking.reason, lacking.message, stalled=True, spec_at_fault=False)
        choice = await self._o._planning.choose(self._d, self._kept)
        if isinstance(choice, Refusal):
            return Trouble(choice.reason, choice.message, stalled=not choice.retry)
        lacking = await self._o._provisions(choice.revision.plan)
        if lacking:
            return Trouble(lacking.reason, lacking.message, stalled=True, spec_at_fault=False)
        self._effective, self._notes = choice.revision, choice.notes
        self._provenance = choice.provenance
        return None

    async def _look_elsewhere(self, groups: list[GroupFacts]) -> dict[str, Cause]:
        """Groups that wait for nodes which others have taken, while there is another place."""
        placed = [group for group in groups if group.domain is not None]
        limit = parse_duration(self._d.spec.recovery.placement_limit)
        return await self._o._placing.displaced(self._d, placed, self._kept, self._ledger, limit, self._now)

    def _judged(self, groups: list[GroupFacts], snapshot: Snapshot) -> list[GroupView]:
        held_up: dict[str, Cause] = {}
        deadline = self._progress_deadline
        if rollout.stands_since(self._rollout, deadline, self._now) is not None and self._rollout:
            held_up = rollout.held_up(groups, self._rollout.revision, deadline, self._now)
        recovery, canary = self._d.spec.recovery, self._o._canaries.state
        given_up = {
            **held_up,
            **self._given_up,
            **self._o._idle.causes(self._d.key, groups),
            **with_faulty_accelerators(self._d.namespace, groups, self._o._faults()),
        }
        return judge(groups, recovery, snapshot, given_up, canary, self._now)

    def _scale(self) -> Scale:
        snapshot = self._o._snapshot()
        load = load_of(self._judged(self._groups(), snapshot), snapshot)
        return self._o._scaler.scale(self._d, load, self._now)

    def _decide(self, scale: Scale | None, trouble: Trouble | None) -> _Seen:
        """Look at the groups as the cache has them now; one scaling decision holds for the whole pass."""
        snapshot = self._o._snapshot()
        groups = [replace(g, notice=self._told.get(g.uid)) for g in self._groups()]
        views = self._judged(groups, snapshot)
        load = load_of(views, snapshot)
        scale = scale or self._o._scaler.scale(self._d, load, self._now)
        spec = self._d.spec.rollout
        held = self._weights is not None and self._weights.hold
        self._made_of = self._effective
        if held or spec.paused:
            lost = ledger.lately_lost(self._ledger, self._now)
            self._made_of = revisions.running(groups, self._kept, lost) or self._effective
        made_of = self._made_of.name if self._made_of else None
        self._ledger = self._ledger_of(made_of, views)
        self._rollout = self._progress(views, scale, trouble)
        plan = plan_groups(
            Wanted(
                desired=self._mountable(scale.desired, views),
                revision=made_of,
                max_surge=spec.max_surge,
                max_unavailable=spec.max_unavailable,
                drain_deadline=parse_duration(spec.drain_deadline),
                create_after=ledger.create_after(self._ledger),
                occupied_slots=occupied_slots(self._store, self._d),
                hold=held and self._made_of is self._effective,
                frozen=spec.paused,
                probing=self._ledger.parked_until is not None,
            ),
            views,
            self._now,
        )
        return _Seen(views, plan, scale, load)

    def _mountable(self, desired: int, views: Sequence[GroupView]) -> int:
        """No more groups than can mount the weights; those that there are stay."""
        most = self._weights.most_groups if self._weights is not None else None
        if most is None:
            return desired
        gone = (GroupState.BROKEN, GroupState.DRAINING, GroupState.DELETING)
        return min(desired, max(most, sum(view.state not in gone for view in views)))

    def _decide_to_leave(self) -> _Seen:
        snapshot = self._o._snapshot()
        views = self._judged(self._groups(), snapshot)
        scaling = self._d.status.scaling
        wanted = Wanted(
            desired=0,
            revision=self._effective.name if self._effective else None,
            max_surge=0,
            max_unavailable=0,
            drain_deadline=parse_duration(self._d.spec.rollout.drain_deadline) if self._drains else 0.0,
            create_after=None,
            occupied_slots=frozenset(),
            leave=reasons.DELETING,
        )
        scale = Scale(0, 0, scaling, None)
        return _Seen(views, plan_groups(wanted, views, self._now), scale, load_of(views, snapshot))

    def _ledger_of(self, made_of: str | None, views: list[GroupView]) -> RecoveryStatus:
        """The ledger as it concerns the revision that groups are made of now."""
        of_it = [
            v.facts.created_at for v in views if v.state is GroupState.SERVING and v.facts.revision == made_of
        ]
        return ledger.unparked(ledger.of_revision(self._ledger, made_of), max(of_it, default=None))

    def _progress(
        self, views: list[GroupView], scale: Scale, trouble: Trouble | None
    ) -> RolloutStatus | None:
        """How far the move to the wanted revision has come, while it is under way."""
        wanted = self._effective.name if self._effective else None
        live = [
            v for v in views if v.state not in (GroupState.BROKEN, GroupState.DRAINING, GroupState.DELETING)
        ]
        updated = sum(v.state is GroupState.SERVING and v.facts.revision == wanted for v in live)
        older = any(v.facts.revision != wanted for v in live)
        parked = parse_time(self._ledger.parked_until)
        under_way = (
            trouble is None
            and self._made_of is self._effective
            and not self._d.spec.rollout.paused
            and not (self._weights is not None and self._weights.hold)
            and (parked is None or self._now >= parked)
            and (older or (updated < scale.minimum and not was_ready_at(self._d)))
        )
        return rollout.progress(self._rollout, wanted, updated, under_way, self._now)

    # --- act --------------------------------------------------------------------------------------

    async def _traffic_off(self) -> None:
        """Take groups that cannot serve out of traffic, before what a plan needs is looked up: requests are lost in
        each millisecond of it, and in minutes where the API server or a webhook is slow."""
        for off in unfit(self._judged(self._groups(), self._o._snapshot())):
            with suppress(ForbiddenError, InvalidError, NotFoundError):  # tried again below, which says so
                await self._do(off)

    async def _act(self, trouble: Trouble | None, seen: _Seen) -> None:
        if self._drops:
            # Before the first byte is downloaded.
            await self._o._finalizer.ensure(self._d, wanted=True)
        await self._act_on_groups(trouble, seen)
        if self._effective is not None:
            await self._o._keeper.clean_up(self._d, self._effective, self._kept)
        if not self._drops and (not self._drains or not (seen.views or seen.scale.desired)):
            await self._o._finalizer.ensure(self._d, wanted=False)
        elif any(admitted_incarnations(view.facts) for view in seen.views):
            # Of groups that got their traffic before: of an operator without finalizers, or while deletion was
            # Immediate.
            await self._o._finalizer.ensure(self._d, wanted=True)

    @property
    def _drains(self) -> bool:
        return self._d.spec.deletion.groups is GroupsOnDeletion.DRAIN

    @property
    def _drops(self) -> bool:
        """Whether the deletion may have weights to remove."""
        made = [self._effective] if self._effective is not None else []
        return removes(self._d, [*self._kept.values(), *made])

    async def _act_on_groups(self, trouble: Trouble | None, seen: _Seen) -> None:
        first = [a for a in seen.plan.actions if isinstance(a, TrafficOff)]
        for off in first:
            await self._do(off)
        if lost := await self._count_failures(seen.plan, seen.scale.desired):
            await self._write_status(trouble, seen)
            for cause in lost:
                self._o._losses.group_lost(*self._d.key, cause.reason)
            due = ledger.create_after(self._ledger)
            if due is not None and self._now < due:
                # Planned before these failures were counted: the successor waits for its back-off.
                seen.plan.actions[:] = [a for a in seen.plan.actions if not isinstance(a, CreateGroup)]
        if self._effective is not None and not self._leaving:
            await self._o._keeper.ensure(
                self._d,
                self._effective,
                self._kept,
                self._written,
                self._weights,
                trouble is not None,
                self._parent_lives,
            )
        for action in seen.plan.actions:
            if action in first:
                continue
            try:
                await self._do(action)
            except (ForbiddenError, InvalidError, NotFoundError, ConflictError):
                raise
            except KubeError as error:
                if not isinstance(action, CreateGroup):
                    raise
                # Those that are there may still be admitted and drained.
                self._hindered(error)

    def _hindered(self, error: KubeError) -> None:
        """Remember a webhook that did not answer; anything else is raised, to be tried again with back-off."""
        away = unavailable(error.message)
        if away is None:
            raise error
        self._hindrance = away

    async def _parent_lives(self) -> None:
        """Look, once a pass, before anything is made: a watch may have lost the deletion, and the garbage collector
        would take what is made for an owner that is gone, again and again."""
        if self._parent_seen:
            return
        live = await self._client.get(MODEL_DEPLOYMENT, self._d.namespace, self._d.name)
        if (
            live is None
            or live["metadata"]["uid"] != self._d.uid
            or live["metadata"].get("deletionTimestamp")
        ):
            raise self._parent_is_gone(live)
        self._parent_seen = True

    def _parent_is_gone(self, live: Obj | None) -> ParentGoneError:
        """Correct the cache; what has taken its place, if anything, is looked at next."""
        meta = {"namespace": self._d.namespace, "name": self._d.name, "uid": self._d.uid}
        self._store.remove(MODEL_DEPLOYMENT, {"metadata": meta})
        if live is not None:
            self._store.upsert(MODEL_DEPLOYMENT, live)
        return ParentGoneError(Result(0.05))

    async def _do(self, action: Action) -> None:
        if isinstance(action, CreateGroup):
            await self._parent_lives()
        if isinstance(action, TrafficOn) and self._drains:
            await self._o._finalizer.ensure(self._d, wanted=True)
        await self._o._executor.run(self._d, self._made_of, action, self._now)
        match action:
            case CreateGroup(slot=slot, reason=reason):
                await self._tell("Normal", reason, "Create", f"created group {self._d.name}-g{slot}")
            case TrafficOn(group=group):
                await self._tell("Normal", reasons.SERVING, "Admit", f"group {group.name} serves")
            case StartDrain(group=group, reason=reason):
                await self._tell("Normal", reason, "Drain", f"draining group {group.name}")
            case DeleteGroup(group=group, reason=reason, cause=cause):
                if cause:
                    await self._tell(
                        "Warning", cause.reason, "Replace", f"group {group.name} is lost: {cause.message}"
                    )
                else:
                    await self._tell("Normal", reason, "Delete", f"deleted group {group.name}")
            case _:
                pass

    async def _tell(self, type_: Literal["Normal", "Warning"], reason: str, action: str, note: str) -> None:
        await self._o._events.emit(self._d, type_, reason, action, note)

    async def _count_failures(self, plan: GroupPlan, desired: int) -> list[Cause]:
        """Enter lost groups into the ledger, each once; returns the causes that are new in it."""
        made_of = self._made_of.name if self._made_of else None
        budget, found = self._budget(desired), []
        for index, action in enumerate(plan.actions):
            if not isinstance(action, DeleteGroup) or action.cause is None:
                continue
            if action.group.uid in self._ledger.counted:
                continue
            cause = await with_logs(self._client, self._d.namespace, action.cause)
            plan.actions[index] = replace(action, cause=cause)
            self._ledger = ledger.record(self._ledger, action.group, cause, made_of, budget, self._now)
            found.append(cause)
        return found

    def _budget(self, desired: int) -> ledger.Budget:
        spec = self._d.spec.recovery
        return ledger.Budget(
            losses=spec.restart_budget * max(1, desired),
            window=parse_duration(spec.budget_window),
            retry=parse_duration(spec.retry_interval),
        )

    # --- status -----------------------------------------------------------------------------------

    async def _write_status(self, trouble: Trouble | None, seen: _Seen) -> None:
        status = fold(
            Learned(
                deployment=self._d,
                now=self._now,
                trouble=trouble,
                revision=self._effective,
                plan_notes=self._notes,
                groups=seen.views,
                desired=seen.scale.desired,
                minimum=seen.scale.minimum,
                scaling=seen.scale.status,
                throughput=seen.load.throughput,
                ledger=self._ledger,
                figures_written_at=self._memory.figures_written_at,
                room=self._room,
                observations=self._o._snapshot().pods,
                weights=self._weights,
                provenance=self._provenance,
                rollout=self._rollout,
                hindrance=self._hindrance,
                leaving=self._leaving,
                removing=self._removing,
            )
        )
        if status == self._d.status:
            return
        if status.throughput != self._d.status.throughput:
            self._memory.figures_written_at = self._now
        obj = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": self._status_target(),
            "status": status.wire(),
        }
        fresh = await self._client.apply_status(MODEL_DEPLOYMENT, obj)
        self._store.upsert(MODEL_DEPLOYMENT, fresh)
        # The version that was written to was this very object's: it is there.
        self._parent_seen = self._parent_seen or not fresh["metadata"].get("deletionTimestamp")
        previous = {(c.type, c.status, c.reason) for c in self._d.status.conditions}
        for condition in status.conditions:
            if (
                condition.type == reasons.STALLED
                and (condition.type, "True", condition.reason) not in previous
            ):
                await self._tell("Warning", condition.reason, "Plan", condition.message)
        self._d = replace(self._d, status=status)

    def _status_target(self) -> Obj:
        """The very object that the status belongs to. The API server ignores the uid in a write of status, so the
        version must keep it off a ModelDeployment that was made again under this name."""
        target = {"namespace": self._d.namespace, "name": self._d.name, "uid": self._d.uid}
        known = self._store.get(MODEL_DEPLOYMENT, *self._d.key)
        if known is None or known["metadata"]["uid"] != self._d.uid:
            raise ConflictError(409, "Conflict", f"ModelDeployment {self._d.name} was made again meanwhile")
        return {**target, "resourceVersion": known["metadata"]["resourceVersion"]}

    def _figures_due(self, seen: _Seen) -> float | None:
        """Figures that may not be written yet are looked at again when they may."""
        if seen.load.throughput == self._d.status.throughput:
            return None
        written = self._memory.figures_written_at
        return FIGURE_INTERVAL if written is None else max(1.0, written + FIGURE_INTERVAL - self._now)


def _refused(error: KubeError) -> Trouble:
    reason = reasons.FORBIDDEN if isinstance(error, ForbiddenError) else reasons.REFUSED
    return Trouble(
        reason, f"the API server refused a write: {error.message}", stalled=True, spec_at_fault=False
    )
