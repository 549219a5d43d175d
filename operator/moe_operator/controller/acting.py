"""Carries out what was decided, in an order in which a crash after any write is harmless.

Traffic goes off first, before anything is asked of the API server; a cause is in the ledger before its group is
deleted; what a group needs is there before the group.
"""

from contextlib import suppress
from dataclasses import replace

from moe_operator.api import reasons
from moe_operator.api.base import parse_duration
from moe_operator.api.spec import RecoverySpec
from moe_operator.api.status import Cause
from moe_operator.controller import ledger
from moe_operator.controller.children import NameConflictError
from moe_operator.controller.deletion import FinalizerKeeper
from moe_operator.controller.events import EventSink, LossObserver
from moe_operator.controller.evidence import with_logs
from moe_operator.controller.executor import Executor
from moe_operator.controller.group_planner import (
    Action,
    CreateGroup,
    DeleteGroup,
    StartDrain,
    TrafficOff,
    TrafficOn,
    Undrain,
    unfit,
)
from moe_operator.controller.incarnation import admitted_incarnations
from moe_operator.controller.keeper import ChildKeeper
from moe_operator.controller.kube import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeClient,
    KubeError,
    NotFoundError,
)
from moe_operator.controller.learned import Trouble
from moe_operator.controller.parent import Parent
from moe_operator.controller.pass_state import Decision, Look, PassState
from moe_operator.controller.status_writer import StatusWriter
from moe_operator.controller.webhooks import unavailable


