"""How long a failing container waits before its next start."""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds; a kubelet's own constants.
INITIAL = 10.0
MAXIMUM = 300.0


@dataclass
class BackOff:
    """One container's CrashLoopBackOff (or an image's pull back-off).

    The first restart is immediate; each later one waits twice as long after the last end as the one before it, up to
    ``maximum``. A container that ran for twice ``maximum`` since its last back-off starts afresh.
    All times are seconds of one monotonic clock.
    """

    initial: float = INITIAL
    maximum: float = MAXIMUM
    _delay: float = 0.0
    _updated: float = 0.0

    def _expired(self, ended: float) -> bool:
        return ended - self._updated > 2 * self.maximum

    def remaining(self, ended: float, now: float) -> float:
        """Seconds still to wait for a container that ended at ``ended``; 0 when it may start."""
        if self._delay == 0 or self._expired(ended):
            return 0.0
        return max(0.0, ended + self._delay - now)

    @property
    def delay(self) -> float:
        """The delay now in force, for messages."""
        return self._delay

    def started(self, ended: float, now: float) -> None:
        """Record a start that follows an end at ``ended``."""
        if self._delay == 0 or self._expired(ended):
            self._delay = self.initial
        else:
            self._delay = min(2 * self._delay, self.maximum)
        self._updated = now
