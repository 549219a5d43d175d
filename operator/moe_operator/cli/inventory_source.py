"""Where the nodes that are planned for come from when it is not a cluster: a file, or the catalogue's usual ones."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.catalog.accelerators import AcceleratorProfile, Catalog
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.cli.errors import UsageError
from moe_operator.cli.manifest import read_text
from moe_operator.planner.facts import Inventory, NodeFacts, SiteNames
from moe_operator.planner.synthetic_nodes import fabric_labels, fabric_resources


@dataclass(frozen=True)
class Nodes:
    """What is planned for, and where that is known from."""

    inventory: Inventory
    source: str
    """For people: `the cluster`, a file's name, `the catalogue's usual nodes`."""
    assumed: bool = False
    """No node was seen."""


def from_file(path: str, site: OperatorConfig) -> Nodes:
    """An inventory of `kubectl get nodes,pods,... -o yaml`, or a short description. Raises UsageError."""
    from moe_operator.planner.inventory_file import LARGEST_MIB, InventoryError, read_inventory

    text = read_text(path, LARGEST_MIB * 2**20, "an inventory")
    try:
        inventory = read_inventory(text, site.catalog, SiteNames.of(site))
    except InventoryError as error:
        raise UsageError(f"{path}: {error}") from error
    wrong = next((problem for problem in inventory.problems if problem.contradiction), None)
    if wrong is not None:
        raise UsageError(f"{path}: {wrong}")
    return Nodes(inventory, "standard input" if path == "-" else path)


def usual(spec: ModelDeploymentSpec, catalog: Catalog) -> Nodes:
    """A node of each accelerator that the spec names, as the catalogue says they usually are, open to its pods."""
    wanted = spec.hardware.accelerators or [spec.hardware.accelerator or ""]
    profiles = [profile for name in wanted if (profile := catalog.accelerator(name)) is not None]
    selector = dict(spec.pod_template.node_selector)
    pinned, fabric = spec.hardware.gpus_per_node, spec.hardware.fabric
    nodes = tuple(usual_node(profile, catalog, pinned, selector, fabric) for profile in profiles)
    return Nodes(Inventory(nodes), "the catalogue's usual nodes", assumed=True)


def usual_node(
    profile: AcceleratorProfile,
    catalog: Catalog,
    pinned: int | None,
    labels: Mapping[str, str],
    fabric: str | None = None,
) -> NodeFacts:
    """One node with the catalogue's number of GPUs, or more where more are pinned, and the usual or named network."""
    carried = dict(labels)
    gpus: dict[str, int] = {}
    adapters: dict[str, int] = {}
    if profile.resource_name is not None:
        key, values = profile.node_labels[0]
        carried[key] = values[0]
        count = gpus[profile.resource_name] = max(profile.gpus_per_node, pinned or 0)
        carried |= fabric_labels(profile, 0, count)
        adapters = fabric_resources(profile, count, catalog, fabric)
    return NodeFacts(
        f"usual-{profile.name.lower()}",
        carried,
        gpus,
        allocatable=gpus | adapters,
        clique=carried.get("nvidia.com/gpu.clique"),
        rdma=adapters,
    )


def cluster_configured(environ: Mapping[str, str] = os.environ, home: Path | None = None) -> bool:
    """Whether kubectl would know of a cluster; nothing is asked."""
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return True
    named = environ.get("KUBECONFIG")
    if named:
        return any(Path(path).is_file() for path in named.split(os.pathsep) if path)
    return ((home or Path.home()) / ".kube" / "config").is_file()
