"""DCGM exporters in memory: a page by node, read by the operator's own loop."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import aiohttp

from fakecluster.nodes import Nodes
from moe_operator.telemetry.accelerator_faults import AcceleratorFault
from moe_operator.telemetry.accelerators import AcceleratorWatch


@dataclass
class Exporters:
    """Nodes that have an exporter, with the last Xid of each of their GPUs, and who has it."""

    nodes: Nodes
    xids: dict[str, dict[int, int]] = field(default_factory=dict)
    pods: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)
    """Namespace and pod by node and GPU; empty: the exporter does not know pods."""

    def page(self, node: str) -> bytes | None:
        """What a scrape of a node gets."""
        if node not in self.xids or not self.nodes.alive(node):
            return None
        lines = []
        for gpu, xid in self.xids[node].items():
            labels = f'gpu="{gpu}",UUID="GPU-{node}-{gpu}",Hostname="{node}"'
            if owner := self.pods.get((node, gpu)):
                labels += f',namespace="{owner[0]}",pod="{owner[1]}"'
            lines.append(f"DCGM_FI_DEV_XID_ERRORS{{{labels}}} {xid}")
        return "\n".join(lines).encode()


class MemoryAccelerators(AcceleratorWatch):
    """An AcceleratorWatch whose pages come from `Exporters`."""

    def __init__(
        self,
        exporters: Exporters,
        on_fault: Callable[[AcceleratorFault], None],
        wall_clock: Callable[[], float],
    ) -> None:
        async def addresses() -> dict[str, str]:
            return {node: node for node in exporters.xids}

        # There is no session: `_get`, its only user, is replaced.
        super().__init__(cast(aiohttp.ClientSession, None), addresses, on_fault, wall_clock, 9400)
        self._pages = exporters

    async def _get(self, address: str) -> bytes | None:
        return self._pages.page(address)
