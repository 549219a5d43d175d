"""The file of one model in the catalogue: its form, and what it becomes.

Facts stand in the files, one per model, named `<organisation>--<name>.yaml`; nothing in them is a size that follows
from the rest.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from moe_operator.catalog.models.architecture import RopeScaling, Section
from moe_operator.catalog.models.config_reader import ConfigError
from moe_operator.catalog.models.context_stretch import ContextStretch
from moe_operator.catalog.models.model import Checkpoint, Model, Parsers, Rule
from moe_operator.catalog.models.name_patterns import NamePatterns
from moe_operator.catalog.models.read import read_architecture
from moe_operator.catalog.models.scheme import DTYPES, ELEMENT_BYTES, Precision, scheme_named


class EntryError(ValueError):
    """A file of the catalogue that cannot be used: the message has the file and the path of the field."""


_Text = Annotated[str, Field(min_length=1, max_length=200)]
_Positive = Annotated[int, Field(ge=1)]
_Patterns = Annotated[list[_Text], Field(min_length=1)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)


class _RuleForm(_Form):
    """Which linear tensors are narrow: those that `only` matches, or all but those that `keep` matches."""

    scheme: _Text = "none"
    only: _Patterns | None = None
    keep: _Patterns | None = None

    @model_validator(mode="after")
    def _known(self) -> "_RuleForm":
        scheme_named(self.scheme)
        return self

    def rule(self) -> Rule:
        return Rule(
            scheme_named(self.scheme),
            only=NamePatterns(wildcards=tuple(self.only)) if self.only else None,
            keep=NamePatterns(wildcards=tuple(self.keep)) if self.keep else None,
        )


class _CheckpointForm(_RuleForm):
    precision: Annotated[Precision, Field(strict=False)]
    repository: _Text
    also: list[_RuleForm] = Field(default_factory=list)
    """Further formats of a repository that mixes them; looked at before the rule above."""
    without: list[Annotated[Section, Field(strict=False)]] = Field(default_factory=list)
    kv_cache: _Text | None = None
    published_gb: float | None = Field(default=None, alias="publishedGB", gt=0, strict=False)

    @model_validator(mode="after")
    def _consistent(self) -> "_CheckpointForm":
        narrow = self.precision not in DTYPES
        written = [form.rule().scheme.precision for form in (self, *self.also)]
        if narrow and self.precision not in written:
            raise ValueError(f"no scheme here stores {self.precision.value}: name one under scheme")
        if not narrow and any(written):
            raise ValueError(f"{self.precision.value} is not quantised, yet a scheme is named")
        return self

    def checkpoint(self) -> Checkpoint:
        forms = (*self.also, self) if self.scheme != "none" else tuple(self.also)
        return Checkpoint(
            precision=self.precision,
            repository=self.repository,
            rules=tuple(form.rule() for form in forms),
            without=frozenset(self.without),
            kv_cache=self.kv_cache,
            published_gb=self.published_gb,
        )


class _ParsersForm(_Form):
    tool_call: _Text | None = None
    reasoning: _Text | None = None


class _RopeForm(BaseModel):
    """The model's own rope parameters, named as in config.json."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rope_theta: _Positive
    partial_rotary_factor: Annotated[float, Field(gt=0, le=1)] | None = None
    mrope_interleaved: bool | None = None
    mrope_section: Annotated[list[_Positive], Field(min_length=1)] | None = None


class _RopeScalingForm(_Form):
    type: Annotated[RopeScaling, Field(strict=False)]
    up_to: _Positive
    over: _Positive | None = None
    """Positions that the factor counts from, where the card says others than the native context."""
    rope: _RopeForm


class _EntryForm(_Form):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", max_length=200)]
    aliases: list[_Text] = Field(default_factory=list)
    like: _Text | None = None
    licence: _Text
    hub_parameters: _Positive | None = None
    parsers: _ParsersForm = Field(default_factory=_ParsersForm)
    multimodal: dict[_Text, _Positive] = Field(default_factory=dict)
    rope_scaling: _RopeScalingForm | None = None
    approximate: bool = False
    checkpoints: Annotated[list[_CheckpointForm], Field(min_length=1)]
    config: dict[str, Any]


#: What belongs to one model only and is never taken from the entry that it is `like`.
_OWN = ("name", "aliases", "like", "checkpoints")


def inherit(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """An entry's data over that of the entry that it is `like`. Within `config`, fields are taken one by one."""
    taken = {key: value for key, value in base.items() if key not in _OWN}
    merged = taken | dict(own)
    if isinstance(taken.get("config"), dict) and isinstance(own.get("config"), dict):
        merged["config"] = _over(taken["config"], own["config"])
    return merged


def _over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        merged[key] = _over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def read_entry(file: str, data: Any) -> Model:
    """A model from an entry's data, `like` resolved. Raises EntryError."""
    try:
        form = _EntryForm.model_validate(data)
    except ValidationError as error:
        raise EntryError(f"{file}: {_first(error)}") from error
    try:
        architecture = read_architecture(form.config)
    except ConfigError as error:
        raise EntryError(f"{file}: config.{error}") from error
    if architecture.dtype not in ELEMENT_BYTES:
        raise EntryError(
            f"{file}: config.dtype: {architecture.dtype!r} is not one of {', '.join(ELEMENT_BYTES)}"
        )
    stretch = form.rope_scaling
    if stretch and stretch.up_to <= architecture.context_length:
        native = architecture.context_length
        raise EntryError(
            f"{file}: ropeScaling.upTo: {stretch.up_to} is not longer than the native context of {native}"
        )
    return Model(
        name=form.name,
        architecture=architecture,
        checkpoints=tuple(checkpoint.checkpoint() for checkpoint in form.checkpoints),
        licence=form.licence,
        aliases=tuple(form.aliases),
        parsers=Parsers(form.parsers.tool_call, form.parsers.reasoning),
        multimodal=tuple(form.multimodal.items()),
        stretch=_stretch(stretch, architecture.context_length, form.config) if stretch else None,
        hub_parameters=form.hub_parameters,
        approximate=form.approximate,
    )


def _stretch(form: _RopeScalingForm, native: int, config: Mapping[str, Any]) -> ContextStretch:
    return ContextStretch(
        type=form.type,
        up_to=form.up_to,
        original=form.over or native,
        rope=tuple(form.rope.model_dump(exclude_none=True).items()),
        within="text_config" if "text_config" in config else None,
    )


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in found["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{path.removeprefix('.') or 'the file'}: {found['msg'].removeprefix('Value error, ')}{more}"
