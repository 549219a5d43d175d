"""KEDA with two triggers, waiting requests and KV cache: the setup that llm-d's own script makes for vLLM.

Sources: llm-d-autoscaling PR 1517 (hack/setup-keda-vllm-scaling.sh: KV cache 60 %, 30 waiting requests);
KEDA v2.21.0 pkg/scalers/prometheus_scaler.go and pkg/scaling/scale_handler.go; the HPA that KEDA makes is
Kubernetes' own (hpa.py), which takes the greatest of the triggers' numbers.

Two things differ from how KEDA is often described. `pollingInterval` (30 s) decides only about waking from zero
and about metrics that a trigger caches (`useCachedMetrics`, off): from one group on, the HPA's query every 15 s
goes through to Prometheus. And `ignoreNullValues` is on: an empty result, NaN or an infinity reads as 0, so that
lost metrics scale in once the stabilisation window is over.
"""

import math
from dataclasses import dataclass, field

from moe_operator.simulator.policies import hpa
from moe_operator.simulator.policies.baseline import KV_SHARES, Tunable
from moe_operator.simulator.policies.readings import total
from moe_operator.simulator.policy import FleetState, View

TUNABLE = Tunable(
    ("kv", "waiting"),
    tuple((kv, waiting) for kv in KV_SHARES for waiting in (5.0, 30.0)),
    "KV cache use and waiting requests per group",
)


@dataclass(frozen=True)
class KedaSettings:
    waiting: float = 30.0
    """AverageValue of the trigger on `sum(vllm:num_requests_waiting)`."""
    kv: float = 0.6
    """AverageValue of the trigger on `sum(vllm:kv_cache_usage_perc)`."""
    ignore_null_values: bool = True
    behaviour: hpa.Behaviour = field(default_factory=hpa.Behaviour)
    interval: float = hpa.SYNC


class Keda:
    name = "keda-waiting-kv"
    undrain = False
    tunable: Tunable = TUNABLE

    def __init__(self, settings: KedaSettings | None = None) -> None:
        self.settings = settings or KedaSettings()
        self.interval = self.settings.interval
        self._autoscaler = hpa.Autoscaler(self.settings.behaviour)

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        proposals = [
            self._proposal(total(view, metric), target, fleet)
            for metric, target in (("waiting", self.settings.waiting), ("kv_usage", self.settings.kv))
        ]
        return self._autoscaler.step(proposals, fleet.desired, fleet.floor, fleet.ceiling, now)

    def _proposal(self, value: float | None, target: float, fleet: FleetState) -> int | None:
        if value is None or not math.isfinite(value):
            if not self.settings.ignore_null_values:
                return None
            value = 0.0
        replicas = fleet.ready + fleet.starting
        return hpa.average_value(value, target, replicas, self.settings.behaviour.tolerance)
