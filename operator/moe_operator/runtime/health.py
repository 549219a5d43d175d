"""Health, metrics and figures over HTTP, on every replica.

/healthz asks: would a restart help? It fails when the process deceives itself: a watch that is deaf although it was
started anew, a reconcile or a loop that hangs. An API server that cannot be reached is no reason: a restart would only
lose the cache. /readyz asks: is the cache complete, so that this replica could lead?
"""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from moe_operator.runtime.figures_page import FiguresPage

log = logging.getLogger(__name__)

#: Seconds that a change may be owed by a watch before the watch is started anew ...
DEAF_RESTART = 60.0
#: ... and before the process is.
DEAF_LIMIT = 180.0
#: Seconds that a reconcile may take: more than its deadline, which has failed to end it then.
STUCK_LIMIT = 300.0
#: Seconds that the watches may fail while the API server answers.
DOWN_LIMIT = 300.0
#: Seconds without an answer from which on the API server counts as away.
AWAY = 60.0
#: Seconds that the telemetry loop of the leader may stand still.
TELEMETRY_LIMIT = 180.0
#: The same for the loop that reads devices: a round is long where many exporters give no answer (5 s for 32 at once).
DEVICES_LIMIT = 900.0


@dataclass(frozen=True)
class Vitals:
    """What the verdict rests on. Seconds; 0 or None where nothing is wrong or nothing is known."""

    overdue: dict[str, float]
    """By kind: for how long a change has been owed by its watch."""
    longest: tuple[str, float] | None
    """The reconcile that has run for longest."""
    source_down: float
    api_silent: float | None
    """Since the API server answered last; None if it never did."""
    telemetry_silent: float | None
    """Since the last round of scrapes ended, on the leader."""
    devices_silent: float | None
    """Since the last round of reading GPUs' faults and memory ended, on the leader."""
    synced: bool
    lacking: tuple[str, ...]
    """Kinds that must be listed and may not be."""
    leads: bool


def problems(vitals: Vitals) -> list[str]:
    """What a restart of this process would heal."""
    found = [
        f"the watch of {kind} has not delivered a change for {seconds:.0f} s (limit {DEAF_LIMIT:.0f} s)"
        for kind, seconds in vitals.overdue.items()
        if seconds > DEAF_LIMIT
    ]
    if vitals.longest and vitals.longest[1] > STUCK_LIMIT:
        key, seconds = vitals.longest
        found.append(
            f"the reconcile of {key} has been running for {seconds:.0f} s (limit {STUCK_LIMIT:.0f} s)"
        )
    answers = vitals.api_silent is not None and vitals.api_silent < AWAY
    if answers and vitals.source_down > DOWN_LIMIT:
        found.append(
            f"the watches have been failing for {vitals.source_down:.0f} s (limit {DOWN_LIMIT:.0f} s) "
            f"although the API server answers"
        )
    if vitals.telemetry_silent is not None and vitals.telemetry_silent > TELEMETRY_LIMIT:
        found.append(
            f"telemetry has stood still for {vitals.telemetry_silent:.0f} s (limit {TELEMETRY_LIMIT:.0f} s)"
        )
    if vitals.devices_silent is not None and vitals.devices_silent > DEVICES_LIMIT:
        found.append(
            f"reading GPUs' faults and memory has stood still for {vitals.devices_silent:.0f} s"
            f" (limit {DEVICES_LIMIT:.0f} s)"
        )
    return found


class HealthServer:
    """Serves /healthz and /readyz on one port, /metrics and /figures on another (or the same)."""

    def __init__(
        self, vitals: Callable[[], Vitals], registry: CollectorRegistry, figures: FiguresPage | None = None
    ) -> None:
        """`figures`: served as /figures beside the metrics."""
        self._vitals = vitals
        self._registry = registry
        self._figures = figures
        self._runners: list[web.AppRunner] = []
        self.ports: list[int] = []
        """Where it listens: health, metrics."""

    async def start(self, host: str, health_port: int, metrics_port: int) -> None:
        """Listen; port 0 takes a free one. Raises OSError when an address is taken."""
        health: list[tuple[str, Callable[..., object]]] = [("/healthz", self._live), ("/readyz", self._ready)]
        metrics: list[tuple[str, Callable[..., object]]] = [("/metrics", self._metrics)]
        if self._figures is not None:
            metrics.append(("/figures", self._figures.answer))
        if metrics_port == health_port and health_port != 0:
            port = await self._listen(host, health_port, [*health, *metrics])
            self.ports = [port, port]
        else:
            self.ports = [
                await self._listen(host, health_port, health),
                await self._listen(host, metrics_port, metrics),
            ]

    async def stop(self) -> None:
        for runner in self._runners:
            await runner.cleanup()

    async def _listen(self, host: str, port: int, pages: Iterable[tuple[str, Callable[..., object]]]) -> int:
        app = web.Application()
        for path, handler in pages:
            app.router.add_get(path, handler)  # type: ignore[arg-type]
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, host, port).start()
        return int(runner.addresses[0][1])

    async def _live(self, _: web.Request) -> web.Response:
        vitals = self._vitals()
        found = problems(vitals)
        if found:
            log.error("not healthy: %s", "; ".join(found))
        return _answer(not found, {"problems": found, "leader": vitals.leads})

    async def _ready(self, _: web.Request) -> web.Response:
        vitals = self._vitals()
        waits = [
            f"{kind} may not be listed: grant the operator's account the right" for kind in vitals.lacking
        ]
        if not vitals.synced and not waits:
            waits = ["the first LIST of some kind has not been answered yet"]
        return _answer(not waits, {"problems": waits, "leader": vitals.leads})

    async def _metrics(self, request: web.Request) -> web.Response:
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encoder(self._registry), headers={"Content-Type": content_type})


def _answer(good: bool, details: dict[str, object]) -> web.Response:
    body = {"status": "ok" if good else "failing", **details}
    return web.Response(
        status=200 if good else 503, text=json.dumps(body) + "\n", content_type="application/json"
    )
