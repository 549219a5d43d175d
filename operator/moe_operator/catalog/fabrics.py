"""Fabrics by name, read from `fabrics.yaml`: how GPUs of a group reach each other."""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

from moe_operator.api.reserved import METADATA, MOUNT_PATHS
from moe_operator.catalog.fabric import Backend as Backend
from moe_operator.catalog.fabric import (
    Balanced,
    Capability,
    Count,
    Domain,
    FabricResource,
    GpuInitiated,
    HostDevice,
    HostPath,
    PodAnnotation,
)
from moe_operator.catalog.fabric import Candidate as Candidate
from moe_operator.catalog.fabric import FabricProfile as FabricProfile
from moe_operator.catalog.fabric import Reach as Reach
from moe_operator.catalog.fabric import Sends as Sends
from moe_operator.catalog.fabric import Setting as Setting
from moe_operator.catalog.gone_names import gone

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: vLLM's own choice (0.32) where nothing is said; works with every image and network.
DEFAULT_BACKEND = "allgather_reducescatter"
#: Other names that vLLM 0.32 takes, and what it makes of them.
_ALIASES = {
    "flashinfer_all2allv": "flashinfer_nvlink_two_sided",
    "naive": DEFAULT_BACKEND,
    "pplx": DEFAULT_BACKEND,
}


class FabricCatalog:
    """The fabrics, the best first, and the backends."""

    def __init__(self, profiles: Iterable[FabricProfile], backends: Iterable[Backend]) -> None:
        self._profiles = {profile.name: profile for profile in profiles}
        self._backends = {backend.name: backend for backend in backends}

    def names(self) -> tuple[str, ...]:
        """In the order in which they are preferred."""
        return tuple(self._profiles)

    def profiles(self) -> tuple[FabricProfile, ...]:
        return tuple(self._profiles.values())

    def fabric(self, name: str) -> FabricProfile | None:
        return self._profiles.get(name)

    def backends(self) -> tuple[Backend, ...]:
        return tuple(self._backends.values())

    def backend(self, name: str) -> Backend | None:
        """By the name, or one of the older names, that vLLM takes; dashes count as underscores."""
        plain = name.replace("-", "_")
        return self._backends.get(_ALIASES.get(plain, plain))

    def owner(self, resource: str) -> FabricProfile | None:
        """The fabric that this extended resource belongs to: the first with a pattern for it."""
        return next((one for one in self._profiles.values() if one.resource(resource)), None)


@cache
def load_fabrics() -> FabricCatalog:
    """The fabrics that the operator ships."""
    return read_fabrics(fabrics_data())


