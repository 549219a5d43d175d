"""Where the weights come from, as the engine's first argument and what the pod needs for it."""

from dataclasses import dataclass

from moe_operator.api.spec import ModelSpec
from moe_operator.resources.pod_parts import PodParts

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

    def parts(self) -> PodParts:
        """The volume, and that the hub is left alone."""
        if self.claim is None:
            return PodParts()
        volume = {"name": _VOLUME, "persistentVolumeClaim": {"claimName": self.claim, "readOnly": True}}
        return PodParts(
            env=({"name": "HF_HUB_OFFLINE", "value": "1"},) if self.offline else (),
            volumes=(volume,),
            mounts=({"name": _VOLUME, "mountPath": MOUNT_PATH, "readOnly": True},),
            reasons={
                "HF_HUB_OFFLINE": "the weights are in the claim: the hub is not asked",
                MOUNT_PATH: f"the weights, of PersistentVolumeClaim {self.claim}",
            },
        )


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
