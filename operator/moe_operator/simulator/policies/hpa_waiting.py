"""A horizontal pod autoscaler on waiting requests: what most guides for vLLM show first.

Source: the rule is Kubernetes' own, see hpa.py; the metric and its target are those of the vLLM production
stack's tutorials on autoscaling (`vllm:num_requests_waiting`; threshold 5 in its KEDA example). The metric comes
through an adapter for external metrics, so an empty result is an error and not a zero: the number holds.
"""

import math
from dataclasses import dataclass, field

from moe_operator.simulator.policies import hpa
from moe_operator.simulator.policies.baseline import Tunable, one
from moe_operator.simulator.policies.readings import total
from moe_operator.simulator.policy import FleetState, View

TUNABLE = one(
    "waiting", (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0), "waiting requests per group"
)


@dataclass(frozen=True)
class HpaWaitingSettings:
    waiting: float = 5.0
    """AverageValue: waiting requests per group."""
    behaviour: hpa.Behaviour = field(default_factory=hpa.Behaviour)
    interval: float = hpa.SYNC


class HpaWaiting:
    name = "hpa-waiting"
    undrain = False
    tunable: Tunable = TUNABLE

    def __init__(self, settings: HpaWaitingSettings | None = None) -> None:
        self.settings = settings or HpaWaitingSettings()
        self.interval = self.settings.interval
        self._autoscaler = hpa.Autoscaler(self.settings.behaviour)

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        waiting = total(view, "waiting")
        proposal = None
        if waiting is not None and math.isfinite(waiting):
            replicas = fleet.ready + fleet.starting
            proposal = hpa.average_value(
                waiting, self.settings.waiting, replicas, self.settings.behaviour.tolerance
            )
        return self._autoscaler.step([proposal], fleet.desired, fleet.floor, fleet.ceiling, now)
