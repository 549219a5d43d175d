"""What exporters' pages say of the memory of GPUs, in bytes. Pure.

DCGM exporter (port 9400) tells MiB. Which figures it tells depends on its configuration: the chart's has FB_USED and
FB_FREE and no FB_RESERVED, FB_TOTAL is in neither default, FB_USED_PERCENT is a ratio from 0 to 1 whatever its name
says. What holds everywhere: use is used / (used + free), which leaves out what the driver reserves; the whole is
used + free + reserved. FB_USED_PERCENT = used / (total - reserved), the same.

AMD's device-metrics-exporter (port 5000) tells what amd-smi calls MB, which are MiB (196592 for an MI300X); used and
free not inside of guest systems, and then nothing is measured here. Its memory activity is a percentage. Power is
GPU_POWER_USAGE or GPU_PACKAGE_POWER, by generation; energy is in microjoules.

Power and energy are a whole GPU's. Of one that is divided they are not credited: whose they are nobody says.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from moe_operator.catalog.profile import MOST_WATTS
from moe_operator.telemetry.exporter_series import Series
from moe_operator.telemetry.ignored import Counts, Ignored
from moe_operator.telemetry.pod_labels import Pod, container_of, pod_of, uid_of

MIB = 2**20
#: Bytes that no GPU has yet.
_LARGEST = 4 * 2**40
#: Joules since the driver was loaded: 10 kW for three years.
_MOST_JOULES = 1e12


@dataclass(frozen=True, slots=True)
class _Meaning:
    field: str
    factor: float
    most: float


_DCGM = {
    "DCGM_FI_DEV_FB_USED": _Meaning("used", MIB, _LARGEST),
    "DCGM_FI_DEV_FB_FREE": _Meaning("free", MIB, _LARGEST),
    "DCGM_FI_DEV_FB_RESERVED": _Meaning("reserved", MIB, _LARGEST),
    "DCGM_FI_DEV_FB_TOTAL": _Meaning("total", MIB, _LARGEST),
    "DCGM_FI_DEV_FB_USED_PERCENT": _Meaning("used_share", 1, 1),
    "DCGM_FI_PROF_DRAM_ACTIVE": _Meaning("dram_active", 1, 1),
    "DCGM_FI_DEV_POWER_USAGE": _Meaning("watts", 1, MOST_WATTS),
    # Millijoules.
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": _Meaning("joules", 1e-3, _MOST_JOULES),
}
_AMD = {
    "gpu_used_vram": _Meaning("used", MIB, _LARGEST),
    "gpu_free_vram": _Meaning("free", MIB, _LARGEST),
    "gpu_total_vram": _Meaning("total", MIB, _LARGEST),
    "gpu_umc_activity": _Meaning("dram_active", 1e-2, 1),
    "gpu_package_power": _Meaning("watts", 1, MOST_WATTS),
    "gpu_power_usage": _Meaning("watts_too", 1, MOST_WATTS),
    "gpu_energy_consumed": _Meaning("joules", 1e-6, _MOST_JOULES),
}
#: Figures of a whole GPU.
_WHOLE = ("watts", "watts_too", "joules")
#: Series that tell of memory and power.
DCGM_NAMES, AMD_NAMES = frozenset(_DCGM), frozenset(_AMD)


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """One GPU, or one instance of a divided one (MIG)."""

    index: str
    """On the node; empty where the page does not say."""
    uuid: str
    """Of the GPU; empty where the page does not say."""
    used: int
    """Bytes."""
    instance: str = ""
    """Of a divided GPU."""
    usable: int | None = None
    """Bytes that processes may have: used and free. None: not told."""
    reserved: int | None = None
    """Bytes that the driver keeps."""
    total: int | None = None
    """Bytes of the device."""
    dram_active: float | None = None
    """Share of the time in which memory is read or written, 0 to 1."""
    watts: float | None = None
    joules: float | None = None
    """Since the driver was loaded."""
    pods: frozenset[Pod] = field(default_factory=frozenset)
    """That have it, where the exporter knows pods."""
    pod_uids: frozenset[str] = field(default_factory=frozenset)
    containers: frozenset[str] = field(default_factory=frozenset)

    @property
    def key(self) -> tuple[str, str]:
        """Which device of the node."""
        return self.uuid or self.index, self.instance


@dataclass
class _Device:
    index: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    pods: set[Pod] = field(default_factory=set)
    uids: set[str] = field(default_factory=set)
    containers: set[str] = field(default_factory=set)


def dcgm_memory(series: Iterable[Series]) -> tuple[list[GpuMemory], Counts]:
    """GPUs of a DCGM exporter, by index."""
    return _memory(series, _DCGM, ("UUID",), ("gpu",), ("GPU_I_ID",), instances_are_parts=True)


def amd_memory(series: Iterable[Series], prefix: str = "") -> tuple[list[GpuMemory], Counts]:
    """GPUs of AMD's device-metrics-exporter, by index. `prefix`: its MetricsFieldPrefix."""
    meanings = {prefix + name: meaning for name, meaning in _AMD.items()}
    # Partitions of one GPU have its serial number, and ids of their own.
    return _memory(
        series, meanings, ("gpu_uuid", "serial_number"), ("gpu_id",), ("gpu_partition_id", "gpu_id")
    )


