"""observe -> decide -> render -> apply -> status, for one ModelDeployment.

Level-triggered: everything is derived from the objects as they are. The steps of a pass are modules of their own over
one state (`pass_state`): `choosing` finds the revision, `observing` judges the groups, `deciding` plans them, `acting`
writes, `status_writer` says what came of it, `requeue` when to look again. A deployment that is being deleted has a
pass of its own: `leaving`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moe_operator.api import names, reasons
from moe_operator.api.base import parse_duration
from moe_operator.api.deployment import InvalidSpecError, parse, without_spec
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller import revisions, rollout
from moe_operator.controller.acting import Actor
from moe_operator.controller.agent_tokens import AgentTokens
from moe_operator.controller.canary import Asker, CanaryRunner
from moe_operator.controller.census import Census
from moe_operator.controller.choosing import RevisionChooser
from moe_operator.controller.condition_fold import finds_no_room, waits_for_node
from moe_operator.controller.cost_keeper import Account, CostKeeper
from moe_operator.controller.deciding import decide
from moe_operator.controller.deletion import FinalizerKeeper
from moe_operator.controller.delivered_keeper import DeliveredKeeper
from moe_operator.controller.events import EventSink, LossObserver
from moe_operator.controller.executor import Executor
from moe_operator.controller.hbm import HbmFigures
from moe_operator.controller.hbm_keeper import HbmKeeper
from moe_operator.controller.idle_canary import IdleCanaries
from moe_operator.controller.keeper import ChildKeeper
from moe_operator.controller.kube import MODEL_DEPLOYMENT, KubeClient, KubeError, NotFoundError
from moe_operator.controller.learned import Trouble
from moe_operator.controller.leaving import Leaver
from moe_operator.controller.neighbours import ComputeDomains
from moe_operator.controller.notices import Notices
from moe_operator.controller.observing import GroupObserver
from moe_operator.controller.parent import Parent, ParentGoneError
from moe_operator.controller.pass_state import Decision, PassState
from moe_operator.controller.placing import Placing
from moe_operator.controller.planning import Planning, Room
from moe_operator.controller.requeue import LEAST, soonest, waits
from moe_operator.controller.scale import held
from moe_operator.controller.scaling import Advice, Scaler
from moe_operator.controller.sharing import Sharing
from moe_operator.controller.status_writer import StatusWriter
from moe_operator.controller.store import Key, Store
from moe_operator.controller.weights import WeightsKeeper
from moe_operator.controller.width_keeper import WidthKeeper
from moe_operator.planner.plan import Plan, Refusal
from moe_operator.telemetry.accelerator_faults import AcceleratorFault
from moe_operator.telemetry.engine import EngineClient
from moe_operator.telemetry.observation import Snapshot
from moe_operator.telemetry.own_requests import OwnRequests
from moe_operator.telemetry.pod_memory import PodMemory

log = logging.getLogger(__name__)

#: Deployments whose memory is written at a time when the operator ends.
_HANDING_OVER = 8


@dataclass(frozen=True)
class Result:
    """When to look again at the latest, in seconds; None: only when something changes."""

    requeue_after: float | None = None


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
        memory: Callable[[], Mapping[str, PodMemory]] = dict,
        learning_anew: Callable[[str], None] = lambda reason: None,
        watched_until: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`clock` gives seconds since the epoch; `leader_worker_set` why LeaderWorkerSet cannot be used, or None;
        `provisions` what the cluster lacks for a plan, or None; `own`: where what the operator asks of engines is
        counted, for telemetry to leave out; `faults`: of GPUs, as telemetry saw them come; `memory`: of pods
        by uid, as it was measured last; `learning_anew`: told when what an autoscaler had learned is not used, with a
        reason of `autoscaler.memory.Unusable`; `watched_until`: until when, at the latest, another led before, in
        seconds since the epoch."""
        self._store = store
        self._snapshot = snapshot
        self._clock = clock
        self._losses = losses
        self._tokens = tokens or AgentTokens()
        self._uids: dict[Key, str] = {}
        """Of the deployments that passes were about."""
        self._census = census = Census(client, store, config, clock)
        domains = ComputeDomains(client, store)
        placing = Placing(store, census, config.catalog, domains, config.unhealthy_conditions)
        asker = Asker(engine, own or OwnRequests())
        self._canaries = CanaryRunner(asker, enqueue)
        self._idle = IdleCanaries(asker, enqueue, clock)
        self._scaler = Scaler(learning_anew)
        self._sharing = Sharing(store, census, placing, config, enqueue)
        self._planning = Planning(client, config, census, placing, clock)
        self._width = WidthKeeper(self._planning)
        self._cost = CostKeeper(store, config, snapshot, memory, watched_until)
        self._weights = WeightsKeeper(client, store, config, clock)
        self._chooser = RevisionChooser(self._planning, domains, leader_worker_set, provisions)
        self._observer = GroupObserver(
            store,
            placing,
            Notices(client),
            self._canaries,
            self._idle,
            snapshot=snapshot,
            faults=faults,
            unhealthy_conditions=config.unhealthy_conditions,
        )
        self._parent = Parent(client, store)
        self._hbm = HbmKeeper(snapshot, memory)
        self.delivered = DeliveredKeeper(snapshot, memory)
        self._status = StatusWriter(client, store, events, self._parent, snapshot, self._hbm, self.delivered)
        finalizer = FinalizerKeeper(client, store)
        self._actor = Actor(
            client,
            Executor(client, store, engine, self._canaries, self._tokens, placing),
            ChildKeeper(client, store, config, self._weights),
            finalizer,
            self._parent,
            self._status,
            events,
            losses,
        )
        self._leaver = Leaver(
            self._observer, self._actor, self._status, self._weights.removal, finalizer, self._parent, events
        )

    def advice(self) -> Iterator[Advice]:
        """How many groups Auto has, or would have, of each deployment."""
        return self._scaler.advice(self._snapshot().taken_at)

    def hbm(self) -> Iterator[tuple[Key, HbmFigures]]:
        """What the GPUs of each deployment hold."""
        return self._hbm.all()

    def accounts(self) -> Iterator[Account]:
        """What each deployment took and cost, by now."""
        return self._cost.accounts(self._clock())

    async def close(self) -> None:
        """Stop what runs beside the reconciles."""
        await self._canaries.close()
        await self._idle.close()
        await self._census.close()

    async def hand_over(self, patience: float) -> None:
        """Write what was learned and counted lately, for the next leader, as far as `patience` (s) allows. For when no
        reconcile runs any more. Raises nothing."""
        keys = iter(self._scaler.keys)

        async def write() -> None:
            for key in keys:
                await self._remember(key)
                await asyncio.sleep(0)

        try:
            async with asyncio.timeout(patience):
                await asyncio.gather(*(write() for _ in range(_HANDING_OVER)))
        except TimeoutError:
            log.info("not all that was learned and counted in the last minutes could be handed over")

    async def _remember(self, key: Key) -> None:
        obj = self._store.get(MODEL_DEPLOYMENT, *key)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return
        try:
            deployment = parse(obj)
            learned = self._scaler.hand_over(deployment, self._snapshot().taken_at, self._clock())
            cost = self._cost.hand_over(deployment)
            if learned is not None or cost is not None:
                await self._status.remember(deployment, learned, cost)
        except (InvalidSpecError, KubeError) as error:
            log.info(
                "%s/%s: what its autoscaler learned and its engines counted lately is lost: %s", *key, error
            )

    async def reconcile(self, key: Key) -> Result:
        """One pass. Raises KubeError where a retry with back-off is right."""
        obj = self._store.get(MODEL_DEPLOYMENT, *key)
        meta = obj["metadata"] if obj is not None else {}
        ending = meta.get("deletionTimestamp")
        if obj is None or (ending and names.FINALIZER not in (meta.get("finalizers") or [])):
            # Owner references let the garbage collector take the children.
            self._forget(key)
            return Result()
        if self._uids.setdefault(key, meta["uid"]) != meta["uid"]:
            # Made again under its name before a pass saw it gone: nothing of the former is true of it.
            self._forget(key)
            self._uids[key] = meta["uid"]
        if ending:
            self._scaler.forget(key)
        trouble = None
        try:
            deployment = parse(obj)
        except InvalidSpecError as error:
            deployment = without_spec(obj)
            trouble = Trouble(reasons.INVALID_SPEC, f"the stored spec cannot be read: {error}", stalled=True)
        written = deployment.spec
        if trouble is None and not ending:
            deployment = self._planning.constrained(deployment)
        kept = revisions.kept(self._store, deployment)
        state = PassState(deployment, written, self._clock(), kept, trouble, readable=trouble is None)
        try:
            return Result(await (self._leaver.run(state, ending) if ending else self._run(state)))
        except ParentGoneError:
            return Result(LEAST)

    def _forget(self, key: Key) -> None:
        self._uids.pop(key, None)
        self._status.forget(key)
        self._hbm.forget(key)
        self.delivered.forget(key)
        self._idle.forget(key)
        self._scaler.forget(key)
        self._sharing.forget(key)
        self._planning.forget(key)
        self._width.forget(key)
        self._cost.forget(key)
        self._weights.forget(key)
        self._losses.forget_losses(*key)

    async def _run(self, state: PassState) -> float | None:
        """Returns the seconds until another pass is due."""
        await self._actor.traffic_off(state, self._observer.look(state))
        await self._chooser.choose(state)
        await self._observer.ask(state)
        await self._chooser.annotate(state)
        look = self._observer.look(state)
        scale = held(state.deployment)
        if state.readable:
            state.cost = self._cost.look(state, look.views)
            scale = self._scaler.scale(state.deployment, look.load, state.now, state.cost.held)
            scale = await self._width.look(state, look, scale)
        if state.effective is not None:
            state.weights = await self._weights.look(
                state.deployment, state.effective, scale.desired, scale.minimum
            )
        scale = await self._sharing.share(state, look.views, scale)
        seen = decide(state, look, scale)
        await self._actor.act(state, seen)
        after = decide(state, self._observer.look(state), scale)
        self._sharing.note(state, after.views)
        try:
            state.room = await self._room(state, after)
            await self._status.write(state, after)
        except NotFoundError:
            raise self._parent.gone(state) from None
        return soonest(
            *waits(state, seen, after),
            seen.plan.requeue_after,
            after.plan.requeue_after,
            scale.recheck_after,
            state.cost.due if state.cost else None,
            self._status.figures_due(state, after),
            state.weights.again if state.weights else None,
            rollout.due_in(state.rollout, state.progress_deadline, state.now),
            self._ask_idle_groups(state, after),
        )

    async def _room(self, state: PassState, seen: Decision) -> Room | None:
        """Asked only while a pod finds no node, or a group no room: it costs a list of all pods."""
        short = finds_no_room(seen.scale.status) or any(waits_for_node(view) for view in seen.views)
        if state.effective is None or not short:
            return None
        return await self._planning.room(state.deployment, state.effective)

    def _ask_idle_groups(self, state: PassState, seen: Decision) -> float | None:
        deployment = state.deployment
        period = parse_duration(deployment.spec.recovery.idle_canary)
        return self._idle.look(
            deployment.key, seen.views, period, lambda group: self._tokens.token(deployment.uid, group.name)
        )
