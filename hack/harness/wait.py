"""Waiting for a condition with a deadline; never for a span of time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class DeadlineError(AssertionError):
    """What was waited for did not come; the message says what, how long, and what was seen last."""


def wait_for(
    what: str,
    probe: Callable[[], T | None],
    *,
    seconds: float,
    every: float = 0.2,
    progress: Callable[[float], None] | None = None,
) -> T:
    """The first result of `probe` that is neither None nor False.

    Raises DeadlineError after `seconds`, with the last exception that `probe` raised, if any.
    """
    started = time.monotonic()
    last: Exception | None = None
    while True:
        try:
            found = probe()
            if found is not None and found is not False:
                return found
            last = None
        except (OSError, RuntimeError) as error:
            last = error
        elapsed = time.monotonic() - started
        if elapsed > seconds:
            detail = f"; last error: {last}" if last else ""
            raise DeadlineError(f"{what}: not within {seconds:g} s{detail}")
        if progress:
            progress(elapsed)
        time.sleep(every)
