"""What a deployment's GPUs hold: measured where an exporter tells, else estimated from the plan. Pure; bytes.

vLLM takes its KV cache when it starts, so a GPU that serves holds weights, buffers and the whole KV cache, however much
of that is in use: the estimate is their sum. The KV cache is as the engine made it (vllm:cache_config_info) where it
says so, else as planned. Of what was measured, `other` is what is neither weights nor KV cache: activations, graphs,
communication buffers, and whatever the plan did not know of.

The planner predicts weights, activations and buffers; the KV cache takes what is left. So its error is that of the sum
of these: what was measured less the KV cache, against what was planned, on the fullest GPU of all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from moe_operator.controller.observed import GroupFacts, PodFacts
from moe_operator.planner.plan import Plan, Sizing
from moe_operator.telemetry.accelerator_memory import GpuMemory
from moe_operator.telemetry.observation import PodObservation
from moe_operator.telemetry.pod_memory import PodMemory

#: Accelerator of ranks whose memory is the host's: a pod is measured as one.
_HOST = "cpu"


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One GPU of a group; of a pod without GPUs, the pod."""

    group: str
    pod: str
    node: str
    rank: int | None
    """Number in the group; None where it is not known which of the pod's ranks has the GPU, or all have it."""
    gpu: str
    """Index on the node; empty where it is not known."""
    used: int
    capacity: int
    """Bytes that processes may have."""
    measured: bool
    dram_active: float | None = None
    watts: float | None = None

    @property
    def share(self) -> float:
        return self.used / self.capacity if self.capacity else 0.0


@dataclass(frozen=True, slots=True)
class Split:
    """Parts of what is used, and of the KV cache what is free."""

    weights: int = 0
    kv_used: int = 0
    kv_free: int = 0
    other: int = 0

    def __add__(self, more: "Split") -> "Split":
        return Split(
            self.weights + more.weights,
            self.kv_used + more.kv_used,
            self.kv_free + more.kv_free,
            self.other + more.other,
        )


@dataclass(frozen=True, slots=True)
class HbmFigures:
    """Of all groups that serve or drain."""

    gpus: tuple[GpuUse, ...]
    split: Split | None
    """None where a plan does not say how large the weights are."""
    error: float | None = None
    """Of the planner: what was measured beside the KV cache, less what was planned for it, as a share of the GPU.
    Positive: more was used. None where nothing was measured or planned, or the engine does not tell its KV cache."""
    off_plan_before: str | None = None
    """Since when the planner was off, by the last status that spoke of memory."""

    @property
    def used(self) -> int:
        return sum(gpu.used for gpu in self.gpus)

    @property
    def capacity(self) -> int:
        return sum(gpu.capacity for gpu in self.gpus)

    @property
    def share(self) -> float:
        """Used of what processes may have, 0 to 1 (a host may have more than was planned)."""
        return self.used / self.capacity if self.capacity else 0.0

    @property
    def measured(self) -> int:
        """GPUs that were."""
        return sum(gpu.measured for gpu in self.gpus)

    @property
    def is_measured(self) -> bool:
        """Whether all of it was."""
        return self.measured == len(self.gpus)

    @property
    def worst(self) -> GpuUse | None:
        """The fullest of those that were measured."""
        return max((g for g in self.gpus if g.measured), key=lambda g: g.share, default=None)

    @property
    def dram_active(self) -> float | None:
        """Mean over those that tell, 0 to 1."""
        return _mean([g.dram_active for g in self.gpus if g.dram_active is not None])

    @property
    def watts(self) -> float | None:
        """Of all GPUs; None where one does not tell."""
        told = [g.watts for g in self.gpus if g.watts is not None]
        return sum(told) if told and len(told) == len(self.gpus) else None


def hbm_figures(
    groups: Iterable[tuple[GroupFacts, Plan]],
    memory: Mapping[str, PodMemory],
    engines: Mapping[str, PodObservation],
) -> HbmFigures | None:
    """Of these groups; both mappings by pod uid. None without groups, or where nothing is known of a pod."""
    gpus: list[GpuUse] = []
    split: Split | None = Split()
    errors: list[float] = []
    for facts, plan in groups:
        for pod in facts.pods:
            found = _pod(facts, pod, plan, memory.get(pod.uid), engines.get(pod.uid))
            if found is None:
                return None
            gpus += found.gpus
            split = None if split is None or found.split is None else split + found.split
            if found.error is not None:
                errors.append(found.error)
    if not gpus:
        return None
    return HbmFigures(tuple(gpus), split, max(errors, default=None))


