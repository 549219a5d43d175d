"""How many groups a deployment is to have: what the scaling decision means for the steps that come after it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.scaling import ScalingStatus
from moe_operator.autoscaler.auto import Numbers
from moe_operator.autoscaler.width import Grounds
from moe_operator.autoscaler.width_units import WidthUnits, chosen_width


@dataclass(frozen=True)
class Scale:
    """What the decision means for the groups."""

    desired: int
    minimum: int
    """Groups that must serve for the deployment to be Ready."""
    status: ScalingStatus | None
    recheck_after: float | None
    floor: int = 0
    """Groups that it is not to go below."""
    standing: int = 0
    """Of `minimum`, those that no schedule or annotation asks for."""
    numbers: Numbers | None = None
    """What the decision was made of, where anything was measured."""
    losses: Callable[[], tuple[float, ...]] | None = field(default=None, compare=False)
    """Requests per second expected to miss the objective with floor, floor + 1 .. desired groups; None: not known."""
    granted: int | None = None
    """Groups that it may have where GPUs are scarce; None: all."""
    surge: bool = True
    """Whether a rollout may make more than these meanwhile."""
    units: WidthUnits | None = None
    """Of the width that was chosen, in which groups are counted here; None: that of the plan."""
    grounds: Grounds = field(default_factory=Grounds)
    """What was seen of the groups that `numbers` are about, for whether another width would do better."""
    given_up: frozenset[str] = frozenset()
    """Groups that go for other deployments, by name; those that drain already do not come back."""


def held(deployment: ModelDeployment) -> Scale:
    """What was decided last, for a deployment whose spec says nothing."""
    old = deployment.status.scaling
    desired = old.desired if old is not None else deployment.status.groups.desired
    units = WidthUnits.of(chosen_width(deployment.spec, old))
    return Scale(desired, desired, old, None, floor=desired, standing=desired, units=units)
