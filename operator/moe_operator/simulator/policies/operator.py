"""The operator's own autoscaler (`moe_operator.autoscaler`), fed from a view as the operator's telemetry feeds it.

Readings go in as they are scraped; when groups began to serve, and how long they took, is seen as the operator sees it
in their conditions.
"""

import math
from collections import deque
from dataclasses import dataclass

from moe_operator.autoscaler.auto import TICK, WORTH, Autoscaler, Profile
from moe_operator.autoscaler.cold_start import PRIOR, ColdStart
from moe_operator.autoscaler.reading import Buckets, Reading
from moe_operator.simulator.policies.baseline import Served, Tunable, one
from moe_operator.simulator.policy import FleetState
from moe_operator.simulator.scrape import BOUNDS, View

TUNABLE = one("worth", (6.0, 12.0, 18.0, 24.0, 36.0, 54.0), "groups that one group's load on time is worth")
_BOUNDS = {name: (*map(float, BOUNDS[name]), math.inf) for name in ("ttft", "tpot")}


@dataclass(frozen=True)
class OperatorSettings:
    served: Served
    """Ranks, slots and objective of the deployment."""
    cold_start: float = PRIOR
    """Seconds that a start is expected to take before any was seen."""
    idle_step_time: float | None = None
    """Seconds of a step without load, as planned; None: to be learned."""
    worth: float = WORTH
    window: float | None = None
    """Seconds of `scaling.scaleDown.window`; None: learned."""


class Operator:
    name = "moe-operator"
    undrain = True
    tunable: Tunable = TUNABLE

    def __init__(self, settings: OperatorSettings) -> None:
        self.settings = settings
        self.interval = TICK
        served = self.settings.served
        profile = Profile(
            ranks=served.ranks,
            slots=served.slots,
            ttft=served.ttft,
            tpot=served.tpot,
            idle_step_time=self.settings.idle_step_time,
        )
        self._starts = ColdStart(prior=self.settings.cold_start)
        self.autoscaler = Autoscaler(
            profile, self._starts.expected, worth=self.settings.worth, window=self.settings.window
        )
        self._ordered: deque[float] = deque()
        self._born: dict[int, float | None] = {}
        self._began = False

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        serving, draining = view.groups(), view.draining()
        self._watch(serving, now)
        for group, reading in readings(view).items():
            self.autoscaler.read(group, reading, born=self._born.get(group))
        self.autoscaler.cold_start = self._starts.expected
        self.autoscaler.look(now, {group: self._born.get(group) for group in serving}, draining)
        want = self.autoscaler.want(now, fleet.desired, fleet.floor, fleet.ceiling)
        self.want = want
        # Draining groups come back first.
        more = want.groups - fleet.ready - fleet.starting - fleet.draining
        self._ordered.extend([now] * max(0, more - max(0, len(self._ordered) - fleet.starting)))
        for _ in range(min(fleet.desired - want.groups, len(self._ordered))):
            self._ordered.pop()
        return want.groups

    def _watch(self, serving: tuple[int, ...], now: float) -> None:
        """Groups that are new: how long they took. Those of the beginning are not."""
        for group in serving:
            if group in self._born:
                continue
            self._born[group] = now if self._began else None
            if self._ordered:
                self._starts = self._starts.observed(now - self._ordered.popleft())
        self._began = True


def readings(view: View) -> dict[int, Reading]:
    """The newest sample of every ready or draining group."""
    found = {}
    for group in (*view.groups(), *view.draining()):
        sample = view.newest(group)
        if sample is None:
            continue
        ranks = sample["ranks"]
        found[group] = Reading(
            at=sample.at,
            running=sample["running"],
            waiting=sample["waiting"],
            kv=sample["kv_usage"],
            finished=sample["finished"],
            gaps=sample["gaps"],
            gap_seconds=sample["gap_microseconds"] * 1e-6,
            first_token=Buckets(_BOUNDS["ttft"], sample.cumulative("ttft")),
            per_token=Buckets(_BOUNDS["tpot"], sample.cumulative("tpot")),
            ranks=int(ranks) if math.isfinite(ranks) else 0,
        )
    return found
