"""The claims that the pods of a revision need, as its template names them: a kept one's too."""

from dataclasses import dataclass
from enum import StrEnum

from moe_operator.resources import adapters, compile_cache, model_source, weights
from moe_operator.resources.revision import Revision


class Holds(StrEnum):
    """What is on a claim."""

    CACHE = "the cache"
    MODEL = "the weights"
    ADAPTERS = "adapters"
    KERNELS = "compiled kernels"


@dataclass(frozen=True)
class MountedClaim:
    """A PersistentVolumeClaim that every pod of a group mounts."""

    name: str
    holds: Holds

    @property
    def written(self) -> bool:
        """Whether it is of no use to pods that can only read it."""
        return self.holds in (Holds.CACHE, Holds.KERNELS)


def mounted_claims(revision: Revision) -> tuple[MountedClaim, ...]:
    """Each claim once. Further volumes are the user's own affair."""
    pod = revision.template["leaderWorkerTemplate"]["workerTemplate"]["spec"]
    found: dict[str, MountedClaim] = {}
    for volume in pod.get("volumes", ()):
        name, holds = (volume.get("persistentVolumeClaim") or {}).get("claimName"), _holds(volume["name"])
        if name and holds:
            found.setdefault(name, MountedClaim(name, holds))
    return tuple(found.values())


def _holds(volume: str) -> Holds | None:
    if volume == weights.VOLUME:
        return Holds.CACHE
    if volume == model_source.VOLUME:
        return Holds.MODEL
    if volume == compile_cache.VOLUME:
        return Holds.KERNELS
    return Holds.ADAPTERS if volume.startswith(adapters.VOLUME_PREFIX) else None
