"""Which revision one pass wants, or why none can be had; and what is to be said of it."""

from collections.abc import Awaitable, Callable

from moe_operator.api.rules import violations
from moe_operator.controller.learned import Trouble
from moe_operator.controller.neighbours import ComputeDomains
from moe_operator.controller.pass_state import PassState
from moe_operator.controller.planning import Planning
from moe_operator.controller.weights_removal import removal_note
from moe_operator.planner.plan import Plan, Refusal
from moe_operator.resources.compute_domain import needs_compute_domain


class RevisionChooser:
    """Asks in turn what may stand in the way: the rules, the cluster, the planner, what the plan needs."""

    def __init__(
        self,
        planning: Planning,
        domains: ComputeDomains,
        leader_worker_set: Callable[[], Awaitable[Refusal | None]],
        provisions: Callable[[Plan], Awaitable[Refusal | None]],
    ) -> None:
        """`leader_worker_set`: why LeaderWorkerSet cannot be used, or None; `provisions`: what the cluster lacks for a
        plan, or None."""
        self._planning = planning
        self._domains = domains
        self._leader_worker_set = leader_worker_set
        self._provisions = provisions

    async def choose(self, state: PassState) -> None:
        """Find the revision in effect: the wanted one, or the pass's trouble and the last good one."""
        state.trouble = state.trouble or await self._choose(state)
        if state.trouble:
            state.effective = state.last_good

    async def _choose(self, state: PassState) -> Trouble | None:
        found = violations(state.deployment)
        if found:
            return Trouble(found[0].reason, "; ".join(v.message for v in found), stalled=True)
        lacking = await self._leader_worker_set()
        if lacking:
            return Trouble(lacking.reason, lacking.message, stalled=True, spec_at_fault=False)
        choice = await self._planning.choose(state.deployment, state.kept)
        if isinstance(choice, Refusal):
            return Trouble(choice.reason, choice.message, stalled=not choice.retry)
        lacking = await self._provisions(choice.revision.plan)
        if lacking:
            return Trouble(lacking.reason, lacking.message, stalled=True, spec_at_fault=False)
        state.effective, state.notes = choice.revision, choice.notes
        state.provenance = choice.provenance
        return None

    async def annotate(self, state: PassState) -> None:
        """Add what to know of the revision in effect that its plan does not say."""
        if state.effective is None:
            return
        neighbours = None
        if needs_compute_domain(state.effective.plan):
            neighbours = await self._domains.note(state.deployment)
        removal = removal_note(state.deployment, state.effective)
        state.notes = (*state.notes, *(note for note in (neighbours, removal) if note))
