"""Drivers for dynamic resource allocation (DRA) that offer whole GPUs: what their devices say of themselves.

Sources: the attribute references of kubernetes-sigs/dra-driver-nvidia-gpu (0.5) and ROCm/k8s-gpu-dra-driver (1.0).
NVIDIA's devices have a `uuid`, partitions their parent's too; AMD's have the card's PCI address, whole or not.
"""

from dataclasses import dataclass

_PCI_BUS = "resource.kubernetes.io/pciBusID"


@dataclass(frozen=True)
class DeviceDriver:
    """One driver."""

    name: str
    """As in ResourceSlices; also the domain of its attributes."""
    resource: str
    """Extended resource of the vendor's device plugin, which stands for the same GPUs."""
    device_class: str
    """DeviceClass that the driver's chart makes for whole GPUs."""
    whole: str
    """`type` of a whole GPU."""
    part: str
    """`type` of a partition."""
    identity: str
    """Attribute that tells one GPU from another."""
    parent: str
    """The same of the GPU that a partition belongs to."""
    needs: str
    """What to install, in a message."""


NVIDIA = DeviceDriver(
    name="gpu.nvidia.com",
    resource="nvidia.com/gpu",
    device_class="gpu.nvidia.com",
    whole="gpu",
    part="mig",
    identity="uuid",
    parent="parentUUID",
    needs="NVIDIA's DRA driver for GPUs, version 0.4 or later, with resources.gpus.enabled=true",
)
AMD = DeviceDriver(
    name="gpu.amd.com",
    resource="amd.com/gpu",
    device_class="gpu.amd.com",
    whole="amdgpu",
    part="amdgpu-partition",
    identity=_PCI_BUS,
    parent=_PCI_BUS,
    needs="AMD's GPU DRA driver, version 1.0 or later",
)

#: By the driver's name.
DRIVERS = {driver.name: driver for driver in (NVIDIA, AMD)}
#: By extended resource.
BY_RESOURCE = {driver.resource: driver for driver in (NVIDIA, AMD)}
