"""Reads the few lines of DCGM exporter's page that tell of faults, by GPU.

As of DCGM exporter 4.x: a gauge for the last Xid (not a count), one for a failed row remapping, a counter of rows that
were remapped after uncorrectable errors. A GPU has several series where MIG or time slicing divide it.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_XID = b"DCGM_FI_DEV_XID_ERRORS"
_REMAP = b"DCGM_FI_DEV_ROW_REMAP_FAILURE"
_ROWS = b"DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"
_LINE = re.compile(
    rb"^(" + b"|".join((_XID, _REMAP, _ROWS)) + rb")\{([^\n]*)\}[ \t]+([0-9.eE+-]+|NaN|[+-]?Inf)",
    re.MULTILINE,
)
_LABEL = re.compile(rb'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')
#: DCGM writes values from 2^31 - 16 (32 bits) and 2^63 - 16 (64 bits) on for "not known".
_BLANK = 2**31 - 16

Pod = tuple[str, str]
"""Namespace and name."""


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


def parse_accelerators(page: bytes) -> dict[str, GpuReading]:
    """GPUs by UUID, by index where there is none. Series without either, and figures that are none, say nothing."""
    found: dict[str, GpuReading] = {}
    for metric, labels, value in _series(page):
        uuid, gpu = labels.get("UUID", ""), labels.get("gpu", "")
        key = uuid or gpu
        if not key:
            continue
        known = found.get(key) or GpuReading(gpu, uuid)
        pod = _pod(labels)
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


def _series(page: bytes) -> Iterator[tuple[bytes, dict[str, str], int]]:
    for match in _LINE.finditer(page):
        metric, text, number = match.groups()
        try:
            value = float(number)
        except ValueError:
            continue
        if not math.isfinite(value) or not 0 <= value < _BLANK:
            continue
        labels = {name.decode(): content.decode(errors="replace") for name, content in _LABEL.findall(text)}
        yield metric, labels, int(value)


def _pod(labels: dict[str, str]) -> Pod | None:
    """The exporter's labels, those of earlier ones, and what a Prometheus in between makes of them."""
    for namespace, name in (
        ("exported_namespace", "exported_pod"),
        ("namespace", "pod"),
        ("pod_namespace", "pod_name"),
    ):
        if labels.get(namespace) and labels.get(name):
            return labels[namespace], labels[name]
    return None
