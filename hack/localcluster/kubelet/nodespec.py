"""The nodes that a kubelet is to play, and their objects. Pure."""

from __future__ import annotations

import ipaddress
import platform
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from localcluster.kubelet.records import timestamp

Obj = dict[str, Any]
KUBELET_PORT = 10250
#: The feature that a node declares which takes kubectl's WebSockets itself (beta, and on, since Kubernetes 1.36).
WEBSOCKETS = "ExtendWebSocketsToKubelet"
#: What a node has that says nothing else.
DEFAULT_CAPACITY = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "1Ti", "pods": "110"}
_KEYS = {"name", "labels", "annotations", "capacity", "allocatable", "taints"}


class NodesError(Exception):
    """The list of nodes cannot be used; the text names the entry."""


@dataclass(frozen=True)
class NodeSpec:
    """One node. ``capacity`` and ``allocatable`` are complete, as quantities."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    capacity: dict[str, str] = field(default_factory=dict)
    allocatable: dict[str, str] = field(default_factory=dict)
    taints: list[Obj] = field(default_factory=list)


@dataclass(frozen=True)
class NodeNetwork:
    """A node's share of the pod network: its first address is the node's own, the rest are for pods."""

    cidr: ipaddress.IPv4Network

    @property
    def host_ip(self) -> str:
        return str(self.cidr.network_address + 1)

    @classmethod
    def of(cls, pods: str, index: int) -> NodeNetwork:
        """The share of node number ``index`` (from 0): one /24. Raises NodesError when the range is used up."""
        whole = ipaddress.IPv4Network(pods)
        if whole.prefixlen > 24 or index + 1 >= 2 ** (24 - whole.prefixlen):
            raise NodesError(
                f"pod range {pods} has no /24 left for node number {index + 1}: use a larger one"
            )
        return cls(ipaddress.IPv4Network((int(whole.network_address) + (index + 1) * 256, 24)))


class AddressPool:
    """Pod addresses of one node; a freed one is used again as late as possible."""

    def __init__(self, network: NodeNetwork) -> None:
        first = network.cidr.network_address
        self._free = [str(first + number) for number in range(2, 255)]

    def take(self, wanted: str | None = None) -> str:
        """``wanted`` if it is free, else any. Raises NodesError when none is left."""
        if wanted is not None and wanted in self._free:
            self._free.remove(wanted)
            return wanted
        if not self._free:
            raise NodesError("all 253 pod addresses of the node are in use")
        return self._free.pop(0)

    def give_back(self, address: str) -> None:
        self._free.append(address)


def parse(document: Any) -> list[NodeSpec]:
    """Read a list of ``{name, labels?, annotations?, capacity?, allocatable?, taints?}``, or a mapping with such a list
    under ``nodes``. Raises NodesError."""
    entries = document.get("nodes") if isinstance(document, dict) else document
    if not isinstance(entries, list) or not entries:
        raise NodesError("the nodes file must hold a non-empty list of nodes")
    out: list[NodeSpec] = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise NodesError(f"node number {number + 1} needs a name")
        unknown = sorted(set(entry) - _KEYS)
        if unknown:
            raise NodesError(f"node {entry['name']}: unknown keys {unknown}; known: {sorted(_KEYS)}")
        capacity = DEFAULT_CAPACITY | _strings(entry.get("capacity"))
        out.append(
            NodeSpec(
                name=entry["name"],
                labels=_strings(entry.get("labels")),
                annotations=_strings(entry.get("annotations")),
                capacity=capacity,
                allocatable=capacity | _strings(entry.get("allocatable")),
                taints=list(entry.get("taints") or []),
            )
        )
    names = [node.name for node in out]
    if len(set(names)) < len(names):
        raise NodesError(f"node names must differ: {sorted(names)}")
    return out


def _strings(value: Any) -> dict[str, str]:
    def text(item: Any) -> str:
        return str(item).lower() if isinstance(item, bool) else str(item)

    return {str(key): text(item) for key, item in (value or {}).items()}


def load(path: Path) -> list[NodeSpec]:
    """Read a YAML file. Raises NodesError or OSError."""
    try:
        return parse(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise NodesError(f"{path}: {error}") from error


_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """This machine's, in Kubernetes' words."""
    return _ARCHITECTURE.get(platform.machine(), platform.machine())


def node_object(spec: NodeSpec, network: NodeNetwork) -> Obj:
    """The Node to create."""
    own = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture(),
    }
    out: Obj = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": own | spec.labels, "annotations": spec.annotations},
        "spec": {"podCIDR": str(network.cidr), "podCIDRs": [str(network.cidr)]},
    }
    if spec.taints:
        out["spec"]["taints"] = spec.taints
    return out


def node_status(
    spec: NodeSpec, network: NodeNetwork, version: str, boot_id: str, now: datetime, since: datetime
) -> Obj:
    """Its status while healthy. ``since``: when it last became Ready."""

    def condition(kind: str, status: str, reason: str, message: str) -> Obj:
        return {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": timestamp(now),
            "lastTransitionTime": timestamp(since),
        }

    return {
        "capacity": spec.capacity,
        "allocatable": spec.allocatable,
        "addresses": [
            {"type": "InternalIP", "address": network.host_ip},
            # Not the node's name, which the API server would have to resolve; not localhost, which it refuses to
            # reach through a node's proxy subresource.
            {"type": "Hostname", "address": network.host_ip},
        ],
        # Lets the API server hand WebSockets of kubectl exec through to the node.
        "declaredFeatures": [WEBSOCKETS],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
        "nodeInfo": {
            "machineID": spec.name,
            "systemUUID": spec.name,
            "bootID": boot_id,
            "kernelVersion": platform.release(),
            "osImage": "local processes",
            "containerRuntimeVersion": "process://1",
            "kubeletVersion": version,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": architecture(),
        },
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "enough memory is available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "enough disk space is available"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "enough process ids are available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
    }
