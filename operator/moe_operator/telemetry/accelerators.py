"""The loop that reads DCGM exporter on the nodes of our pods, beside the one that scrapes engines."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import aiohttp

from moe_operator.telemetry.accelerator_faults import AcceleratorFault, NodeAccelerators
from moe_operator.telemetry.accelerator_page import parse_accelerators

log = logging.getLogger(__name__)

#: Seconds between two rounds: what the exporter's own charts have it scraped at.
INTERVAL = 15.0
_TIMEOUT = 5.0
#: Seconds for which a node that is no longer read is remembered.
_KEPT = 3600.0
_AT_ONCE = 32
#: Bytes of a page that are read; a node of eight GPUs has some 100 KB.
_LONGEST_PAGE = 4 * 2**20


class AcceleratorWatch:
    """Knows the faults of GPUs that came while it looked."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        exporters: Callable[[], Awaitable[Mapping[str, str]]],
        on_fault: Callable[[AcceleratorFault], None],
        wall_clock: Callable[[], float],
        port: int,
    ) -> None:
        """`exporters` gives addresses by the node that they tell of; `wall_clock` seconds since the epoch."""
        self._session = session
        self._exporters = exporters
        self._on_fault = on_fault
        self._wall_clock = wall_clock
        self._port = port
        self._nodes: dict[str, NodeAccelerators] = {}
        self._read_at: dict[str, float] = {}
        self._limit = asyncio.Semaphore(_AT_ONCE)

    def faults(self) -> list[AcceleratorFault]:
        """All that are known."""
        return [fault for node in self._nodes.values() for fault in node.faults]

    async def run(self) -> None:
        """Look for ever; ends only by cancellation."""
        while True:
            await self.round()
            await asyncio.sleep(INTERVAL)

    async def round(self) -> None:
        """Read every exporter once. What is known of a node outlives its exporter for an hour."""
        exporters = await self._exporters()
        await asyncio.gather(*(self._read(node, address) for node, address in exporters.items()))
        now = self._wall_clock()
        for node in [node for node, at in self._read_at.items() if now - at > _KEPT]:
            del self._nodes[node], self._read_at[node]

    async def _read(self, node: str, address: str) -> None:
        async with self._limit:
            page = await self._get(address)
        if page is None:
            return
        known, now = self._nodes.setdefault(node, NodeAccelerators(node)), self._wall_clock()
        self._read_at[node] = now
        for fault in known.take(parse_accelerators(page), now):
            log.warning("node %s: %s: %s", fault.node, fault.gpu, fault.what)
            self._on_fault(fault)

    async def _get(self, address: str) -> bytes | None:
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{self._port}/metrics"
        try:
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as answer:
                if answer.status != 200:
                    return None
                page = b""
                while len(page) < _LONGEST_PAGE and not answer.content.at_eof():
                    page += await answer.content.read(_LONGEST_PAGE - len(page))
                return page
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
