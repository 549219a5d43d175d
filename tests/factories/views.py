"""Makers of what a policy of scaling sees: metrics of groups and the fleet around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moe_operator.simulator.policy import FleetState

SCRAPE = 15.0

Metric = float | Sequence[tuple[float, float]]
"""A number that never changed, or (time, value) samples, oldest first."""


@dataclass
class FakeView:
    """A `View` of samples that are given; a plain number is scraped every 15 s for the last 10 minutes."""

    now: float = 600.0
    metrics: Mapping[int, Mapping[str, Metric]] = field(default_factory=dict)
    frontend: Mapping[str, float] = field(default_factory=dict)
    """Increase per second."""
    quantiles: Mapping[str, float | None] = field(default_factory=dict)
    group_slots: int = 2048

    def groups(self) -> tuple[int, ...]:
        return tuple(sorted(self.metrics))

    def _samples(self, metric: str) -> dict[int, list[tuple[float, float]]]:
        found = {}
        for group, metrics in self.metrics.items():
            given = metrics.get(metric)
            if isinstance(given, int | float):
                given = [(self.now - SCRAPE * back, float(given)) for back in range(40, 0, -1)]
            if given:
                found[group] = [(at, value) for at, value in given if at <= self.now]
        return found

    def latest(self, metric: str) -> dict[int, float]:
        return {group: samples[-1][1] for group, samples in self._samples(metric).items() if samples}

    def window(self, metric: str, seconds: float) -> dict[int, tuple[list[float], list[float]]]:
        found = {}
        for group, samples in self._samples(metric).items():
            kept = [(at, value) for at, value in samples if at > self.now - seconds]
            if kept:
                found[group] = ([at for at, _ in kept], [value for _, value in kept])
        return found

    def increase(self, counter: str, seconds: float) -> dict[int, float]:
        window = self.window(counter, seconds)
        return {group: values[-1] - values[0] for group, (_, values) in window.items()}

    def frontend_increase(self, counter: str, seconds: float) -> float:
        return self.frontend.get(counter, 0.0) * seconds

    def quantile(self, histogram: str, q: float, seconds: float) -> float | None:
        return self.quantiles.get(histogram)

    def slots(self) -> int:
        return self.group_slots


def each(groups: int, **metrics: Metric) -> dict[int, dict[str, Metric]]:
    """The same metrics of so many groups."""
    return {group: dict(metrics) for group in range(groups)}


def fleet(ready: int, **fields: Any) -> FleetState:
    """Ready groups that are what was asked for, between 1 and 20."""
    values: dict[str, Any] = {"desired": ready, "ready": ready, "starting": 0, "draining": 0}
    return FleetState(**({"floor": 1, "ceiling": 20} | values | fields))
