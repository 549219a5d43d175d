"""What DCGM exporter's page tells of faults, by GPU.

As of DCGM exporter 4.x: a gauge for the last Xid (not a count), one for a failed row remapping, a counter of rows that
were remapped after uncorrectable errors. A GPU has several series where MIG or time slicing divide it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from moe_operator.telemetry.exporter_series import Series
from moe_operator.telemetry.pod_labels import Pod, pod_of

_XID = "DCGM_FI_DEV_XID_ERRORS"
_REMAP = "DCGM_FI_DEV_ROW_REMAP_FAILURE"
_ROWS = "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"
#: Series that tell of faults.
FAULT_NAMES = frozenset({_XID, _REMAP, _ROWS})
#: DCGM writes values from 2^31 - 16 (32 bits) and 2^63 - 16 (64 bits) on for "not known".
_BLANK = 2**31 - 16


@dataclass(frozen=True)
class GpuReading:
    """One GPU on one page."""

    gpu: str
    """Its index on the node; empty where the page does not say."""
    uuid: str
    xid: int | None = None
    """Last Xid since DCGM began, 0 for none; None where the page does not say."""
    remap_failed: bool | None = None
    rows: int = 0
    """Rows remapped after uncorrectable errors."""
    pods: frozenset[Pod] = field(default_factory=frozenset)
    """That have the GPU, where the exporter knows pods."""

    @property
    def name(self) -> str:
        """In messages."""
        return f"GPU {self.gpu or '?'}" + (f" ({self.uuid})" if self.uuid else "")


def fault_readings(series: Iterable[Series]) -> dict[str, GpuReading]:
    """GPUs by UUID, by index where there is none. Series without either, and figures that are none, say nothing."""
    found: dict[str, GpuReading] = {}
    for one in series:
        if one.name not in FAULT_NAMES or not 0 <= one.value < _BLANK:
            continue
        metric, labels, value = one.name, one.labels, int(one.value)
        uuid, gpu = labels.get("UUID", ""), labels.get("gpu", "")
        key = uuid or gpu
        if not key:
            continue
        known = found.get(key) or GpuReading(gpu, uuid)
        pod = pod_of(labels)
        found[key] = GpuReading(
            gpu=known.gpu or gpu,
            uuid=known.uuid or uuid,
            # Series of one GPU differ where some were read a moment later: an Xid comes, and does not go.
            xid=max(known.xid or 0, value) if metric == _XID else known.xid,
            remap_failed=bool(known.remap_failed or value) if metric == _REMAP else known.remap_failed,
            rows=max(known.rows, value) if metric == _ROWS else known.rows,
            pods=known.pods | ({pod} if pod else set()),
        )
    return found
