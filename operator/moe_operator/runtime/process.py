"""The operator's process: every replica watches and answers for its health; the one that holds the lease works."""

import asyncio
import logging
import random
import secrets
import signal
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from moe_operator.catalog.operator_config import OperatorConfig, default_config
from moe_operator.controller.agent_tokens import AgentTokens
from moe_operator.controller.kube import ForbiddenError, KubeError
from moe_operator.controller.reconcile import Reconciler, Result
from moe_operator.controller.store import Key, Store
from moe_operator.runtime.agent_key import AgentKeyError, load_agent_key
from moe_operator.runtime.capabilities import LeaderWorkerSetCheck
from moe_operator.runtime.connection import load_configuration
from moe_operator.runtime.events import EventPoster
from moe_operator.runtime.fence import FencedClient
from moe_operator.runtime.figures_page import FiguresPage
from moe_operator.runtime.freshness import Freshness, FreshnessCheck
from moe_operator.runtime.health import DEAF_RESTART, HealthServer, Vitals
from moe_operator.runtime.intake import Intake
from moe_operator.runtime.kopf_source import KopfSource
from moe_operator.runtime.kube_client import AioKubeClient
from moe_operator.runtime.lease import Lease
from moe_operator.runtime.measuring import accelerator_watch, memory_book
from moe_operator.runtime.metrics import Metrics
from moe_operator.runtime.provisions import ProvisionCheck
from moe_operator.runtime.queue import KeyedQueue
from moe_operator.runtime.reporting import CountedEngine, LastAnswer, of_deployments, oldest, scraped
from moe_operator.runtime.resync import INTERVAL, RECHECK, Resync
from moe_operator.runtime.source import WATCHED_KINDS
from moe_operator.runtime.targets import deployments_on, targets
from moe_operator.runtime.transport import Transport
from moe_operator.runtime.watching import Watching
from moe_operator.runtime.workers import Workers
from moe_operator.telemetry.accelerator_faults import AcceleratorFault
from moe_operator.telemetry.collector import Collector
from moe_operator.telemetry.engine_http import HttpEngineClient
from moe_operator.telemetry.own_requests import OwnRequests

log = logging.getLogger(__name__)

