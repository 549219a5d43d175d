"""`spec.weights`: where the model's weights are kept between their source and the engines, and how they are read."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from moe_operator.api.base import ApiModel, NodeFolder, ObjectName

#: A whole amount of bytes as Kubernetes writes it.
_Size = Annotated[str, Field(min_length=2, max_length=32, pattern=r"^[1-9][0-9]*([KMGTPE]i|[kMGTPE])$")]


class Caching(StrEnum):
    """Whether weights are downloaded once."""

    AUTO = "Auto"
    DISABLED = "Disabled"


class Loader(StrEnum):
    """How the engine reads weights into its GPUs."""

    AUTO = "Auto"
    STANDARD = "Standard"
    STREAMER = "Streamer"
    FAST_SAFETENSORS = "FastSafetensors"
    INSTANT_TENSOR = "InstantTensor"


class CacheSpec(ApiModel):
    """One of three places: `claim`, `storageClassName` with `size`, or `hostPath`."""

    claim: ObjectName | None = None
    """An existing PersistentVolumeClaim in the same namespace that many nodes can mount at once (ReadWriteMany).
    Another does for one group of one pod."""
    storage_class_name: ObjectName | None = None
    """Class of shared storage. The operator makes one ReadWriteMany claim per namespace and class, shared by all
    deployments that name the class, and keeps it when they go."""
    size: _Size | None = None
    """Of that claim, for example `2Ti`. The largest that a deployment of the namespace asks for counts; a claim is
    made larger where its class allows it, never smaller."""
    host_path: NodeFolder | None = None
    """A folder on every node (local NVMe): each node downloads once. Only folders that the operator's configuration
    allows (`weights.hostPaths`)."""


class WeightsSpec(ApiModel):
    """Where weights are kept, so that they are downloaded once and not by every pod."""

    cache: CacheSpec | None = None
    """Where they are kept; default: what the operator's configuration says (`weights.cache`), else nowhere, and
    each pod downloads for itself. Without meaning for `pvc://` and `oci://` sources."""
    caching: Caching = Caching.AUTO
    """`Auto`: in `cache`, or in the site's default. `Disabled`: each pod reads the source itself even where the site
    has a cache."""
    credentials_secret: ObjectName | None = None
    """Secret in the same namespace with what the source asks for: `HF_TOKEN`, or `AWS_ACCESS_KEY_ID`,
    `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`. The pod that downloads gets
    them; engines only where they read the source themselves. `HF_TOKEN` is for adapters from the hub too."""
    loader: Loader = Loader.AUTO
    """How engines read weights. `Auto`: vLLM's choice. `Standard`: file by file. `Streamer`: many reads at once (Run:ai
    Model Streamer), for shared and object storage. `FastSafetensors`: straight to GPU memory where the storage can
    (GPUDirect). `InstantTensor`: the same with its own reader. All but the first two need a package in the engine's
    image."""
