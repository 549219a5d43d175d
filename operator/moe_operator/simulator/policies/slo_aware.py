"""llm-d's SLO-aware autoscaling by KEDA: the P90 of latency over the objective, with a credit for what starts.

Source: llm-d/llm-d guides/workload-autoscaling/README.slo-aware.md @d38c9f0 and slo-aware/README.md @1860df2
(its ScaledObject and recording rules could not be had as files; the guide has the law in full). The signal is
the measured latency; the guide prefers the router's prediction of it and falls back to this.

The formula's output is the metric of an HPA with AverageValue 1, so that its tolerance of 10 % applies: at ten
groups and more, one group more is no change; `TUNED` has the tolerance of 0 that an HPA may declare. NaN and no
traffic read as 0: an idle pool drains to the floor.
"""

import math
from dataclasses import dataclass, replace

from moe_operator.simulator.policies import hpa
from moe_operator.simulator.policies.baseline import Tunable
from moe_operator.simulator.policy import FleetState, View

TUNABLE = Tunable(
    ("up", "down"),
    (
        (0.25, 0.15),
        (0.3, 0.2),
        (0.35, 0.25),
        (0.4, 0.29),
        (0.45, 0.33),
        (0.5, 0.36),
        (0.55, 0.4),
        (0.6, 0.44),
        (0.7, 0.5),
        (0.8, 0.6),
        (0.9, 0.7),
    ),
    "the shares of the objective that ask for more and allow fewer",
)

GUIDE = hpa.Behaviour(
    up=hpa.Rules(30.0, (hpa.Change("percent", 100, 60.0), hpa.Change("pods", 4, 60.0))),
    down=hpa.Rules(180.0, (hpa.Change("pods", 1, 120.0),)),
)
TUNED = replace(GUIDE, tolerance=0.0)


@dataclass(frozen=True)
class SloAwareSettings:
    ttft: float = 3.0
    """Objective, seconds. The guide's values; a benchmark gives its own."""
    tpot: float = 0.1
    up: float = 0.55
    down: float = 0.40
    quantile: float = 0.9
    rate_window: float = 60.0
    clamp: float = 2.0
    smoothing: float = 45.0
    """Seconds of samples of the signal, one every `interval`, that are averaged."""
    behaviour: hpa.Behaviour = GUIDE
    interval: float = hpa.SYNC


def wanted(settings: SloAwareSettings, saturation: float, provisioned: int, ready: int) -> int:
    """The control law: groups for a smoothed saturation."""
    credit = ready / provisioned if 0 < ready < provisioned else 1.0
    if saturation > settings.up:
        return provisioned + math.ceil(provisioned * (saturation * credit / settings.up - 1))
    if saturation < settings.down:
        return provisioned - math.floor(provisioned * (1 - saturation / settings.down))
    return provisioned


class SloAware:
    name = "llm-d-slo-aware"
    undrain = False
    tunable: Tunable = TUNABLE

    def __init__(self, settings: SloAwareSettings | None = None) -> None:
        self.settings = settings or SloAwareSettings()
        self.interval = self.settings.interval
        self._autoscaler = hpa.Autoscaler(self.settings.behaviour)
        self._signal: list[tuple[float, float]] = []

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        settings = self.settings
        raw = max(self._share(view, "ttft", settings.ttft), self._share(view, "tpot", settings.tpot))
        self._signal = [(at, value) for at, value in self._signal if at > now - settings.smoothing]
        self._signal.append((now, min(raw, settings.clamp)))
        saturation = math.fsum(value for _, value in self._signal) / len(self._signal)
        provisioned = fleet.ready + fleet.starting
        number = wanted(settings, saturation, provisioned, fleet.ready)
        proposal = hpa.average_value(number, 1.0, provisioned, settings.behaviour.tolerance)
        return self._autoscaler.step([proposal], fleet.desired, fleet.floor, fleet.ceiling, now)

    def _share(self, view: View, histogram: str, objective: float) -> float:
        value = view.quantile(histogram, self.settings.quantile, self.settings.rate_window)
        return value / objective if value is not None and math.isfinite(value) else 0.0
