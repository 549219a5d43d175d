"""Nodes, pods, ResourceSlices and claims as real clusters have them, cut to what says something of hardware."""

from typing import Any

Object = dict[str, Any]

CLIQUE = "7b968a6d-c8aa-45e1-9e07-e1e51be99c31.1"


def hgx_b200(name: str = "b200-a", **labels: str) -> Object:
    """An HGX B200 as the GPU operator, the network operator and a cloud's labels leave it."""
    return _node(
        name,
        {
            "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/region": "us-east",
            "topology.kubernetes.io/zone": "us-east-1a",
            "network.topology.nvidia.com/leaf": "leaf-7",
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": "NVIDIA-B200",
            "nvidia.com/gpu.memory": "183359",
            "nvidia.com/gpu.count": "8",
            "nvidia.com/gpu.family": "blackwell",
            "nvidia.com/gpu.replicas": "1",
            "nvidia.com/gpu.sharing-strategy": "none",
            "nvidia.com/mig.capable": "true",
            "nvidia.com/mig.strategy": "single",
            **labels,
        },
        {"cpu": "224", "memory": "2113456780Ki", "pods": "110", "nvidia.com/gpu": "8", "rdma/ib": "1k"},
        taints=[{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}],
    )


def gb200_tray(name: str = "gb200-r1-0", clique: str = CLIQUE) -> Object:
    """One of the 18 compute trays of an NVL72 rack."""
    return _node(
        name,
        {
            "kubernetes.io/arch": "arm64",
            "network.topology.nvidia.com/accelerator": "nvl-1",
            "nvidia.com/gpu.clique": clique,
            "nvidia.com/gpu.product": "NVIDIA-GB200",
            "nvidia.com/gpu.memory": "189471",
            "nvidia.com/gpu.count": "4",
        },
        {"cpu": "144", "nvidia.com/gpu": "4", "rdma/hca_shared_devices_a": "63"},
    )


def mi300x(name: str = "mi300x-0", **labels: str) -> Object:
    """As AMD's node labeller and device plugin leave it."""
    return _node(
        name,
        {
            "amd.com/gpu.cu-count": "304",
            "amd.com/gpu.device-id": "74a1",
            "amd.com/gpu.family": "AI",
            "amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM",
            "amd.com/gpu.vram": "192G",
            "amd.com/compute-memory-partition": "spx_nps1",
            **labels,
        },
        {"cpu": "192", "amd.com/gpu": "8"},
    )


def dra_only(name: str = "dra-0", *, labelled: bool = True) -> Object:
    """No device plugin: its GPUs are in ResourceSlices."""
    labels = {"nvidia.com/gpu.product": "NVIDIA-B200", "nvidia.com/gpu.count": "8"} if labelled else {}
    return _node(name, labels, {"cpu": "224"})


def mig_node(name: str = "mig-0") -> Object:
    """Strategy single: every GPU divided alike, slices offered as nvidia.com/gpu."""
    return _node(
        name,
        {
            "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb",
            "nvidia.com/gpu.memory": "9984",
            "nvidia.com/gpu.count": "56",
            "nvidia.com/mig.strategy": "single",
        },
        {"nvidia.com/gpu": "56"},
    )


def time_sliced(name: str = "shared-0", *, suffix: bool = True) -> Object:
    """Eight GPUs offered four times each. Not all labellers add the suffix."""
    return _node(
        name,
        {
            "nvidia.com/gpu.product": "NVIDIA-B200" + ("-SHARED" if suffix else ""),
            "nvidia.com/gpu.memory": "183359",
            "nvidia.com/gpu.count": "8",
            "nvidia.com/gpu.replicas": "4",
            "nvidia.com/gpu.sharing-strategy": "time-slicing",
        },
        {"nvidia.com/gpu": "32"},
    )


def resource_slice(
    node: str,
    gpus: int = 8,
    *,
    generation: int = 1,
    of: int = 1,
    first: int = 0,
    product: str = "NVIDIA B200",
    memory: str = "183359Mi",
    more: tuple[Object, ...] = (),
) -> Object:
    """A slice of the driver's pool of a node; `of` slices make the pool."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-gpu.nvidia.com-{generation}-{first}"},
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": node,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": of},
            "devices": [*(_gpu(first + i, product, memory) for i in range(gpus)), *more],
        },
    }


def mig_device(parent: int, profile: str = "1g.23gb") -> Object:
    return {
        "name": f"gpu-{parent}-mig-{profile.replace('.', '')}-19-0",
        "attributes": {
            "type": {"string": "mig"},
            "parentUUID": {"string": f"GPU-{parent}"},
            "productName": {"string": "NVIDIA B200"},
        },
        "capacity": {"memory": {"value": "22Gi"}},
    }


def vfio_device(index: int) -> Object:
    return {
        "name": f"gpu-vfio-{index}",
        "attributes": {"type": {"string": "vfio"}, "productName": {"string": "NVIDIA B200"}},
        "capacity": {"addressableMemory": {"value": "256Gi"}},
    }


def claim(node: str, *devices: str, admin: bool = False) -> Object:
    results: list[Object] = [
        {"request": "gpu", "driver": "gpu.nvidia.com", "pool": node, "device": device} for device in devices
    ]
    if admin:
        results = [result | {"adminAccess": True} for result in results]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": f"claim-{'-'.join(devices)}", "namespace": "serving"},
        "status": {"allocation": {"devices": {"results": results}}},
    }


def pod(
    node: str | None, *containers: Object, init: tuple[Object, ...] = (), phase: str = "Running"
) -> Object:
    spec: Object = {"containers": list(containers), "initContainers": list(init)}
    if node:
        spec["nodeName"] = node
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "serving"},
        "spec": spec,
        "status": {"phase": phase},
    }


def container(gpus: int = 0, *, resource: str = "nvidia.com/gpu", always: bool = False) -> Object:
    made: Object = {"name": "c", "resources": {"limits": {resource: str(gpus)}} if gpus else {}}
    return made | {"restartPolicy": "Always"} if always else made


def _gpu(index: int, product: str, memory: str) -> Object:
    return {
        "name": f"gpu-{index}",
        "attributes": {
            "type": {"string": "gpu"},
            "uuid": {"string": f"GPU-{index}"},
            "productName": {"string": product},
            "architecture": {"string": "Blackwell"},
            "cudaComputeCapability": {"version": "10.0.0"},
        },
        "capacity": {"memory": {"value": memory}},
    }


def _node(
    name: str, labels: dict[str, str], capacity: dict[str, str], taints: list[dict[str, str]] | None = None
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "spec": {"taints": taints} if taints else {},
        "status": {
            "capacity": capacity,
            "allocatable": dict(capacity),
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": "True"},
            ],
        },
    }
