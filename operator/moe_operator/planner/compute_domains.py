"""Which ComputeDomains are active in which NVLink partition.

Two of them in one partition disturb each other: cuMemSetAccess() fails now and then with CUDA_ERROR_NOT_SUPPORTED
(dra-driver-nvidia-gpu #892). See docs/decisions/0012-compute-domain-per-namespace.md.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

#: Label of a node's NVLink partition, by GPU Feature Discovery or NVIDIA's DRA driver.
CLIQUE = "nvidia.com/gpu.clique"
#: Label by which the driver's plugin puts a node into a ComputeDomain, as long as pods there claim its channel; the
#: value is the domain's uid (`AddNodeLabel` in cmd/compute-domain-kubelet-plugin). A node is in one at most.
NODE_LABEL = "resource.nvidia.com/computeDomain"

Neighbours = Mapping[str, Collection[str]]
"""ComputeDomains, by the NVLink partition that they are active in."""


@dataclass(frozen=True)
class Member:
    """A node, or a group of pods, that is in a ComputeDomain."""

    domain: str
    """The ComputeDomain."""
    nodes: tuple[str, ...] = ()
    """Where it is."""
    partition: str | None = None
    """Where it will be."""


def by_partition(cliques: Mapping[str, str], members: Iterable[Member]) -> dict[str, tuple[str, ...]]:
    """The domains of these members by partition. `cliques`: partitions by node."""
    found: dict[str, set[str]] = {}
    for member in members:
        places = {cliques[node] for node in member.nodes if node in cliques}
        for place in places | ({member.partition} if member.partition else set()):
            found.setdefault(place, set()).add(member.domain)
    return {place: tuple(sorted(names)) for place, names in found.items()}


def shared_note(partitions: Iterable[str], neighbours: Neighbours) -> str | None:
    """What to say of groups in these partitions; None where they are alone there."""
    shared = [place for place in sorted(set(partitions)) if neighbours.get(place)]
    if not shared:
        return None
    place = shared[0]
    names = sorted(neighbours[place])
    more = f" (and {len(shared) - 1} more partitions are shared)" if len(shared) > 1 else ""
    return (
        f"NVLink partition {place} is also used by ComputeDomain {', '.join(names[:3])}"
        + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        + f"{more}: two ComputeDomains in one partition make engines fail now and then (cuMemSetAccess,"
        " CUDA_ERROR_NOT_SUPPORTED; NVIDIA's issue 892): give each namespace racks of its own, by"
        f" podTemplate.nodeSelector, or add nodes of another partition ({CLIQUE})"
    )
