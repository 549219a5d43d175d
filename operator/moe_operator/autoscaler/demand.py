"""What a deployment is asked for, in groups: the load that its groups show, and what is arriving. Pure.

The level is the sum of the groups' shares: absolute, so a group that starts or goes does not change it. Arrivals tell
of a change before requests have filled the groups; Little's law prices them: level = arrivals x work, so work (group
seconds for each request) is learned as the ratio of both while nothing is saturated. Once it is, shares stop growing,
and arrivals times work is the better figure.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from moe_operator.autoscaler.group_window import GroupLoad

#: Seconds over which arrivals are averaged.
ARRIVALS = 60.0
#: Seconds over which work is learned.
WORK = 600.0
#: Requests waiting for each group from which on it is saturated: fewer are an uneven moment.
_WAITING = 2.0


@dataclass(frozen=True, slots=True)
class Demand:
    """In groups, unless said otherwise."""

    level: float
    """Load on the groups; where some say nothing, as much on them as on the others."""
    arrivals: float
    """Requests per second, over ARRIVALS."""
    arriving: float
    """Arrivals times work: where the level is heading."""
    waiting: float
    """Requests."""
    load: float
    """Mean share of the groups that serve."""
    saturated: bool
    late: float
    judged: float
    """Requests, since the last look."""

    @property
    def value(self) -> float:
        """The best figure of what is asked for now."""
        return max(self.level, self.arriving) if self.saturated else self.level


@dataclass
class DemandMeter:
    """Turns looks at groups into demand. Remembers minutes of arrivals, and the work of a request."""

    _arrivals: deque[tuple[float, float, float]] = field(default_factory=deque)
    """(time, seconds, requests per second)."""
    _levels: float = 0.0
    _rates: float = 0.0
    """Decaying sums of level and arrivals."""
    _at: float | None = None

    @property
    def work(self) -> float | None:
        """Group seconds that a request takes; None while unknown."""
        return self._levels / self._rates if self._rates > 0 else None

    def look(self, now: float, serving: Sequence[GroupLoad | None], draining: Sequence[GroupLoad]) -> Demand | None:
        """Demand as of now; None where no serving group says anything."""
        seen = [load for load in serving if load is not None]
        if not seen:
            return None
        passed = 15.0 if self._at is None else max(1e-3, now - self._at)
        self._at = now
        everyone = [*seen, *draining]
        blind = len(serving) - len(seen)
        on_seen = sum(load.share.value for load in seen)
        level = on_seen * (1 + blind / len(seen)) + sum(load.share.value for load in draining)
        waiting = sum(load.waiting for load in everyone)
        mean = on_seen / len(seen)
        saturated = waiting > _WAITING * len(seen) or mean > 1
        self._arrivals.append((now, passed, sum(load.arrivals for load in everyone) * (1 + blind / len(seen))))
        while self._arrivals[0][0] <= now - ARRIVALS:
            self._arrivals.popleft()
        arrivals = sum(s * rate for _, s, rate in self._arrivals) / sum(s for _, s, _ in self._arrivals)
        if not saturated and not blind:
            kept = 0.5 ** (passed / WORK)
            self._levels = self._levels * kept + level * passed
            self._rates = self._rates * kept + self._arrivals[-1][2] * passed
        return Demand(
            level=level,
            arrivals=arrivals,
            arriving=arrivals * (self.work or 0.0),
            waiting=waiting,
            load=mean,
            saturated=saturated,
            late=sum(load.late for load in everyone),
            judged=sum(load.judged for load in everyone),
        )
