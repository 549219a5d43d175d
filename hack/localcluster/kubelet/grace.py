"""A termination grace period that can be shortened while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any


class Grace:
    """Ends ``seconds`` from now, or sooner if shortened."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + seconds
        self._changed = asyncio.Event()

    @property
    def left(self) -> float:
        """Seconds left; 0 when it is over."""
        return max(0.0, self._ends - self._loop.time())

    def shorten(self, seconds: float) -> None:
        """End ``seconds`` from now, unless that is later than before."""
        ends = self._loop.time() + seconds
        if ends < self._ends:
            self._ends = ends
            self._changed.set()
            self._changed = asyncio.Event()

    async def until(self, event: Awaitable[Any], at_least: float = 0.0) -> bool:
        """Wait for ``event`` within the period, and for ``at_least`` seconds however short it is.

        Returns whether it came. Does not cancel it.
        """
        waited = asyncio.ensure_future(event)
        floor = self._loop.time() + at_least
        while not waited.done():
            left = max(self._ends, floor) - self._loop.time()
            if left <= 0:
                return False
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait({waited, changed}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
        return True
