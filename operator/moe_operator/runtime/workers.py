"""Workers: take keys from the queue and reconcile them, each key by one worker at a time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from moe_operator.controller.kube import KubeError
from moe_operator.controller.store import Key
from moe_operator.runtime.logs import bound_key
from moe_operator.runtime.queue import KeyedQueue, QueueClosedError

log = logging.getLogger(__name__)

#: Seconds after which a reconcile is cancelled and tried again: its requests are bounded, so it is at fault.
DEADLINE = 240.0


class Requeue(Protocol):
    """What a reconcile answers: when to look again at the latest, in seconds, or None."""

    @property
    def requeue_after(self) -> float | None: ...


class WorkerObserver(Protocol):
    """Told what the workers do."""

    def reconciled(self, outcome: str, seconds: float, waited: float) -> None:
        """One reconcile ended; outcome: success, requeue, error or timeout."""


Reconcile = Callable[[Key], Awaitable[Requeue]]


class Workers:
    """Runs `reconcile` for the keys of a queue until stopped."""

    def __init__(
        self,
        queue: KeyedQueue[Key],
        reconcile: Reconcile,
        *,
        count: int,
        jitter: Callable[[], float],
        observer: WorkerObserver,
        deadline: float = DEADLINE,
    ) -> None:
        """`jitter` gives numbers in [0, 1)."""
        self._queue = queue
        self._reconcile = reconcile
        self._count = count
        self._jitter = jitter
        self._observer = observer
        self._deadline = deadline
        self._running: dict[Key, float] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to work. Not to be called twice."""
        self._tasks = [asyncio.create_task(self._work(), name=f"worker {i}") for i in range(self._count)]

    async def stop(self, grace: float = 1.0) -> None:
        """Take no more keys; what runs gets `grace` seconds to end and is then cancelled."""
        self._queue.close()
        if not self._tasks:
            return
        _, pending = await asyncio.wait(self._tasks, timeout=grace)
        for task in pending:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def longest(self) -> tuple[Key, float] | None:
        """The reconcile that has run for longest, and its seconds."""
        if not self._running:
            return None
        key = min(self._running, key=self._running.__getitem__)
        return key, asyncio.get_running_loop().time() - self._running[key]

    async def _work(self) -> None:
        while True:
            try:
                key, waited = await self._queue.get()
            except QueueClosedError:
                return
            try:
                await self._one(key, waited)
            finally:
                self._queue.done(key)
            # A reconcile that finds nothing to do never waits for anything: a thousand of them in a row would
            # keep the loop from renewing the lease.
            await asyncio.sleep(0)

    async def _one(self, key: Key, waited: float) -> None:
        started = self._running[key] = asyncio.get_running_loop().time()
        outcome = "error"
        try:
            with bound_key(key):
                try:
                    async with asyncio.timeout(self._deadline) as limit:
                        result = await self._reconcile(key)
                except KubeError as error:
                    # Known troubles of the API server: one line. It may have said how long to wait.
                    wait = self._queue.retry(key, self._jitter(), error.retry_after or 0.0)
                    log.warning("reconcile failed, trying again in %.1f s: %s", wait, error)
                    return
                except Exception as error:
                    wait = self._queue.retry(key, self._jitter())
                    if isinstance(error, TimeoutError) and limit.expired():
                        outcome = "timeout"
                        log.error(
                            "reconcile cancelled, trying again in %.1f s: it took %.0f s",
                            wait,
                            self._deadline,
                        )
                    else:
                        log.exception("reconcile failed, trying again in %.1f s", wait)
                    return
            self._queue.forget(key)
            outcome = "success"
            if result.requeue_after is not None:
                outcome = "requeue"
                self._queue.add_after(key, result.requeue_after)
        finally:
            del self._running[key]
            self._observer.reconciled(outcome, asyncio.get_running_loop().time() - started, waited)