class Actor:
    """The writes of a pass, but for the status at its end."""

    def __init__(
        self,
        client: KubeClient,
        executor: Executor,
        keeper: ChildKeeper,
        finalizer: FinalizerKeeper,
        parent: Parent,
        status: StatusWriter,
        events: EventSink,
        losses: LossObserver,
    ) -> None:
        self._client = client
        self._executor = executor
        self._keeper = keeper
        self._finalizer = finalizer
        self._parent = parent
        self._status = status
        self._events = events
        self._losses = losses

    async def traffic_off(self, state: PassState, look: Look) -> None:
        """Take groups that cannot serve out of traffic, before what a plan needs is looked up: requests are lost in
        each millisecond of it, and in minutes where the API server or a webhook is slow."""
        for off in unfit(look.views):
            with suppress(ForbiddenError, InvalidError, NotFoundError):  # tried again in `act`, which says so
                await self._do(state, off)

    async def act(self, state: PassState, seen: Decision) -> None:
        """Do it all. What is refused becomes the pass's trouble, or its hindrance; raises ParentGoneError, and other
        KubeErrors, for which a retry with back-off is right."""
        try:
            await self._act(state, seen)
        except NameConflictError as error:
            state.trouble = Trouble(
                reasons.NAME_CONFLICT, str(error), stalled=not error.passing, spec_at_fault=False
            )
        except (ForbiddenError, InvalidError, NotFoundError) as error:
            state.trouble = _refused(error)
        except KubeError as error:
            _hindered(state, error)

    async def act_to_leave(self, state: PassState, seen: Decision) -> None:
        """Do what a deployment that goes asks of its groups. Raises KubeError, but not for a webhook that is silent."""
        try:
            await self._act_on_groups(state, seen)
        except KubeError as error:
            _hindered(state, error)

    async def _act(self, state: PassState, seen: Decision) -> None:
        if state.drops:
            # Before the first byte is downloaded.
            await self._finalizer.ensure(state.deployment, wanted=True)
        await self._act_on_groups(state, seen)
        if state.effective is not None:
            await self._keeper.clean_up(state.deployment, state.effective, state.kept)
        if not state.drops and (not state.drains or not (seen.views or seen.scale.desired)):
            await self._finalizer.ensure(state.deployment, wanted=False)
        elif any(admitted_incarnations(view.facts) for view in seen.views):
            # Of groups that got their traffic before: of an operator without finalizers, or while deletion was
            # Immediate.
            await self._finalizer.ensure(state.deployment, wanted=True)

    async def _act_on_groups(self, state: PassState, seen: Decision) -> None:
        first = [a for a in seen.plan.actions if isinstance(a, TrafficOff)]
        for off in first:
            await self._do(state, off)
        await self._enter_losses(state, seen)
        if state.effective is not None and not state.leaving:
            await self._keeper.ensure(
                state.deployment,
                state.effective,
                state.kept,
                state.written,
                state.weights,
                state.trouble is not None,
                lambda: self._parent.lives(state),
            )
        for action in seen.plan.actions:
            if action in first:
                continue
            try:
                await self._do(state, action)
            except (ForbiddenError, InvalidError, NotFoundError, ConflictError):
                raise
            except KubeError as error:
                if not isinstance(action, CreateGroup):
                    raise
                # Those that are there may still be admitted and drained.
                _hindered(state, error)

    async def _do(self, state: PassState, action: Action) -> None:
        if isinstance(action, CreateGroup):
            await self._parent.lives(state)
        if isinstance(action, TrafficOn) and state.drains:
            await self._finalizer.ensure(state.deployment, wanted=True)
        await self._executor.run(state.deployment, state.made_of, action, state.now)
        await self._tell(state, action)

    async def _tell(self, state: PassState, action: Action) -> None:
        deployment, emit = state.deployment, self._events.emit
        match action:
            case CreateGroup(slot=slot, reason=reason):
                await emit(deployment, "Normal", reason, "Create", f"created group {deployment.name}-g{slot}")
            case TrafficOn(group=group):
                await emit(deployment, "Normal", reasons.SERVING, "Admit", f"group {group.name} serves")
            case StartDrain(group=group, reason=reason):
                await emit(deployment, "Normal", reason, "Drain", f"draining group {group.name}")
            case Undrain(group=group) if group.draining_since is not None:
                note = f"group {group.name} drains no longer: more groups are wanted again"
                await emit(deployment, "Normal", reasons.UNDRAINED, "Undrain", note)
            case DeleteGroup(group=group, cause=Cause() as cause):
                note = f"group {group.name} is lost: {cause.message}"
                await emit(deployment, "Warning", cause.reason, "Replace", note)
            case DeleteGroup(group=group, reason=reason):
                await emit(deployment, "Normal", reason, "Delete", f"deleted group {group.name}")
            case _:
                pass

    # --- losses -----------------------------------------------------------------------------------

    async def _enter_losses(self, state: PassState, seen: Decision) -> None:
        """Have the ledger and the status know lost groups before they are deleted, and with them their evidence."""
        lost = await self._count_losses(state, seen)
        if not lost:
            return
        await self._status.write(state, seen)
        for cause in lost:
            self._losses.group_lost(*state.deployment.key, cause.reason)
        due = ledger.create_after(state.ledger)
        if due is not None and state.now < due:
            # Planned before these losses were counted: the successor waits for its back-off.
            seen.plan.actions[:] = [a for a in seen.plan.actions if not isinstance(a, CreateGroup)]

    async def _count_losses(self, state: PassState, seen: Decision) -> list[Cause]:
        """Enter lost groups into the ledger, each once; returns the causes that are new in it."""
        made_of = state.made_of.name if state.made_of else None
        budget, found = _budget(state.deployment.spec.recovery, seen.scale.desired), []
        actions = seen.plan.actions
        for index, action in enumerate(actions):
            if not isinstance(action, DeleteGroup) or action.cause is None:
                continue
            if action.group.uid in state.ledger.counted:
                continue
            cause = await with_logs(self._client, state.deployment.namespace, action.cause)
            actions[index] = replace(action, cause=cause)
            state.ledger = ledger.record(state.ledger, action.group, cause, made_of, budget, state.now)
            found.append(cause)
        return found


def _budget(spec: RecoverySpec, desired: int) -> ledger.Budget:
    return ledger.Budget(
        losses=spec.restart_budget * max(1, desired),
        window=parse_duration(spec.budget_window),
        retry=parse_duration(spec.retry_interval),
    )


def _hindered(state: PassState, error: KubeError) -> None:
    """Remember a webhook that did not answer; anything else is raised, to be tried again with back-off."""
    away = unavailable(error.message)
    if away is None:
        raise error
    state.hindrance = away


def _refused(error: KubeError) -> Trouble:
    reason = reasons.FORBIDDEN if isinstance(error, ForbiddenError) else reasons.REFUSED
    return Trouble(
        reason, f"the API server refused a write: {error.message}", stalled=True, spec_at_fault=False
    )
