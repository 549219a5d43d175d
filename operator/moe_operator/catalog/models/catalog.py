"""The models that the operator knows, by name, alias or repository; and any other by its config.json.

A catalogue is a directory of entries. A name finds its file without reading the others; names are compared without
case, and blanks, underscores and dashes count as the same.
"""

import dataclasses
import difflib
from functools import cache, cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from moe_operator.catalog.models import custom
from moe_operator.catalog.models.entry import EntryError, inherit, read_entry
from moe_operator.catalog.models.model import Checkpoint, Model

__all__ = ["Checkpoint", "Model", "ModelCatalog", "load_models", "names_of"]

#: LibYAML's loader is ten times as fast; PyYAML's wheels bring it, distributions' packages may not.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SUFFIX = ".yaml"
#: Entries that are each like the next: more are a mistake.
_LONGEST_CHAIN = 4


class ModelCatalog:
    """The entries of one directory. What was read once is kept."""

    def __init__(self, directory: Traversable) -> None:
        self._directory = directory
        self._models: dict[str, Model] = {}
        self._texts: dict[str, str] = {}
        self._data: dict[str, dict[str, Any]] = {}

    def names(self) -> tuple[str, ...]:
        """Names of all models, in alphabetical order without regard to case."""
        return tuple(sorted((_name(stem) for stem in self._stems.values()), key=str.casefold))

    def find(self, name: str) -> Model | None:
        """The model of this name, alias, or repository of one of its checkpoints; which checkpoint the repository
        is, `Model.named` then says. Raises EntryError if an entry cannot be used, which a test excludes."""
        wanted = _key(name.strip())
        if not wanted:
            return None
        stem = self._stems.get(wanted.replace("/", "--"))
        if stem is not None:
            return self._model(stem)
        # Only files that have the name somewhere need to be parsed.
        for stem in self._stems.values():
            if wanted not in _key(self._text(stem)) and wanted not in _key(_name(stem)):
                continue
            model = self._model(stem)
            if wanted in {_key(n) for n in names_of(model)}:
                return model
            if (checkpoint := _published_as(model, wanted)) is not None:
                return dataclasses.replace(model, named=checkpoint)
        return None

    def closest(self, name: str) -> tuple[str, ...]:
        """All names, the ones most like `name` first."""
        wanted = _key(name)
        return tuple(sorted(self.names(), key=lambda known: -_likeness(wanted, known)))

    def from_config(
        self,
        name: str,
        config_json: str | bytes,
        *,
        repository: str | None = None,
        licence: str | None = None,
    ) -> Model:
        """A model that is not in the catalogue, from its config.json: see `custom.model_from_config`. Raises
        ConfigError."""
        return custom.model_from_config(name, config_json, repository=repository, licence=licence)

    @cached_property
    def _stems(self) -> dict[str, str]:
        """File names without suffix, by key."""
        stems = sorted(
            file.name.removesuffix(_SUFFIX)
            for file in self._directory.iterdir()
            if file.name.endswith(_SUFFIX) and not file.name.startswith(".")
        )
        return {_key(stem): stem for stem in stems}

    def _text(self, stem: str) -> str:
        found = self._texts.get(stem)
        if found is None:
            file = self._directory.joinpath(stem + _SUFFIX)
            found = self._texts[stem] = file.read_text(encoding="utf-8")
        return found

    def _model(self, stem: str) -> Model:
        found = self._models.get(stem)
        if found is None:
            file = stem + _SUFFIX
            found = read_entry(file, self._resolved(stem))
            if found.name != _name(stem):
                raise EntryError(
                    f"{file}: name: {found.name!r} belongs in a file {_stem(found.name)}{_SUFFIX}"
                )
            self._models[stem] = found
        return found

    def _resolved(self, stem: str, chain: tuple[str, ...] = ()) -> dict[str, Any]:
        """An entry's data with that of the entry that it is `like`."""
        own = self._raw(stem)
        like = own.get("like")
        if not isinstance(like, str):
            return own
        below = self._stems.get(_key(like).replace("/", "--"))
        if below is None:
            raise EntryError(f"{stem}{_SUFFIX}: like: there is no entry {like!r}")
        if len(chain) == _LONGEST_CHAIN:
            raise EntryError(f"{stem}{_SUFFIX}: like: {' -> '.join((*chain, stem, below))} does not end")
        return inherit(self._resolved(below, (*chain, stem)), own)

    def _raw(self, stem: str) -> dict[str, Any]:
        found = self._data.get(stem)
        if found is None:
            try:
                found = yaml.load(self._text(stem), Loader=_Loader)
            except yaml.YAMLError as error:
                raise EntryError(f"{stem}{_SUFFIX}: is not YAML: {error}") from error
            if not isinstance(found, dict):
                raise EntryError(f"{stem}{_SUFFIX}: is not a mapping of fields")
            self._data[stem] = found
        return found


@cache
def load_models() -> ModelCatalog:
    """The catalogue that the operator ships."""
    return ModelCatalog(resources.files("moe_operator.catalog.models").joinpath("entries"))


def names_of(model: Model) -> tuple[str, ...]:
    """Its name, its name without the organisation, and its aliases."""
    return (model.name, model.name.partition("/")[2], *model.aliases)


def _published_as(model: Model, wanted: str) -> Checkpoint | None:
    return next((c for c in model.checkpoints if c.repository and _key(c.repository) == wanted), None)


def _likeness(wanted: str, name: str) -> float:
    whole = _key(name)
    # Most people leave the organisation out.
    return max(difflib.SequenceMatcher(None, wanted, k).ratio() for k in (whole, whole.partition("/")[2]))


def _key(name: str) -> str:
    return name.casefold().replace(" ", "-").replace("_", "-")


def _name(stem: str) -> str:
    return stem.replace("--", "/", 1)


def _stem(name: str) -> str:
    return name.replace("/", "--", 1)
