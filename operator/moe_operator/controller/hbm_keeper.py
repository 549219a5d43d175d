"""Brings groups, their plans and what was measured together: for the status in a pass, for metrics between passes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from moe_operator.controller.delivered import WHOLE
from moe_operator.controller.group_planner import GroupView
from moe_operator.controller.hbm import HbmFigures, hbm_figures
from moe_operator.controller.observed import GroupFacts
from moe_operator.controller.pass_state import PassState
from moe_operator.controller.store import Key
from moe_operator.planner.plan import Plan
from moe_operator.telemetry.observation import Snapshot
from moe_operator.telemetry.pod_memory import PodMemory


class HbmKeeper:
    """Remembers which groups every deployment had at its last pass."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], memory: Callable[[], Mapping[str, PodMemory]]
    ) -> None:
        """`memory`: what was measured, by pod uid."""
        self._snapshot = snapshot
        self._memory = memory
        self._groups: dict[Key, tuple[tuple[GroupFacts, Plan], ...]] = {}
        self._off_plan: dict[Key, str | None] = {}
        """Since when, by the last status that spoke of memory."""

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._groups.pop(key, None)
        self._off_plan.pop(key, None)

    def look(self, state: PassState, views: Sequence[GroupView]) -> HbmFigures | None:
        """As of now, of the groups as they were judged."""
        groups = tuple(
            (view.facts, revision.plan)
            for view in views
            if view.state in WHOLE and (revision := state.revision(view.facts.revision)) is not None
        )
        key, told = state.deployment.key, state.deployment.status.hbm
        self._groups[key] = groups
        if told is not None:
            self._off_plan[key] = told.off_plan_since
        found = hbm_figures(groups, self._memory(), self._snapshot().pods) if groups else None
        return None if found is None else replace(found, off_plan_before=self._off_plan.get(key))

    def all(self) -> Iterator[tuple[Key, HbmFigures]]:
        """Of every deployment of which something is known."""
        memory, engines = self._memory(), self._snapshot().pods
        for key, groups in self._groups.items():
            if (found := hbm_figures(groups, memory, engines)) is not None:
                yield key, found
