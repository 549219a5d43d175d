"""Wires up who measures memory, by what the site says."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from kubernetes.aio.client import Configuration

from moe_operator.api import names
from moe_operator.catalog.telemetry_site import PrometheusSite, TelemetrySite
from moe_operator.controller.kube import KubeClient
from moe_operator.controller.store import Key, Store
from moe_operator.runtime.exporters import Exporters
from moe_operator.runtime.kubelet_access import kubelet_access
from moe_operator.runtime.node_pods import host_addresses, node_devices, node_pods
from moe_operator.telemetry.accelerator_faults import AcceleratorFault
from moe_operator.telemetry.accelerators import AcceleratorWatch
from moe_operator.telemetry.ignored import OnIgnored, nobody
from moe_operator.telemetry.memory_book import MemoryBook
from moe_operator.telemetry.memory_sources import AmdExporters, Kubelets, MemorySource
from moe_operator.telemetry.prometheus_pages import PrometheusPages


def memory_book(
    store: Store,
    on_news: Callable[[Key], None],
    wall_clock: Callable[[], float],
    on_ignored: OnIgnored = nobody,
) -> MemoryBook:
    """Of the pods in the cache."""
    return MemoryBook(
        lambda: node_pods(store),
        lambda node: node_devices(store, node),
        names.ENGINE_CONTAINER,
        on_news,
        wall_clock,
        on_ignored,
    )


def accelerator_watch(
    session: aiohttp.ClientSession,
    client: KubeClient,
    store: Store,
    site: TelemetrySite,
    book: MemoryBook,
    load: Callable[[], Awaitable[Configuration]],
    on_fault: Callable[[AcceleratorFault], None],
    on_ignored: OnIgnored,
) -> AcceleratorWatch:
    """Reads whom the site names into the book. `load`: the connection to the API server, for kubelets."""
    clock = time.monotonic
    prometheus = None
    if site.prometheus is not None:
        prometheus = PrometheusPages(session, site.prometheus.url, _token(site.prometheus), on_ignored)
    sources: list[MemorySource] = []
    if site.amd is not None:
        exporters = Exporters(client, store, site.amd, clock)
        sources.append(
            AmdExporters(session, exporters, site.amd.port, site.amd.prefix, on_ignored, prometheus)
        )
    if site.kubelet is not None:
        sources.append(
            Kubelets(
                session,
                lambda: host_addresses(store),
                kubelet_access(load, site.kubelet.certificate),
                site.kubelet.port,
                names.ENGINE_CONTAINER,
                on_ignored,
            )
        )
    return AcceleratorWatch(
        session,
        Exporters(client, store, site.dcgm, clock),
        on_fault,
        time.time,
        site.dcgm.port,
        book,
        sources,
        on_ignored,
        prometheus,
    )


def _token(site: PrometheusSite) -> Callable[[], str | None]:
    def read() -> str | None:
        try:
            return Path(site.token_file).read_text(encoding="utf-8").strip() if site.token_file else None
        except (OSError, ValueError):
            return None  # Prometheus then refuses, and memory is estimated

    return read
