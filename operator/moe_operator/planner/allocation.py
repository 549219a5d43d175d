"""How pods ask for their GPUs: by an extended resource, or by ResourceClaims (dynamic resource allocation)."""

from collections.abc import Iterable, Sequence

from moe_operator.api.spec import Allocation, ModelDeploymentSpec
from moe_operator.catalog.device_drivers import BY_RESOURCE
from moe_operator.catalog.profile import AcceleratorProfile
from moe_operator.planner.inventory import Inventory, NodeFacts
from moe_operator.planner.phrases import gpus, some

#: How nodes offer GPUs.
_WAYS = ("by ResourceSlices", "by a device plugin")


def gpus_of(profile: AcceleratorProfile, node: NodeFacts) -> int:
    """GPUs of this kind's resource that a node has, by whichever way."""
    return node.gpus.get(profile.resource_name or "", 0)


def by_claims(spec: ModelDeploymentSpec, profile: AcceleratorProfile, nodes: Iterable[NodeFacts]) -> bool:
    """Whether pods ask for their GPUs by ResourceClaims: as the spec says, else as most of these nodes' GPUs are
    offered; alike: by the extended resource, which needs nothing of the pods."""
    if profile.resource_name is None:
        return False
    if spec.hardware.allocation is not None:
        return spec.hardware.allocation is Allocation.RESOURCE_CLAIMS
    listed = list(nodes)
    sliced = sum(gpus_of(profile, node) for node in listed if node.from_slices)
    return 2 * sliced > sum(gpus_of(profile, node) for node in listed)


def allocated_alike(
    profile: AcceleratorProfile, spec: ModelDeploymentSpec, nodes: Sequence[NodeFacts], claims: bool
) -> tuple[list[NodeFacts], tuple[str, ...]]:
    """The nodes whose GPUs pods can ask for in this way, and what to say of it.

    Pods of a group are alike, so nodes of the other kind are left out. One exception: with an extended resource that a
    DeviceClass names, the scheduler makes claims by itself (DRAExtendedResource); a spec that says so is believed.
    """
    sliced = [node for node in nodes if node.from_slices]
    plugged = [node for node in nodes if not node.from_slices]
    if not claims and spec.hardware.allocation is not None and sliced:
        names = some([node.name for node in sliced])
        return list(nodes), (
            f"{names} offer GPUs by dynamic resource allocation only: pods ask for {profile.resource_name}, which"
            " needs DRAExtendedResource (Kubernetes 1.36) and a DeviceClass with that extendedResourceName",
        )
    chosen, left = (sliced, plugged) if claims else (plugged, sliced)
    if not left or not chosen:
        return chosen, ()
    way, other = _WAYS if claims else _WAYS[::-1]
    count = sum(gpus_of(profile, node) for node in chosen)
    return chosen, (
        f"{gpus(count)} of {profile.name} are offered {way}, and"
        f" {sum(gpus_of(profile, node) for node in left)} {other} (on {some([node.name for node in left])}), which are"
        f" left out; hardware.allocation chooses",
    )


def not_as_asked(
    spec: ModelDeploymentSpec, profiles: Iterable[AcceleratorProfile], nodes: Sequence[NodeFacts]
) -> list[str]:
    """Nodes that have the GPUs, but not in the way that the spec asks for: said where no node is left."""
    if spec.hardware.allocation is not Allocation.RESOURCE_CLAIMS:
        return []
    plugged = [
        node.name
        for node in nodes
        if not node.from_slices and any(p.recognises(node.labels) and gpus_of(p, node) for p in profiles)
    ]
    if not plugged:
        return []
    return [
        f"{some(plugged)} offer theirs by a device plugin, and hardware.allocation asks for ResourceClaims: leave it"
        " out, or let the vendor's DRA driver serve these nodes in the plugin's place"
    ]


def offered_by_slices(inventory: Inventory) -> str:
    """Whole GPUs that nodes offer through ResourceSlices alone, by the names that drivers give them."""
    found: dict[str, list[NodeFacts]] = {}
    for node in inventory.nodes or ():
        if node.from_slices:
            found.setdefault(" and ".join(node.products) or "GPUs without a product name", []).append(node)
    if not found:
        return "no node offers GPUs by ResourceSlices alone"
    parts = []
    for product, nodes in sorted(found.items()):
        total = sum(sum(node.gpus.get(resource, 0) for resource in BY_RESOURCE) for node in nodes)
        free = sum(sum(inventory.free(node).get(resource, 0) for resource in BY_RESOURCE) for node in nodes)
        where = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
        parts.append(f"{product}: {gpus(total)} on {where}, {free} of them free")
    return "ResourceSlices offer " + "; ".join(parts)
