"""What one pass of the reconcile over one ModelDeployment knows, and what it has found out so far."""

from dataclasses import dataclass, field

from moe_operator.api.base import parse_duration
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import GroupsOnDeletion, ModelDeploymentSpec
from moe_operator.api.status import Cause, RecoveryStatus, RolloutStatus
from moe_operator.controller.group_planner import GroupPlan, GroupView
from moe_operator.controller.hbm import HbmFigures
from moe_operator.controller.learned import CostNews, Trouble
from moe_operator.controller.load import Load
from moe_operator.controller.notices import Notice
from moe_operator.controller.planning import Room
from moe_operator.controller.scale import Scale
from moe_operator.controller.weights_removal import removes
from moe_operator.controller.weights_state import WeightsView
from moe_operator.planner.governance import Provenance
from moe_operator.resources.revision import Revision
from moe_operator.telemetry.figures import Figures


@dataclass(frozen=True)
class Look:
    """The groups as they were judged at one moment."""

    views: list[GroupView]
    load: Load
    occupied_slots: frozenset[int]


@dataclass(frozen=True)
class Decision:
    """What to do about the groups of one look."""

    views: list[GroupView]
    plan: GroupPlan
    scale: Scale
    load: Load


@dataclass
class PassState:
    """Lives for one pass; what outlives it is in the cluster, or with the parts that remember it."""

    deployment: ModelDeployment
    """With the policy's additions to its spec, and the status as it was written last."""
    written: ModelDeploymentSpec
    """The spec without what the policy adds to it."""
    now: float
    kept: dict[str, Revision]
    """Stored revisions by name."""
    trouble: Trouble | None = None
    readable: bool = True
    """Whether the spec says anything: one that cannot be read leaves the groups as they are."""
    leaving: bool = False
    """Whether the deployment is being deleted."""
    ledger: RecoveryStatus = field(init=False)
    rollout: RolloutStatus | None = field(init=False)
    effective: Revision | None = None
    """The wanted revision; in trouble the last good one."""
    made_of: Revision | None = None
    """What groups are made of: the wanted revision, or what runs while that is paused or has no weights yet."""
    provenance: Provenance | None = None
    notes: tuple[str, ...] = ()
    told: dict[str, Notice] = field(default_factory=dict)
    """What Events say of groups that wait, by uid."""
    given_up: dict[str, Cause] = field(default_factory=dict)
    """Groups that wait for nodes which others have taken, while there is another place; by name."""
    weights: WeightsView | None = None
    room: Room | None = None
    cost: CostNews | None = None
    """What the deployment took and cost."""
    hbm: HbmFigures | None = None
    """What its GPUs hold."""
    delivered: Figures | None = None
    """What its engines deliver."""
    hindrance: Notice | None = None
    """Why a write was refused that will not be refused for ever."""
    parent_seen: bool = False
    """Whether the API server has shown in this pass that the deployment is still there."""
    removing: tuple[str, ...] = ()
    """Weights that are being removed, after the groups of a deployment that goes."""

    def __post_init__(self) -> None:
        self.ledger = self.deployment.status.recovery
        self.rollout = self.deployment.status.rollout

    @property
    def last_good(self) -> Revision | None:
        """The revision that the status names."""
        return self.kept.get(self.deployment.status.revision or "")

    def revision(self, name: str) -> Revision | None:
        """Of this name, stored or just made."""
        if self.effective is not None and self.effective.name == name:
            return self.effective
        return self.kept.get(name)

    @property
    def held(self) -> bool:
        """Whether no group of the wanted revision can start, as its weights are not there."""
        return self.weights is not None and self.weights.hold

    @property
    def drains(self) -> bool:
        """Whether groups finish their requests when the deployment is deleted."""
        return self.deployment.spec.deletion.groups is GroupsOnDeletion.DRAIN

    @property
    def drops(self) -> bool:
        """Whether the deletion may have weights to remove."""
        made = [self.effective] if self.effective is not None else []
        return removes(self.deployment, [*self.kept.values(), *made])

    @property
    def progress_deadline(self) -> float:
        """Seconds for which a rollout may stand still."""
        return parse_duration(self.deployment.spec.rollout.progress_deadline)
