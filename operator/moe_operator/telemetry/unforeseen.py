"""What becomes of an error that nobody foresaw in what a pod or an exporter answers: it costs that answer, and neither
the loop nor the process, whose successor would meet the same answer."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from moe_operator.telemetry.ignored import Counts, Ignored, OnIgnored

log = logging.getLogger(__name__)

#: That are remembered as said, so that names which come and go do not grow it.
_MOST_SAID = 10_000


class Unforeseen:
    """Counts such errors, and logs the first of each who."""

    def __init__(self, on_ignored: OnIgnored) -> None:
        self._on_ignored = on_ignored
        self._said: set[str] = set()

    @contextmanager
    def of(self, who: str) -> Iterator[None]:
        """Ends what is within where it raises; cancellation passes. `who`: whose answer it is, for the log."""
        try:
            yield
        except Exception as error:
            self._on_ignored(Counts([Ignored.UNFORESEEN]))
            if who not in self._said and len(self._said) < _MOST_SAID:
                self._said.add(who)
                log.exception(
                    "what %s answers is not used, as it raised %s; said once, counted in"
                    " moe_operator_telemetry_ignored_total",
                    who,
                    type(error).__name__,
                )
