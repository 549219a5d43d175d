"""How many groups of a shape find free GPUs now."""

from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.planner.inventory import Inventory
from moe_operator.planner.nodes import Hardware, open_to
from moe_operator.planner.shape import GroupShape


def groups_with_room(
    spec: ModelDeploymentSpec, hardware: Hardware, inventory: Inventory, shape: GroupShape
) -> int | None:
    """Whole groups that the free GPUs of open nodes hold; None where that cannot be told (pods or nodes were not
    read, or nodes are yet to come).

    A group's pods are on nodes of their own, and of one NVLink partition where nodes say which they are in.
    """
    resource = hardware.profile.resource_name
    if inventory.nodes is None or inventory.held is None or resource is None or not hardware.nodes:
        return None
    pods: dict[str | None, int] = {}
    for node in hardware.nodes:
        if not node.ready or not open_to(node, spec, hardware.profile):
            continue
        fits = inventory.free(node).get(resource, 0) // shape.gpus_per_pod
        # Of a group with several pods each takes another node.
        pods[node.clique] = pods.get(node.clique, 0) + (min(fits, 1) if shape.pods > 1 else fits)
    return sum(count // shape.pods for count in pods.values())
