"""The objective's budget of late requests: how it is spent decides what avoiding another is worth. Pure."""

import math
from dataclasses import dataclass

#: Share of requests that may be late.
ALLOWED = 0.01
#: Share that is aimed at: what is left is for what nobody can foresee.
AIMED = 0.008
#: Requests count half after so many seconds.
HALF_LIFE = 8 * 3600.0
#: Seconds of requests that count as late as aimed at before any was seen.
PRIOR_SECONDS = 7200.0
#: How the worth goes with the share spent: exp(_GAIN x (share / AIMED - 1)), within limits.
_GAIN, _LEAST, _MOST = 4.0, 0.12, 1.2


@dataclass
class Budget:
    """Late requests, and those that were judged; decaying sums."""

    late: float = 0.0
    judged: float = 0.0
    _at: float | None = None

    def observed(self, late: float, judged: float, now: float) -> None:
        """Take up what was judged since the last time."""
        kept = 1.0 if self._at is None else 0.5 ** (max(0.0, now - self._at) / HALF_LIFE)
        self._at = now
        self.late = self.late * kept + late
        self.judged = self.judged * kept + judged

    def spent(self, rate: float) -> float:
        """Share of requests that was late; `rate`: requests per second now, for the prior's weight."""
        before = max(rate, 1e-3) * PRIOR_SECONDS
        return (self.late + before * AIMED) / (self.judged + before)

    def factor(self, rate: float) -> float:
        """How many times its usual worth it is to avoid a late request."""
        return min(max(math.exp(_GAIN * (self.spent(rate) / AIMED - 1)), _LEAST), _MOST)
