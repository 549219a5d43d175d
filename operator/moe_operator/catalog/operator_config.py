"""The operator's configuration: what a site knows better than the catalogue. Prices, images, hardware, names.

    vendors:
      nvidia: {image: registry.example/vllm-openai:v0.32.0}
    accelerators:
      B200: {price: {usdPerGpuHour: "4.10", source: contract of April}}
    fabrics:
      infiniband: {rdmaResource: nvidia.com/hostdev, rdmaCount: PerGpu}
    topologyLabels: [topology.kubernetes.io/zone, example.com/rack]
    rdmaResources: [example.com/hca]
    policy: {rules: [...]}
    network: {policies: Ingress}
    deviceClasses: {nvidia.com/gpu: team-gpus.example.com}
    weights: {cache: {storageClassName: shared-nvme, size: 4Ti}}
    telemetry: {dcgmExporter: {namespace: gpu-operator}}
    nodes: {unhealthyConditions: [GpuUnhealthy]}
    compileCache: {default: {claim: compiled}, hostPaths: [/var/lib/compiled]}

Vendors and accelerators have the fields of `accelerators.yaml`, and only those that differ; an accelerator that
is not in the catalogue is added, with all its fields. Fabrics: see `site_fabrics`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from moe_operator.catalog.accelerators import Catalog, catalog_data, load_catalog, read_catalog
from moe_operator.catalog.compile_cache_site import CompileCacheSection, CompileCacheSite
from moe_operator.catalog.device_classes import DeviceClassSection, device_classes
from moe_operator.catalog.network import Network, NetworkForm
from moe_operator.catalog.node_health import NodesForm
from moe_operator.catalog.policy import Policy, PolicyForm
from moe_operator.catalog.site_fabrics import SiteFabricsError, site_fabrics
from moe_operator.catalog.telemetry_site import TelemetryForm, TelemetrySite
from moe_operator.catalog.weights_site import WeightsSection, WeightsSite

#: Bytes; the file is a ConfigMap's key, which holds at most one MiB.
LARGEST_FILE = 2**20
_PRICE_SOURCE = "the operator's configuration"


class OperatorConfigError(ValueError):
    """The configuration cannot be used: the message begins with the path of the field at fault."""


@dataclass(frozen=True)
class OperatorConfig:
    """What holds at this site."""

    catalog: Catalog
    """Accelerators and fabrics with what the site says of them."""
    topology_labels: tuple[str, ...] | None = None
    """Label keys of where nodes stand, from wide to narrow; None: the usual ones."""
    rdma_resources: tuple[str, ...] | None = None
    """Patterns (fnmatch) of RDMA resources; None: the usual ones."""
    policy: Policy = field(default_factory=Policy)
    """What ModelDeployments may run."""
    network: Network = field(default_factory=Network)
    """Who may connect to engines."""
    device_classes: Mapping[str, str] = field(default_factory=lambda: device_classes({}))
    """DeviceClass that gives whole GPUs, by the extended resource that stands for them."""
    weights: WeightsSite = field(default_factory=WeightsSite)
    """How weights are fetched and kept."""
    telemetry: TelemetrySite = field(default_factory=TelemetrySite)
    """Who tells of GPUs and of memory."""
    unhealthy_conditions: frozenset[str] = frozenset()
    """Types of node conditions that say, while True, that a node's pods are to go."""
    compile_cache: CompileCacheSite = field(default_factory=CompileCacheSite)
    """Where compiled kernels may be kept."""


_Key = Annotated[str, Field(min_length=1, max_length=317)]
_Entries = dict[Annotated[str, Field(min_length=1, max_length=63)], dict[str, Any]]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)

    vendors: _Entries = Field(default_factory=dict)
    accelerators: _Entries = Field(default_factory=dict)
    fabrics: _Entries = Field(default_factory=dict)
    topology_labels: Annotated[list[_Key], Field(min_length=1)] | None = None
    rdma_resources: Annotated[list[_Key], Field(min_length=1)] | None = None
    policy: PolicyForm = PolicyForm()
    network: NetworkForm = NetworkForm()
    device_classes: DeviceClassSection = Field(default_factory=dict)
    weights: WeightsSection = Field(default_factory=WeightsSection)
    telemetry: TelemetryForm = TelemetryForm()
    nodes: NodesForm = NodesForm()
    compile_cache: CompileCacheSection = Field(default_factory=CompileCacheSection)


