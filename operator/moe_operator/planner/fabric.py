"""Which fabric a group's GPUs reach each other over: the best that enough nodes show, or the one that is named."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from moe_operator.api import reasons
from moe_operator.api.spec import ModelDeploymentSpec, PodSecurityProfile
from moe_operator.catalog.fabric import Domain, FabricResource
from moe_operator.catalog.fabrics import FabricProfile, Reach
from moe_operator.planner.facts import NodeFacts
from moe_operator.planner.nodes import Hardware
from moe_operator.planner.plan import Refusal

_HOSTNAME = "kubernetes.io/hostname"
_REGION = "topology.kubernetes.io/region"


@dataclass(frozen=True)
class Choice:
    """A fabric, and how the pods of a group get at it."""

    profile: FabricProfile
    resource: str | None = None
    """Extended resource of its adapters."""
    count: int = 0
    """Of the resource, per pod."""
    domain: str | None = None
    """Label key: the nodes of a group carry one value of it."""
    seen: bool = True
    """Whether nodes show it; False: assumed, as there are none to read."""


def choose(
    spec: ModelDeploymentSpec, hardware: Hardware, pods: int, gpus_per_pod: int
) -> Choice | Refusal | None:
    """The fabric of a group of so many pods; None on `cpu`, which has none.

    A group within a node has the node's own whatever `hardware.fabric` says: that is the network between nodes.
    """
    if hardware.profile.resource_name is None:
        return None
    if refused := unknown_fabric(spec, hardware):
        return refused
    if pods == 1:
        return Choice(_within_node(hardware))
    found = _between_nodes(spec, hardware, pods, gpus_per_pod)
    if isinstance(found, Choice) and found.profile.of_the_host and _restricted(spec):
        return Refusal(
            reasons.INVALID_SPEC,
            f"over {found.profile.name} engines get {', '.join(found.profile.of_the_host)} of their nodes, which"
            " engine.podSecurity Restricted excludes: leave that out, set hardware.fabric: tcp, or keep the group"
            f" within a node (hardware.gpusPerGroup of at most {hardware.gpus_per_node})",
        )
    return found


def _restricted(spec: ModelDeploymentSpec) -> bool:
    return spec.engine.pod_security is PodSecurityProfile.RESTRICTED


def _between_nodes(
    spec: ModelDeploymentSpec, hardware: Hardware, pods: int, gpus_per_pod: int
) -> Choice | Refusal:
    named = spec.hardware.fabric
    if named is not None:
        return _named(named, hardware, pods, gpus_per_pod)
    for profile in hardware.fabrics.profiles():
        if profile.reach is Reach.NODE or not profile.suits(hardware.profile.resource_name):
            continue
        if found := _on_nodes(profile, hardware, pods, gpus_per_pod):
            return found
    return Refusal(
        reasons.FABRIC_MISSING,
        f"the catalogue has no fabric for a group of {pods} nodes: add one to fabrics in the operator's configuration",
        retry=True,
    )


def unknown_fabric(spec: ModelDeploymentSpec, hardware: Hardware) -> Refusal | None:
    """Refuses a name that the catalogue lacks, and a fabric that this accelerator cannot have."""
    named = spec.hardware.fabric
    if named is None or hardware.profile.resource_name is None:
        return None
    profile = hardware.fabrics.fabric(named)
    if profile is None:
        return Refusal(
            reasons.UNKNOWN_FABRIC,
            f"hardware.fabric: the catalogue has no fabric {named!r}; it has {', '.join(hardware.fabrics.names())}",
        )
    if not profile.suits(hardware.profile.resource_name):
        fit = [one.name for one in hardware.fabrics.profiles() if one.suits(hardware.profile.resource_name)]
        return Refusal(
            reasons.UNKNOWN_FABRIC,
            f"hardware.fabric: {hardware.profile.name} has no {named}; it can have {', '.join(fit)}",
        )
    return None


def _within_node(hardware: Hardware) -> FabricProfile:
    found = (
        one
        for one in hardware.fabrics.profiles()
        if one.reach is Reach.NODE and one.suits(hardware.profile.resource_name)
    )
    return next(found)


def _named(name: str, hardware: Hardware, pods: int, gpus_per_pod: int) -> Choice | Refusal:
    profile = hardware.fabrics.fabric(name)
    assert profile is not None
    if profile.reach is Reach.NODE:
        return Refusal(
            reasons.FABRIC_MISSING,
            f"hardware.fabric {name} does not leave a node, and the group takes {pods}: set hardware.gpusPerGroup to"
            f" at most {hardware.gpus_per_node}, or name a network",
        )
    return _on_nodes(profile, hardware, pods, gpus_per_pod) or _missing(profile, hardware, pods)


def _on_nodes(profile: FabricProfile, hardware: Hardware, pods: int, gpus_per_pod: int) -> Choice | None:
    """The fabric, if enough nodes for a group show it. Where there are none to read: if the accelerator always has it,
    or if it needs nothing of them."""
    if not hardware.nodes:
        return _unseen(profile, hardware, gpus_per_pod)
    # Of a cluster that is too small for a group the nodes yet to come are like those that are there.
    pods = min(pods, len(hardware.nodes))
    if profile.node_label is not None:
        values = Counter(value for node in hardware.nodes if (value := node.labels.get(profile.node_label)))
        if max(values.values(), default=0) < pods:
            return None
        if not profile.resources:
            return Choice(profile, domain=profile.node_label)
    if not profile.resources:
        return Choice(profile, domain=_near(profile, hardware.nodes, pods))
    offers = _offers(profile, hardware)
    found = next((name for name, nodes in offers if len(nodes) >= pods), None)
    if found is None:
        return None
    nodes = dict(offers)[found]
    resource = profile.resource(found)
    assert resource is not None
    gpus = hardware.profile.resource_name or ""
    count = min(resource.per_pod(gpus_per_pod, n.gpus[gpus], n.allocatable[found]) for n in nodes)
    return Choice(profile, found, count, _near(profile, nodes, pods))


def _offers(profile: FabricProfile, hardware: Hardware) -> list[tuple[str, list[NodeFacts]]]:
    """(resource of this fabric, nodes that offer it), what most offer first."""
    by_name: dict[str, list[NodeFacts]] = {}
    for node in hardware.nodes:
        for name in node.allocatable:
            owner = hardware.fabrics.owner(name)
            if owner is not None and owner.name == profile.name:
                by_name.setdefault(name, []).append(node)
    return sorted(by_name.items(), key=lambda offer: (-len(offer[1]), offer[0]))


def _unseen(profile: FabricProfile, hardware: Hardware, gpus_per_pod: int) -> Choice | None:
    wide = hardware.profile.nvlink_domain > hardware.gpus_per_node
    if profile.reach is Reach.DOMAIN and not wide:
        return None
    if profile.resources:
        # A resource that no node was seen to offer would keep pods from being placed: only when it is asked for.
        if hardware.wanted_fabric != profile.name or profile.named_resource is None:
            return None
        resource: FabricResource | None = profile.resource(profile.named_resource)
        count = resource.per_pod(gpus_per_pod, hardware.profile.gpus_per_node, None) if resource else 1
        return Choice(profile, profile.named_resource, count, seen=False)
    domain = profile.node_label if profile.domain is Domain.REQUIRED else None
    return Choice(profile, domain=domain, seen=False)


def _near(profile: FabricProfile, nodes: tuple[NodeFacts, ...] | list[NodeFacts], pods: int) -> str | None:
    """The narrowest label of where nodes stand under one value of which a group finds enough of them."""
    if profile.domain is Domain.NONE:
        return None
    if profile.node_label is not None:
        return profile.node_label
    counts: Counter[tuple[str, str]] = Counter(place for node in nodes for place in node.topology)
    order = [key for node in nodes[:1] for key, _ in node.topology]
    for key in reversed(order):
        fits = max((count for (label, _), count in counts.items() if label == key), default=0) >= pods
        if fits and key not in (_HOSTNAME, _REGION):
            return key
    return None


def _missing(profile: FabricProfile, hardware: Hardware, pods: int) -> Refusal:
    """What nodes offer instead, and how to name it."""
    where = f"{hardware.profile.name} nodes of {hardware.gpus_per_node} GPUs"
    if not hardware.nodes:
        what = f"hardware.fabric is {profile.name}, but there are no {where} to read a resource of its adapters from"
    elif profile.node_label is not None:
        what = (
            f"hardware.fabric is {profile.name}, but no {profile.node_label} is carried by {pods} of the"
            f" {len(hardware.nodes)} {where}"
        )
    else:
        wanted = ", ".join(one.pattern for one in profile.resources)
        what = (
            f"hardware.fabric is {profile.name}, but fewer than {pods} of the {len(hardware.nodes)} {where} offer"
            f" {wanted}"
        )
    return Refusal(
        reasons.FABRIC_MISSING,
        f"{what}; {_offered(hardware)}; name the resource of its adapters in the operator's configuration"
        f" (fabrics.{profile.name}.rdmaResource), name another fabric, or set hardware.gpusPerGroup to at most"
        f" {hardware.gpus_per_node}",
        retry=True,
    )


def _offered(hardware: Hardware) -> str:
    own = {hardware.profile.resource_name}
    counts = Counter(name for node in hardware.nodes for name in node.allocatable if name not in own)
    cliques = Counter(node.clique for node in hardware.nodes if node.clique)
    parts = [f"{name} ({count} nodes)" for name, count in sorted(counts.items())]
    if cliques:
        parts.append(f"{len(cliques)} NVLink domains of at most {max(cliques.values())} nodes")
    return f"they offer {', '.join(parts)}" if parts else "they offer nothing of a network"


def unclaimed(hardware: Hardware) -> Iterator[str]:
    """Resources of nodes that look like RDMA and belong to no fabric of the catalogue."""
    found = {name for node in hardware.nodes for name in node.rdma if hardware.fabrics.owner(name) is None}
    yield from sorted(found)
