"""Kubernetes' horizontal pod autoscaler: from a metric to a number, and from numbers to a step.

Source: Kubernetes v1.36.3, pkg/controller/podautoscaler (replica_calculator.go, horizontal.go) and
config/v1alpha1/defaults.go. Pure: `now` is an argument. Quantities are rounded to thousandths by the API of
external metrics and are not here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

SYNC = 15.0
"""Seconds between two looks (`--horizontal-pod-autoscaler-sync-period`)."""

LONGEST_PERIOD = 1800.0
"""Seconds: the API takes no longer `periodSeconds`."""


@dataclass(frozen=True)
class Change:
    """One scaling policy: at most so many pods, or so many percent, within the period (seconds)."""

    kind: Literal["pods", "percent"]
    value: int
    period: float


@dataclass(frozen=True)
class Rules:
    """One direction of `behavior`."""

    stabilization: float
    """Seconds of recommendations to look back over: up takes their least, down their greatest."""
    changes: tuple[Change, ...]
    select: Literal["Max", "Min", "Disabled"] = "Max"


UP = Rules(0.0, (Change("pods", 4, 15.0), Change("percent", 100, 15.0)))
"""What `behavior.scaleUp` is where it is not declared (pkg/apis/autoscaling/v2/defaults.go)."""
DOWN = Rules(300.0, (Change("percent", 100, 15.0),))
"""What `behavior.scaleDown` is where it is not declared."""


@dataclass(frozen=True)
class Behaviour:
    """How fast a number may follow the metric. Defaults: those of autoscaling/v2.

    An HPA without any `behavior` takes another path in the controller: at most max(2 n, 4) per look, and 300 s
    of stabilisation down; that is `plain`.
    """

    up: Rules = UP
    down: Rules = DOWN
    tolerance: float = 0.1
    plain: bool = False


def average_value(usage: float, target: float, replicas: int, tolerance: float = 0.1) -> int:
    """Replicas for an external metric with an AverageValue: `usage` is the sum over all of them.

    Within the tolerance of the target the number stays what it is; else it does not depend on it.
    """
    if replicas > 0 and 1.0 - tolerance <= usage / (target * replicas) <= 1.0 + tolerance:
        return replicas
    return math.ceil(usage / target)


@dataclass
class Autoscaler:
    """The controller's state for one workload."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    _recommended: list[tuple[float, int]] = field(default_factory=list)
    _ups: list[tuple[float, int]] = field(default_factory=list)
    _downs: list[tuple[float, int]] = field(default_factory=list)

    def step(
        self, proposals: Sequence[int | None], current: int, floor: int, ceiling: int, now: float
    ) -> int:
        """What `spec.replicas` becomes, from one proposal a metric; None for a metric that could not be read.

        The greatest proposal counts. Nothing changes while no metric can be read, nor while one cannot and the
        others would scale in.
        """
        if not self._recommended:
            self._recommended.append((now, current))
        wanted = self._wanted(proposals, current, floor, ceiling, now)
        if wanted != current and not self.behaviour.plain:
            events = self._ups if wanted > current else self._downs
            events[:] = [event for event in events if event[0] > now - LONGEST_PERIOD]
            events.append((now, abs(wanted - current)))
        return wanted

    def _wanted(
        self, proposals: Sequence[int | None], current: int, floor: int, ceiling: int, now: float
    ) -> int:
        if current == 0 and floor != 0:
            return 0
        if current > ceiling:
            return ceiling
        if current < floor:
            return floor
        known = [proposal for proposal in proposals if proposal is not None]
        if not known or (len(known) < len(proposals) and max(known) < current):
            return current
        proposal = max(known)
        if self.behaviour.plain:
            return self._plain(proposal, current, floor, ceiling, now)
        stable = self._stabilised(proposal, current, now)
        return self._limited(stable, current, floor, ceiling, now)

    def _plain(self, proposal: int, current: int, floor: int, ceiling: int, now: float) -> int:
        since = now - DOWN.stabilization
        self._recommended = [(at, number) for at, number in self._recommended if at >= since]
        stable = max([proposal, *(number for _, number in self._recommended)])
        self._recommended.append((now, proposal))
        return max(min(stable, ceiling, max(2 * current, 4)), floor)

    def _stabilised(self, proposal: int, current: int, now: float) -> int:
        up_since, down_since = now - self.behaviour.up.stabilization, now - self.behaviour.down.stabilization
        longest = min(up_since, down_since)
        self._recommended = [(at, number) for at, number in self._recommended if at >= longest]
        least = min([proposal, *(number for at, number in self._recommended if at > up_since)])
        greatest = max([proposal, *(number for at, number in self._recommended if at > down_since)])
        self._recommended.append((now, proposal))
        return min(max(current, least), greatest)

    def _limited(self, wanted: int, current: int, floor: int, ceiling: int, now: float) -> int:
        if wanted > current:
            return min(wanted, ceiling, max(current, self._up_limit(current, now)))
        if wanted < current:
            return max(wanted, floor, min(current, self._down_limit(current, now)))
        return wanted

    def _up_limit(self, current: int, now: float) -> int:
        rules = self.behaviour.up
        if rules.select == "Disabled":
            return current
        limits = []
        for change in rules.changes:
            start = self._at_start(current, change.period, now)
            more = start + change.value
            if change.kind == "percent":
                more = math.ceil(start * (1 + change.value / 100))
            limits.append(more)
        return min(limits) if rules.select == "Min" else max(limits)

    def _down_limit(self, current: int, now: float) -> int:
        rules = self.behaviour.down
        if rules.select == "Disabled":
            return current
        limits = []
        for change in rules.changes:
            start = self._at_start(current, change.period, now)
            less = start - change.value
            if change.kind == "percent":
                less = int(start * (1 - change.value / 100))
            limits.append(less)
        return max(limits) if rules.select == "Min" else min(limits)

    def _at_start(self, current: int, period: float, now: float) -> int:
        """The number at the start of the period, as the controller's own steps tell it."""
        since = now - period
        added = sum(number for at, number in self._ups if at > since)
        removed = sum(number for at, number in self._downs if at > since)
        return current - added + removed
