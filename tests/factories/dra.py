"""What drivers for dynamic resource allocation (DRA) publish beside ResourceSlices: their DeviceClasses, channels."""

from typing import Any

from factories.gpu_nodes import Object


def device_class(name: str = "gpu.nvidia.com", driver: str = "gpu.nvidia.com", kind: str = "gpu") -> Object:
    """A class of whole GPUs as a driver's chart makes it."""
    expression = f"device.driver == '{driver}' && device.attributes['{driver}'].type == '{kind}'"
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": name},
        "spec": {"selectors": [{"cel": {"expression": expression}}]},
    }


def channel_class() -> Object:
    """NVIDIA's class of the one IMEX channel that a node has to give."""
    driver = "compute-domain.nvidia.com"
    attributes = f"device.attributes['{driver}']"
    expression = f"device.driver == '{driver}' && {attributes}.type == 'channel' && {attributes}.id == 0"
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": "compute-domain-default-channel.nvidia.com"},
        "spec": {"selectors": [{"cel": {"expression": expression}}]},
    }


def channel_slice(node: str) -> Object:
    """What NVIDIA's driver for ComputeDomains publishes of a node: one channel."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-compute-domain.nvidia.com"},
        "spec": {
            "driver": "compute-domain.nvidia.com",
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [
                {"name": "channel-0", "attributes": {"type": {"string": "channel"}, "id": {"int": 0}}},
            ],
        },
    }


def channel_template(domain: Object) -> Object:
    """The ResourceClaimTemplate that NVIDIA's controller makes for a ComputeDomain, cut to what is allocated."""
    meta = domain["metadata"]
    parameters: dict[str, Any] = {
        "apiVersion": "resource.nvidia.com/v1beta1",
        "kind": "ComputeDomainChannelConfig",
        "domainID": meta["uid"],
        "allocationMode": domain["spec"]["channel"]["allocationMode"],
    }
    request = {
        "name": "channel",
        "exactly": {"deviceClassName": "compute-domain-default-channel.nvidia.com"},
    }
    opaque = {"driver": "compute-domain.nvidia.com", "parameters": parameters}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {
            "name": domain["spec"]["channel"]["resourceClaimTemplate"]["name"],
            "namespace": meta["namespace"],
        },
        "spec": {
            "spec": {
                "devices": {
                    "requests": [request],
                    "config": [{"requests": ["channel"], "opaque": opaque}],
                }
            }
        },
    }
