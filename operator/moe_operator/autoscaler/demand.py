"""What a deployment is asked for, in groups: the load that its groups show, and what is arriving. Pure.

The level is the sum of the groups' shares: absolute, so a group that starts or goes does not change it. Arrivals tell
of a change before requests have filled the groups; Little's law prices them: level = arrivals x work, so work (group
seconds for each request) is learned as the ratio of both while nothing is saturated. Shares far below the load that
groups are kept at are doubtful (`capacity.certainty`); there arrivals are the better figure.

A full group says that it is full, not how many more there should be, and what has piled up in it no other group can
take over. So once groups are full a share counts for little more than one, and arrivals tell the rest: priced by what
was learned before, or by how many come for each that ends.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from moe_operator.autoscaler.capacity import certainty
from moe_operator.autoscaler.group_window import UNSEEN, GroupLoad

#: Seconds over which arrivals are averaged.
ARRIVALS = 60.0
#: Seconds over which work is learned.
WORK = 600.0
#: The most that a group's share counts for.
_FULL = 1.3
#: Requests that come for each that ends, at most: more is a beginning, or a figure gone wrong.
_PRESSURE = 4.0
#: Seconds of looks at groups that were not full from which on work is known.
_KNOWN = 300.0
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
    """Arrivals times work: where the level is heading. 0 while work is not known."""
    waiting: float
    """Requests."""
    load: float
    """Mean share of the groups that serve."""
    saturated: bool
    pressure: float
    """Requests that came for each that ended, over ARRIVALS; 1 to _PRESSURE."""
    lasts: float
    """Seconds that a request is at work, by Little's law; infinite while none ends."""
    late_first: float
    late_tokens: float
    judged: float
    """Requests, since the last look."""
    seen: bool = True
    """Whether that was lately: else what came since, and how long steps took, is of a time before."""

    @property
    def late(self) -> float:
        """Requests, since the last look."""
        return self.late_first + self.late_tokens

    @property
    def value(self) -> float:
        """The best figure of what is asked for now."""
        return max(self.level * self.pressure, self.arriving) if self.saturated else self.level


@dataclass
class DemandMeter:
    """Turns looks at groups into demand. Remembers minutes of arrivals, and the work of a request."""

    _arrivals: deque[tuple[float, float, float, float]] = field(default_factory=deque)
    """(time, seconds, requests that came per second, and that ended)."""
    _calm: float = 0.0
    """Seconds of looks from which work was learned."""
    _levels: float = 0.0
    _rates: float = 0.0
    """Decaying sums of level and arrivals."""
    _at: float | None = None

    @property
    def work(self) -> float | None:
        """Group seconds that a request takes; None while unknown."""
        return self._levels / self._rates if self._rates > 0 and self._calm >= _KNOWN else None

    def look(
        self, now: float, serving: Sequence[GroupLoad | None], draining: Sequence[GroupLoad]
    ) -> Demand | None:
        """Demand as of now; None where no serving group says anything."""
        seen = [load for load in serving if load is not None]
        if not seen:
            return None
        passed = 15.0 if self._at is None else max(1e-3, now - self._at)
        self._at = now
        in_sight = passed <= UNSEEN
        everyone = [*seen, *draining]
        blind = len(serving) - len(seen)
        on_seen = sum(_full_groups(load) for load in seen)
        scale = 1 + blind / len(seen)
        level = on_seen * scale + sum(_full_groups(load) for load in draining)
        waiting = sum(load.waiting for load in everyone)
        mean = on_seen / sum(load.worth for load in seen)
        saturated = waiting > _WAITING * len(seen) or mean > 1
        came = sum(load.arrivals for load in everyone) * scale
        judged = sum(load.judged for load in everyone)
        if in_sight:
            self._arrivals.append((now, passed, came, judged * scale / passed))
        while self._arrivals and self._arrivals[0][0] <= now - ARRIVALS:
            self._arrivals.popleft()
        seconds = sum(each for _, each, _, _ in self._arrivals) or 1.0
        arrivals = sum(each * rate for _, each, rate, _ in self._arrivals) / seconds
        ended = sum(each * rate for _, each, _, rate in self._arrivals) / seconds
        if in_sight and not saturated and not blind:
            kept = 0.5 ** (passed / WORK)
            worth = passed * certainty(mean)
            self._levels = self._levels * kept + level * worth
            self._rates = self._rates * kept + came * worth
            self._calm += passed
        arriving = min(arrivals * (self.work or 0.0), _FULL * _PRESSURE * len(everyone))
        if arriving > 0:
            sure = certainty(mean)
            level = sure * level + (1 - sure) * arriving
        return Demand(
            level=level,
            arrivals=arrivals,
            arriving=arriving,
            waiting=waiting,
            load=mean,
            saturated=saturated,
            pressure=_pressure(arrivals, ended),
            lasts=sum(load.at_work for load in everyone) / ended if ended > 0 else math.inf,
            late_first=sum(load.late_first for load in everyone),
            late_tokens=sum(load.late_tokens for load in everyone),
            judged=judged,
            seen=in_sight,
        )


def _pressure(arrivals: float, ended: float) -> float:
    if not arrivals > 0:
        # Nothing comes, or nothing was counted yet: no reason to think that more will.
        return 1.0
    return min(max(arrivals / ended, 1.0), _PRESSURE) if ended > 0 else _PRESSURE


def _full_groups(load: GroupLoad) -> float:
    return load.worth * min(load.share.value, _FULL)
