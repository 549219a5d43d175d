"""Which faults of GPUs are new: from one reading of a node to the next. Pure; times in seconds since the epoch.

A page says the last Xid, not when. So only a change between two readings is news; what stands when a GPU is first seen
is old, and so is what a restarted exporter shows again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_operator.telemetry.accelerator_page import GpuReading
from moe_operator.telemetry.pod_labels import Pod

#: Xids after which a GPU computes no more, or wrongly, until it is reset or replaced, with what they say. From NVIDIA's
#: Xid catalogue for Ampere and later: those whose immediate action is a reset of the GPU or of the machine, or its
#: procedure for NVLink (74) and for uncorrectable ECC errors (48).
#:
#: Not here, as the GPU goes on: 13, 31, 43, 45 and 69 (what the application did), 63 (a row will be remapped at the
#: next reset), 92 (many corrected errors), 94 (a memory error that was contained: it costs the process that had the
#: page, whose end is then the cause).
FATAL_XIDS: Mapping[int, str] = {
    46: "the GPU stopped processing",
    48: "an uncorrectable ECC error",
    62: "the GPU's internal controller halted",
    64: "a faulty memory row could not be remapped",
    74: "an NVLink error",
    79: "the GPU has fallen off the bus",
    95: "a memory error that was not contained",
    110: "a fault of the GPU's security processor",
    119: "the GPU's system processor (GSP) does not answer",
    120: "the GPU's system processor (GSP) failed",
    140: "an ECC error that was not recovered",
    143: "the GPU could not be initialized",
}


@dataclass(frozen=True)
class AcceleratorFault:
    """A GPU that is not to be computed on any more."""

    node: str
    gpu: str
    """In words, with its index and UUID."""
    what: str
    seen_at: float
    pods: frozenset[Pod]
    """That had the GPU when it was seen; empty where the exporter does not know pods."""


@dataclass
class _Gpu:
    """What is known of one GPU."""

    xid: int | None
    """The last that was not 0; None before the first reading that has the series, 0 if it had none then."""
    xid_fault: AcceleratorFault | None = None
    remap_failed: bool | None = None
    remap_fault: AcceleratorFault | None = None


class NodeAccelerators:
    """The GPUs of one node, over all readings."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._gpus: dict[str, _Gpu] = {}

    def take(self, readings: Mapping[str, GpuReading], now: float) -> list[AcceleratorFault]:
        """The faults that this reading shows first."""
        found = []
        for key, reading in readings.items():
            gpu = self._gpus.setdefault(key, _Gpu(None))
            fault = self._xid(gpu, reading, now)
            if fault is not None:
                found.append(fault)
            if reading.remap_failed is not None:
                if reading.remap_failed and gpu.remap_failed is False:
                    gpu.remap_fault = self._fault(reading, "a faulty memory row could not be remapped", now)
                    found.append(gpu.remap_fault)
                # It stands until the GPU is replaced: an exporter that shows it anew says nothing new.
                gpu.remap_failed = reading.remap_failed or bool(gpu.remap_failed)
        return found

    @property
    def faults(self) -> list[AcceleratorFault]:
        """All that were seen to come."""
        every = (fault for gpu in self._gpus.values() for fault in (gpu.xid_fault, gpu.remap_fault))
        return [fault for fault in every if fault is not None]

    def _xid(self, gpu: _Gpu, reading: GpuReading, now: float) -> AcceleratorFault | None:
        if reading.xid is None:
            return None
        first = gpu.xid is None
        # 0 after another one: the exporter began anew, and may yet show the old one again.
        if first or reading.xid in (0, gpu.xid):
            gpu.xid = reading.xid if first else gpu.xid
            return None
        gpu.xid = reading.xid
        words = FATAL_XIDS.get(reading.xid)
        if words is None:
            return None  # an earlier fatal one stands: what came after it does not mend the GPU
        gpu.xid_fault = self._fault(reading, f"Xid {reading.xid}, {words}", now)
        return gpu.xid_fault

    def _fault(self, reading: GpuReading, what: str, now: float) -> AcceleratorFault:
        rows = f"; {reading.rows} rows were remapped after uncorrectable errors" if reading.rows else ""
        return AcceleratorFault(self._node, reading.name, f"{what}{rows}", now, reading.pods)
