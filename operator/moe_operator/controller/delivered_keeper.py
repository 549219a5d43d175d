"""Brings groups and what telemetry has of them together: for the status in a pass, for metrics and figures between."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from moe_operator.api.base import parse_duration
from moe_operator.controller.delivered import (
    WHOLE,
    DeploymentFigures,
    KnownGroup,
    RankFigures,
    deployment_figures,
    rank_figures,
)
from moe_operator.controller.group_planner import GroupView
from moe_operator.controller.objective_counts import Objective, ObjectiveCounts
from moe_operator.controller.pass_state import PassState
from moe_operator.controller.store import Key
from moe_operator.telemetry.figures import Figures
from moe_operator.telemetry.observation import Snapshot
from moe_operator.telemetry.pod_memory import PodMemory

ObjectiveCount = tuple[tuple[str, str], float]


@dataclass
class _Kept:
    groups: tuple[KnownGroup, ...] = ()
    objective: Objective = field(default_factory=Objective)
    counts: ObjectiveCounts = field(default_factory=ObjectiveCounts)


class DeliveredKeeper:
    """Remembers which groups every deployment had at its last pass. Losing it is harmless: counts begin anew."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], memory: Callable[[], Mapping[str, PodMemory]]
    ) -> None:
        """`memory`: what was measured, by pod uid."""
        self._snapshot = snapshot
        self._memory = memory
        self._kept: dict[Key, _Kept] = {}

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._kept.pop(key, None)

    def look(self, state: PassState, views: Sequence[GroupView]) -> Figures:
        """As of now, of the groups as they were judged."""
        key, spec = state.deployment.key, state.deployment.spec.objective
        kept = self._kept.setdefault(key, _Kept())
        kept.groups = tuple(
            KnownGroup(view.facts, view.state, revision.plan if revision is not None else None)
            for view in views
            for revision in (state.revision(view.facts.revision),)
        )
        kept.objective = Objective(
            None if spec.time_to_first_token is None else parse_duration(spec.time_to_first_token),
            None if spec.time_per_output_token is None else parse_duration(spec.time_per_output_token),
        )
        snapshot = self._snapshot()
        self._count(kept, snapshot)
        return deployment_figures(key, kept.groups, snapshot.pods).figures

    def all(self) -> Iterator[tuple[DeploymentFigures, Sequence[ObjectiveCount]]]:
        """Of every deployment, without memory; and the requests that kept its objective or did not."""
        snapshot = self._snapshot()
        for key, kept in self._kept.items():
            self._count(kept, snapshot)
            yield deployment_figures(key, kept.groups, snapshot.pods), tuple(kept.counts.told())

    def deployments(self, namespace: str | None = None, name: str | None = None) -> list[Key]:
        """Of the deployments that there are, in order."""
        return sorted(
            key
            for key in self._kept
            if (namespace is None or key[0] == namespace) and (name is None or key[1] == name)
        )

    def detail(self, key: Key) -> tuple[DeploymentFigures, list[list[RankFigures]]] | None:
        """Of one deployment with its memory, and with the ranks of each of its groups; None where it is gone."""
        kept, engines = self._kept.get(key), self._snapshot().pods
        if kept is None:
            return None
        found = deployment_figures(key, kept.groups, engines, self._memory())
        return found, [list(rank_figures(group, engines)) for group in found.groups]

    @staticmethod
    def _count(kept: _Kept, snapshot: Snapshot) -> None:
        pods = (pod.uid for group in kept.groups if group.state in WHOLE for pod in group.facts.pods)
        seen = ((uid, snapshot.pods[uid].counters) for uid in pods if uid in snapshot.pods)
        kept.counts.look(seen, kept.objective)
