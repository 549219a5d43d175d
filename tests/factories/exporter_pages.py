"""Pages as exporters of GPUs and the kubelet write them: order of labels, help lines and all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moe_operator.telemetry.exporter_series import Page, read_series

_HELP = {
    "DCGM_FI_DEV_SM_CLOCK": ("gauge", "SM clock frequency (in MHz)."),
    "DCGM_FI_DEV_POWER_USAGE": ("gauge", "Power draw (in W)."),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": (
        "counter",
        "Total energy consumption since boot (in mJ).",
    ),
    "DCGM_FI_DEV_MEM_COPY_UTIL": ("gauge", "Memory utilization (in %)."),
    "DCGM_FI_DEV_XID_ERRORS": ("gauge", "Value of the last XID error encountered."),
    "DCGM_FI_DEV_FB_FREE": ("gauge", "Framebuffer memory free (in MiB)."),
    "DCGM_FI_DEV_FB_USED": ("gauge", "Framebuffer memory used (in MiB)."),
    "DCGM_FI_DEV_FB_RESERVED": ("gauge", "Framebuffer memory reserved (in MiB)."),
    "DCGM_FI_DEV_FB_TOTAL": ("gauge", "Total framebuffer memory (in MiB)."),
    "DCGM_FI_DEV_FB_USED_PERCENT": ("gauge", "Ratio of used framebuffer memory."),
    "DCGM_FI_PROF_DRAM_ACTIVE": (
        "gauge",
        "Ratio of cycles the device memory interface is active sending or receiving data.",
    ),
}


@dataclass(frozen=True)
class DcgmGpu:
    """One GPU, or one instance of it, with what its lines say."""

    index: int
    figures: Mapping[str, str]
    """Values as they are written, by name without `DCGM_FI_`."""
    pod: Mapping[str, str] = field(default_factory=dict)
    """Labels that say whose it is."""
    instance: str = ""
    uuid: str | None = None


def b200(
    index: int, used: int = 163840, free: int = 18802, pod: Mapping[str, str] | None = None, **figures: str
) -> DcgmGpu:
    """MiB; further figures as `DEV_…`."""
    shown = {
        "DEV_SM_CLOCK": "1965",
        "DEV_POWER_USAGE": "702.437000",
        "DEV_TOTAL_ENERGY_CONSUMPTION": "91230456789",
        "DEV_MEM_COPY_UTIL": "38",
        "DEV_XID_ERRORS": "0",
        "DEV_FB_FREE": str(free),
        "DEV_FB_USED": str(used),
        "PROF_DRAM_ACTIVE": "0.412305",
    }
    return DcgmGpu(index, shown | figures, pod or {})


def of_pod(pod: str, namespace: str = "serving", spelling: str = "{}", **more: str) -> dict[str, str]:
    """`spelling`: `exported_{}` as a Prometheus in between writes them."""
    named = {"container": "engine", "namespace": namespace, "pod": pod}
    return {spelling.format(name): text for name, text in named.items()} | more


def dcgm_page(
    gpus: Sequence[DcgmGpu], host_label: str = "Hostname", driver: bool = True, node: str = "node-0"
) -> bytes:
    """`driver`: the CSV of the exporter's image has the label of the driver's version, its chart's has not."""
    lines = []
    for name, (type_, help_) in _HELP.items():
        short = name.removeprefix("DCGM_FI_")
        shown = [gpu for gpu in gpus if short in gpu.figures]
        if shown:
            lines += [f"# HELP {name} {help_}", f"# TYPE {name} {type_}"]
        for gpu in shown:
            labels = {
                "gpu": str(gpu.index),
                "UUID": gpu.uuid or uuid(gpu.index),
                "pci_bus_id": f"00000000:{gpu.index + 7:02X}:00.0",
                "device": f"nvidia{gpu.index}",
                "modelName": "NVIDIA B200",
                **({"GPU_I_PROFILE": "3g.90gb", "GPU_I_ID": gpu.instance} if gpu.instance else {}),
                host_label: node,
                **({"DCGM_FI_DRIVER_VERSION": "570.133.20"} if driver else {}),
                **gpu.pod,
            }
            inside = ",".join(f'{key}="{text}"' for key, text in labels.items() if key)
            lines.append(f"{name}{{{inside}}} {gpu.figures[short]}")
    return "\n".join([*lines, ""]).encode()


def uuid(index: int) -> str:
    """As NVIDIA's driver writes it."""
    return f"GPU-604ac76c-d9cf-fef3-62e9-{index:012d}"


def amd_page(
    gpus: Mapping[int, tuple[int | None, int]], pods: Mapping[int, str] | None = None, prefix: str = ""
) -> bytes:
    """MB used (None: a guest system, which does not tell) and in all, by GPU; pods of namespace `serving`."""
    lines = []

    def add(name: str, help_: str, values: Mapping[int, float]) -> None:
        lines.extend([f"# HELP {prefix}{name} {help_}", f"# TYPE {prefix}{name} gauge"])
        for gpu, value in values.items():
            pod = (pods or {}).get(gpu, "")
            container, namespace = ("engine", "serving") if pod else ("", "")
            lines.append(
                f'{prefix}{name}{{card_model="102-G30211-0C",container="{container}",gpu_compute_partition_type="spx",'
                f'gpu_id="{gpu}",gpu_partition_id="0",hostname="node-0",job_id="",namespace="{namespace}",pod="{pod}",'
                f'serial_number="69222400{gpu:04d}"}} {value:g}'
            )

    used = {gpu: float(told) for gpu, (told, _) in gpus.items() if told is not None}
    add("gpu_package_power", "Current socket power in Watts", dict.fromkeys(gpus, 611.0))
    add("gpu_total_vram", "Total VRAM available in MB", {gpu: float(all_) for gpu, (_, all_) in gpus.items()})
    if used:
        add("gpu_used_vram", "Used VRAM in MB", used)
        add("gpu_free_vram", "Free VRAM in MB", {gpu: gpus[gpu][1] - told for gpu, told in used.items()})
    add("gpu_umc_activity", "Memory engine usage (0-100)", dict.fromkeys(gpus, 41.0))
    return "\n".join([*lines, ""]).encode()


def kubelet_page(containers: Mapping[tuple[str, str, str], int], at: int = 1764514822123) -> bytes:
    """Bytes of the working set by namespace, pod and container."""
    lines = [
        "# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time of the container in core-seconds",
        "# TYPE container_cpu_usage_seconds_total counter",
    ]
    for namespace, pod, container in containers:
        inside = f'container="{container}",namespace="{namespace}",pod="{pod}"'
        lines.append(f"container_cpu_usage_seconds_total{{{inside}}} 311.42 {at}")
    lines += [
        "# HELP container_memory_working_set_bytes [STABLE] Current working set of the container in bytes",
        "# TYPE container_memory_working_set_bytes gauge",
    ]
    for (namespace, pod, container), size in containers.items():
        inside = f'container="{container}",namespace="{namespace}",pod="{pod}"'
        lines.append(f"container_memory_working_set_bytes{{{inside}}} {size:.9e} {at}")
    lines += [
        "# TYPE node_memory_working_set_bytes gauge",
        f"node_memory_working_set_bytes 4.1e+10 {at}",
        "# TYPE resource_scrape_error gauge",
        "resource_scrape_error 0",
        "",
    ]
    return "\n".join(lines).encode()


def series_of(page: bytes, names: frozenset[str]) -> Page:
    """As telemetry reads a page, with what it ignores."""
    beginnings = tuple(name.encode() for name in names)
    return read_series([line for line in page.split(b"\n") if line.startswith(beginnings)], names)
