"""Who tells of memory besides DCGM exporter: AMD's exporter, and the kubelet for what runs on processors."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Protocol

import aiohttp

from moe_operator.telemetry.accelerator_memory import AMD_NAMES, amd_memory
from moe_operator.telemetry.exporter_series import Page, Series, read_series
from moe_operator.telemetry.ignored import Counts, OnIgnored
from moe_operator.telemetry.kubelet_page import KUBELET_NAMES, working_sets
from moe_operator.telemetry.memory_book import MemoryBook
from moe_operator.telemetry.page_reader import PageError, Wanted, address, read_page
from moe_operator.telemetry.prometheus_pages import PrometheusPages
from moe_operator.telemetry.unforeseen import Unforeseen

log = logging.getLogger(__name__)

#: Seconds for a page, and pages that are read at once.
_TIMEOUT, AT_ONCE = 5.0, 32


class MemorySource(Protocol):
    """Brings what it finds into the book."""

    async def read(self, book: MemoryBook) -> None:
        """Once. Raises nothing for sources that misbehave."""


async def exporter_page(
    session: aiohttp.ClientSession,
    url: str,
    names: frozenset[str],
    on_ignored: OnIgnored,
    headers: Mapping[str, str] | None = None,
    ssl: SSLContext | bool = True,
    on_error: Callable[[PageError], None] = lambda error: None,
) -> Page | None:
    """The series of these names; None where there is no page. Tells what was not used of it."""
    wanted = Wanted(tuple(name.encode() for name in names))
    try:
        lines = await read_page(session, url, wanted, _TIMEOUT, headers, ssl)
    except PageError as error:
        log.debug("%s: %s", url, error)
        if error.ignored is not None:
            on_ignored(Counts([error.ignored]))
        on_error(error)
        return None
    page = read_series(lines, names)
    if page.ignored:
        on_ignored(page.ignored)
    return page


class AmdExporters:
    """AMD's device-metrics-exporter on the nodes of our pods."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        exporters: Callable[[], Awaitable[Mapping[str, str]]],
        port: int,
        prefix: str,
        on_ignored: OnIgnored,
        prometheus: PrometheusPages | None = None,
    ) -> None:
        """`exporters` gives addresses by the node that they tell of; `prefix`: of the names of its series;
        `prometheus`: read in place of them."""
        self._session = session
        self._exporters = exporters
        self._port = port
        self._prefix = prefix
        self._unforeseen = Unforeseen(on_ignored)
        self._names = frozenset(prefix + name for name in AMD_NAMES)
        self._on_ignored = on_ignored
        self._prometheus = prometheus
        self._limit = asyncio.Semaphore(AT_ONCE)

    async def read(self, book: MemoryBook) -> None:
        """Every exporter once."""
        if self._prometheus is not None:
            for node, series in (await self._prometheus.read(self._names, book.nodes)).items():
                self._take(book, node, series)
            return
        exporters = await self._exporters()
        await asyncio.gather(*(self._read(book, node, host) for node, host in exporters.items()))

    async def _read(self, book: MemoryBook, node: str, host: str) -> None:
        url = address(host, self._port, "/metrics")
        page = None
        with self._unforeseen.of(url):
            async with self._limit:
                page = await exporter_page(self._session, url, self._names, self._on_ignored)
        if page is not None:
            self._take(book, node, page.series)

    def _take(self, book: MemoryBook, node: str, series: Sequence[Series]) -> None:
        with self._unforeseen.of(f"AMD's exporter of node {node}"):
            gpus, ignored = amd_memory(series, self._prefix)
            if ignored:
                self._on_ignored(ignored)
            book.take_gpus(node, gpus)


@dataclass(frozen=True)
class KubeletAccess:
    """How the operator proves itself to kubelets, and they to it."""

    ssl: SSLContext | bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


class Kubelets:
    """The kubelets of nodes whose pods of ours run on processors."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        addresses: Callable[[], Mapping[str, str]],
        access: Callable[[], Awaitable[KubeletAccess]],
        port: int,
        container: str,
        on_ignored: OnIgnored,
    ) -> None:
        """`addresses`: of nodes; `access` is asked for in every round, as tokens change; `container`: the engine's."""
        self._session = session
        self._addresses = addresses
        self._access = access
        self._port = port
        self._container = container
        self._on_ignored = on_ignored
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._unforeseen = Unforeseen(on_ignored)
        self._said = False

    async def read(self, book: MemoryBook) -> None:
        """Every kubelet once."""
        addresses = self._addresses()
        nodes = [node for node in book.host_nodes if node in addresses]
        if not nodes:
            return
        access = await self._access()
        await asyncio.gather(*(self._read(book, node, addresses[node], access) for node in nodes))

    async def _read(self, book: MemoryBook, node: str, host: str, access: KubeletAccess) -> None:
        with self._unforeseen.of(f"the kubelet of node {node}"):
            await self._look(book, node, host, access)

    async def _look(self, book: MemoryBook, node: str, host: str, access: KubeletAccess) -> None:
        url = address(host, self._port, "/metrics/resource", "https")
        async with self._limit:
            page = await exporter_page(
                self._session,
                url,
                KUBELET_NAMES,
                self._on_ignored,
                access.headers,
                access.ssl,
                lambda error: self._failed(node, error),
            )
        if page is None:
            return
        self._said = False
        sets, ignored = working_sets(page.series, self._container)
        if ignored:
            self._on_ignored(ignored)
        book.take_working_sets(node, sets)

    def _failed(self, node: str, error: PageError) -> None:
        """Said once, until one answers again."""
        if not self._said:
            self._said = True
            log.warning(
                "the kubelet of node %s does not tell the memory of containers, so it is estimated: %s (HTTP 401 or"
                " 403: get on nodes/metrics is missing; a certificate: see telemetry.kubelet.certificate)",
                node,
                error,
            )
