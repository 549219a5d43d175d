"""Where the weights come from, as the engine's first argument and what the pod needs for it."""

from dataclasses import dataclass
from typing import Any

from moe_operator.api.spec import ModelSpec

MOUNT_PATH = "/models"
_VOLUME = "model"


@dataclass(frozen=True)
class ModelSource:
    """The model argument of `vllm serve`, and the volume behind it where there is one."""

    argument: str
    """A repository on the hub (`ORG/NAME`), or an absolute folder in the container."""
    claim: str | None = None
    """PersistentVolumeClaim, mounted read-only at MOUNT_PATH."""

    @property
    def offline(self) -> bool:
        """Whether the hub must not be asked for anything."""
        return self.claim is not None

    def volumes(self) -> list[dict[str, Any]]:
        """Volumes of the pod."""
        if self.claim is None:
            return []
        return [{"name": _VOLUME, "persistentVolumeClaim": {"claimName": self.claim, "readOnly": True}}]

    def mounts(self) -> list[dict[str, Any]]:
        """Mounts of the engine container."""
        if self.claim is None:
            return []
        return [{"name": _VOLUME, "mountPath": MOUNT_PATH, "readOnly": True}]


def model_source(model: ModelSpec) -> ModelSource:
    """Read `model.source`; without one the model's name is a repository on the hub."""
    scheme, separator, rest = (model.source or "").partition("://")
    if not separator:
        return ModelSource(model.name)
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        path = path.strip("/")
        return ModelSource(f"{MOUNT_PATH}/{path}" if path else MOUNT_PATH, claim)
    return ModelSource(rest.strip("/"))
