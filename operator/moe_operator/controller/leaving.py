"""One pass over a ModelDeployment that is being deleted: its groups finish their requests, its weights go where it says
so, then the finalizer lets it go."""

from moe_operator.controller.acting import Actor
from moe_operator.controller.deciding import decide_to_leave
from moe_operator.controller.deletion import FinalizerKeeper, overdue
from moe_operator.controller.events import EventSink
from moe_operator.controller.kube import NotFoundError
from moe_operator.controller.observing import GroupObserver
from moe_operator.controller.parent import Parent
from moe_operator.controller.pass_state import Decision, PassState
from moe_operator.controller.requeue import soonest, waits
from moe_operator.controller.status_writer import StatusWriter
from moe_operator.controller.weights_removal import WeightsRemoval


class Leaver:
    """Drains, removes, lets go."""

    def __init__(
        self,
        observer: GroupObserver,
        actor: Actor,
        status: StatusWriter,
        removal: WeightsRemoval,
        finalizer: FinalizerKeeper,
        parent: Parent,
        events: EventSink,
    ) -> None:
        self._observer = observer
        self._actor = actor
        self._status = status
        self._removal = removal
        self._finalizer = finalizer
        self._parent = parent
        self._events = events

    async def run(self, state: PassState, since: str) -> float | None:
        """Returns the seconds until another pass is due. `since`: the deletion's time (RFC 3339). Raises
        ParentGoneError, KubeError."""
        state.leaving, state.trouble = True, None  # what a spec lacks keeps nothing from going
        state.effective = state.made_of = state.last_good
        seen = decide_to_leave(state, self._observer.look(state))
        at_once = not state.drains and not state.drops
        if at_once or not seen.views or overdue(state.deployment, since, state.now):
            return await self._let_go(state, seen)
        try:
            await self._actor.act_to_leave(state, seen)
            after = decide_to_leave(state, self._observer.look(state))
            await self._status.write(state, after)
        except NotFoundError:
            raise self._parent.gone(state) from None
        return soonest(after.plan.requeue_after, *waits(state, seen, after))

    async def _let_go(self, state: PassState, seen: Decision) -> float | None:
        """The groups are gone, or hold nobody any more: the weights go, then the finalizer."""
        if state.drops:
            removal = await self._removal.step(state.deployment, state.kept.values())
            if removal.pending:
                state.removing = tuple(removal.pending)
                try:
                    await self._status.write(state, seen)
                except NotFoundError:
                    raise self._parent.gone(state) from None
                return removal.again
            for type_, reason, note in removal.told:
                await self._events.emit(state.deployment, type_, reason, "RemoveWeights", note)
        await self._finalizer.ensure(state.deployment, wanted=False)
        return None