@dataclass(frozen=True)
class _Pod:
    gpus: Sequence[GpuUse]
    split: Split | None
    error: float | None


@dataclass(frozen=True)
class _Kv:
    """KV cache of one GPU."""

    size: int
    used: int
    told: bool
    """Whether the engine told its size."""


def _pod(
    facts: GroupFacts, pod: PodFacts, plan: Plan, seen: PodMemory | None, engine: PodObservation | None
) -> _Pod | None:
    sizing, host = plan.sizing, plan.accelerator == _HOST
    count = plan.ranks_per_pod if host else plan.gpus_per_pod
    kv = None if sizing is None else _kv(sizing, engine)
    known = 0 if sizing is None else sizing.weight_bytes + sizing.activation_bytes + sizing.buffer_bytes
    if host:
        if sizing is None and seen is None:
            return None
        planned = None if sizing is None or kv is None else count * (known + kv.size)
        asked = seen.asked if seen is not None else None
        capacity = (asked or 0) if sizing is None else count * sizing.capacity_bytes
        measured = seen is not None and seen.working_set is not None
        used = seen.working_set if seen is not None and seen.working_set is not None else planned
        if used is None:
            return None
        one = GpuUse(facts.name, pod.name, pod.node or "", None, "", used, capacity or used, measured)
        return _Pod([one], *_parts([one], count, sizing, kv, known))
    told = list(seen.gpus) if seen is not None else []
    if len(told) < count and sizing is None:
        return None
    capacity = 0 if sizing is None else sizing.capacity_bytes
    whole = len(told) == count
    uses = [_measured(facts, pod, plan, gpu, at if whole else None, capacity) for at, gpu in enumerate(told)]
    if sizing is not None and kv is not None:
        rest = range(len(told), count)
        uses += [
            GpuUse(
                facts.name,
                pod.name,
                pod.node or "",
                _rank(pod, plan, at) if not told else None,
                "",
                known + kv.size,
                capacity,
                measured=False,
            )
            for at in rest
        ]
    return _Pod(uses, *_parts(uses, 1, sizing, kv, known))


def _parts(
    uses: Sequence[GpuUse], ranks: int, sizing: Sizing | None, kv: _Kv | None, known: int
) -> tuple[Split | None, float | None]:
    """The split, and the planner's error; `ranks` of them share one of `uses`."""
    if sizing is None or kv is None:
        return None, None
    split = Split()
    for one in uses:
        fixed = ranks * (sizing.weight_bytes + kv.size)
        split += Split(
            ranks * sizing.weight_bytes,
            ranks * kv.used,
            ranks * (kv.size - kv.used),
            max(0, one.used - fixed),
        )
    if not kv.told:
        return split, None
    errors = [
        (one.used - ranks * (kv.size + known)) / one.capacity for one in uses if one.measured and one.capacity
    ]
    return split, max(errors, default=None)


def _measured(
    facts: GroupFacts, pod: PodFacts, plan: Plan, gpu: GpuMemory, at: int | None, planned: int
) -> GpuUse:
    capacity = gpu.usable or gpu.total or planned
    rank = None if at is None else _rank(pod, plan, at)
    return GpuUse(
        facts.name,
        pod.name,
        pod.node or "",
        rank,
        gpu.index,
        gpu.used,
        capacity or gpu.used,
        measured=True,
        dram_active=gpu.dram_active,
        watts=gpu.watts,
    )


def _rank(pod: PodFacts, plan: Plan, at: int) -> int:
    """Of the pod's GPU by place: ranks take GPUs in the order of their indexes, `tensor` each."""
    return pod.index * plan.ranks_per_pod + at // plan.tensor


def _kv(sizing: Sizing, engine: PodObservation | None) -> _Kv:
    counters = engine.counters if engine is not None else None
    ranks = counters.ranks if counters is not None else 0
    blocks = counters.kv_blocks if counters is not None else 0
    size = blocks // ranks * sizing.kv_block_bytes if ranks else 0
    told = 0 < size <= sizing.capacity_bytes
    if not told:
        size = sizing.kv_cache_bytes  # not told, or in blocks of another size than was planned
    share = min(1.0, counters.kv_sum / ranks) if counters is not None and ranks else 0.0
    return _Kv(size, round(share * size), told)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
