"""Looks at a deployment's groups: what the cache has of them, and all that is held against one. Writes nothing."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from moe_operator.api.base import parse_duration
from moe_operator.api.status import Cause
from moe_operator.controller import rollout
from moe_operator.controller.canary import CanaryRunner
from moe_operator.controller.faulty_nodes import with_faulty_accelerators
from moe_operator.controller.idle_canary import IdleCanaries
from moe_operator.controller.judging import groups_of, judge, occupied_slots
from moe_operator.controller.load import load_of
from moe_operator.controller.notices import Notices
from moe_operator.controller.observed import GroupFacts
from moe_operator.controller.pass_state import Look, PassState
from moe_operator.controller.placing import Placing
from moe_operator.controller.store import Store
from moe_operator.telemetry.accelerator_faults import AcceleratorFault
from moe_operator.telemetry.observation import Snapshot


class GroupObserver:
    """Each look is at the cache, telemetry and canaries as they are at that moment."""

    def __init__(
        self,
        store: Store,
        placing: Placing,
        notices: Notices,
        canaries: CanaryRunner,
        idle: IdleCanaries,
        *,
        snapshot: Callable[[], Snapshot],
        faults: Callable[[], Sequence[AcceleratorFault]],
        unhealthy_conditions: Collection[str],
    ) -> None:
        self._store = store
        self._placing = placing
        self._notices = notices
        self._canaries = canaries
        self._idle = idle
        self._snapshot = snapshot
        self._faults = faults
        self._unhealthy_conditions = unhealthy_conditions

    async def ask(self, state: PassState) -> None:
        """Ask what the cache does not show of groups that wait: what Events tell, and whether another place is free."""
        groups = self._groups(state)
        state.told = await self._notices.look(state.deployment.namespace, groups, state.now)
        placed = [group for group in groups if group.domain is not None]
        limit = parse_duration(state.deployment.spec.recovery.placement_limit)
        state.given_up = await self._placing.displaced(
            state.deployment, placed, state.kept, state.ledger, limit, state.now
        )

    def look(self, state: PassState) -> Look:
        """Judge the groups."""
        snapshot = self._snapshot()
        groups = [replace(group, notice=state.told.get(group.uid)) for group in self._groups(state)]
        recovery = state.deployment.spec.recovery
        given_up = self._held_against(state, groups)
        views = judge(groups, recovery, snapshot, given_up, self._canaries.state, state.now)
        widths = {name: revision.plan.width for name, revision in state.kept.items()}
        load = load_of(views, snapshot, _idle_step_times(state), widths)
        return Look(views, load, occupied_slots(self._store, state.deployment))

    def _groups(self, state: PassState) -> list[GroupFacts]:
        return groups_of(self._store, state.deployment, self._unhealthy_conditions)

    def _held_against(self, state: PassState, groups: Sequence[GroupFacts]) -> dict[str, Cause]:
        """Why groups are lost that look well by themselves, by name."""
        key, deadline = state.deployment.key, state.progress_deadline
        held_up: dict[str, Cause] = {}
        if state.rollout and rollout.stands_since(state.rollout, deadline, state.now) is not None:
            held_up = rollout.held_up(groups, state.rollout.revision, deadline, state.now)
        return {
            **held_up,
            **state.given_up,
            **self._idle.causes(key, groups),
            **with_faulty_accelerators(state.deployment.namespace, groups, self._faults()),
        }


def _idle_step_times(state: PassState) -> dict[str, float]:
    """Seconds of a step without load by revision, where its plan says."""
    sized = {name: revision.plan.sizing for name, revision in state.kept.items()}
    return {
        name: sizing.idle_step_microseconds * 1e-6
        for name, sizing in sized.items()
        if sizing is not None and sizing.idle_step_microseconds > 0
    }
