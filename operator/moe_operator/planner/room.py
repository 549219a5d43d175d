"""How many groups of a shape find free GPUs now."""

from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.planner.inventory import Inventory
from moe_operator.planner.nodes import Hardware, open_to
from moe_operator.planner.plan import Transport
from moe_operator.planner.shape import GroupShape


def groups_with_room(
    spec: ModelDeploymentSpec,
    hardware: Hardware,
    inventory: Inventory,
    shape: GroupShape,
    transport: Transport | None = None,
) -> int | None:
    """Whole groups that the free GPUs of open nodes hold; None where that cannot be told (pods or nodes were not
    read, or nodes are yet to come).

    A group's pods are on nodes of their own, which offer the adapters of the transport, and of one domain where it
    requires that.
    """
    adapters, count = (transport.rdma_resource, transport.rdma_count) if transport else (None, 0)
    # Plans of earlier versions have no transport: their groups stay in a partition where nodes say which they are in.
    domain = transport.domain if transport and transport.domain_required else None
    resource = hardware.profile.resource_name
    if inventory.nodes is None or inventory.held is None or resource is None or not hardware.nodes:
        return None
    pods: dict[str | None, int] = {}
    for node in hardware.nodes:
        if not node.ready or not open_to(node, spec, hardware.profile):
            continue
        free = inventory.free(node)
        fits = free.get(resource, 0) // shape.gpus_per_pod
        if adapters is not None:
            fits = min(fits, free.get(adapters, 0) // max(1, count))
        # Of a group with several pods each takes another node.
        place = node.labels.get(domain) if domain else None if transport else node.clique
        if domain and place is None:
            continue
        pods[place] = pods.get(place, 0) + (min(fits, 1) if shape.pods > 1 else fits)
    return sum(count // shape.pods for count in pods.values())
