"""How long to go on with a source that fails."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from moe_operator.catalog.weights_layout import Reason
from moe_operator.weights.errors import FetchError, InterruptedFetchError, TransientError

_FIRST, _LONGEST = 0.5, 20.0
_LONGEST_ASKED = 600.0  # the hub's rate limits count windows of five minutes
_T = TypeVar("_T")


class Patience:
    """Back-off for one piece of work: it ends after `limit` seconds without progress.

    Time that a server asked for (Retry-After) is not counted, up to ten minutes in all.
    """

    def __init__(
        self, limit: float, stop: threading.Event, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit, self._stop, self._clock = limit, stop, clock
        self.progressed()

    def progressed(self) -> None:
        """Something new arrived: the count begins again."""
        self._failures, self._asked, self._since = 0, 0.0, self._clock()

    def wait(self, error: TransientError) -> None:
        """Sleep before the next try.

        Raises FetchError at the end of patience, InterruptedFetchError when told to stop.
        """
        asked = error.retry_after or 0.0
        self._asked += asked
        if self._asked > _LONGEST_ASKED:
            raise FetchError(
                Reason.UNREACHABLE, f"{error}; it asks to wait {self._asked:.0f} s. Try again later"
            )
        spent = self._clock() - self._since - (self._asked - asked)
        if spent >= self._limit:
            raise FetchError(
                Reason.UNREACHABLE,
                f"{error}; {self._failures + 1} tries in {spent:.0f} s without a byte. "
                "Check the address, the proxy (HTTPS_PROXY) and the network policy",
            )
        # Spread, so that many pods do not come back in one moment.
        pause = min(_FIRST * 2**self._failures, _LONGEST, max(self._limit - spent, 0.1))
        self._failures += 1
        if self._stop.wait(max(pause * random.uniform(0.5, 1.0), asked)):
            raise InterruptedFetchError


def persistently(work: Callable[[], _T], patience: Patience) -> _T:
    """The result of `work`, tried again while it fails transiently."""
    while True:
        try:
            return work()
        except TransientError as error:
            patience.wait(error)
