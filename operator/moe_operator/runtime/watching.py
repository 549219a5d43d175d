"""Keeps the source watching: starts it again when it ends, and when what can be watched changes."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from moe_operator.controller.kube import Kind
from moe_operator.runtime.source import Deliver, Source

log = logging.getLogger(__name__)

#: Seconds that a run must last to count as a recovery.
SOUND = 120.0
#: Seconds before the second try, doubled up to the second figure.
BACK_OFF = (1.0, 30.0)
#: Seconds from a start to the resync that finds what was deleted before the watch began.
SETTLE = 15.0


class WatchingObserver(Protocol):
    """Told of every start."""

    def watch_started(self) -> None:
        """The watches begin, or begin anew."""


class Watching:
    """Runs one source at a time."""

    def __init__(
        self,
        source: Source,
        deliver: Deliver,
        kinds: Callable[[], Iterable[Kind]],
        *,
        resync: Callable[[float], None],
        observer: WatchingObserver,
        jitter: Callable[[], float],
    ) -> None:
        """`kinds`: what can be watched now; `resync` asks for a resync within some seconds; `jitter`: in [0, 1)."""
        self._source = source
        self._deliver = deliver
        self._kinds = kinds
        self._resync = resync
        self._observer = observer
        self._jitter = jitter
        self._again = asyncio.Event()
        self._failing_since: float | None = None
        self._started_at: float | None = None
        self.watched: list[Kind] = []
        """The kinds that are watched at the moment."""

    def restart(self) -> None:
        """Begin anew, with what can be watched by now."""
        self._again.set()

    def down_for(self) -> float:
        """Seconds since the source began to fail; 0 while it runs soundly."""
        if self._failing_since is None:
            return 0.0
        now = asyncio.get_running_loop().time()
        if self._started_at is not None and now - self._started_at >= SOUND:
            return 0.0
        return now - self._failing_since

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            self._again.clear()
            self.watched = list(self._kinds())
            if not self.watched:
                await self._again.wait()
                continue
            log.info("watching %s", ", ".join(k.kind for k in self.watched))
            self._observer.watch_started()
            self._resync(SETTLE)
            self._started_at = loop.time()
            failure = await self._one()
            lasted = loop.time() - self._started_at
            self._started_at = None
            if failure is None:
                continue
            if lasted >= SOUND or self._failing_since is None:
                self._failing_since = loop.time()
                failures = 0
            failures += 1
            first, most = BACK_OFF
            wait = min(most, first * 2.0 ** (failures - 1)) * (1 + 0.5 * self._jitter())
            log.warning("watching ended after %.0f s, again in %.1f s: %s", lasted, wait, failure)
            # Perhaps a kind went away or a right was taken: find out before the next try.
            self._resync(0.0)
            try:
                async with asyncio.timeout(wait):
                    await self._again.wait()
            except TimeoutError:
                pass

    async def _one(self) -> BaseException | None:
        """One run of the source: its failure, or None when a restart was asked for."""
        run = asyncio.create_task(self._source.run(self.watched, self._deliver), name="source")
        again = asyncio.create_task(self._again.wait())
        try:
            await asyncio.wait([run, again], return_when=asyncio.FIRST_COMPLETED)
            if run.done():
                return run.exception() or RuntimeError("the source returned")
            return None
        finally:
            again.cancel()
            run.cancel()
            await asyncio.wait([run])
