"""Figures of the status: numbers that move all the time.

The one rule for writing them: all together, so that they are of one moment; when one of them moved; at most once in
INTERVAL seconds. What is no figure is written at once, and cost comes along with whatever is written. Pure.
"""

from dataclasses import dataclass

from moe_operator.api.hbm import HbmStatus
from moe_operator.api.scaling import ScalingStatus
from moe_operator.api.status import LatencyStatus, ModelDeploymentStatus, ThroughputStatus
from moe_operator.controller.hbm import HbmFigures
from moe_operator.controller.hbm_status import hbm_moved, hbm_status, hbm_turned
from moe_operator.controller.latency_status import latency_moved, latency_status
from moe_operator.controller.learned import CostNews, Learned
from moe_operator.controller.scaling_status import figures_moved
from moe_operator.telemetry.figures import Figures as Delivered

#: Seconds between two writes of figures.
INTERVAL = 30.0
#: Share by which a rate must have moved.
_STEP = 0.01


@dataclass(frozen=True)
class Figures:
    """As they are now, or as they are to be written."""

    throughput: ThroughputStatus
    scaling: ScalingStatus | None
    """The decision, which brings its own figures."""
    hbm: HbmStatus | None
    cost: CostNews | None
    latency: LatencyStatus | None = None

    def moved(self, told: ModelDeploymentStatus) -> bool:
        """Whether one is worth a write, by what was written last."""
        return (
            _rates_moved(told.throughput, self.throughput)
            or figures_moved(told.scaling, self.scaling)
            or hbm_moved(told.hbm, self.hbm)
            or latency_moved(told.latency, self.latency)
            or (self.cost is not None and self.cost.moved and self.cost.make() is not told.cost)
        )

    def differ(self, told: ModelDeploymentStatus) -> bool:
        """Whether one moved, or a rate by however little: a slow drift is no news of telemetry's."""
        return self.throughput != told.throughput or self.moved(told)


def figures(
    told: ModelDeploymentStatus,
    throughput: ThroughputStatus,
    scaling: ScalingStatus | None,
    hbm: HbmFigures | None,
    cost: CostNews | None,
    now: float,
    delivered: Delivered | None = None,
) -> Figures:
    """As they are `now` (seconds since the epoch), by what was written last."""
    return Figures(throughput, scaling, hbm_status(told.hbm, hbm, now), cost, latency_status(delivered))


def settled(learned: Learned) -> tuple[Figures, bool]:
    """Those to write, and whether they are new. Not new ones are as before, but for a decision, and for memory that is
    of another kind than before."""
    old = learned.deployment.status
    new = figures(
        old, learned.throughput, learned.scaling, learned.hbm, learned.cost, learned.now, learned.delivered
    )
    written = learned.figures_written_at
    recent = written is not None and learned.now - written < INTERVAL
    if not recent and new.moved(old):
        return new, True
    hbm = new.hbm if hbm_turned(old.hbm, new.hbm) else old.hbm
    scaling = new.scaling
    if old.scaling is not None and scaling is not None:
        still = scaling.model_copy(update={"figures": old.scaling.figures})
        scaling = old.scaling if still == old.scaling else scaling
    return Figures(old.throughput, scaling, hbm, new.cost, old.latency), False


def _rates_moved(before: ThroughputStatus, after: ThroughputStatus) -> bool:
    pairs = (
        (before.prompt_tokens_per_second, after.prompt_tokens_per_second),
        (before.output_tokens_per_second, after.output_tokens_per_second),
    )
    return any(abs(a - b) > _STEP * max(abs(a), abs(b)) for a, b in pairs)
