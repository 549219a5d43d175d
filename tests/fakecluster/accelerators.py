"""DCGM exporters in memory: a page by node, read by the operator's own loop."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import aiohttp

from fakecluster.nodes import Nodes
from moe_operator.telemetry.accelerator_faults import AcceleratorFault
from moe_operator.telemetry.accelerators import NAMES, AcceleratorWatch
from moe_operator.telemetry.exporter_series import Page, read_series
from moe_operator.telemetry.memory_book import MemoryBook


@dataclass
class Exporters:
    """Nodes that have an exporter, with the last Xid of each of their GPUs, and who has it."""

    nodes: Nodes
    xids: dict[str, dict[int, int]] = field(default_factory=dict)
    memory: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)
    """MiB used and free by node and GPU."""
    pods: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)
    """Namespace and pod by node and GPU; empty: the exporter does not know pods."""
    watts: dict[str, float] = field(default_factory=dict)
    """That each GPU of a node takes; counted since the world began."""
    driver_loaded: dict[str, float] = field(default_factory=dict)
    """When counters of a node began anew."""
    now: Callable[[], float] = lambda: 0.0

    def page(self, node: str) -> bytes | None:
        """What a scrape of a node gets."""
        if (node not in self.xids and node not in self.memory) or not self.nodes.alive(node):
            return None
        lines = []
        for gpu, xid in self.xids.get(node, {}).items():
            lines.append(f"DCGM_FI_DEV_XID_ERRORS{{{self._labels(node, gpu)}}} {xid}")
        for gpu, (used, free) in self.memory.get(node, {}).items():
            lines.append(f"DCGM_FI_DEV_FB_USED{{{self._labels(node, gpu)}}} {used}")
            lines.append(f"DCGM_FI_DEV_FB_FREE{{{self._labels(node, gpu)}}} {free}")
            if watts := self.watts.get(node):
                taken = 1000 * watts * (self.now() - self.driver_loaded.get(node, 0.0))
                lines.append(f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{self._labels(node, gpu)}}} {taken:.0f}")
                lines.append(f"DCGM_FI_DEV_POWER_USAGE{{{self._labels(node, gpu)}}} {watts}")
        return "\n".join(lines).encode()

    def _labels(self, node: str, gpu: int) -> str:
        labels = f'gpu="{gpu}",UUID="GPU-{node}-{gpu}",Hostname="{node}"'
        if owner := self.pods.get((node, gpu)):
            labels += f',namespace="{owner[0]}",pod="{owner[1]}"'
        return labels


class MemoryAccelerators(AcceleratorWatch):
    """An AcceleratorWatch whose pages come from `Exporters`."""

    def __init__(
        self,
        exporters: Exporters,
        on_fault: Callable[[AcceleratorFault], None],
        wall_clock: Callable[[], float],
        book: MemoryBook,
    ) -> None:
        async def addresses() -> dict[str, str]:
            return {node: node for node in {*exporters.xids, *exporters.memory}}

        # There is no session: `_page`, its only user, is replaced.
        super().__init__(cast(aiohttp.ClientSession, None), addresses, on_fault, wall_clock, 9400, book)
        self._pages = exporters

    async def _page(self, host: str) -> Page | None:
        page = self._pages.page(host)
        return None if page is None else read_series(page.split(b"\n"), NAMES)
