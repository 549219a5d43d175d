"""What carries the all-to-all of a group, as far as sizes and speeds follow from it."""

from dataclasses import dataclass

from moe_operator.catalog.fabric import Balanced
from moe_operator.catalog.fabrics import Backend, Candidate, Reach, load_fabrics
from moe_operator.catalog.profile import AcceleratorProfile
from moe_operator.planner.shape import GroupShape


@dataclass(frozen=True)
class Link:
    """A fabric under one layout."""

    bandwidth: float | None
    """Bytes per second of one GPU in one direction; None: the accelerator's own links."""
    latency: float
    """Seconds of one collective, however small."""
    network: bool
    """It leaves the NVLink domain."""
    candidates: tuple[Candidate, ...]
    """All-to-all backends that the fabric, the GPUs and the image allow, the best first."""

    def backend(self, precision: str | None, *, balanced: bool) -> Backend | None:
        """The best for weights of this precision (None: not known); `balanced`: vLLM moves experts (EPLB)."""
        return next(
            (one.backend for one in self.candidates if holds(one, precision, balanced=balanced)), None
        )


def holds(candidate: Candidate, precision: str | None, *, balanced: bool) -> bool:
    """Whether a candidate holds for what a group computes with."""
    if candidate.precisions and precision not in candidate.precisions:
        return False
    return not (balanced and candidate.balanced is Balanced.REFUSED)


def usual_link(profile: AcceleratorProfile, shape: GroupShape, gpus_per_node: int) -> Link:
    """Where no nodes are at hand: NVLink as far as it goes, then one adapter of 400 Gbit/s per GPU."""
    fabrics = load_fabrics()
    far = shape.width > max(profile.nvlink_domain, 1)
    within = shape.width <= gpus_per_node
    reach = Reach.NODE if within else Reach.NETWORK if far else Reach.DOMAIN
    name = {Reach.NODE: "nvlink", Reach.DOMAIN: "mnnvl", Reach.NETWORK: "infiniband"}[reach]
    fabric = fabrics.fabric(name)
    assert fabric is not None
    plain = tuple(one for one in fabric.all2all if not (one.precisions or one.gpu_initiated))
    bandwidth = fabric.bandwidth_per_gpu if far else None
    return Link(bandwidth, fabric.latency, far, plain)
