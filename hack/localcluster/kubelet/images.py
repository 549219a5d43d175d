"""Which local programs stand for an image: the table that takes the place of a registry."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

#: What a container engine sets when the image sets nothing.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ImageTableError(Exception):
    """The table cannot be read; the text names the entry and the key."""


@dataclass(frozen=True)
class Image:
    """What a matching image brings: ``path`` (its PATH), ``env``, and the command to use where a pod gives none."""

    match: str
    path: str = DEFAULT_PATH
    env: dict[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_dir: str = "/"

    def argv(self, command: list[str], args: list[str]) -> list[str]:
        """The argument list by the rules of a container image: ``command`` replaces entrypoint and default arguments,
        ``args`` replaces the default arguments."""
        if command:
            return [*command, *args]
        return [*self.entrypoint, *(args or self.command)]


@dataclass(frozen=True)
class ImageTable:
    """Images by pattern; the first match counts."""

    images: tuple[Image, ...]

    def find(self, reference: str) -> Image | None:
        """The entry for an image reference, or None: such an image cannot be pulled."""
        return next((image for image in self.images if fnmatchcase(reference, image.match)), None)


_KEYS = {"match", "pathPrepend", "env", "entrypoint", "cmd", "workingDir"}


def parse(document: Any) -> ImageTable:
    """Read ``{images: [{match, pathPrepend?, env?, entrypoint?, cmd?, workingDir?}]}``. Raises ImageTableError."""
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise ImageTableError("the image table must be a mapping with a list 'images'")
    return ImageTable(tuple(_image(number, entry) for number, entry in enumerate(document["images"])))


def _image(number: int, entry: Any) -> Image:
    where = f"images[{number}]"
    if not isinstance(entry, dict) or not isinstance(entry.get("match"), str):
        raise ImageTableError(
            f"{where} needs a 'match': a glob over image references, such as 'vllm/vllm-openai:*'"
        )
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise ImageTableError(f"{where} ({entry['match']}): unknown keys {unknown}; known: {sorted(_KEYS)}")
    for key in ("pathPrepend", "entrypoint", "cmd"):
        value = entry.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ImageTableError(
                f"{where} ({entry['match']}): {key} must be a list of strings, not {value!r}"
            )
    env = entry.get("env") or {}
    if not isinstance(env, dict):
        raise ImageTableError(f"{where} ({entry['match']}): env must be a mapping of strings, not {env!r}")
    prepend: list[str] = entry.get("pathPrepend") or []
    return Image(
        match=entry["match"],
        path=":".join([*prepend, DEFAULT_PATH]),
        env={str(key): str(value) for key, value in env.items()},
        entrypoint=tuple(entry.get("entrypoint") or ()),
        command=tuple(entry.get("cmd") or ()),
        working_dir=str(entry.get("workingDir") or "/"),
    )


def load(path: Path) -> ImageTable:
    """Read a YAML table. Raises ImageTableError or OSError."""
    try:
        return parse(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise ImageTableError(f"{path}: {error}") from error