#: The file as it is written.
FORM = _File


def default_config() -> OperatorConfig:
    """Of a site that says nothing."""
    return OperatorConfig(load_catalog())


def read_config(text: str) -> OperatorConfig:
    """Read the file's text. Raises OperatorConfigError."""
    if len(text) > LARGEST_FILE:
        raise OperatorConfigError(f"the file is larger than {LARGEST_FILE // 2**20} MiB")
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OperatorConfigError(f"the file is not YAML: {' '.join(str(error).split())}") from error
    if data is None:
        return default_config()
    if not isinstance(data, Mapping):
        raise OperatorConfigError("the file holds no mapping: write vendors, accelerators or other fields")
    try:
        given = _File.model_validate(data)
    except ValidationError as error:
        raise OperatorConfigError(_first(error, ())) from error
    try:
        policy = given.policy.policy()
        classes = device_classes(given.device_classes)
    except ValueError as error:
        raise OperatorConfigError(str(error)) from error
    return OperatorConfig(
        catalog=_catalog(given),
        device_classes=classes,
        topology_labels=tuple(given.topology_labels) if given.topology_labels else None,
        rdma_resources=tuple(given.rdma_resources) if given.rdma_resources else None,
        policy=policy,
        network=given.network.network(),
        weights=given.weights.site(),
        telemetry=given.telemetry.site(),
        unhealthy_conditions=frozenset(given.nodes.unhealthy_conditions),
        compile_cache=given.compile_cache.site(),
    )


def _catalog(given: _File) -> Catalog:
    """The catalogue with the site's fields over its own."""
    if not given.vendors and not given.accelerators and not given.fabrics:
        return load_catalog()
    try:
        fabrics = site_fabrics(given.fabrics)
    except SiteFabricsError as error:
        raise OperatorConfigError(str(error)) from error
    data = catalog_data()
    for name, fields in given.vendors.items():
        if name not in data["vendors"]:
            raise OperatorConfigError(f"vendors.{name}: is not one of {', '.join(data['vendors'])}")
        data["vendors"][name] = _over(data["vendors"][name], fields)
    rows = {row["name"]: row for row in data["accelerators"]}
    shipped = load_catalog()
    for name, fields in given.accelerators.items():
        if "name" in fields:
            raise OperatorConfigError(f"accelerators.{name}.name: is the key itself; leave it out")
        known = shipped.accelerator(name)
        at = known.name if known is not None else name
        rows[at] = _over(rows.get(at, {"name": name}), _priced(name, fields))
    data["accelerators"] = list(rows.values())
    try:
        return read_catalog(data, fabrics)
    except ValidationError as error:
        raise OperatorConfigError(_first(error, tuple(rows))) from error
    except ValueError as error:
        raise OperatorConfigError(f"accelerators: {error}") from error


def _over(known: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields over known ones; mappings are joined key by key, all else is replaced."""
    joined = {
        key: {**known[key], **value}
        if isinstance(value, Mapping) and isinstance(known.get(key), Mapping)
        else value
        for key, value in fields.items()
    }
    return {**known, **joined}


def _priced(name: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """A price that does not say where it is from is the site's own."""
    price = fields.get("price")
    if not isinstance(price, Mapping):
        return fields
    amount = price.get("usdPerGpuHour")
    if isinstance(amount, int | float):
        raise OperatorConfigError(
            f'accelerators.{name}.price.usdPerGpuHour: write it as text, "{amount}", which keeps its digits'
        )
    return {**fields, "price": {"source": _PRICE_SOURCE, **price}}


def _first(error: ValidationError, names: tuple[str, ...]) -> str:
    """The first fault with its path. Accelerators are a list in the catalogue and go by name for people."""
    fault = error.errors(include_url=False)[0]
    path = [str(part) for part in fault["loc"]]
    if len(path) > 1 and path[0] == "accelerators" and path[1].isdigit():
        path[1] = names[int(path[1])]
    return f"{'.'.join(path)}: {fault['msg']}"
