"""One instance of the operator in the in-memory cluster: everything but kopf and HTTP, as its own main wires it up."""

import asyncio
import random
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

from fakecluster.client import MemoryClient
from fakecluster.faults import CrashError, FaultPlan, WatchFaults
from fakecluster.watch import Feed
from fakecluster.world import World
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.controller.kube import EVENT, LEASE, Kind, Obj
from moe_operator.controller.reconcile import Reconciler, Result
from moe_operator.controller.store import Key, Store
from moe_operator.planner.plan import Refusal
from moe_operator.runtime.freshness import Freshness
from moe_operator.runtime.intake import Intake
from moe_operator.runtime.queue import KeyedQueue
from moe_operator.runtime.resync import Resync
from moe_operator.runtime.source import WATCHED_KINDS, EventType, selector
from moe_operator.runtime.workers import Workers

#: Which operator instance a task belongs to.
_INSTANCE: ContextVar["Operator | None"] = ContextVar("instance", default=None)

#: Seconds between two looks at the telemetry.
TELEMETRY = 5.0


@dataclass
class RecordedEvents:
    """What people were told."""

    events: list[tuple[str, str, str]] = field(default_factory=list)

    async def emit(self, regarding: ModelDeployment, type_: str, reason: str, action: str, note: str) -> None:
        self.events.append((type_, reason, note))


@dataclass
class Counting:
    """Counts what the runtime's parts tell their observers."""

    reconciles: int = 0
    errors: int = 0
    lost: int = 0
    """Deletions that only a resync found."""

    def reconciled(self, outcome: str, seconds: float, waited: float) -> None:
        self.reconciles += 1
        self.errors += outcome in ("error", "timeout")

    def watch_event(self, kind: str, type_: str) -> None:
        pass

    def resynced(self, outcome: str, seconds: float) -> None:
        pass

    def lost_deletions(self, kind: str, count: int) -> None:
        self.lost += count


async def _lws_is_there() -> Refusal | None:
    return None


class Operator:
    """Starts with an empty memory; ends by `stop`, `kill` or a crash of its fault plan."""

    def __init__(
        self,
        world: World,
        *,
        faults: FaultPlan | None = None,
        watch_faults: WatchFaults | None = None,
        seed: int = 0,
        workers: int = 4,
    ) -> None:
        self.world = world
        self.client = MemoryClient(
            world.server,
            faults,
            logs=world.kubelets.logs,
            on_crash=self._crashed,
            uncounted=frozenset({LEASE, EVENT}),
        )
        self.store = Store()
        self.queue: KeyedQueue[Key] = KeyedQueue()
        self.events = RecordedEvents()
        self.counting = Counting()
        self.alive = False
        self.crash: CrashError | None = None
        self.ended = asyncio.Event()
        self._random = random.Random(seed)
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._beside: list[asyncio.Task[None]] = []
        self.reconciler = Reconciler(
            self.client,
            self.store,
            load_catalog(),
            world.engine_client,
            self.events,
            snapshot=world.telemetry.snapshot,
            leader_worker_set=_lws_is_there,
            enqueue=self.queue.add,
            clock=world.clock,
        )
        self._workers = Workers(
            self.queue, self._reconcile, count=workers, jitter=self._random.random, observer=self.counting
        )
        freshness = Freshness(asyncio.get_running_loop().time)
        self.resync = Resync(
            self.client,
            self.store,
            freshness,
            self.queue.add,
            namespaces=(),
            observer=self.counting,
            draw=self._random.random,
        )
        self.intake = Intake(self.store, self.queue.add, freshness, self.counting, self.resync.request)
        self.feed = Feed(
            world.server, {kind: selector(kind) for kind in WATCHED_KINDS}, self._deliver, watch_faults
        )

    @property
    def faults(self) -> FaultPlan:
        return self.client.faults

    async def start(self) -> None:
        """List, watch, resync and work, as a leader does."""
        _follow_tasks()
        token = _INSTANCE.set(self)
        try:
            self.alive = True
            self._beside.append(asyncio.get_running_loop().create_task(self._main()))
        finally:
            _INSTANCE.reset(token)

    async def stop(self) -> None:
        """End cleanly: what runs may finish."""
        self.feed.stop()
        await self._workers.stop()
        await self.reconciler.close()
        await self.kill()

    async def kill(self) -> None:
        """End at once, as by SIGKILL."""
        self.client.kill()
        tasks = [t for t in self._tasks if not t.done() and t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _crashed(self, crash: CrashError) -> None:
        self.crash = crash
        self.alive = False
        self.feed.stop()
        self.queue.close()
        for task in self._tasks:
            if not task.done() and task is not asyncio.current_task():
                task.cancel()
        self.ended.set()

    async def _main(self) -> None:
        self.feed.start()
        loop = asyncio.get_running_loop()
        self._beside.append(loop.create_task(self.resync.run()))
        await self.resync.ready.wait()
        self._workers.start()
        self._beside.append(loop.create_task(self._look_at_telemetry()))

    async def _look_at_telemetry(self) -> None:
        while True:
            await asyncio.sleep(TELEMETRY)
            keys = self.store.keys()
            for key in keys:
                self.queue.add(key)

    def _deliver(self, kind: Kind, type_: str, obj: Obj) -> None:
        self.intake.deliver(kind, EventType(type_ or "LISTED"), obj)

    async def _reconcile(self, key: Key) -> Result:
        return await self.reconciler.reconcile(key)

    @property
    def writes_made(self) -> list[str]:
        """Its counted writes, for messages."""
        return [str(w) for w in self.client.writes]

    def follow(self, task: "asyncio.Task[Any]") -> None:
        """Remember a task that this instance made."""
        self._tasks.add(task)


def _follow_tasks() -> None:
    """Let every operator instance know its own tasks, so that its death ends them all."""

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **more)
        instance = _INSTANCE.get()
        if instance is not None:
            instance.follow(task)
        return task

    asyncio.get_running_loop().set_task_factory(make)
