"""The loop that looks at devices on the nodes of our pods, beside the one that scrapes engines: DCGM exporter for
faults and memory, and whoever else tells of memory."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import aiohttp

from moe_operator.telemetry.accelerator_faults import AcceleratorFault, NodeAccelerators
from moe_operator.telemetry.accelerator_memory import DCGM_NAMES, dcgm_memory
from moe_operator.telemetry.accelerator_page import FAULT_NAMES, fault_readings
from moe_operator.telemetry.exporter_series import Page, Series
from moe_operator.telemetry.ignored import OnIgnored, nobody
from moe_operator.telemetry.memory_book import INTERVAL, MemoryBook
from moe_operator.telemetry.memory_sources import AT_ONCE, MemorySource, exporter_page
from moe_operator.telemetry.page_reader import address
from moe_operator.telemetry.prometheus_pages import PrometheusPages
from moe_operator.telemetry.unforeseen import Unforeseen

log = logging.getLogger(__name__)

#: Seconds for which a node that is no longer read is remembered.
_KEPT = 3600.0
#: Seconds between the end of a round that is longer than the interval and the next.
_PAUSE = 1.0
#: Series of DCGM exporter that are read.
NAMES = FAULT_NAMES | DCGM_NAMES


class AcceleratorWatch:
    """Knows the faults of GPUs that came while it looked, and keeps the book of memory."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        exporters: Callable[[], Awaitable[Mapping[str, str]]],
        on_fault: Callable[[AcceleratorFault], None],
        wall_clock: Callable[[], float],
        port: int,
        book: MemoryBook | None = None,
        sources: Sequence[MemorySource] = (),
        on_ignored: OnIgnored = nobody,
        prometheus: PrometheusPages | None = None,
    ) -> None:
        """`exporters` gives addresses by the node that they tell of; `wall_clock` seconds since the epoch; `sources`:
        read in each round too; `prometheus`: read in place of exporters, for the nodes in the book."""
        self._session = session
        self._exporters = exporters
        self._on_fault = on_fault
        self._wall_clock = wall_clock
        self._port = port
        self._book = book
        self._sources = sources
        self._on_ignored = on_ignored
        self._prometheus = prometheus
        self._nodes: dict[str, NodeAccelerators] = {}
        self._read_at: dict[str, float] = {}
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._unforeseen = Unforeseen(on_ignored)
        self.last_round: float | None = None
        """When the last round ended, whatever came of it, or the first began; by the loop's clock."""

    def faults(self) -> list[AcceleratorFault]:
        """All that are known."""
        return [fault for node in self._nodes.values() for fault in node.faults]

    async def run(self) -> None:
        """Look for ever, a round every `INTERVAL` however long each takes; ends only by cancellation."""
        time = asyncio.get_running_loop().time
        self.last_round = time()
        while True:
            begun = time()
            with self._unforeseen.of("a round of reading devices"):
                await self.round()
            self.last_round = time()
            await asyncio.sleep(max(_PAUSE, begun + INTERVAL - self.last_round))

    async def round(self) -> None:
        """Read everybody once. What is known of a node's faults outlives its exporter for an hour."""
        if self._book is not None:
            self._book.begin()
        if self._prometheus is not None and self._book is not None:
            for node, series in (await self._prometheus.read(NAMES, self._book.nodes)).items():
                self.take(node, series)
        else:
            exporters = await self._exporters()
            await asyncio.gather(*(self._read(node, host) for node, host in exporters.items()))
        if self._book is not None:
            for source in self._sources:
                with self._unforeseen.of(type(source).__name__):
                    await source.read(self._book)
            self._book.end()
        now = self._wall_clock()
        for node in [node for node, at in self._read_at.items() if now - at > _KEPT]:
            del self._nodes[node], self._read_at[node]

    def take(self, node: str, series: Sequence[Series]) -> None:
        """What DCGM exporter said of a node's GPUs."""
        with self._unforeseen.of(f"DCGM exporter of node {node}"):
            self._take(node, series)

    def _take(self, node: str, series: Sequence[Series]) -> None:
        known, now = self._nodes.setdefault(node, NodeAccelerators(node)), self._wall_clock()
        self._read_at[node] = now
        for fault in known.take(fault_readings(series), now):
            log.warning("node %s: %s: %s", fault.node, fault.gpu, fault.what)
            self._on_fault(fault)
        if self._book is not None:
            gpus, ignored = dcgm_memory(series)
            if ignored:
                self._on_ignored(ignored)
            self._book.take_gpus(node, gpus)

    async def _read(self, node: str, host: str) -> None:
        page = None
        with self._unforeseen.of(f"DCGM exporter of node {node}"):
            async with self._limit:
                page = await self._page(host)
        if page is not None:
            self.take(node, page.series)

    async def _page(self, host: str) -> Page | None:
        url = address(host, self._port, "/metrics")
        return await exporter_page(self._session, url, NAMES, self._on_ignored)
