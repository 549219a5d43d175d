"""One replica of the operator in the in-memory cluster: all but kopf and HTTP, wired up as its own process does."""

import asyncio
import random
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

from fakecluster.accelerators import MemoryAccelerators
from fakecluster.client import MemoryClient
from fakecluster.faults import CrashError, FaultPlan, WatchFaults
from fakecluster.telemetry import MemoryCollector
from fakecluster.watch import Feed
from fakecluster.world import World
from moe_operator.catalog.operator_config import OperatorConfig, default_config
from moe_operator.controller.agent_tokens import AgentTokens
from moe_operator.controller.kube import EVENT, LEASE, Kind, Obj
from moe_operator.controller.reconcile import Reconciler
from moe_operator.controller.store import Key, Store
from moe_operator.resources.agent_token import KEY_BYTES
from moe_operator.runtime.capabilities import LeaderWorkerSetCheck
from moe_operator.runtime.events import EventPoster
from moe_operator.runtime.fence import FencedClient
from moe_operator.runtime.freshness import Freshness
from moe_operator.runtime.intake import Intake
from moe_operator.runtime.lease import Lease
from moe_operator.runtime.measuring import memory_book
from moe_operator.runtime.provisions import ProvisionCheck
from moe_operator.runtime.queue import KeyedQueue
from moe_operator.runtime.resync import Resync
from moe_operator.runtime.source import WATCHED_KINDS, EventType, selector
from moe_operator.runtime.targets import deployments_on, targets
from moe_operator.runtime.workers import Workers
from moe_operator.telemetry.accelerator_faults import AcceleratorFault
from moe_operator.telemetry.own_requests import OwnRequests

#: Which replica a task belongs to.
_INSTANCE: ContextVar["Operator | None"] = ContextVar("instance", default=None)


@dataclass
class Counting:
    """Counts what the runtime's parts tell their observers."""

    reconciles: int = 0
    errors: int = 0
    lost: int = 0
    """Deletions that only a resync found."""
    groups_lost: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """By namespace, name and reason."""
    learned_anew: list[str] = field(default_factory=list)
    """Why what was remembered was not used."""

    def reconciled(self, outcome: str, seconds: float, waited: float) -> None:
        self.reconciles += 1
        self.errors += outcome in ("error", "timeout")

    def watch_event(self, kind: str, type_: str) -> None:
        pass

    def resynced(self, outcome: str, seconds: float) -> None:
        pass

    def lost_deletions(self, kind: str, count: int) -> None:
        self.lost += count

    def event(self, outcome: str) -> None:
        pass

    def group_lost(self, namespace: str, name: str, reason: str) -> None:
        key = (namespace, name, reason)
        self.groups_lost[key] = self.groups_lost.get(key, 0) + 1

    def forget_losses(self, namespace: str, name: str) -> None:
        self.groups_lost = {k: n for k, n in self.groups_lost.items() if k[:2] != (namespace, name)}