#: Seconds that a running reconcile gets when the process is asked to end, and then what is to be remembered. With
#: giving back the lease, which is bounded too, the whole takes a few seconds at most.
_GRACE, _HAND_OVER = 0.8, 0.7
#: A cache that was listed within this many seconds is good enough to begin to lead with.
_FRESH = 5.0
#: Seconds that the LISTs before leading are tried for.
_LIST_AGAIN = 30.0


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; empty for all."""
    lease_namespace: str = "default"
    lease_name: str = "moe-operator"
    identity: str = "moe-operator"
    """Name of this replica; the process adds what makes it unique."""
    host: str = "0.0.0.0"
    health_port: int = 8080
    metrics_port: int = 9090
    kubeconfig: str | None = None
    workers: int = 8
    resync: tuple[float, float] = INTERVAL
    """Seconds between two resyncs, drawn between the two."""
    agent_key_secret: str | None = None
    """Secret in `lease_namespace` with the key by which the operator proves itself to agents; None: it does not."""
    config: OperatorConfig = field(default_factory=default_config)
    """What the site knows better than the catalogue."""


class Process:
    """All parts of one replica, wired up."""

    def __init__(
        self,
        options: Options,
        client: AioKubeClient,
        engines: aiohttp.ClientSession,
        metrics: Metrics,
        api: LastAnswer,
    ) -> None:
        loop = asyncio.get_running_loop()
        draw = random.random
        identity = f"{options.identity}_{uuid.uuid4().hex[:8]}"
        self._options = options
        self._api = api
        self._metrics = metrics
        self._leads = False
        self._synced_at: float | None = None
        self._restarted_at = float("-inf")

        self.store = Store()
        self.queue: KeyedQueue[Key] = KeyedQueue()
        self.freshness = Freshness(loop.time)
        self.resync = Resync(
            client,
            self.store,
            self.freshness,
            self.queue.add,
            namespaces=options.namespaces,
            observer=self,
            draw=draw,
            interval=options.resync,
            changed=self._watch_others,
        )
        intake = Intake(self.store, self.queue.add, self.freshness, metrics, self.resync.request)
        self.watching = Watching(
            KopfSource(lambda: load_configuration(options.kubeconfig), options.namespaces),
            intake.deliver,
            self.resync.watchable,
            resync=self.resync.request,
            observer=metrics,
            jitter=draw,
        )
        self._check = FreshnessCheck(
            client,
            self.store,
            self.freshness,
            kinds=lambda: self.watching.watched,
            namespaces=options.namespaces,
            jitter=draw,
        )
        self.lease = Lease(
            client,
            namespace=options.lease_namespace,
            name=options.lease_name,
            identity=identity,
            wall_clock=time.time,
            draw=draw,
        )
        fenced = FencedClient(client, self.lease.holds)
        self._events = EventPoster(
            fenced, instance=identity, observer=metrics, clock=loop.time, wall_clock=time.time
        )
        own = OwnRequests()
        self.collector = Collector(
            engines, lambda: targets(self.store), self.queue.add, loop.time, own, metrics.ignored
        )
        book = memory_book(self.store, self.queue.add, time.time, metrics.ignored)
        self._accelerators = accelerator_watch(
            engines,
            client,
            self.store,
            options.config.telemetry,
            book,
            lambda: load_configuration(options.kubeconfig),
            self._accelerator_failed,
            metrics.ignored,
        )
        self._client = fenced
        self._tokens = AgentTokens()
        self._reconciler = Reconciler(
            fenced,
            self.store,
            options.config,
            CountedEngine(HttpEngineClient(engines), metrics),
            self._events,
            snapshot=self.collector.snapshot,
            leader_worker_set=LeaderWorkerSetCheck(client, loop.time),
            provisions=ProvisionCheck(client, options.config, loop.time),
            enqueue=self.queue.add,
            clock=time.time,
            losses=metrics,
            tokens=self._tokens,
            own=own,
            faults=self._accelerators.faults,
            memory=book.snapshot,
            learning_anew=metrics.learning_anew,
            watched_until=lambda: self.lease.led_before_until,
        )
        self._workers = Workers(
            self.queue, self._reconcile, count=options.workers, jitter=draw, observer=metrics
        )
        page = FiguresPage(
            self._reconciler.delivered, lambda: self._leads, lambda: self.lease.holder, time.time
        )
        self._health = HealthServer(self._vitals, metrics.registry, page)
        metrics.watch_values(
            replace(
                of_deployments(self.store, self._reconciler, lambda: self._leads),
                queue_depth=lambda: len(self.queue),
                overdue=lambda: [((k.kind,), self.freshness.overdue(k)) for k in WATCHED_KINDS],
                telemetry_age=lambda: oldest(self.collector.snapshot()),
                telemetry_pods=lambda: scraped(self.collector.snapshot()),
            )
        )

    # --- life -----------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> int:
        """Run until asked to stop, or until the lease is lost. Returns the exit code."""
        await self._health.start(self._options.host, self._options.health_port, self._options.metrics_port)
        log.info("health on port %d, metrics on port %d", *self._health.ports)
        beside = [
            self._task("resync", self.resync.run()),
            self._task("watching", self.watching.run()),
            self._task("freshness", self._check.run()),
            self._task("deaf watches", self._restart_deaf()),
            self._task("events", self._events.run()),
        ]
        leading = self._task("lead", self._lead())
        stopping = self._task("stop", stop.wait())
        await asyncio.wait([*beside, leading, stopping], return_when=asyncio.FIRST_COMPLETED)
        code = self._verdict(stopping, leading, beside)
        for task in (*beside, leading):
            task.cancel()
        # A leader that lost its lease must not write: what runs is cancelled at once.
        await self._workers.stop(_GRACE if self.lease.holds() else 0.0)
        if self.lease.holds():
            await self._reconciler.hand_over(_HAND_OVER)
        await self._reconciler.close()
        await self.lease.give_back()
        self._metrics.leading(False)
        return code

    async def close(self) -> None:
        """Stop listening. The rest is ended by `run`, or ends with the process."""
        await self._health.stop()

    def _verdict(
        self, stopping: "asyncio.Task[Any]", leading: "asyncio.Task[str]", beside: "list[asyncio.Task[Any]]"
    ) -> int:
        if stopping.done():
            log.info("asked to stop")
            return 0
        for task in (leading, *beside):
            if task.done() and task.exception():
                log.critical("%s failed, ending", task.get_name(), exc_info=task.exception())
                return 1
        why = leading.result() if leading.done() else "a part of the process ended"
        log.error("no longer leading, ending: %s", why)
        return 1

    async def _lead(self) -> str:
        """Wait for the cache and the lease, work, and return why the lease was lost."""
        await self.resync.ready.wait()
        await self.lease.acquire()
        self._leads = True
        self._metrics.leading(True)
        holding = self._task("lease", self.lease.hold())
        working = self._task("work", self._work())
        try:
            await asyncio.wait([holding, working], return_when=asyncio.FIRST_COMPLETED)
            why: str = holding.result() if holding.done() else working.result()
            return why
        finally:
            self._leads = False
            working.cancel()
            holding.cancel()

    async def _work(self) -> str:
        """What only the leader does."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        if why := await self._read_agent_key():
            return why
        # The last leader's last writes may be newer than what our watches have delivered.
        while self._synced_at is None or self._synced_at < begun - _FRESH:
            if not await self.resync.once():
                if loop.time() - begun > _LIST_AGAIN:
                    log.warning("beginning to lead although some LISTs fail")
                    break
                await asyncio.sleep(1.0)
        self._workers.start()
        loops = [
            self._task("telemetry", self.collector.run()),
            self._task("accelerators", self._accelerators.run()),
        ]
        try:
            ended, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()  # raises what ended it
        finally:
            for task in loops:
                task.cancel()
        return f"{', '.join(task.get_name() for task in ended)} ended"

    def _accelerator_failed(self, fault: AcceleratorFault) -> None:
        """Have the deployments with pods on that node looked at."""
        for key in deployments_on(self.store, fault.node):
            self.queue.add(key)

    async def _read_agent_key(self) -> str:
        """Have the key before the first group is made. Empty, or why it cannot be had."""
        name, namespace = self._options.agent_key_secret, self._options.lease_namespace
        if name is None:
            log.warning(
                "no --agent-key-secret: agents cannot tell the operator from others, anyone may drain"
            )
            return ""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LIST_AGAIN
        while True:
            try:
                self._tokens.use(await load_agent_key(self._client, namespace, name, secrets.token_bytes))
                return ""
            except (AgentKeyError, ForbiddenError) as error:
                return f"cannot use Secret {namespace}/{name}: {error}"
            except KubeError as error:
                if loop.time() > deadline:
                    return f"cannot read Secret {namespace}/{name}: {error}"
                await asyncio.sleep(1.0)

    async def _restart_deaf(self) -> None:
        """Start the watches anew when one of them is deaf."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(5.0)
            deaf = [k.kind for k in self.watching.watched if self.freshness.overdue(k) > DEAF_RESTART]
            if deaf and loop.time() - self._restarted_at > DEAF_RESTART:
                log.warning("the watch of %s is deaf, starting all watches anew", ", ".join(deaf))
                self._restarted_at = loop.time()
                self.watching.restart()

    @staticmethod
    def _task(name: str, what: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        return asyncio.create_task(what, name=name)

    def _watch_others(self) -> None:
        """Other kinds can be watched than before."""
        self.freshness.forget(set(WATCHED_KINDS) - set(self.resync.watchable()))
        self.watching.restart()

    async def _reconcile(self, key: Key) -> Result:
        if self.resync.lacking():
            # Judged by a cache that nobody keeps up to date, groups would be replaced for nothing.
            return Result(requeue_after=RECHECK)
        return await self._reconciler.reconcile(key)

    # --- reports --------------------------------------------------------------------------------------

    def resynced(self, outcome: str, seconds: float) -> None:
        """A resync ended."""
        self._metrics.resynced(outcome, seconds)
        if outcome == "success":
            self._synced_at = asyncio.get_running_loop().time() - seconds

    def lost_deletions(self, kind: str, count: int) -> None:
        """A resync found what a watch had lost."""
        log.info("%d objects of kind %s were gone without a word", count, kind)
        self._metrics.lost_deletions(kind, count)

    def _vitals(self) -> Vitals:
        longest = self._workers.longest()
        return Vitals(
            overdue={k.kind: self.freshness.overdue(k) for k in self.watching.watched},
            longest=("/".join(longest[0]), longest[1]) if longest else None,
            source_down=self.watching.down_for(),
            api_silent=self._api.silent(),
            telemetry_silent=self._since(self.collector.last_round),
            devices_silent=self._since(self._accelerators.last_round),
            synced=self.resync.ready.is_set(),
            lacking=tuple(k.kind for k in self.resync.lacking()),
            leads=self._leads,
        )

    def _since(self, last_round: float | None) -> float | None:
        """Seconds; None where this replica does not lead, or has not looked yet."""
        if not self._leads or last_round is None:
            return None
        return asyncio.get_running_loop().time() - last_round


async def run(options: Options) -> int:
    """Run one replica until SIGTERM, SIGINT or the loss of the lease. Returns the exit code.

    Raises NoConnectionError when there is no API server to talk to.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics()
    api = LastAnswer(metrics, loop.time)
    client = AioKubeClient(Transport(await load_configuration(options.kubeconfig), observer=api))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as engines:
        process = Process(options, client, engines, metrics, api)
        try:
            return await process.run(stop)
        finally:
            await process.close()
            await client.close()
