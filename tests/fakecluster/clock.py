"""Virtual time: an event loop whose clock jumps to the next timer as soon as nothing else is left to do."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

#: Wall-clock time at which every virtual world begins (2027-01-15T08:00:00Z), seconds since the epoch.
EPOCH = 1_800_000_000.0


class NothingLeftError(RuntimeError):
    """No timer and nothing to run: whatever is awaited can never happen."""


class _Selector(selectors.BaseSelector):
    """Waits by moving the clock. Knows no files but the loop's own wake-up pipe, which nothing writes to."""

    def __init__(self) -> None:
        self.loop: VirtualLoop | None = None
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._keys[fileobj] = key = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert self.loop is not None
        if timeout is None:
            raise NothingLeftError("the virtual world stands still: nothing is scheduled any more")
        if timeout > 0:
            self.loop.advance(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. Starts at 0."""

    def __init__(self) -> None:
        self._virtual_now = 0.0
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return self._virtual_now

    def advance(self, seconds: float) -> None:
        """Move the clock; the smallest step keeps rounding from standing still."""
        self._virtual_now += max(seconds, 1e-6)


class Clock:
    """The one clock of a world, as seconds since the epoch."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __call__(self) -> float:
        return EPOCH + self._loop.time()

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the world began."""
        return self._loop.time()


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a task ended with that nobody asked; a crash that was meant is no news."""
    error = context.get("exception")
    if error is None or isinstance(error, Exception):
        loop.default_exception_handler(context)


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end in a new virtual loop; whatever it left running is cancelled."""
    loop = VirtualLoop()
    loop.set_exception_handler(_complain)
    try:
        return loop.run_until_complete(main())
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        with suppress(NothingLeftError):
            loop.run_until_complete(_ended(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _ended(tasks: set["asyncio.Task[Any]"]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