class Operator:
    """Starts with an empty memory; ends by `stop`, `kill`, the loss of its lease or a crash of its fault plan."""

    def __init__(
        self,
        world: World,
        name: str,
        *,
        faults: FaultPlan | None = None,
        watch_faults: WatchFaults | None = None,
        seed: int = 0,
        workers: int = 4,
        elected: bool = True,
        config: OperatorConfig | None = None,
        key: bytes = bytes(KEY_BYTES),
    ) -> None:
        """`elected`: whether it waits for the lease; without, it works as one that has not noticed its loss."""
        loop = asyncio.get_running_loop()
        self.world = world
        self.name = name
        self.client = MemoryClient(
            world.server,
            faults,
            logs=world.logs,
            on_crash=self._crashed,
            uncounted=frozenset({LEASE, EVENT}),
        )
        self.store = Store()
        self.queue: KeyedQueue[Key] = KeyedQueue()
        self.counting = Counting()
        self.leads = False
        self.crash: CrashError | None = None
        self.lost_lease = ""
        self.ended = asyncio.Event()
        self._elected = elected
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._beside: list[asyncio.Task[Any]] = []
        draw = random.Random(seed).random
        freshness = Freshness(loop.time)
        self.resync = Resync(
            self.client,
            self.store,
            freshness,
            self.queue.add,
            namespaces=(),
            observer=self.counting,
            draw=draw,
        )
        self.intake = Intake(self.store, self.queue.add, freshness, self.counting, self.resync.request)
        self.feed = Feed(
            world.server, {kind: selector(kind) for kind in WATCHED_KINDS}, self._deliver, watch_faults
        )
        self.lease = Lease(
            self.client,
            namespace="moe-system",
            name="moe-operator",
            identity=name,
            wall_clock=world.clock,
            draw=draw,
        )
        fenced = FencedClient(self.client, self.lease.holds if elected else lambda: True)
        self._events = EventPoster(
            fenced, instance=name, observer=self.counting, clock=loop.time, wall_clock=world.clock
        )
        own = OwnRequests()
        collector = MemoryCollector(
            world.engines, lambda: targets(self.store), self.queue.add, loop.time, own
        )
        self._collector = collector
        book = memory_book(self.store, self.queue.add, world.clock)
        self._accelerators = MemoryAccelerators(world.exporters, self._accelerator_failed, world.clock, book)
        tokens = AgentTokens()
        tokens.use(key)
        self.reconciler = Reconciler(
            fenced,
            self.store,
            config or default_config(),
            world.engine_client,
            self._events,
            snapshot=collector.snapshot,
            leader_worker_set=LeaderWorkerSetCheck(self.client, loop.time),
            provisions=ProvisionCheck(self.client, config or default_config(), loop.time),
            enqueue=self.queue.add,
            clock=world.clock,
            losses=self.counting,
            tokens=tokens,
            own=own,
            faults=self._accelerators.faults,
            memory=book.snapshot,
            learning_anew=self.counting.learned_anew.append,
            watched_until=lambda: self.lease.led_before_until,
        )
        self._workers = Workers(
            self.queue, self.reconciler.reconcile, count=workers, jitter=draw, observer=self.counting
        )

    @property
    def faults(self) -> FaultPlan:
        """What goes wrong with this replica's calls."""
        return self.client.faults

    @faults.setter
    def faults(self, plan: FaultPlan) -> None:
        self.client.faults = plan

    def start(self) -> None:
        """List and watch; then lead, once elected."""
        _follow_tasks()
        token = _INSTANCE.set(self)
        try:
            self.feed.start()
            self._begin(self.resync.run())
            self._begin(self._events.run())
            self._begin(self._lead())
        finally:
            _INSTANCE.reset(token)

    async def stop(self) -> None:
        """End as on SIGTERM: what runs may finish, and the lease is given back."""
        self.leads = False
        self.feed.stop()
        for task in self._beside:
            task.cancel()
        await self._workers.stop()
        if self.lease.holds():
            await self.reconciler.hand_over(1.0)
        await self.reconciler.close()
        await self.lease.give_back()
        self.client.kill()

    def kill(self) -> None:
        """End at once, as by SIGKILL."""
        self.client.kill()

    # --- inside -----------------------------------------------------------------------------------

    def _begin(self, what: Coroutine[Any, Any, Any]) -> None:
        self._beside.append(asyncio.get_running_loop().create_task(what))

    async def _lead(self) -> None:
        await self.resync.ready.wait()
        if self._elected:
            await self.lease.acquire()
            self._begin(self._hold())
        complete = await self.resync.once()
        while not complete:
            await asyncio.sleep(1.0)
            complete = await self.resync.once()
        self.leads = True
        self._workers.start()
        self._begin(self._accelerators.run())
        await self._collector.run()

    def _accelerator_failed(self, fault: AcceleratorFault) -> None:
        for key in deployments_on(self.store, fault.node):
            self.queue.add(key)

    async def _hold(self) -> None:
        self.lost_lease = await self.lease.hold()
        self.kill()

    def _crashed(self, crash: CrashError) -> None:
        self.crash = crash
        self.leads = False
        self.feed.stop()
        self.queue.close()
        for task in self._tasks:
            if not task.done() and task is not asyncio.current_task():
                task.cancel()
        self.ended.set()

    def _deliver(self, kind: Kind, type_: str, obj: Obj) -> None:
        self.intake.deliver(kind, EventType(type_ or "LISTED"), obj)

    def follow(self, task: "asyncio.Task[Any]") -> None:
        """Remember a task that this replica made."""
        self._tasks.add(task)


def _follow_tasks() -> None:
    """Let every replica know its own tasks, so that its death ends them all."""

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **more)
        instance = _INSTANCE.get()
        if instance is not None:
            instance.follow(task)
        return task

    asyncio.get_running_loop().set_task_factory(make)
