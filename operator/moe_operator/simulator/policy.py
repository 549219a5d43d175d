"""What a policy of scaling sees, and what it answers: the contract between the simulator and every autoscaler.

A policy is asked every `interval` seconds how many groups it wants. It sees what Prometheus would hold (a
`View`) and what Kubernetes would say (a `FleetState`), nothing of the engines or of the requests to come.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Samples(Protocol):
    """A run of numbers, oldest first: a sequence or a numpy array."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> float: ...


class View(Protocol):
    """The metrics that can be seen at one moment: late by the scrape's delay, of ready groups alone.

    Groups are numbers. A group without the metric is absent from a mapping or has an empty window; values may be
    NaN where an engine gave NaN. Times are seconds since the start of the trace; windows end where sight ends.
    """

    def groups(self) -> tuple[int, ...]:
        """The ready groups."""
        ...

    def latest(self, metric: str) -> Mapping[int, float]:
        """The newest sample of every group."""
        ...

    def window(self, metric: str, seconds: float) -> Mapping[int, tuple[Samples, Samples]]:
        """(times, values) of every group: gauges as scraped, counters as their raw totals."""
        ...

    def increase(self, counter: str, seconds: float) -> Mapping[int, float]:
        """What a counter grew by, resets accounted for."""
        ...

    def frontend_increase(self, counter: str, seconds: float) -> float:
        """The same for a counter of the gateway; NaN where it cannot be told."""
        ...

    def quantile(self, histogram: str, q: float, seconds: float) -> float | None:
        """`histogram_quantile` over all groups, seconds; None where nothing was observed."""
        ...

    def slots(self) -> int:
        """Requests that a group can compute at once, over all of its ranks."""
        ...


@dataclass(frozen=True)
class FleetState:
    """The groups as Kubernetes counts them."""

    desired: int
    """The number last asked for, within the limits: `spec.replicas` of a workload."""
    ready: int
    starting: int = 0
    draining: int = 0
    """On their way out: no longer part of `desired`, as terminating pods are not part of `status.replicas`."""
    floor: int = 1
    ceiling: int = 1_000_000


class Policy(Protocol):
    """An autoscaler. It keeps its own state: one object serves one run."""

    name: str
    interval: float
    """Seconds between decisions."""
    undrain: bool
    """Whether a draining group may come back before a new one is made."""

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        """How many groups are wanted; the simulator keeps the answer within floor and ceiling."""
        ...
