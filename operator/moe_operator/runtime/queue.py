"""The keyed work queue, with the semantics of client-go's workqueue.

- A key that is added several times before it is taken is done once.
- A key is never done twice at once; added while it is being done, it is done exactly once more afterwards.
- A key added with a delay becomes ready at the earliest of the times asked for.
- Failures of a key delay its next try exponentially; success forgets them.

`QueueState` is the rules, without a loop or a clock; `KeyedQueue` lets coroutines wait on it.
"""

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: Seconds before the second try, doubled with every further one ...
BASE_DELAY = 0.1
#: ... up to this: after an outage of the API server everything is tried again within about a minute.
MAX_DELAY = 60.0


class QueueClosedError(Exception):
    """The queue was closed: nothing more will come."""


class QueueState(Generic[K]):
    """The rules of the queue as a value; times are seconds of any one clock."""

    def __init__(self) -> None:
        self._ready: OrderedDict[K, float] = OrderedDict()
        self._processing: set[K] = set()
        self._again: dict[K, float] = {}
        """Added while processing, and when."""
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        """Keys that are ready or will be as soon as they are done; delayed ones do not count."""
        return len(self._ready) + len(self._again)

    @property
    def ready(self) -> int:
        """Keys that could be taken now."""
        return len(self._ready)

    def add(self, key: K, now: float) -> None:
        """Make a key ready now."""
        if key in self._processing:
            self._again.setdefault(key, now)
        else:
            self._ready.setdefault(key, now)

    def add_at(self, key: K, due: float) -> None:
        """Make a key ready at a time; an earlier time already asked for stays."""
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, key))

    def promote(self, now: float) -> None:
        """Make ready what is due."""
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key, now)

    def next_due(self) -> float | None:
        """When the next delayed key becomes ready."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self) -> tuple[K, float] | None:
        """The key that has been ready for longest, and since when; it is being processed until `done`."""
        if not self._ready:
            return None
        key, since = self._ready.popitem(last=False)
        self._processing.add(key)
        return key, since

    def done(self, key: K) -> None:
        """A key that was taken has been processed."""
        self._processing.discard(key)
        since = self._again.pop(key, None)
        if since is not None:
            self._ready.setdefault(key, since)

    def failed(self, key: K, jitter: float) -> float:
        """Count a failure; seconds until the next try. `jitter` in [0, 1) spreads the tries by up to half."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        return min(MAX_DELAY, BASE_DELAY * 2.0 ** min(count, 30)) * (1 + 0.5 * jitter)

    def failures(self, key: K) -> int:
        """Failures in a row."""
        return self._failures.get(key, 0)

    def forget(self, key: K) -> None:
        """The key succeeded."""
        self._failures.pop(key, None)


class KeyedQueue(Generic[K]):
    """A QueueState that can be waited on. All methods must be called in the loop's thread."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        """`clock` must be the running loop's time (the default)."""
        self._clock = clock
        self._state: QueueState[K] = QueueState()
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._state)

    def add(self, key: K) -> None:
        """Have a key done as soon as a worker is free."""
        if self._closed:
            return
        self._state.add(key, self._now())
        self._wake()

    def add_after(self, key: K, delay: float) -> None:
        """Have a key done in `delay` seconds."""
        if delay <= 0:
            self.add(key)
        elif not self._closed:
            self._state.add_at(key, self._now() + delay)
            self._arm()

    def retry(self, key: K, jitter: float, at_least: float = 0.0) -> float:
        """Have a key that failed done again after its back-off; returns the seconds until then."""
        delay = max(self._state.failed(key, jitter), at_least)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key succeeded: its next failure starts with the shortest delay."""
        self._state.forget(key)

    def failures(self, key: K) -> int:
        """Failures in a row."""
        return self._state.failures(key)

    async def get(self) -> tuple[K, float]:
        """The next key and the seconds it has waited; call `done` afterwards.

        Raises QueueClosedError once the queue is closed.
        """
        while True:
            if self._closed:
                raise QueueClosedError
            taken = self._state.take()
            if taken:
                return taken[0], self._now() - taken[1]
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters[waiter] = None
            try:
                await waiter
            except asyncio.CancelledError:
                del self._waiters[waiter]
                self._wake()  # it may have been woken for a key that another can take
                raise
            del self._waiters[waiter]

    def done(self, key: K) -> None:
        """A key from `get` has been processed, well or not."""
        self._state.done(key)
        self._wake()

    def close(self) -> None:
        """Give out nothing more; those who wait get QueueClosedError."""
        self._closed = True
        if self._timer:
            self._timer.cancel()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _now(self) -> float:
        return self._clock() if self._clock else asyncio.get_running_loop().time()

    def _wake(self) -> None:
        """Wake as many who wait as there are keys, those first who have waited for longest."""
        free = self._state.ready
        for waiter in self._waiters:
            if free <= 0:
                break
            free -= 1
            if not waiter.done():
                waiter.set_result(None)

    def _arm(self) -> None:
        due = self._state.next_due()
        if self._timer and (due is None or self._timer.cancelled() or self._timer.when() != due):
            self._timer.cancel()
            self._timer = None
        if due is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(due, self._fire)

    def _fire(self) -> None:
        self._timer = None
        # The loop may call up to its clock's resolution too early: that is on time.
        self._state.promote(self._now() + 1e-3)
        self._wake()
        self._arm()
