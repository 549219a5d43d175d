"""The objective's budget of late requests: how it is spent decides what avoiding another is worth. Pure."""

import math
from dataclasses import dataclass, field

#: Share of requests that may be late.
ALLOWED = 0.01
#: Share that is aimed at: what is left is for what nobody can foresee.
AIMED = 0.008
#: Requests count half after so many seconds, for the budget and for how it is spent lately.
HALF_LIFE, LATELY = 8 * 3600.0, 3600.0
#: Seconds of requests that count as late as aimed at before any was seen.
PRIOR_SECONDS = 4800.0
#: How the worth goes with the share spent: exp(_GAIN x (share / AIMED - 1)), within limits.
_GAIN, _LEAST, _MOST = 4.0, 0.1, 1.2
#: Share that may be late at the load as it is expected to be, while as many were late lately as is aimed at; for each
#: one more that was, one less may be; and its limits. What is bought against these helps for certain. Not so against
#: surges: one that nothing could have met would buy groups for hours.
_STEADY, _STEADY_LEAST, _STEADY_MOST = 0.009, 0.005, 0.015
#: More than any limit's logarithm.
_ANY = 10.0


@dataclass
class Spent:
    """Late requests, and those that were judged: sums that halve every `half_life` seconds."""

    half_life: float
    late: float = 0.0
    judged: float = 0.0
    at: float | None = None

    def observed(self, late: float, judged: float, now: float) -> None:
        """Take up what was judged since the last time."""
        kept = 1.0 if self.at is None else 0.5 ** (max(0.0, now - self.at) / self.half_life)
        self.at = now
        self.late = self.late * kept + late
        self.judged = self.judged * kept + judged

    def present(self, now: float) -> "Spent":
        """The sums as they count now."""
        spent = Spent(self.half_life, self.late, self.judged, self.at)
        spent.observed(0.0, 0.0, now)
        return spent

    def share(self, rate: float) -> float:
        """Of requests that was late; `rate`: requests per second now, for the prior's weight."""
        before = max(rate, 1e-3) * PRIOR_SECONDS
        return (self.late + before * AIMED) / (self.judged + before)


@dataclass
class Budget:
    """How it was spent over hours, and lately."""

    long: Spent = field(default_factory=lambda: Spent(HALF_LIFE))
    lately: Spent = field(default_factory=lambda: Spent(LATELY))

    def observed(self, late: float, judged: float, now: float) -> None:
        """Take up what was judged since the last time."""
        self.long.observed(late, judged, now)
        self.lately.observed(late, judged, now)

    def spent(self, rate: float) -> float:
        """Share of requests that was late over hours."""
        return self.long.share(rate)

    def factor(self, rate: float) -> float:
        """How many times its usual worth it is to avoid a late request."""
        return min(max(_grown(_GAIN, self.long.share(rate) / AIMED), _LEAST), _MOST)

    def steady(self, rate: float) -> float:
        """Share of requests that may be late at the load as it is expected to be."""
        return min(max(_STEADY + AIMED - self.lately.share(rate), _STEADY_LEAST), _STEADY_MOST)


def _grown(gain: float, spent: float) -> float:
    return math.exp(min(gain * (spent - 1), _ANY))
