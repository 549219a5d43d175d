"""Which share of requests is late at which load: learned, with a prior.

Load is the groups' mean share (`capacity`). Where it begins to hurt depends on lengths, on how evenly ranks are loaded
and on the objective, so it is observed: late requests by bins of load, made to rise with load (pooling adjacent
violators), with a prior that counts for a few hundred requests in each bin.
"""

import math
from collections.abc import Sequence

from moe_operator.autoscaler.decayed import Decayed

_WIDTH, _BINS = 0.05, 32
#: Late requests come in bunches: so much of a request counts as an observation of its own.
_OWN = 0.05
#: Observations that the prior counts for in each bin.
_PRIOR_WEIGHT = 40.0
#: What a bin weighs beside others before anything was seen in it: it gives way to what was seen at lower loads.
_PULL = 1.0
#: Observations in a bin from which on it is known.
_KNOWN = 10.0
#: The prior: 2 % of requests are late at this load, and half of them `_STEEPNESS`/4 further on.
_KNEE, _KNEE_SHARE, _STEEPNESS = 0.86, 0.02, 22.0
HALF_LIFE = 2 * 3600.0


def prior(load: float) -> float:
    """Share of requests that is late before anything was seen."""
    return 1 / (1 + math.exp(-(_STEEPNESS * (load - _KNEE) + math.log(_KNEE_SHARE / (1 - _KNEE_SHARE)))))


_PRIOR = tuple(prior((at + 0.5) * _WIDTH) for at in range(_BINS))


class Lateness:
    """What was seen of late requests."""

    def __init__(self) -> None:
        self._late = Decayed(_BINS, HALF_LIFE)
        self._judged = Decayed(_BINS, HALF_LIFE)

    def observed(self, load: float, late: float, judged: float, now: float) -> None:
        """`late` of `judged` requests at a load."""
        at = int(load / _WIDTH)
        self._late.add(at, late * _OWN, now)
        self._judged.add(at, judged * _OWN, now)

    def curve(self, now: float) -> "Curve":
        """What is to be expected by load."""
        blocks: list[tuple[float, float, int]] = []
        seen = self._judged.present(now)
        for late, judged, before in zip(self._late.present(now), seen, _PRIOR, strict=True):
            block = ((late + before * _PRIOR_WEIGHT) / (judged + _PRIOR_WEIGHT), judged + _PULL, 1)
            while blocks and blocks[-1][0] > block[0]:
                value, other, count = blocks.pop()
                whole = other + block[1]
                block = ((value * other + block[0] * block[1]) / whole, whole, count + block[2])
            blocks.append(block)
        values = [value for value, _, count in blocks for _ in range(count)]
        known = [at for at, judged in enumerate(seen) if judged >= _KNOWN]
        # Beyond what is known at least in proportion to the load: so often a request meets what delays it, as a long
        # prompt of another.
        for at in range(known[-1] + 1, _BINS) if known else ():
            values[at] = max(values[at], min(1.0, values[known[-1]] * (at + 0.5) / (known[-1] + 0.5)))
        return Curve(values)


class Curve:
    """Share of late requests by load: linear between the bins' middles, never falling."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = tuple(values)

    def at(self, load: float) -> float:
        """0 to 1."""
        place = load / _WIDTH - 0.5
        if place <= 0:
            return self.values[0]
        below = int(place)
        if below >= _BINS - 1:
            return 1.0 if load > _BINS * _WIDTH else self.values[-1]
        low = self.values[below]
        return low + (self.values[below + 1] - low) * (place - below)
