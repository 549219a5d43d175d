"""What a deployment, its groups and their ranks deliver, and what their GPUs hold and take. Pure.

Figures of a deployment are of the groups that serve or drain: those that start have nothing to deliver, and what is
left of one that broke is no figure of the whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moe_operator.controller.group_planner import GroupState
from moe_operator.controller.hbm import GpuUse, hbm_figures
from moe_operator.controller.load import TOLERATED_FAILURES
from moe_operator.controller.observed import GroupFacts, PodFacts
from moe_operator.controller.store import Key
from moe_operator.planner.plan import Plan
from moe_operator.telemetry.figures import Figures, Span, figures, imbalance, rank_spans
from moe_operator.telemetry.observation import PodObservation
from moe_operator.telemetry.pod_memory import PodMemory

#: Groups whose figures are the deployment's, and that have taken all of the memory that they will.
WHOLE = (GroupState.SERVING, GroupState.DRAINING)

Engines = Mapping[str, PodObservation]
Memory = Mapping[str, PodMemory]


@dataclass(frozen=True, slots=True)
class KnownGroup:
    """A group as it was judged last."""

    facts: GroupFacts
    state: GroupState
    plan: Plan | None
    """None: its revision is gone."""


@dataclass(frozen=True, slots=True)
class GpusUse:
    """Of some GPUs together."""

    used: int
    capacity: int
    """Bytes."""
    measured: bool
    """Whether all of them were."""
    watts: float | None
    """None where one does not tell."""

    @classmethod
    def of(cls, gpus: Sequence[GpuUse]) -> "GpusUse | None":
        """None of none."""
        if not gpus:
            return None
        told = [gpu.watts for gpu in gpus if gpu.watts is not None]
        return cls(
            used=sum(gpu.used for gpu in gpus),
            capacity=sum(gpu.capacity for gpu in gpus),
            measured=all(gpu.measured for gpu in gpus),
            watts=sum(told) if len(told) == len(gpus) else None,
        )


@dataclass(frozen=True, slots=True)
class RankFigures:
    """Of one rank."""

    rank: int
    """Number in the group."""
    pod: str
    node: str | None
    figures: Figures
    gpus: GpusUse | None


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Of one group."""

    known: KnownGroup
    spans: tuple[Span, ...]
    """Of its pods that tell."""
    whole: bool
    """Whether these are all of its pods, with all of their ranks."""
    figures: Figures
    hbm: tuple[GpuUse, ...]
    """Its GPUs; empty where that is not known."""


@dataclass(frozen=True, slots=True)
class DeploymentFigures:
    """Of one deployment."""

    key: Key
    figures: Figures
    groups: tuple[GroupFigures, ...]
    """All that there are, by name."""

    @property
    def hbm(self) -> tuple[GpuUse, ...]:
        """Of the groups that serve or drain; empty where one of them is not known."""
        whole = [group for group in self.groups if group.known.state in WHOLE]
        return tuple(gpu for group in whole for gpu in group.hbm) if all(one.hbm for one in whole) else ()


def deployment_figures(
    key: Key, groups: Sequence[KnownGroup], engines: Engines, memory: Memory | None = None
) -> DeploymentFigures:
    """Both mappings by pod uid; without `memory` figures are without that of GPUs."""
    found = tuple(
        _group(one, engines, memory)
        for one in sorted(groups, key=lambda one: (len(one.facts.name), one.facts.name))
    )
    whole = [one for one in found if one.known.state in WHOLE]
    uneven = [one.figures.imbalance for one in whole if one.figures.imbalance is not None]
    together = figures(
        [span for one in whole for span in one.spans],
        all(one.whole for one in whole),
        max(uneven, default=None),
    )
    return DeploymentFigures(key, together, found)


def rank_figures(group: GroupFigures, engines: Engines) -> Iterator[RankFigures]:
    """Of each rank of a group's pods, by number."""
    facts, plan = group.known.facts, group.known.plan
    by_rank: dict[tuple[str, int], list[GpuUse]] = {}
    for gpu in group.hbm:
        if gpu.rank is not None:
            by_rank.setdefault((gpu.pod, gpu.rank), []).append(gpu)
    for pod in sorted(facts.pods, key=lambda one: one.index):
        spans = _spans_of_ranks(engines.get(pod.uid))
        for rank in _ranks(facts, pod):
            gpus = by_rank.get((pod.name, rank), [])
            complete = plan is not None and len(gpus) == plan.tensor
            span = spans.get(rank)
            yield RankFigures(
                rank,
                pod.name,
                pod.node,
                Figures() if span is None else figures([span]),
                GpusUse.of(gpus) if complete else None,
            )


def _ranks(facts: GroupFacts, pod: PodFacts) -> range:
    first = pod.index * facts.ranks_per_pod
    return range(first, first + facts.ranks_per_pod)


def _spans_of_ranks(seen: PodObservation | None) -> dict[int, Span]:
    if seen is None or seen.newest is None or seen.failures > TOLERATED_FAILURES:
        return {}
    return dict(rank_spans(seen.newest, seen.recent, seen.long))


def _group(known: KnownGroup, engines: Engines, memory: Memory | None) -> GroupFigures:
    facts = known.facts
    seen = [
        one
        for pod in facts.pods
        if (one := engines.get(pod.uid)) is not None and one.failures <= TOLERATED_FAILURES
    ]
    whole = len(seen) == facts.size and not any(one.counters.ranks_lost for one in seen)
    spans = tuple(one.span for one in seen)
    hbm: tuple[GpuUse, ...] = ()
    if memory is not None and known.plan is not None and known.state in WHOLE:
        use = hbm_figures([(facts, known.plan)], memory, engines)
        hbm = use.gpus if use is not None else ()
    return GroupFigures(
        known, spans, whole, figures(spans, whole, _imbalance(facts, seen) if whole else None), hbm
    )


def _imbalance(facts: GroupFacts, seen: Sequence[PodObservation]) -> float | None:
    """None too where not every rank tells."""
    if sum(one.counters.ranks for one in seen) != facts.size * facts.ranks_per_pod:
        return None
    return imbalance(
        (one.newest.ranks, one.recent.ranks if one.recent is not None else None)
        for one in seen
        if one.newest is not None
    )
