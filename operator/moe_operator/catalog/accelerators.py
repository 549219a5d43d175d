"""Accelerators by name: how nodes of them are recognised, and what a rank on one needs.

The facts are in `accelerators.yaml`, read once. Names are compared without case, and blanks, underscores and
dashes count as the same, so that a catalogue name, a node's label value and what people say all find it.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

#: GPU Feature Discovery appends these where a GPU is shared or divided; vLLM needs whole GPUs.
_DIVIDED = ("-SHARED", "-MIG-")


@dataclass(frozen=True)
class AcceleratorProfile:
    """One accelerator. On `cpu` a "GPU" is a rank: what is said per GPU holds per rank."""

    name: str
    """Catalogue name, as users write it and as `Plan.accelerator` says it."""
    aliases: tuple[str, ...]
    """Other names that find it, label values included."""
    resource_name: str | None
    """Extended resource of the device plugin, in pods and on nodes; None for `cpu`."""
    gpus_per_node: int
    """GPUs of a node where nodes cannot be asked; on `cpu` the ranks of a pod."""
    default_width: int | None
    """GPUs of a group where the spec says nothing; None: one node's GPUs."""
    default_image: str
    node_labels: tuple[tuple[str, tuple[str, ...]], ...]
    """(label key, values): a node of this accelerator carries one of the values under one of the keys.
    Empty for `cpu`: any node will do."""
    env: tuple[tuple[str, str], ...]
    """Environment of the engine that this accelerator needs; `engine.env` overrides it by name."""
    args: tuple[tuple[str, str], ...]
    """Flags of `vllm serve` without dashes, empty for a bare flag; `engine.args` overrides by name."""
    cpu_millicores_per_gpu: int
    memory_mib_per_gpu: int
    shared_memory_mib: int
    """Upper bound of /dev/shm."""
    tolerations: tuple[Mapping[str, str], ...]
    """What nodes of this accelerator are usually tainted with."""
    notes: tuple[str, ...]
    """What a user should know when it is chosen; part of the plan's notes."""

    def pod_requests(self, gpus: int) -> dict[str, str]:
        """Default resource requests of a pod with this many GPUs."""
        requests = {
            "cpu": f"{self.cpu_millicores_per_gpu * gpus}m",
            "memory": f"{self.memory_mib_per_gpu * gpus}Mi",
        }
        return requests | self.pod_limits(gpus)

    def pod_limits(self, gpus: int) -> dict[str, str]:
        """Default resource limits: extended resources only; a memory limit would end engines as they load."""
        return {self.resource_name: str(gpus)} if self.resource_name else {}

    def recognises(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels has whole GPUs of this kind. Never true for `cpu`."""
        return any(labels.get(key) in values for key, values in self.node_labels)

    def label_keys(self) -> tuple[str, ...]:
        return tuple(key for key, _ in self.node_labels)


class Catalog:
    """The accelerators by name and alias."""

    def __init__(self, profiles: Iterable[AcceleratorProfile]) -> None:
        """Raises ValueError if two accelerators answer to the same name."""
        self._profiles = {p.name: p for p in profiles}
        self._by_key: dict[str, AcceleratorProfile] = {}
        for profile in self._profiles.values():
            for name in {_key(n) for n in (profile.name, *profile.aliases)}:
                other = self._by_key.setdefault(name, profile)
                if other is not profile:
                    raise ValueError(f"{name!r} names both {other.name} and {profile.name}")

    def names(self) -> tuple[str, ...]:
        """Catalogue names, in the catalogue's order."""
        return tuple(self._profiles)

    def accelerator(self, name: str) -> AcceleratorProfile | None:
        """The accelerator of this name or alias."""
        return self._by_key.get(_key(name))

    def closest(self, name: str) -> tuple[str, ...]:
        """All catalogue names, the ones most like `name` first."""
        wanted = _key(name)
        return tuple(sorted(self._profiles, key=lambda known: -self._likeness(wanted, self._profiles[known])))

    def recognise(self, labels: Mapping[str, str]) -> AcceleratorProfile | None:
        """The accelerator of a node with these labels, or None."""
        return next((p for p in self._profiles.values() if p.recognises(labels)), None)

    def product_labels(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The labels by which this node says what its accelerator is, known here or not, as `key=value`."""
        keys = dict.fromkeys(key for p in self._profiles.values() for key in p.label_keys())
        return tuple(f"{key}={labels[key]}" for key in keys if labels.get(key))

    @staticmethod
    def _likeness(wanted: str, profile: AcceleratorProfile) -> float:
        names = (profile.name, *profile.aliases)
        return max(difflib.SequenceMatcher(None, wanted, _key(name)).ratio() for name in names)


def is_divided(label_value: str) -> bool:
    """Whether a product label's value says that GPUs are shared or divided."""
    return any(mark in label_value for mark in _DIVIDED)


@cache
def load_catalog() -> Catalog:
    """The catalogue that the operator ships.

    Raises ValueError (pydantic's included) if the data file breaks a rule, which a test excludes.
    """
    text = resources.files("moe_operator.catalog").joinpath("accelerators.yaml").read_text(encoding="utf-8")
    return read_catalog(yaml.safe_load(text))


def read_catalog(data: Any) -> Catalog:
    """A catalogue from data of the form of `accelerators.yaml`."""
    return Catalog(_File.model_validate(data).profiles())


_Text = Annotated[str, Field(min_length=1)]
_Positive = Annotated[int, Field(ge=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)


class _Vendor(_Model):
    resource_name: _Text | None = None
    image: _Text
    tolerations: list[dict[str, str]] = Field(default_factory=list)
    cpu_millicores_per_gpu: _Positive
    memory_mib_per_gpu: _Positive
    shared_memory_mib: _Positive
    env: dict[str, str] = Field(default_factory=dict)
    args: dict[str, str] = Field(default_factory=dict)


class _Row(_Model):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,63}$")]
    vendor: _Text
    gpus_per_node: _Positive
    default_width: _Positive | None = None
    aliases: list[_Text] = Field(default_factory=list)
    node_labels: dict[str, Annotated[list[_Text], Field(min_length=1)]] = Field(default_factory=dict)
    tolerations: list[dict[str, str]] | None = None
    notes: list[_Text] = Field(default_factory=list)


class _File(_Model):
    vendors: dict[str, _Vendor]
    accelerators: list[_Row]

    def profiles(self) -> list[AcceleratorProfile]:
        return [self._profile(row) for row in self.accelerators]

    def _profile(self, row: _Row) -> AcceleratorProfile:
        vendor = self.vendors.get(row.vendor)
        if vendor is None:
            raise ValueError(f"{row.name}: no vendor {row.vendor!r}; known: {', '.join(self.vendors)}")
        if vendor.resource_name and not row.node_labels:
            raise ValueError(f"{row.name}: nodes of it cannot be recognised without nodeLabels")
        values = [value for values in row.node_labels.values() for value in values]
        return AcceleratorProfile(
            name=row.name,
            aliases=tuple(dict.fromkeys([*row.aliases, *values])),
            resource_name=vendor.resource_name,
            gpus_per_node=row.gpus_per_node,
            default_width=row.default_width,
            default_image=vendor.image,
            node_labels=tuple((key, tuple(values)) for key, values in row.node_labels.items()),
            env=tuple(vendor.env.items()),
            args=tuple(vendor.args.items()),
            cpu_millicores_per_gpu=vendor.cpu_millicores_per_gpu,
            memory_mib_per_gpu=vendor.memory_mib_per_gpu,
            shared_memory_mib=vendor.shared_memory_mib,
            tolerations=tuple(vendor.tolerations if row.tolerations is None else row.tolerations),
            notes=tuple(row.notes),
        )


def _key(name: str) -> str:
    return name.casefold().replace(" ", "-").replace("_", "-")
