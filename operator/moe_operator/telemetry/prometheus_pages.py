"""Exporters' series from a Prometheus, in place of the exporters: one bounded query for each figure in every round.

Prometheus answers with the newest sample of the last five minutes, unless the exporter stopped to answer: then it has
none from the next scrape on, as from the exporter itself.
"""

import asyncio
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp

from moe_operator.telemetry.exporter_series import Series
from moe_operator.telemetry.ignored import Counts, Ignored, OnIgnored
from moe_operator.telemetry.page_reader import PageError, Wanted, read_page
from moe_operator.telemetry.unforeseen import Unforeseen

log = logging.getLogger(__name__)

_TIMEOUT = 10.0
#: Queries: an answer of several MB is some 50 MB once it is read.
_AT_ONCE = 4
#: Bytes of one answer: 8000 GPUs have some 5 MB for each figure.
_WANTED = Wanted(None, 32 * 2**20)
#: Where the name of the node may be, the first that is there: what scrape configurations add, and the exporter's own.
_NODE_LABELS = ("node", "Hostname", "hostname", "kubernetes_node")
#: All others are dropped as they come.
_KEPT_LABELS = frozenset(
    f"{prefix}{name}" for prefix in ("", "exported_") for name in ("namespace", "pod", "container", "pod_uid")
) | {
    "UUID",
    "gpu",
    "GPU_I_ID",
    "pod_namespace",
    "pod_name",
    "container_name",
    "gpu_uuid",
    "serial_number",
    "gpu_id",
    "gpu_partition_id",
}


class PrometheusPages:
    """The series of nodes."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        token: Callable[[], str | None],
        on_ignored: OnIgnored,
    ) -> None:
        """`token`: a bearer token, if one is needed."""
        self._session = session
        self._url = url
        self._token = token
        self._on_ignored = on_ignored
        self._unforeseen = Unforeseen(on_ignored)

    async def read(self, names: Iterable[str], nodes: frozenset[str]) -> Mapping[str, list[Series]]:
        """Of these names, by node. Empty where Prometheus does not answer. Raises nothing."""
        asked: dict[str, dict[str, list[Series]]] = {name: {} for name in sorted(names)}
        shared: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
        limit = asyncio.Semaphore(_AT_ONCE)

        async def ask(name: str, found: dict[str, list[Series]]) -> None:
            async with limit:
                with self._unforeseen.of(f"Prometheus of {name}"):
                    for item in await self._query(name):
                        self._take(name, item, nodes, found, shared)

        await asyncio.gather(*(ask(name, found) for name, found in asked.items()))
        together: dict[str, list[Series]] = {}
        for found in asked.values():  # in the order of names, whatever came first
            for node, series in found.items():
                together.setdefault(node, []).extend(series)
        return together

    def _take(
        self,
        name: str,
        item: Any,
        nodes: frozenset[str],
        found: dict[str, list[Series]],
        shared: dict[tuple[tuple[str, str], ...], Mapping[str, str]],
    ) -> None:
        try:
            labels = {str(key): str(text) for key, text in item["metric"].items()}
            value = float(item["value"][1])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
            self._on_ignored(Counts([Ignored.NOT_A_SERIES]))
            return
        node = next((labels[label] for label in _NODE_LABELS if labels.get(label)), "")
        if node not in nodes:
            return
        if not math.isfinite(value):
            self._on_ignored(Counts([Ignored.NOT_A_NUMBER]))
            return
        kept = {key: text for key, text in labels.items() if key in _KEPT_LABELS}
        same = shared.setdefault(tuple(sorted(kept.items())), kept)
        found.setdefault(node, []).append(Series(name, same, value))

    async def _query(self, name: str) -> list[Any]:
        url = f"{self._url}/api/v1/query?{urlencode({'query': name, 'timeout': '8s'})}"
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            (text,) = await read_page(self._session, url, _WANTED, _TIMEOUT, headers)
            data = json.loads(text)["data"]
            if data["resultType"] != "vector" or not isinstance(data["result"], list):
                raise ValueError(f"resultType {data['resultType']}")
            return data["result"]
        except PageError as error:
            log.debug("Prometheus: %s: %s", name, error)
            if error.ignored is not None:
                self._on_ignored(Counts([error.ignored]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            log.debug("Prometheus: %s: %s", name, error)
            self._on_ignored(Counts([Ignored.NOT_A_SERIES]))
        return []
