"""What a site says about compiled kernels: `compileCache` in the operator's configuration.

compileCache:
  default: {claim: compiled}           # or {hostPath: /var/lib/compiled}
  hostPaths: [/var/lib/compiled]       # folders that ModelDeployments may name
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from moe_operator.api.base import NodeFolder
from moe_operator.api.compile_cache import CompileCacheSpec


@dataclass(frozen=True)
class CompileCacheSite:
    """Where compiled kernels may be kept at this site."""

    default: CompileCacheSpec | None = None
    """Unless a ModelDeployment says otherwise; None: each pod compiles. A claim is one of each namespace's."""
    host_paths: tuple[str, ...] = ()
    """Folders of nodes that ModelDeployments may name."""

    def allows(self, folder: str) -> bool:
        """Whether a ModelDeployment may keep kernels in this folder of the nodes. Not what is below: that is where the
        folders of namespaces are, and one of them must not lie in another's."""
        return folder in self.folders

    @property
    def folders(self) -> tuple[str, ...]:
        """All that may be named."""
        own = (self.default.host_path,) if self.default is not None and self.default.host_path else ()
        return tuple(dict.fromkeys((*self.host_paths, *own)))


class _Default(CompileCacheSpec):
    """Unknown fields are mistakes here."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="after")
    def _one(self) -> "_Default":
        if (self.claim is None) == (self.host_path is None):
            raise ValueError("needs exactly one of claim and hostPath")
        return self


class CompileCacheSection(BaseModel):
    """The section as it is written."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)

    default: _Default | None = None
    host_paths: Annotated[list[NodeFolder], Field(max_length=32)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _apart(self) -> "CompileCacheSection":
        folders = self.site().folders
        for one in folders:
            if inside := [f for f in folders if f != one and PurePosixPath(f).is_relative_to(one)]:
                raise ValueError(
                    f"{inside[0]} lies in {one}, where each namespace has its folder: keep them apart"
                )
        return self

    def site(self) -> CompileCacheSite:
        """What it means."""
        default = CompileCacheSpec(**self.default.model_dump()) if self.default is not None else None
        return CompileCacheSite(default, tuple(self.host_paths))
