"""What a deployment's spec and status give a scaling decision: one place, for the operator and for whoever explains its
decisions. Pure."""

from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import ScalingMode
from moe_operator.autoscaler.decide import Idle, ScalingInputs
from moe_operator.autoscaler.floor import Floor
from moe_operator.autoscaler.width_units import chosen_width, most_groups


def inputs_of(
    deployment: ModelDeployment, floor: Floor, idle: Idle | None, *, serving: int, moving: bool = False
) -> ScalingInputs:
    """`serving`: groups that serve; `moving`: some of them are of another width than the chosen one."""
    spec, old = deployment.spec.scaling, deployment.status.scaling
    chosen = chosen_width(deployment.spec, old)
    most = most_groups(spec.max_groups, chosen, moving=moving)
    # One that is new comes up before it goes to zero, and Auto keeps a group to measure.
    first = max(spec.min_groups, 1 if idle or spec.mode is ScalingMode.AUTO else 0)
    first = first if most is None else min(first, most)
    return ScalingInputs(
        mode=spec.mode,
        replicas=deployment.spec.replicas,
        min_groups=spec.min_groups,
        max_groups=most,
        current=old.desired if old else first,
        serving=serving,
        floor=floor,
        idle=idle,
        width=chosen.gpus if chosen is not None and chosen.gpus != chosen.planned else None,
    )
