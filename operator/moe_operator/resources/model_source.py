"""Where the weights come from: `model.source` read, and what an engine needs that reads the source itself."""

from dataclasses import dataclass
from enum import StrEnum

from moe_operator.api.spec import ModelSpec
from moe_operator.resources.pod_parts import Object, PodParts

MOUNT_PATH = "/models"
VOLUME = "model"


class Scheme(StrEnum):
    """Of a source's URL."""

    HUB = "hf"
    BUCKET = "s3"
    CLAIM = "pvc"
    IMAGE = "oci"

    def names(self, url: str) -> bool:
        """Whether a URL is of this scheme."""
        return url.startswith(f"{self}://")


@dataclass(frozen=True)
class ModelSource:
    """A source of weights."""

    scheme: Scheme
    place: str
    """A repository on the hub (`ORG/NAME`), a bucket with a prefix, a claim, or a container image."""
    path: str = ""
    """Folder in the claim or the image; empty for the whole."""

    @property
    def url(self) -> str:
        """As the user writes it."""
        joint = "#" if self.scheme is Scheme.IMAGE else "/"
        return f"{self.scheme}://{self.place}" + (f"{joint}{self.path}" if self.path else "")

    @property
    def remote(self) -> bool:
        """Whether it is read over the network, so that it is worth keeping."""
        return self.scheme in (Scheme.HUB, Scheme.BUCKET)

    @property
    def argument(self) -> str:
        """The model argument of `vllm serve` for an engine that reads the source itself."""
        if self.scheme is Scheme.HUB:
            return self.place
        if self.scheme is Scheme.BUCKET:
            return self.url
        return f"{MOUNT_PATH}/{self.path}" if self.path else MOUNT_PATH

    def parts(self) -> PodParts:
        """The volume of a source that is mounted, and that the hub is left alone where it need not be asked."""
        if self.scheme is Scheme.HUB:
            return PodParts()
        offline: Object = {"name": "HF_HUB_OFFLINE", "value": "1"}
        if self.scheme is Scheme.BUCKET:
            return PodParts(env=(offline,), reasons={"HF_HUB_OFFLINE": "all files come from the bucket"})
        if self.scheme is Scheme.CLAIM:
            what = f"PersistentVolumeClaim {self.place}"
            volume: Object = {
                "name": VOLUME,
                "persistentVolumeClaim": {"claimName": self.place, "readOnly": True},
            }
        else:
            what = f"the container image {self.place}"
            volume = {"name": VOLUME, "image": {"reference": self.place, "pullPolicy": "IfNotPresent"}}
        return PodParts(
            env=(offline,),
            volumes=(volume,),
            mounts=({"name": VOLUME, "mountPath": MOUNT_PATH, "readOnly": True},),
            reasons={
                "HF_HUB_OFFLINE": f"the weights are in {what}: the hub is not asked",
                MOUNT_PATH: f"the weights, of {what}",
            },
        )


def model_source(model: ModelSpec, repository: str | None = None) -> ModelSource:
    """Read `model.source`; without one it is `repository` (the plan's checkpoint) or the model's name on the hub."""
    scheme, separator, rest = (model.source or "").partition("://")
    if not separator:
        return ModelSource(Scheme.HUB, repository or model.name)
    rest = rest.strip("/")
    if scheme == Scheme.CLAIM:
        claim, _, path = rest.partition("/")
        return ModelSource(Scheme.CLAIM, claim, path.strip("/"))
    if scheme == Scheme.IMAGE:
        image, _, path = rest.partition("#")
        return ModelSource(Scheme.IMAGE, image, path.strip("/"))
    return ModelSource(Scheme(scheme), rest)
