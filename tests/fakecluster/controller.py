"""The frame of the cluster's own controllers: level-triggered, one key at a time, a small delay after each event."""

import asyncio
from collections.abc import Callable, Iterable

from fakecluster.api_server import ApiServer, Event

Key = tuple[str, str]
"""Namespace and name of what a controller works on; its own choice of object."""


class Timers:
    """Calls in the world's future, so that the world can be stopped at once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = False

    def after(self, seconds: float, do: Callable[[], object]) -> asyncio.TimerHandle:
        """Call `do` in so many seconds unless the world has stopped."""
        return self._loop.call_later(seconds, self._run, do)

    def every(self, seconds: float, do: Callable[[], None]) -> None:
        """Call `do` again and again."""

        def again() -> None:
            do()
            self.after(seconds, again)

        self.after(seconds, again)

    def stop(self) -> None:
        self._stopped = True

    def _run(self, do: Callable[[], object]) -> None:
        if not self._stopped:
            do()


class Controller:
    """Reads and writes the API server directly. Subclasses say which keys an event concerns, and sync one."""

    #: Seconds from an event to its sync.
    latency = 0.02

    def __init__(self, server: ApiServer, timers: Timers) -> None:
        self.server = server
        self.timers = timers
        self.name = type(self).__name__
        self._pending: dict[Key, float] = {}
        self._loop = asyncio.get_running_loop()
        server.listeners.append(self._listen)

    def keys(self, event: Event) -> Iterable[Key]:
        """What an event concerns."""
        raise NotImplementedError

    def sync(self, key: Key) -> None:
        """Bring one thing closer to what it should be. Must be safe to repeat."""
        raise NotImplementedError

    def again(self, key: Key, seconds: float | None = None) -> None:
        """Sync a key soon, once, however often it is asked; an earlier time already asked for stays."""
        due = self._loop.time() + (self.latency if seconds is None else seconds)
        if self._pending.get(key, float("inf")) <= due:
            return
        self._pending[key] = due
        self.timers.after(due - self._loop.time(), lambda: self._fire(key, due))

    def _listen(self, event: Event) -> None:
        for key in self.keys(event):
            self.again(key)

    def _fire(self, key: Key, due: float) -> None:
        if self._pending.get(key) == due:
            del self._pending[key]
            self.sync(key)
