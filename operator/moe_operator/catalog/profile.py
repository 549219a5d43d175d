"""One accelerator: how its nodes are recognised, what a rank on it needs, and what it can do."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

#: Watts of one device that none takes; a GB300 may take 1400.
MOST_WATTS = 10_000.0


@dataclass(frozen=True)
class Price:
    """What a GPU-hour costs to rent where nobody says otherwise: a default, not a quotation."""

    usd_per_gpu_hour: Decimal
    source: str
    """Whose price, of when."""


@dataclass(frozen=True)
class Tflops:
    """Peak of dense matrix products in 10^12 operations per second; None where the hardware has no such format."""

    bf16: int
    fp8: int | None
    fp4: int | None


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
    """The pod's own memory on the host, per GPU; the GPU's is `memory_mib`."""
    shared_memory_mib: int
    """Upper bound of /dev/shm."""
    tolerations: tuple[Mapping[str, str], ...]
    """What nodes of this accelerator are usually tainted with."""
    notes: tuple[str, ...]
    """What a user should know when it is chosen; part of the plan's notes."""
    architecture: str
    """CPU architecture of its nodes as `kubernetes.io/arch` says it."""
    memory_mib: int | None
    """Memory of one GPU in MiB as its node's label reports it; a node's own label goes before it. None for `cpu`."""
    memory_bandwidth: int | None
    """GB/s (10^9 bytes) of one GPU's own memory; None for `cpu`."""
    tflops: Tflops | None
    """None for `cpu`."""
    nvlink_domain: int
    """GPUs that reach each other over NVLink or xGMI, not the network; 1 where GPUs have PCIe only."""
    interconnect_bandwidth: int | None
    """GB/s of one GPU to its peers in one direction: NVLink or xGMI, PCIe where it has only that. None for `cpu`."""
    compute_capability: str | None
    """NVIDIA: major.minor; AMD: the gfx target. None for `cpu`."""
    price: Price | None
    """None where no public price was found."""

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
