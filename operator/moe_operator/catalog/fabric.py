"""One fabric: how GPUs of a group reach each other, and what their pods need for it."""

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class Reach(StrEnum):
    """How far a fabric goes, and how far a backend works."""

    NODE = "Node"
    DOMAIN = "Domain"
    """NVLink over several nodes."""
    NETWORK = "Network"


class Sends(StrEnum):
    """Where a backend sends a token."""

    EVERYWHERE = "Everywhere"
    CHOSEN = "Chosen"
    """To the GPUs of its experts."""


class Count(StrEnum):
    """How many of a resource a pod asks for."""

    ONE = "One"
    PER_GPU = "PerGpu"
    SHARE = "Share"
    """The part of the node's that the pod has of its GPUs."""


class Domain(StrEnum):
    """Whether a group's nodes belong together."""

    NONE = "None"
    PREFERRED = "Preferred"
    REQUIRED = "Required"


class GpuInitiated(StrEnum):
    """Whether GPUs can drive the network adapters themselves."""

    UNKNOWN = "Unknown"
    AVAILABLE = "Available"


class Balanced(StrEnum):
    """Whether a backend goes with experts that vLLM moves (EPLB)."""

    ALLOWED = "Allowed"
    REFUSED = "Refused"


@dataclass(frozen=True)
class Capability:
    """A Linux capability that the engine's container gets."""

    name: str
    reason: str
    architectures: tuple[str, ...] = ()
    """Of the nodes' CPUs; empty: all."""


@dataclass(frozen=True)
class Setting:
    """An environment variable of the engine."""

    name: str
    value: str
    reason: str
    reads: str
    """The program that reads it, with the version that this was written for."""
    backends: tuple[str, ...] = ()
    """Only set with these; empty: always."""


@dataclass(frozen=True)
class PodAnnotation:
    """An annotation of the pods, such as the further networks that they are attached to."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class HostPath:
    """A folder of the node, read-only in the engine."""

    path: str
    mount_path: str
    reason: str


@dataclass(frozen=True)
class HostDevice:
    """A device of the node, or a folder of devices, at the same path in the engine, which is privileged for it: a
    container that is not may not open devices that no device plugin gave it."""

    path: str
    reason: str


@dataclass(frozen=True)
class Backend:
    """A value of `--all2all-backend`."""

    name: str
    sends: Sends
    reach: Reach
    about: str
    component: str | None
    """What an image must contain for it; None: nothing."""
    tokens_per_step: int | None
    """The most for which its buffers are sized; None: no bound of its own."""
    microbatches: bool
    """Whether it can be overlapped with computing."""
    capabilities: tuple[Capability, ...]


@dataclass(frozen=True)
class Candidate:
    """A backend with what it holds for. Empty tuples hold for all."""

    backend: Backend
    accelerators: tuple[str, ...] = ()
    """Resource names."""
    capabilities: tuple[str, ...] = ()
    """Prefixes of the GPU's compute capability."""
    precisions: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    balanced: Balanced = Balanced.ALLOWED
    gpu_initiated: bool = False
    """Taken only where a site says that GPUs can drive its adapters."""
    reason: str = ""


@dataclass(frozen=True)
class FabricResource:
    """Extended resources by which pods get their adapters."""

    pattern: str
    """fnmatch."""
    count: Count
    per_node: int | None
    """What a node offers where nodes cannot be read."""

    def matches(self, resource: str) -> bool:
        return fnmatchcase(resource, self.pattern)

    def per_pod(self, gpus: int, node_gpus: int, offered: int | None) -> int:
        """What a pod with `gpus` of a node's `node_gpus` asks for. `offered`: by the node; None: not known."""
        if self.count is Count.ONE:
            return 1
        if self.count is Count.PER_GPU:
            return min(gpus, offered) if offered else gpus
        return max(1, (offered or self.per_node or node_gpus) * gpus // node_gpus)


@dataclass(frozen=True)
class FabricProfile:
    """One fabric of the catalogue."""

    name: str
    reach: Reach
    about: str
    accelerators: tuple[str, ...]
    """Resource names of the accelerators that can have it; empty: all."""
    node_label: str | None
    """Nodes of one such fabric carry the same value."""
    resources: tuple[FabricResource, ...]
    rdma_resource: str | None
    """Asked for by name where nodes cannot be read."""
    bandwidth_per_gpu: int | None
    """Bytes per second in one direction; None: that of the accelerator's own links."""
    latency: float
    """Seconds of one collective, however small."""
    gpu_initiated: GpuInitiated
    domain: Domain
    compute_domain: bool
    shared_memory_mib: int | None
    """/dev/shm where it must be larger than the accelerator's."""
    huge_pages: tuple[tuple[str, str], ...]
    """(resource such as hugepages-2Mi, amount) of a pod."""
    capabilities: tuple[Capability, ...]
    env: tuple[Setting, ...]
    all2all: tuple[Candidate, ...]
    pod_annotations: tuple[PodAnnotation, ...] = ()
    host_paths: tuple[HostPath, ...] = ()
    host_devices: tuple[HostDevice, ...] = ()

    @property
    def of_the_host(self) -> tuple[str, ...]:
        """Files of the nodes that engines get. With any, pods keep to no Pod Security Standard but Privileged."""
        return (*(one.path for one in self.host_paths), *(one.path for one in self.host_devices))

    def resource(self, name: str) -> FabricResource | None:
        """The pattern that this extended resource matches."""
        return next((one for one in self.resources if one.matches(name)), None)

    def suits(self, resource_name: str | None) -> bool:
        """Whether accelerators of this resource name can have it."""
        return not self.accelerators or resource_name in self.accelerators

    @property
    def named_resource(self) -> str | None:
        """The resource by its full name, where the profile has one."""
        if self.rdma_resource is not None:
            return self.rdma_resource
        return next((one.pattern for one in self.resources if not set("*?[") & set(one.pattern)), None)
