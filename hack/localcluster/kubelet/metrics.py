"""``/metrics/resource``: memory and processor time of containers, measured from their processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from localcluster.kubelet import processes
from localcluster.kubelet.processes import Snapshot, Usage

#: For how long figures are given out again, unless containers came or went.
FRESH_SECONDS = 5.0
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Target:
    """One running container: whose it is, its first process, and when it started (Unix seconds)."""

    namespace: str
    pod: str
    container: str
    pid: int
    started_at: float


_HELP = {
    "container_cpu_usage_seconds_total": ("counter", "Processor time used by the container in seconds"),
    "container_memory_working_set_bytes": (
        "gauge",
        "Memory of the container in bytes, shared pages divided (PSS)",
    ),
    "container_start_time_seconds": ("gauge", "Start of the container in Unix seconds"),
    "node_cpu_usage_seconds_total": ("counter", "Processor time used by the node's containers in seconds"),
    "node_memory_working_set_bytes": ("gauge", "Memory of the node's containers in bytes"),
    "pod_cpu_usage_seconds_total": ("counter", "Processor time used by the pod in seconds"),
    "pod_memory_working_set_bytes": ("gauge", "Memory of the pod in bytes"),
    "resource_scrape_error": ("gauge", "1 if a container could not be measured"),
}


def render(usages: Mapping[Target, Usage], node_cpu_seconds: float, now_ms: int) -> str:
    """The page. ``now_ms``: when the figures were taken, Unix milliseconds."""
    samples: dict[str, list[str]] = {name: [] for name in _HELP}

    def add(name: str, labels: Mapping[str, str], value: float, stamp: bool = True) -> None:
        inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
        brackets = f"{{{inside}}}" if inside else ""
        samples[name].append(f"{name}{brackets} {value:.10g}" + (f" {now_ms}" if stamp else ""))

    pods: dict[tuple[str, str], list[Usage]] = {}
    for target, usage in usages.items():
        labels = {"container": target.container, "namespace": target.namespace, "pod": target.pod}
        add("container_cpu_usage_seconds_total", labels, usage.cpu_seconds)
        add("container_memory_working_set_bytes", labels, usage.memory_bytes)
        add("container_start_time_seconds", labels, target.started_at)
        pods.setdefault((target.namespace, target.pod), []).append(usage)
    for (namespace, pod), parts in pods.items():
        labels = {"namespace": namespace, "pod": pod}
        add("pod_cpu_usage_seconds_total", labels, sum(part.cpu_seconds for part in parts))
        add("pod_memory_working_set_bytes", labels, sum(part.memory_bytes for part in parts))
    add("node_cpu_usage_seconds_total", {}, node_cpu_seconds)
    add("node_memory_working_set_bytes", {}, sum(usage.memory_bytes for usage in usages.values()))
    add("resource_scrape_error", {}, 0, stamp=False)
    out: list[str] = []
    for name, (kind, text) in _HELP.items():
        if samples[name]:
            out += [f"# HELP {name} [STABLE] {text}", f"# TYPE {name} {kind}", *samples[name]]
    return "\n".join(out) + "\n"


class Meter:
    """Measures on demand, at most every few seconds: reading PSS holds up the processes that are read.

    Processor time never falls: what ended containers used stays in the node's sum.
    """

    def __init__(self) -> None:
        self._last: dict[int, float] = {}
        self._ended = 0.0
        self._lock = asyncio.Lock()
        self._page: tuple[float, frozenset[Target], str] | None = None

    async def page(self, targets: Iterable[Target]) -> str:
        """Measure and render; the slow part runs beside the event loop. The samples say when they were taken."""
        wanted = frozenset(targets)
        async with self._lock:
            if self._page is not None:
                taken_at, measured, page = self._page
                if measured == wanted and time.monotonic() < taken_at + FRESH_SECONDS:
                    return page
            usages = await asyncio.to_thread(self._measure, wanted)
            page = render(usages, self._ended + sum(self._last.values()), time.time_ns() // 10**6)
            self._page = (time.monotonic(), wanted, page)
            return page

    def _measure(self, targets: frozenset[Target]) -> dict[Target, Usage]:
        snapshot = Snapshot()
        out: dict[Target, Usage] = {}
        for target in targets:
            usage = processes.usage(target.pid, snapshot)
            cpu = max(usage.cpu_seconds, self._last.get(target.pid, 0.0))
            self._last[target.pid] = cpu
            out[target] = Usage(cpu, usage.memory_bytes)
        for pid in set(self._last) - {target.pid for target in targets}:
            self._ended += self._last.pop(pid)
        return out


def memory_share(pid: int, limit_bytes: int, snapshot: Snapshot) -> float:
    """The memory of the container whose first process is ``pid`` as a share of its limit.

    Resident memory is cheap to read and never less than the truth: only where it is over the limit is PSS read.
    """
    pids = snapshot.tree(pid)
    share = snapshot.resident_bytes(pids) / limit_bytes
    return processes.proportional_bytes(pids) / limit_bytes if share > 1 else share
