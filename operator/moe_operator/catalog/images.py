"""What is known of engine images, read from `images.yaml`: what they contain and what does not work with them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Version = tuple[int, ...]

_TAGGED = re.compile(r"v?(\d+(?:\.\d+){1,3})(?:[-_.+]?(?:post|cu|x86|aarch|arm|amd|ubuntu|rocm|nonroot).*)?")
_DEFAULT_REGISTRIES = ("docker.io/", "index.docker.io/", "registry-1.docker.io/")


class Known(StrEnum):
    """Whether an image contains something."""

    YES = "Yes"
    NO = "No"
    UNKNOWN = "Unknown"


@dataclass(frozen=True)
class Image:
    """A reference, taken apart."""

    reference: str
    repository: str
    """Without Docker Hub's own name."""
    version: Version | None
    """vLLM's, as the tag says; None for a tag that does not, and for a digest alone."""


@dataclass(frozen=True)
class Versions:
    """Versions that something holds for: since <= version < before."""

    since: Version | None = None
    before: Version | None = None

    def __str__(self) -> str:
        """` since 0.27.0`, ` before 0.30.0`, or nothing for all."""
        bounds = (("since", self.since), ("before", self.before))
        return "".join(f" {word} {'.'.join(map(str, at))}" for word, at in bounds if at is not None)

    def hold(self, version: Version | None) -> bool:
        """An unknown version is only within no bounds at all."""
        if version is None:
            return self.since is None and self.before is None
        return (self.since is None or version >= self.since) and (
            self.before is None or version < self.before
        )


@dataclass(frozen=True)
class Use:
    """What an image is used for."""

    architecture: str
    """Of the nodes' CPUs, as `kubernetes.io/arch` says it."""
    platform: str
    """`nvidia`, `amd` or `cpu`."""
    fabric: str | None = None
    backend: str | None = None


@dataclass(frozen=True)
class Content:
    component: str
    versions: Versions


@dataclass(frozen=True)
class Family:
    """Repositories that are built alike."""

    repositories: tuple[str, ...]
    platform: str
    contains: tuple[Content, ...]
    lacks: tuple[Content, ...]


@dataclass(frozen=True)
class Caution:
    """Something to know. Empty tuples hold for all."""

    text: str
    source: str
    repositories: tuple[str, ...]
    versions: Versions
    architectures: tuple[str, ...]
    fabrics: tuple[str, ...]
    backends: tuple[str, ...]
    unless: tuple[str, ...]
    """Not for images of which it is known whether they contain one of these."""


class ImageTable:
    """What is known of images."""

    def __init__(self, families: Iterable[Family], warnings: Iterable[Caution]) -> None:
        self.families, self.warnings = tuple(families), tuple(warnings)

    def contains(self, reference: str, component: str) -> Known:
        """Whether the image has this component."""
        image = parse_image(reference)
        family = self._family(image)
        if family is None:
            return Known.UNKNOWN
        for found, contents in ((Known.YES, family.contains), (Known.NO, family.lacks)):
            if any(c.component == component and c.versions.hold(image.version) for c in contents):
                return found
        return Known.UNKNOWN

    def notes(self, reference: str, use: Use) -> Iterator[str]:
        """What a user should know of this image for this use, each as one sentence that names the image."""
        image = parse_image(reference)
        family = self._family(image)
        if family is not None and family.platform != use.platform:
            yield (
                f"image {reference} is built for {family.platform}, but these nodes are {use.platform}: set"
                " engine.image"
            )
            return
        for warning in self.warnings:
            if self._applies(warning, image, use):
                yield f"image {reference}: {warning.text} ({warning.source})"

    def _applies(self, warning: Caution, image: Image, use: Use) -> bool:
        return (
            (not warning.repositories or image.repository in warning.repositories)
            and warning.versions.hold(image.version)
            and (not warning.architectures or use.architecture in warning.architectures)
            and (not warning.fabrics or use.fabric in warning.fabrics)
            and (not warning.backends or use.backend in warning.backends)
            and all(self.contains(image.reference, c) is Known.UNKNOWN for c in warning.unless)
        )

    def _family(self, image: Image) -> Family | None:
        return next((one for one in self.families if image.repository in one.repositories), None)


def parse_image(reference: str) -> Image:
    """`registry.example:5000/vllm/vllm-openai:v0.32.0@sha256:...`: its repository, and vLLM's version if the tag says
    it."""
    name = reference.partition("@")[0]
    head, _, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    repository = f"{head}/{last}" if head else last
    for registry in _DEFAULT_REGISTRIES:
        repository = repository.removeprefix(registry)
    found = _TAGGED.fullmatch(tag)
    return Image(reference, repository, _version(found.group(1)) if found else None)


def _version(text: str) -> Version:
    return tuple(int(part) for part in text.split("."))


@cache
def load_images() -> ImageTable:
    """What the operator ships."""
    text = resources.files("moe_operator.catalog").joinpath("images.yaml").read_text(encoding="utf-8")
    return read_images(yaml.load(text, Loader=_Loader))


def read_images(data: Any) -> ImageTable:
    """A table from data of the form of `images.yaml`. Raises ValueError (pydantic's included)."""
    file = _File.model_validate(data)
    return ImageTable(
        (
            Family(
                tuple(row.repositories),
                row.platform,
                tuple(c.made() for c in row.contains),
                tuple(c.made() for c in row.lacks),
            )
            for row in file.images
        ),
        (
            Caution(
                row.text,
                row.source,
                tuple(row.repositories),
                row.versions(),
                tuple(row.architectures),
                tuple(row.fabrics),
                tuple(row.backends),
                tuple(row.unless),
            )
            for row in file.warnings
        ),
    )


_Text = Annotated[str, Field(min_length=1)]
_VersionText = Annotated[str, Field(pattern=r"^\d+(\.\d+){1,3}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)


class _Bounded(_Model):
    since: _VersionText | None = None
    before: _VersionText | None = None

    def versions(self) -> Versions:
        return Versions(
            _version(self.since) if self.since else None, _version(self.before) if self.before else None
        )


class _Content(_Bounded):
    component: _Text

    def made(self) -> Content:
        return Content(self.component, self.versions())


class _Family(_Model):
    repositories: Annotated[list[_Text], Field(min_length=1)]
    platform: _Text
    contains: list[_Content] = Field(default_factory=list)
    lacks: list[_Content] = Field(default_factory=list)


class _Warning(_Bounded):
    text: _Text
    source: _Text
    repositories: list[_Text] = Field(default_factory=list)
    architectures: list[_Text] = Field(default_factory=list)
    fabrics: list[_Text] = Field(default_factory=list)
    backends: list[_Text] = Field(default_factory=list)
    unless: list[_Text] = Field(default_factory=list)


class _File(_Model):
    images: list[_Family]
    warnings: list[_Warning]
