"""Accelerators by name: how nodes of them are recognised, and what a rank on one needs.

The facts are in `accelerators.yaml`, read once. Names are compared without case, and blanks, underscores and
dashes count as the same, so that a catalogue name, a node's label value and what people say all find it.
"""

import difflib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from moe_operator.catalog.fabrics import FabricCatalog, load_fabrics
from moe_operator.catalog.profile import AcceleratorProfile as AcceleratorProfile
from moe_operator.catalog.profile import Price, Tflops

#: LibYAML's loader is ten times as fast; PyYAML's wheels bring it, distributions' packages may not.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: GPU Feature Discovery appends these where a GPU is shared or divided; vLLM needs whole GPUs.
_DIVIDED = ("-SHARED", "-MIG-")


class Catalog:
    """The hardware: accelerators by name and alias, and the fabrics between them."""

    def __init__(self, profiles: Iterable[AcceleratorProfile], fabrics: FabricCatalog | None = None) -> None:
        """Without `fabrics` those that the operator ships.

        Raises ValueError if two accelerators answer to the same name.
        """
        self.fabrics = fabrics or load_fabrics()
        self._profiles = {p.name: p for p in profiles}
        self._by_key: dict[str, AcceleratorProfile] = {}
        for profile in self._profiles.values():
            for name in {_key(n) for n in (profile.name, *profile.aliases)}:
                other = self._by_key.setdefault(name, profile)
                if other is not profile:
                    raise ValueError(f"{name!r} names both {other.name} and {profile.name}")
        self._label_keys = tuple(dict.fromkeys(k for p in self._profiles.values() for k in p.label_keys()))
        self._by_label = {
            (key, value): profile
            for profile in self._profiles.values()
            for key, values in profile.node_labels
            for value in values
        }

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
        """The accelerator of a node with these labels, or None. The first key that names one decides."""
        return next((found for _, found in self.named_by(labels)), None)

    def named_by(self, labels: Mapping[str, str]) -> tuple[tuple[str, AcceleratorProfile], ...]:
        """(label key, accelerator that its value names). Several accelerators: the labels contradict each other."""
        return tuple(
            (key, found)
            for key in self._label_keys
            if (found := self._by_label.get((key, labels.get(key, "")))) is not None
        )

    def product_labels(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The labels by which this node says what its accelerator is, known here or not, as `key=value`."""
        return tuple(f"{key}={labels[key]}" for key in self._label_keys if labels.get(key))

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
    return read_catalog(catalog_data())


def catalog_data() -> Any:
    """The content of `accelerators.yaml`, read anew."""
    text = resources.files("moe_operator.catalog").joinpath("accelerators.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=_Loader)


def read_catalog(data: Any, fabrics: FabricCatalog | None = None) -> Catalog:
    """A catalogue from data of the form of `accelerators.yaml`."""
    return Catalog(_File.model_validate(data).profiles(), fabrics)


_Text = Annotated[str, Field(min_length=1)]
_Positive = Annotated[int, Field(ge=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)


class _Price(_Model):
    # Text, as a YAML float would not keep what the source says.
    usd_per_gpu_hour: Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4})?$")]
    source: _Text


class _Tflops(_Model):
    bf16: _Positive
    fp8: _Positive | None = None
    fp4: _Positive | None = None


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
    architecture: Literal["amd64", "arm64"] = "amd64"
    memory_mib: _Positive | None = None
    memory_bandwidth: _Positive | None = None
    tflops: _Tflops | None = None
    nvlink_domain: _Positive = 1
    interconnect_bandwidth: _Positive | None = None
    compute_capability: _Text | None = None
    price: _Price | None = None

    def missing_figures(self) -> list[str]:
        """Keys of figures that every accelerator with memory of its own has."""
        figures = {
            "memoryMib": self.memory_mib,
            "memoryBandwidth": self.memory_bandwidth,
            "tflops": self.tflops,
            "interconnectBandwidth": self.interconnect_bandwidth,
            "computeCapability": self.compute_capability,
        }
        return [key for key, value in figures.items() if value is None]


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
        if vendor.resource_name and (missing := row.missing_figures()):
            raise ValueError(f"{row.name}: {', '.join(missing)} missing: nothing could be sized for it")
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
            architecture=row.architecture,
            memory_mib=row.memory_mib,
            memory_bandwidth=row.memory_bandwidth,
            tflops=Tflops(row.tflops.bf16, row.tflops.fp8, row.tflops.fp4) if row.tflops else None,
            nvlink_domain=row.nvlink_domain,
            interconnect_bandwidth=row.interconnect_bandwidth,
            compute_capability=row.compute_capability,
            price=Price(Decimal(row.price.usd_per_gpu_hour), row.price.source) if row.price else None,
        )


#: An entry of each section as it is written.
VENDOR_FORM, ACCELERATOR_FORM = _Vendor, _Row


def _key(name: str) -> str:
    return name.casefold().replace(" ", "-").replace("_", "-")
