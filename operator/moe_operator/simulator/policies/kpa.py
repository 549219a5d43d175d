"""Knative's pod autoscaler on concurrency: a stable window, and a panic window for bursts.

Source: knative.dev/serving v0.51.0, pkg/autoscaler/scaling/autoscaler.go and pkg/autoscaler/config/config.go.
AIBrix has a strategy of the same name and rule with windows of 180 s and 60 s (vllm-project/aibrix
pkg/controller/podautoscaler/metrics, 2026): `KpaSettings(stable_window=180, panic_window=60)`.

The metric is what a group has of a request: running and waiting, summed over the ready groups. The number is
absolute, so groups that start are not asked for twice. No data: nothing changes. Knative scrapes every second;
here a window ends with the newest scrape, so the panic window of 6 s holds one scrape. What was scraped is kept
as it was, so that a group that leaves does not take its past with it.
"""

import math
from dataclasses import dataclass

from moe_operator.simulator.policies.baseline import Tunable, one
from moe_operator.simulator.policies.readings import newest_sum
from moe_operator.simulator.policy import FleetState, View

TUNABLE = one(
    "concurrency",
    (
        2,
        3,
        5,
        7,
        10,
        14,
        20,
        30,
        40,
        50,
        60,
        70,
        80,
        95,
        110,
        125,
        140,
        160,
        180,
        200,
        250,
        300,
        400,
        500,
        650,
        800,
        1000,
        1300,
        1700,
    ),
    "requests per group at 100 %",
)


@dataclass(frozen=True)
class KpaSettings:
    concurrency: float = 70.0
    """Target requests per group: `container-concurrency-target-default` 100 at 70 % of it."""
    stable_window: float = 60.0
    panic_window: float = 6.0
    """`panic-window-percentage` 10 of the stable window."""
    panic_threshold: float = 2.0
    """Panic once the panic window asks for this many times the ready groups."""
    max_up: float = 1000.0
    """At most this many times the ready groups."""
    max_down: float = 2.0
    """At least the ready groups divided by this."""
    interval: float = 2.0


@dataclass
class Panic:
    """Knative's state: since when it panics, and the most it has asked for since."""

    settings: KpaSettings
    since: float | None = None
    most: int = 0

    def start(self, ready: int, now: float) -> None:
        """A fresh autoscaler over several groups panics at first, as it has no history to scale in by."""
        self.most = ready
        if ready > 1:
            self.since = now

    def decide(self, stable: float, panic: float, ready: int, now: float) -> int:
        """Groups for the means of both windows (requests in all of the groups)."""
        settings, base = self.settings, max(1, ready)
        most, least = math.ceil(settings.max_up * base), math.floor(base / settings.max_down)
        by_stable, by_panic = (math.ceil(value / settings.concurrency) for value in (stable, panic))
        if by_panic / base >= settings.panic_threshold:
            self.since = now
        elif self.since is not None and now > self.since + settings.stable_window:
            self.since, self.most = None, 0
        wanted = min(max(by_stable, least), most)
        if self.since is None:
            return wanted
        self.most = max(self.most, wanted, min(max(by_panic, least), most))
        return self.most


class Kpa:
    name = "kpa-concurrency"
    undrain = False
    tunable: Tunable = TUNABLE

    def __init__(self, settings: KpaSettings | None = None) -> None:
        self.settings = settings or KpaSettings()
        self.interval = self.settings.interval
        self._panic: Panic | None = None
        self._seen: list[tuple[float, float]] = []

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        if self._panic is None:
            self._panic = Panic(self.settings)
            self._panic.start(fleet.ready, now)
        seen = newest_sum(view, ("running", "waiting"))
        if seen is None:
            return fleet.desired
        newest, _ = seen
        if not self._seen or newest > self._seen[-1][0]:
            self._seen.append(seen)
        oldest = newest - max(self.settings.stable_window, self.settings.panic_window)
        self._seen = [(at, value) for at, value in self._seen if at > oldest]
        stable, panic = (
            self._mean(newest - window)
            for window in (self.settings.stable_window, self.settings.panic_window)
        )
        return self._panic.decide(stable, panic, fleet.ready, now)

    def _mean(self, after: float) -> float:
        values = [value for at, value in self._seen if at > after]
        return math.fsum(values) / len(values)
