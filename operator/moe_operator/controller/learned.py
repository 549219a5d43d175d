"""What one reconcile found out: all that the status is folded from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from moe_operator.api.cost import CostStatus
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.scaling import ScalingStatus
from moe_operator.api.status import RecoveryStatus, RolloutStatus, ThroughputStatus
from moe_operator.controller.group_planner import GroupView
from moe_operator.controller.hbm import HbmFigures
from moe_operator.controller.planning import Room
from moe_operator.controller.weights_state import WeightsView
from moe_operator.planner.governance import Provenance
from moe_operator.resources.revision import Revision
from moe_operator.telemetry.figures import Figures
from moe_operator.telemetry.observation import PodObservation


@dataclass(frozen=True)
class Trouble:
    """Why the spec cannot be carried out. Stalled when only its owner can help, else the operator keeps trying."""

    reason: str
    message: str
    stalled: bool
    spec_at_fault: bool = True
    """False when the cluster is, so that `Planned` is not blamed."""


@dataclass(frozen=True)
class CostNews:
    """What a deployment took and cost, and whether that is worth a write by itself."""

    make: Callable[[], CostStatus]
    """As the status would have it: the same object each time. Made when it is asked for, as most passes write none."""
    urgent: bool
    """What could not be found out again, were it not written."""
    moved: bool
    """A figure is another than the one written: it is written when figures may be."""
    due: float | None = None
    """Seconds until the next look at the latest."""
    held: str | None = None
    """Why there are to be no more groups, as the budget is spent; None: nothing holds them."""


@dataclass(frozen=True)
class Learned:
    """What one reconcile found out."""

    deployment: ModelDeployment
    now: float
    trouble: Trouble | None
    revision: Revision | None
    """The revision in effect: the wanted one, or in trouble the last good one."""
    plan_notes: tuple[str, ...]
    groups: Sequence[GroupView]
    desired: int
    minimum: int
    """Groups that must serve for Ready."""
    scaling: ScalingStatus | None
    throughput: ThroughputStatus
    ledger: RecoveryStatus
    figures_written_at: float | None
    standing: int | None = None
    """Of `minimum`, those that no schedule or annotation asks for; None: all."""
    room: Room | None = None
    """Free GPUs, looked at while a pod finds no node."""
    observations: Mapping[str, PodObservation] = field(default_factory=dict)
    """What telemetry last saw of each pod, by uid."""
    weights: WeightsView | None = None
    """Where the weights of the revision stand."""
    provenance: Provenance | None = None
    """What the revision runs; None where this spec did not lead to it, as in trouble."""
    rollout: RolloutStatus | None = None
    """How far the move to the revision has come, while it is under way."""
    hindrance: tuple[str, str] | None = None
    """Why a write was refused that will not be refused for ever: a reason and a message."""
    hbm: HbmFigures | None = None
    """What the GPUs hold."""
    delivered: Figures | None = None
    """What the engines deliver."""
    leaving: bool = False
    """The deployment is being deleted."""
    cost: CostNews | None = None
    """What it took and cost; None: nobody looked."""
    removing: Sequence[str] = ()
    """Weights that are removed, after its groups."""
