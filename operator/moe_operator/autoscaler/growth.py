"""How demand turned out against what was forecast a lead time before: a distribution learned from the deployment's own
past, with a prior that counts for two hours: one surge is one event, however many looks it lasted.

`Growth` holds the ratio of what came to what was forecast. Whatever a forecast lacks - bias, noise, a trend that it
does not see - is in its ratios, so it needs no margin of its own.
"""

import math
from collections.abc import Sequence

from moe_operator.autoscaler.decayed import Decayed

#: Bins of the ratio's logarithm: from 0.4 to 6 times.
_LOW, _HIGH, _BINS = -0.9, 1.8, 90
_WIDTH = (_HIGH - _LOW) / _BINS
_RATIOS = tuple(math.exp(_LOW + (at + 0.5) * _WIDTH) for at in range(_BINS))
#: Seconds of observations that weigh half after so long: a day's habits, a week's not.
HALF_LIFE = 6 * 3600.0
#: Seconds of observations that the prior counts for.
PRIOR_SECONDS = 7200.0
#: Of the prior: the logarithm's deviation over ten minutes for most of the time, and for the rest of it. Production
#: rates of four ServeGen models grow 1.19 times over ten minutes at the 90th percentile and 1.92 times at the 99th.
_USUAL, _RARE, _RARE_SHARE = 0.15, 0.42, 0.08
_SPAN = 600.0
#: Where the distribution is cut for `points`: finer where it hurts.
_EDGES = (0.35, 0.6, 0.75, 0.85, 0.92, 0.96, 0.985, 1.0)

Points = tuple[tuple[float, float], ...]


class Growth:
    """Ratios of what came to what was forecast `lead` seconds before. `highest`: the highest within the lead counts,
    not what came at its end."""

    def __init__(self, lead: float, *, highest: bool) -> None:
        self.lead = lead
        self._prior = _prior(lead, highest)
        self._seen = Decayed(_BINS, HALF_LIFE)

    def observed(self, ratio: float, seconds: float, now: float) -> None:
        """`seconds` in which it was so."""
        if ratio > 0:
            self._seen.add(int((math.log(ratio) - _LOW) / _WIDTH), seconds, now)

    def points(self, now: float) -> Points:
        """The distribution in a few points: (mean ratio of a part, its probability), ascending."""
        seen = self._seen.present(now)
        whole = sum(seen) + PRIOR_SECONDS
        found: list[tuple[float, float]] = []
        edge, passed, weight, moment = 0, 0.0, 0.0, 0.0
        for ratio, mine, prior in zip(_RATIOS, seen, self._prior, strict=True):
            left = (mine + prior * PRIOR_SECONDS) / whole
            while left > 0:
                room = _EDGES[edge] - passed if edge < len(_EDGES) - 1 else left
                taken = min(left, room)
                weight, moment, passed, left = (
                    weight + taken,
                    moment + taken * ratio,
                    passed + taken,
                    left - taken,
                )
                if edge < len(_EDGES) - 1 and taken == room:
                    if weight > 0:
                        found.append((moment / weight, weight))
                    edge, weight, moment = edge + 1, 0.0, 0.0
        if weight > 0:
            found.append((moment / weight, weight))
        return tuple(found)


def _prior(lead: float, highest: bool) -> Sequence[float]:
    """Weights that sum to 1: deviations grow with the root of the lead."""
    scale = math.sqrt(max(lead, 15.0) / _SPAN)
    usual, rare = _USUAL * scale, _RARE * scale
    shift = (0.45, 0.5) if highest else (0.0, 0.33)
    weights = []
    for at in range(_BINS):
        x = _LOW + (at + 0.5) * _WIDTH
        weights.append(
            (1 - _RARE_SHARE) * _bell(x, shift[0] * usual, usual)
            + _RARE_SHARE * _bell(x, shift[1] * rare, rare)
        )
    whole = sum(weights)
    return [each / whole for each in weights]


def _bell(x: float, middle: float, deviation: float) -> float:
    return math.exp(-0.5 * ((x - middle) / deviation) ** 2) / deviation
