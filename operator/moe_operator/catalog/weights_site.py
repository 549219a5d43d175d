"""What a site says about weights: `weights` in the operator's configuration.

weights:
  cache: {storageClassName: shared-nvme, size: 4Ti}    # or {claim: NAME}, or {hostPath: /var/lib/weights}
  hostPaths: [/var/lib/weights]                        # folders that ModelDeployments may name
  endpoint: https://hub-mirror.example                 # in place of https://huggingface.co
  s3Endpoint: http://minio.storage:9000                # in place of AWS's, and of AWS_ENDPOINT_URL in Secrets
  nodeSelector: {pool: infra}
"""

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from moe_operator.api.base import NodeFolder
from moe_operator.api.weights import CacheSpec

#: Variable by which a deployed operator knows the image that it runs from.
IMAGE_VARIABLE = "MOE_OPERATOR_IMAGE"


@dataclass(frozen=True)
class WeightsSite:
    """How weights are fetched and kept at this site."""

    image: str | None = None
    """Image of the program that downloads; None: the operator's own, as its chart names it."""
    cache: CacheSpec | None = None
    """Where weights are kept unless a ModelDeployment says otherwise; None: each pod downloads."""
    host_paths: tuple[str, ...] = ()
    """Folders of nodes that ModelDeployments may name, with what is below them."""
    endpoint: str | None = None
    """URL of a mirror of the Hugging Face hub."""
    s3_endpoint: str | None = None
    """URL of the store that `s3://` sources are in."""
    node_selector: tuple[tuple[str, str], ...] = ()
    """Of the pods that download into a shared claim."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Of the same."""

    @property
    def program_image(self) -> str:
        """Image of the program that downloads."""
        return self.image or f"moe-operator:{version('moe-operator')}"

    def allows(self, folder: str) -> bool:
        """Whether a ModelDeployment may keep weights in this folder of the nodes."""
        own = (self.cache.host_path,) if self.cache is not None and self.cache.host_path else ()
        return any(PurePosixPath(folder).is_relative_to(root) for root in (*self.host_paths, *own))


_Url = Annotated[
    str,
    Field(
        pattern=r"^https?://([^\s/@]+@)?(\[[0-9A-Fa-f:.]+\]|[^\s/:?#@\[\]]+)(:[0-9]{1,5})?(/[^\s]*)?$",
        max_length=512,
    ),
]


class _Cache(CacheSpec):
    """A default for all deployments: unknown fields are mistakes here."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="after")
    def _one(self) -> "_Cache":
        if sum(p is not None for p in (self.claim, self.storage_class_name, self.host_path)) != 1:
            raise ValueError("needs exactly one of claim, storageClassName (with size) and hostPath")
        if (self.storage_class_name is None) != (self.size is None):
            raise ValueError("size goes with storageClassName, and with it alone")
        return self


class WeightsSection(BaseModel):
    """The section as it is written."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)

    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\s-][^\s]*$")] | None = None
    cache: _Cache | None = None
    host_paths: Annotated[list[NodeFolder], Field(max_length=32)] = Field(default_factory=list)
    endpoint: _Url | None = None
    s3_endpoint: _Url | None = None
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[dict[str, Any]] = Field(default_factory=list)

    def site(self) -> WeightsSite:
        """What it means."""
        cache = CacheSpec(**self.cache.model_dump()) if self.cache is not None else None
        return WeightsSite(
            image=self.image,
            cache=cache,
            host_paths=tuple(self.host_paths),
            endpoint=self.endpoint.rstrip("/") if self.endpoint else None,
            s3_endpoint=self.s3_endpoint.rstrip("/") if self.s3_endpoint else None,
            node_selector=tuple(sorted(self.node_selector.items())),
            tolerations=tuple(self.tolerations),
        )


def run_by(site: WeightsSite, image: str | None) -> WeightsSite:
    """The same where the operator runs from this image."""
    return replace(site, image=image) if image and site.image is None else site
