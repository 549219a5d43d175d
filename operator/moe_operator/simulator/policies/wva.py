"""llm-d's workload variant autoscaler, saturation analyzer V1: spare KV cache and spare queue, one group a time.

Source: llm-d-autoscaling internal/saturationv1/analyzer.go @763b1bd, internal/config/saturation_scaling.go
@7862523, internal/collector/registration/saturation.go @3300e6f (peaks over one minute), GLOBAL_OPT_INTERVAL
60 s. It is deprecated since September 2026.

Its number is a metric that an HPA follows (AverageValue 1), and that is here too: `behaviour` is the HPA of
llm-d's guide (guides/workload-autoscaling/optimized-baseline-autoscaling/hpa.yaml @739e6a6; other pages of the
project have windows of 0, 240 and 300 s). A consequence of the HPA's tolerance of 10 %: from ten groups on,
one group more is no change, and as the analyzer waits for its number to be reached, it stays there. `TUNED`
has the tolerance of 0 that an HPA may declare; `behaviour=None` takes the number as it is.

A group whose metric is missing counts as saturated. While groups start, or the HPA has not followed yet,
nothing is decided. Without any metric the number holds.
"""

import math
from dataclasses import dataclass, replace

from moe_operator.simulator.policies import hpa
from moe_operator.simulator.policies.baseline import Tunable
from moe_operator.simulator.policies.readings import peaks
from moe_operator.simulator.policy import FleetState, View

TUNABLE = Tunable(
    ("kv_threshold", "kv_trigger"),
    tuple(
        (threshold, trigger)
        for threshold in (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
        for trigger in (0.05, 0.1, 0.2)
    ),
    "KV cache use of a saturated group, and the spare use that asks for one more",
)

GUIDE = hpa.Behaviour(
    up=hpa.Rules(120.0, (hpa.Change("percent", 100, 15.0),)),
    down=hpa.Rules(120.0, (hpa.Change("percent", 100, 15.0),)),
)
TUNED = replace(GUIDE, tolerance=0.0)
LEAST_TO_SHRINK = 2
"""`MinNonSaturatedReplicasForScaleDown`."""


@dataclass(frozen=True)
class WvaSettings:
    kv_threshold: float = 0.80
    queue_threshold: float = 5.0
    kv_trigger: float = 0.10
    """One group more when the mean spare use is below this."""
    queue_trigger: float = 3.0
    peak_window: float = 60.0
    ranks: int = 1
    """The queue is that of the worst rank; a view has it for the group, so it is shared out evenly."""
    behaviour: hpa.Behaviour | None = GUIDE
    decides_every: float = 60.0


@dataclass(frozen=True)
class Replica:
    """Peaks of one group; None: not scraped."""

    kv: float | None
    queue: float | None


@dataclass(frozen=True)
class Analysis:
    grow: bool
    may_shrink: bool


def analyse(settings: WvaSettings, replicas: list[Replica]) -> Analysis:
    """Whether one more is needed, and whether one fewer would do."""
    if not replicas:
        return Analysis(False, False)
    spare = [
        (settings.kv_threshold - replica.kv, settings.queue_threshold - replica.queue)
        for replica in replicas
        if replica.kv is not None
        and replica.queue is not None
        and replica.kv < settings.kv_threshold
        and replica.queue < settings.queue_threshold
    ]
    count = len(spare)
    kv = math.fsum(one[0] for one in spare) / count if count else 0.0
    queue = math.fsum(one[1] for one in spare) / count if count else 0.0
    grow = kv < settings.kv_trigger or queue < settings.queue_trigger
    if count < LEAST_TO_SHRINK:
        return Analysis(grow, False)
    share = count / (count - 1)
    kv_after = settings.kv_threshold - (settings.kv_threshold - kv) * share
    queue_after = settings.queue_threshold - (settings.queue_threshold - queue) * share
    return Analysis(grow, kv_after >= settings.kv_trigger and queue_after >= settings.queue_trigger)


def target(analysis: Analysis, current: int, asked: int, pending: int) -> int:
    """The number it publishes: `current` are the groups there are, `asked` what it published last (0: nothing)."""
    if asked not in (0, current):
        return asked
    if pending > 0:
        return current
    if analysis.grow:
        return current + 1
    if analysis.may_shrink and current > 1:
        return current - 1
    return current


class Wva:
    name = "wva-v1"
    undrain = False
    tunable: Tunable = TUNABLE

    def __init__(self, settings: WvaSettings | None = None) -> None:
        self.settings = settings or WvaSettings()
        self.interval = hpa.SYNC if self.settings.behaviour else self.settings.decides_every
        self._autoscaler = hpa.Autoscaler(self.settings.behaviour) if self.settings.behaviour else None
        self._asked = 0
        self._next = -math.inf

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        current = fleet.ready + fleet.starting
        if now >= self._next:
            self._next = now + self.settings.decides_every
            self._decide(view, fleet, current)
        if self._autoscaler is None:
            return self._asked
        proposal = hpa.average_value(self._asked, 1.0, current, self._autoscaler.behaviour.tolerance)
        return self._autoscaler.step([proposal], fleet.desired, fleet.floor, fleet.ceiling, now)

    def _decide(self, view: View, fleet: FleetState, current: int) -> None:
        kv = peaks(view, "kv_usage_worst", self.settings.peak_window)
        queue = peaks(view, "waiting", self.settings.peak_window)
        groups = sorted(set(kv) | set(queue))
        replicas = [
            Replica(_known(kv.get(group)), _known(queue.get(group), self.settings.ranks)) for group in groups
        ]
        if not replicas:
            self._asked = self._asked or fleet.desired
            return
        asked = target(analyse(self.settings, replicas), current, self._asked, fleet.starting)
        self._asked = min(max(asked, fleet.floor), fleet.ceiling)


def _known(value: float | None, share: int = 1) -> float | None:
    return None if value is None or math.isnan(value) else value / share
