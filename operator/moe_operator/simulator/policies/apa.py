"""AIBrix's application-specific pod autoscaler on KV cache use, reactive or with its projector.

Source: vllm-project/aibrix pkg/controller/podautoscaler, read in 2026: algorithm/apa.go @6da8a5b (the rule),
context/context.go @2576b18 (defaults), autoscaler.go @015a2e5 (the guard for pending pods),
podautoscaler_controller.go (10 s, cooldown), metrics/client.go (window of 180 s),
prediction/predictor.go @9835400 and autoscaler_predictive_test.go @295c36d (the projector).

Three things differ from how the rule is often told:
- the measured ratio is no longer multiplied by pods that only start: while some do, they count with no use on
  the way up and with the target on the way down;
- on the way down the cooldown of 300 s takes the *least* recommendation in it, though its comment says that it
  works as Kubernetes' does (the greatest). It delays nothing, and after a rise it goes back at once to what was
  asked for before. `holds_down` repairs it, so that a benchmark may show both;
- the projector was merged as an observation: `Auto` reports the projected count and does not act on it yet.
  `projector` composes it as that code says it will be: the greater of both, through the same guard.

Values that are no numbers are left out; with none left the pass fails and nothing changes.
"""

import math
from dataclasses import dataclass

from moe_operator.simulator.policies.baseline import KV_SHARES, Tunable
from moe_operator.simulator.policies.projector import Projector
from moe_operator.simulator.policy import FleetState, View

TUNABLE = Tunable(
    ("target", "holds_down"),
    tuple((target, repaired) for target in KV_SHARES for repaired in (False, True)),
    "KV cache use of a group, and whether the cooldown down is repaired",
)


@dataclass(frozen=True)
class ApaSettings:
    target: float = 0.5
    """KV cache use per group, 0..1 (samples/autoscaling/apa.yaml, v0.7.0)."""
    up_tolerance: float = 0.1
    down_tolerance: float = 0.1
    max_up: float = 2.0
    """At most this many times the groups in one step."""
    max_down: float = 2.0
    window: float = 180.0
    """Seconds over which the metric is averaged."""
    up_cooldown: float = 0.0
    down_cooldown: float = 300.0
    holds_down: bool = False
    projector: Projector | None = None
    interval: float = 10.0


def recommend(settings: ApaSettings, use: float, groups: int) -> int:
    """Groups for a mean use per group, before cooldown and guard."""
    ratio = use / settings.target
    wanted = math.ceil(groups * ratio)
    if ratio > 1 + settings.up_tolerance:
        return min(wanted, math.ceil(settings.max_up * groups))
    if ratio < 1 - settings.down_tolerance:
        return max(wanted, math.floor(groups / settings.max_down))
    return groups


def guarded(settings: ApaSettings, wanted: int, use: float, groups: int, ready: int) -> int:
    """What remains of a recommendation while some of the groups start."""
    ready = min(max(ready, 0), groups)
    pending = groups - ready
    if pending <= 0 or groups <= 0 or wanted == groups:
        return wanted
    if wanted > groups:
        adjusted = math.ceil(groups * (use * ready / groups) / settings.target)
        return min(max(adjusted, groups), wanted)
    shared = (use * ready + settings.target * pending) / groups
    return max(min(math.ceil(groups * shared / settings.target), groups), wanted)


class Apa:
    undrain = False
    tunable: Tunable = TUNABLE

    def __init__(self, settings: ApaSettings | None = None) -> None:
        self.settings = settings or ApaSettings()
        self.name = "apa-kv-projected" if self.settings.projector else "apa-kv"
        self.interval = self.settings.interval
        self._samples: list[tuple[float, float]] = []
        self._recommended: list[tuple[float, int]] = []

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        settings = self.settings
        latest = view.latest("kv_usage")
        values = [latest[group] for group in sorted(latest) if math.isfinite(latest[group])]
        if not values or fleet.desired == 0:
            return fleet.desired
        span = max(settings.window, settings.projector.window if settings.projector else 0.0)
        self._samples = [(at, value) for at, value in self._samples if at > now - span]
        self._samples.append((now, math.fsum(values) / len(values)))
        recent = [value for at, value in self._samples if at > now - settings.window]
        use = math.fsum(recent) / len(recent)
        groups = fleet.desired
        wanted = guarded(settings, recommend(settings, use, groups), use, groups, fleet.ready)
        projected = settings.projector.project(self._samples, now) if settings.projector else None
        if projected is not None:
            composed = max(wanted, math.ceil(groups * projected / settings.target))
            wanted = guarded(settings, composed, use, groups, fleet.ready)
        return self._cooled(wanted, groups, now)

    def _cooled(self, wanted: int, groups: int, now: float) -> int:
        settings = self.settings
        longest = max(settings.up_cooldown, settings.down_cooldown)
        self._recommended.append((now, wanted))
        self._recommended = [(at, number) for at, number in self._recommended if at > now - longest]
        if wanted == groups:
            return groups
        window = settings.up_cooldown if wanted > groups else settings.down_cooldown
        within = [number for at, number in self._recommended if at > now - window] or [wanted]
        if wanted > groups:
            return max(within)
        return min(max(within), groups) if settings.holds_down else min(within)
