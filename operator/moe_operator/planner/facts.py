"""What the planner knows of a cluster's nodes: values only; `inventory.py` reads them from Kubernetes' objects."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from moe_operator.catalog.operator_config import OperatorConfig

#: What NVIDIA's device plugin offers, and the DRA driver's device class when pods ask for an extended resource.
NVIDIA_GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Taint:
    """What keeps pods without a matching toleration away."""

    key: str
    value: str
    effect: str

    def tolerated_by(self, tolerations: Iterable[Mapping[str, Any]]) -> bool:
        """Whether one of these tolerations (plain dicts) matches."""
        return any(self._matches(toleration) for toleration in tolerations)

    def _matches(self, toleration: Mapping[str, Any]) -> bool:
        if toleration.get("effect") not in (None, "", self.effect):
            return False
        key, exists = toleration.get("key"), toleration.get("operator") == "Exists"
        if not key:
            return exists
        return bool(key == self.key and (exists or toleration.get("value", "") == self.value))


@dataclass(frozen=True)
class NodeFacts:
    """One node."""

    name: str
    labels: Mapping[str, str]
    gpus: Mapping[str, int]
    """Devices by extended resource, as the device plugin counts them, broken ones included. A node without a
    device plugin has the whole GPUs of its ResourceSlices under `nvidia.com/gpu`."""
    cordoned: bool = False
    taints: tuple[Taint, ...] = ()
    """Lasting taints that keep pods away."""
    allocatable: Mapping[str, int] = field(default_factory=dict)
    """Like `gpus`, without broken devices."""
    memory_mib: int | None = None
    """Memory of one GPU in MiB as the node (its labels, else its ResourceSlices) says; None: the catalogue's figure."""
    divided: bool = False
    """Its GPUs are shared or partitioned: what it offers are not whole GPUs."""
    from_slices: bool = False
    """Its GPUs come from ResourceSlices (dynamic resource allocation), not from a device plugin."""
    products: tuple[str, ...] = ()
    """Product names of the GPUs as ResourceSlices say them, each once."""
    clique: str | None = None
    """NVLink partition that spans nodes (`<cluster UUID>.<clique>`): equal values reach each other over NVLink."""
    topology: tuple[tuple[str, str], ...] = ()
    """(label key, value) of where the node stands, from wide to narrow."""
    rdma: Mapping[str, int] = field(default_factory=dict)
    """RDMA devices by extended resource, allocatable."""
    ready: bool = True
    """False where the node's Ready condition says so; a node without the condition counts as ready."""


@dataclass(frozen=True)
class Problem:
    """Something about a node that cannot be right; the plan goes on with what the message says."""

    node: str
    key: str
    """Label key or resource at fault."""
    message: str
    """What is wrong, with figures, and what to do."""
    contradiction: bool = False
    """Labels say what cannot be: in a file it is a mistake to correct, in a cluster one node's trouble among many. The
    rest are states of hardware, such as a GPU that fell off the bus."""

    def __str__(self) -> str:
        return f"node {self.node}: {self.key}: {self.message}"


@dataclass(frozen=True)
class Inventory:
    """All nodes, or None where the operator may not read them."""

    nodes: tuple[NodeFacts, ...] | None
    held: Mapping[str, Mapping[str, int]] | None = None
    """Devices in use by node and extended resource; None where pods were not read."""
    problems: tuple[Problem, ...] = ()

    def free(self, node: NodeFacts) -> dict[str, int]:
        """Allocatable devices that no pod holds, by extended resource. All of them where pods were not read.

        Says nothing about whether the node takes pods: see `cordoned`, `taints`, `ready`.
        """
        held = (self.held or {}).get(node.name, {})
        return {name: max(0, count - held.get(name, 0)) for name, count in node.allocatable.items()}


@dataclass(frozen=True)
class SiteNames:
    """Names that sites choose: where nodes stand and how their network devices are called."""

    topology_labels: tuple[str, ...] = (
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        # Topograph, NVIDIA's labeller of network topology; block and datacenter are its former names.
        "network.topology.nvidia.com/datacenter",
        "network.topology.nvidia.com/core",
        "network.topology.nvidia.com/spine",
        "network.topology.nvidia.com/block",
        "network.topology.nvidia.com/leaf",
        # Amazon and Google write these on nodes of their own.
        "topology.k8s.aws/network-node-layer-1",
        "topology.k8s.aws/network-node-layer-2",
        "topology.k8s.aws/network-node-layer-3",
        "cloud.google.com/gce-topology-block",
        "cloud.google.com/gce-topology-subblock",
        # No standard name; the commonest.
        "topology.kubernetes.io/rack",
        "network.topology.nvidia.com/accelerator",
        "kubernetes.io/hostname",
    )
    """Label keys, from wide to narrow."""
    rdma_resources: tuple[str, ...] = (
        # NVIDIA's network operator and shared device plugin; Google's networks; Amazon's EFA.
        "rdma/*",
        "networking.gke.io.networks/rdma-*",
        "vpc.amazonaws.com/efa",
    )
    """Patterns (fnmatch) of extended resources."""

    @classmethod
    def of(cls, config: OperatorConfig) -> "SiteNames":
        """With what the operator's configuration says in place of the usual names."""
        usual = cls()
        return cls(
            config.topology_labels or usual.topology_labels, config.rdma_resources or usual.rdma_resources
        )

    def is_rdma(self, resource: str) -> bool:
        return any(fnmatchcase(resource, pattern) for pattern in self.rdma_resources)