def fabrics_data() -> Any:
    """The content of `fabrics.yaml`, read anew."""
    text = resources.files("moe_operator.catalog").joinpath("fabrics.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=_Loader)


def read_fabrics(data: Any) -> FabricCatalog:
    """A catalogue from data of the form of `fabrics.yaml`. Raises ValueError (pydantic's included)."""
    return _File.model_validate(data).catalog()


_Text = Annotated[str, Field(min_length=1)]
_Positive = Annotated[int, Field(ge=1)]
#: An absolute folder without steps upwards.
_Folder = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$", max_length=256)]
_SITE = "as the operator's configuration says"
#: A key of an annotation: a name of at most 63 characters, with a domain before it.
_KEY = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class _Capability(_Model):
    name: Annotated[str, Field(pattern=r"^[A-Z_]{3,32}$")]
    reason: _Text
    architectures: list[_Text] = Field(default_factory=list)

    def made(self) -> Capability:
        return Capability(self.name, self.reason, tuple(self.architectures))


class _Backend(_Model):
    name: _Text
    sends: Sends
    reach: Reach
    about: _Text
    component: _Text | None = None
    tokens_per_step: _Positive | None = None
    microbatches: bool = False
    capabilities: list[_Capability] = Field(default_factory=list)

    def made(self) -> Backend:
        return Backend(
            self.name,
            self.sends,
            self.reach,
            self.about,
            self.component,
            self.tokens_per_step,
            self.microbatches,
            tuple(one.made() for one in self.capabilities),
        )


class _Setting(_Model):
    value: Annotated[str, Field(max_length=4096)]
    reason: str = _SITE
    reads: str = ""
    backends: list[_Text] = Field(default_factory=list)


class _Annotation(_Model):
    value: Annotated[str, Field(max_length=65536)]
    reason: _Text = _SITE


class _HostPath(_Model):
    path: _Folder
    mount_path: _Folder
    reason: _Text

    @field_validator("mount_path")
    @classmethod
    def _free(cls, path: str) -> str:
        for taken in (name for group in MOUNT_PATHS for name in group.exact):
            if PurePosixPath(path).is_relative_to(taken) or PurePosixPath(taken).is_relative_to(path):
                raise ValueError(f"the operator mounts {taken} itself")
        return path


class _HostDevice(_Model):
    path: Annotated[str, Field(pattern=r"^/dev(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$", max_length=256)]
    reason: _Text


class _Resource(_Model):
    pattern: Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$", max_length=317)]
    count: Count = Count.ONE
    per_node: _Positive | None = None


class _Candidate(_Model):
    backend: _Text
    accelerators: list[_Text] = Field(default_factory=list)
    capabilities: list[_Text] = Field(default_factory=list)
    precisions: list[_Text] = Field(default_factory=list)
    roles: list[_Text] = Field(default_factory=list)
    balanced: Balanced = Balanced.ALLOWED
    gpu_initiated: bool = False
    reason: str = ""


class _Row(_Model):
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    reach: Reach
    about: _Text
    accelerators: list[_Text] = Field(default_factory=list)
    node_label: _Text | None = None
    resources: list[_Resource] = Field(default_factory=list)
    rdma_resource: _Text | None = None
    bandwidth_per_gpu: _Positive | None = None
    latency_us: _Positive
    gpu_initiated: GpuInitiated = GpuInitiated.UNKNOWN
    domain: Domain = Domain.NONE
    compute_domain: bool = False
    shared_memory_mib: _Positive | None = None
    huge_pages: dict[Annotated[str, Field(pattern=r"^hugepages-[1-9][0-9]*[MG]i$")], _Text] = Field(
        default_factory=dict
    )
    capabilities: list[_Capability] = Field(default_factory=list)
    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], _Setting] = Field(
        default_factory=dict
    )
    all_to_all: Annotated[list[_Candidate], Field(min_length=1)]
    pod_annotations: dict[Annotated[str, Field(pattern=_KEY)], _Annotation] = Field(default_factory=dict)
    host_paths: Annotated[list[_HostPath], Field(max_length=16)] = Field(default_factory=list)
    host_devices: Annotated[list[_HostDevice], Field(max_length=16)] = Field(default_factory=list)

    @field_validator("env", "pod_annotations", mode="before")
    @classmethod
    def _plain_values(cls, named: Any) -> Any:
        """A site may write `NAME: value`."""
        if not isinstance(named, Mapping):
            return named
        return {name: {"value": said} if isinstance(said, str) else said for name, said in named.items()}

    @field_validator("pod_annotations")
    @classmethod
    def _not_ours(cls, annotations: dict[str, _Annotation]) -> dict[str, _Annotation]:
        for name in annotations:
            if any(name in group.exact or name.startswith(group.prefixes) for group in METADATA):
                raise ValueError(f"{name} is the operator's own")
        return annotations

    @field_validator("env")
    @classmethod
    def _still_read(cls, env: dict[str, _Setting]) -> dict[str, _Setting]:
        for name in env:
            if why := gone(name):
                raise ValueError(why)
        return env

    def made(self, backends: Mapping[str, Backend]) -> FabricProfile:
        if self.domain is Domain.REQUIRED and self.node_label is None:
            raise ValueError(f"{self.name}: domain Required needs the nodeLabel that names the domain")
        if self.reach is Reach.NETWORK and self.bandwidth_per_gpu is None:
            raise ValueError(f"{self.name}: bandwidthPerGpu missing: no group over it could be estimated")
        known = ", ".join(backends)
        for name in [
            *(c.backend for c in self.all_to_all),
            *(b for s in self.env.values() for b in s.backends),
        ]:
            if name not in backends:
                raise ValueError(f"{self.name}: no all-to-all backend {name!r}; vLLM 0.32 has {known}")
        return FabricProfile(
            name=self.name,
            reach=self.reach,
            about=self.about,
            accelerators=tuple(self.accelerators),
            node_label=self.node_label,
            resources=tuple(FabricResource(r.pattern, r.count, r.per_node) for r in self.resources),
            rdma_resource=self.rdma_resource,
            bandwidth_per_gpu=self.bandwidth_per_gpu,
            latency=self.latency_us / 1e6,
            gpu_initiated=self.gpu_initiated,
            domain=self.domain,
            compute_domain=self.compute_domain,
            shared_memory_mib=self.shared_memory_mib,
            huge_pages=tuple(self.huge_pages.items()),
            capabilities=tuple(one.made() for one in self.capabilities),
            env=tuple(
                Setting(name, s.value, s.reason, s.reads, tuple(s.backends)) for name, s in self.env.items()
            ),
            all2all=tuple(
                Candidate(
                    backends[c.backend],
                    tuple(c.accelerators),
                    tuple(c.capabilities),
                    tuple(c.precisions),
                    tuple(c.roles),
                    c.balanced,
                    c.gpu_initiated,
                    c.reason,
                )
                for c in self.all_to_all
            ),
            pod_annotations=tuple(
                PodAnnotation(name, one.value, one.reason) for name, one in self.pod_annotations.items()
            ),
            host_paths=tuple(HostPath(one.path, one.mount_path, one.reason) for one in self.host_paths),
            host_devices=tuple(HostDevice(one.path, one.reason) for one in self.host_devices),
        )


#: A fabric as it is written.
FORM = _Row


class _File(_Model):
    backends: list[_Backend]
    fabrics: list[_Row]

    def catalog(self) -> FabricCatalog:
        backends = {row.name: row.made() for row in self.backends}
        return FabricCatalog((row.made(backends) for row in self.fabrics), backends.values())
