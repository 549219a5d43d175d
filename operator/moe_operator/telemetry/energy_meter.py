"""What a pod's GPUs have taken, as one sum that goes on: of the GPUs' own counters where all of them have one, else of
their power over time. Pure.

A sum is of all GPUs that the pod asked for, or there is none. Counters begin with the driver and outlive exporters and
the operator, so whoever kept an earlier sum may take the difference. Power is added up while it is told at least every
GAP seconds; a longer silence begins a new sum, as nobody knows what was taken meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moe_operator.catalog.profile import MOST_WATTS
from moe_operator.telemetry.accelerator_memory import GpuMemory
from moe_operator.telemetry.ignored import Counts, Ignored

#: Seconds between two readings of power that may be taken for one curve: two rounds, of which one failed.
GAP = 35.0


@dataclass(frozen=True, slots=True)
class PodEnergy:
    """All GPUs of one pod."""

    joules: float
    """So far. Of two sums with the same `since`, the difference is what was taken in between, unless it is lower: then
    a counter began anew."""
    at: float
    """When, in seconds since the epoch."""
    since: float = 0.0
    """When the sum began (seconds since the epoch): the adding up of power, or counters after one of them began anew;
    0: these are the GPUs' own counters as they were found."""


@dataclass
class EnergyMeter:
    """Of one pod."""

    _counters: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """The GPUs' own, in joules, at the last reading."""
    _at: float | None = None
    _since: float = 0.0
    _sum: PodEnergy | None = None
    """Of power."""
    _watts: float = 0.0

    def take(self, at: float, gpus: Sequence[GpuMemory], asked: int) -> tuple[PodEnergy | None, Counts]:
        """A reading at a time (s since the epoch) of the GPUs that are credited to the pod, which asked for so many."""
        ignored = Counts()
        if not gpus or len(gpus) != asked:
            return None, ignored
        counters = {gpu.key: gpu.joules for gpu in gpus if gpu.joules is not None}
        if len(counters) == asked:
            before, since, self._counters, self._at = self._counters, self._at, counters, at
            self._sum = None
            if since is not None and (leapt := _leapt(before, counters, at - since)):
                ignored[Ignored.OUT_OF_RANGE] += leapt
                return None, ignored
            if before and (before.keys() != counters.keys() or any(counters[k] < before[k] for k in before)):
                self._since = at
            return PodEnergy(sum(counters.values()), at, self._since), ignored
        watts = [gpu.watts for gpu in gpus if gpu.watts is not None]
        if len(watts) != asked:
            return None, ignored
        return self._added(at, sum(watts)), ignored

    def _added(self, at: float, watts: float) -> PodEnergy:
        before = self._sum
        if before is None or not 0 <= at - before.at <= GAP:
            self._sum = PodEnergy(0.0, at, since=at)
        else:
            more = (at - before.at) * (self._watts + watts) / 2
            self._sum = PodEnergy(before.joules + more, at, before.since)
        self._watts = watts
        return self._sum


def _leapt(
    before: Mapping[tuple[str, str], float], now: Mapping[tuple[str, str], float], seconds: float
) -> int:
    """GPUs that would have taken more than any can."""
    most = MOST_WATTS * max(1.0, seconds)
    return sum(joules - before[gpu] > most for gpu, joules in now.items() if gpu in before)