def _memory(
    series: Iterable[Series],
    meanings: Mapping[str, _Meaning],
    uuid: Sequence[str],
    index: Sequence[str],
    instance: Sequence[str],
    instances_are_parts: bool = False,
) -> tuple[list[GpuMemory], Counts]:
    ignored = Counts()
    devices: dict[tuple[str, str], _Device] = {}
    for one in series:
        meaning = meanings.get(one.name)
        if meaning is None:
            continue
        labels = one.labels
        at = _first(labels, uuid), _first(labels, index)
        if not any(at):
            ignored[Ignored.NO_DEVICE] += 1
            continue
        value = one.value * meaning.factor
        if not 0 <= value <= meaning.most:
            ignored[Ignored.OUT_OF_RANGE] += 1
            continue
        device = devices.setdefault((at[0] or at[1], _first(labels, instance)), _Device())
        device.index = device.index or at[1]
        if device.figures.setdefault(meaning.field, value) != value:
            ignored[Ignored.REPEATED_SERIES] += 1
            continue
        if pod := pod_of(labels):
            device.pods.add(pod)
            device.uids |= {uid_of(labels)} - {""}
            device.containers |= {container_of(labels)} - {""}
    divided = {uuid for uuid, instance_ in devices if instance_}
    parts = Counter(uuid for uuid, instance_ in devices if instance_)
    found = []
    for (name, instance_), device in devices.items():
        if not instance_ and name in divided:
            continue  # the sum of its instances
        if parts[name] > (0 if instances_are_parts else 1):
            device.figures = {key: value for key, value in device.figures.items() if key not in _WHOLE}
        made = _made(name if name != device.index else "", instance_, device)
        if isinstance(made, GpuMemory):
            found.append(made)
        elif made is not None:
            ignored[made] += 1
    return sorted(found, key=_order), ignored


def _made(uuid: str, instance: str, device: _Device) -> GpuMemory | Ignored | None:
    """None where its use is not told."""
    figures = device.figures
    used, free, total = figures.get("used"), figures.get("free"), figures.get("total")
    reserved = figures.get("reserved")
    if used is None and total is not None and free is not None:
        used = total - (reserved or 0.0) - free
    if used is None:
        return None
    usable = _usable(figures, used)
    if used < 0 or (usable is not None and used > usable):
        return Ignored.OUT_OF_RANGE
    if total is None and usable is not None:
        total = usable + (reserved or 0.0)
    return GpuMemory(
        index=device.index,
        uuid=uuid,
        instance=instance,
        used=round(used),
        usable=None if usable is None else round(usable),
        reserved=None if reserved is None else round(reserved),
        total=None if total is None else round(total),
        dram_active=figures.get("dram_active"),
        watts=figures.get("watts", figures.get("watts_too")),
        joules=figures.get("joules"),
        pods=frozenset(device.pods),
        pod_uids=frozenset(device.uids),
        containers=frozenset(device.containers),
    )


def _usable(figures: Mapping[str, float], used: float) -> float | None:
    if (free := figures.get("free")) is not None:
        return used + free
    if (total := figures.get("total")) is not None:
        return total - figures.get("reserved", 0.0)
    if share := figures.get("used_share"):
        return min(used / share, float(_LARGEST))
    return None


def _first(labels: Mapping[str, str], names: Sequence[str]) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")


def _order(gpu: GpuMemory) -> tuple[bool, int, str, str]:
    """As CUDA counts within a pod: by index, which follows the bus."""
    number = gpu.index.isascii() and gpu.index.isdigit()
    return not number, int(gpu.index[:9]) if number else 0, gpu.uuid, gpu.instance
