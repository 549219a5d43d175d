"""Which share of requests is late at which load: learned, with a prior.

Load is the groups' mean share (`capacity`). Where it begins to hurt depends on lengths, on how evenly ranks are loaded
and on the objective, so it is observed, by bins of load. There are two kinds of late requests, which go with load in
two ways as long as nothing queues:

- a first token that is late by its own prompt's length is late at any load;
- tokens are late that meet long prompts of others, and so many do in proportion to the load.

So bins in which little was seen are taken to be as that model of the others says. Beyond, where queues begin, both are
made to rise with load (pooling adjacent violators), from a prior that counts for a few hundred requests in each bin.
"""

import math
from collections.abc import Sequence

from moe_operator.autoscaler.decayed import Decayed

_WIDTH, _BINS = 0.05, 32
#: Late requests come in bunches: so much of a request counts as an observation of its own.
_OWN = 0.05
#: Observations that the prior counts for in each bin, and where nothing queues that model.
_PRIOR_WEIGHT, _MODEL_WEIGHT = 40.0, 200.0
#: What a bin weighs beside others before anything was seen in it: it gives way to what was seen at lower loads.
_PULL = 1.0
#: Observations in a bin from which on it is known.
_KNOWN = 10.0
#: Load up to which nothing queues, and observations at half of it that say that no request is late.
_CALM, _CALM_WEIGHT = 0.6, 10.0
#: The prior: 2 % of requests are late at this load, and half of them `_STEEPNESS`/4 further on.
_KNEE, _KNEE_SHARE, _STEEPNESS = 0.86, 0.02, 22.0
HALF_LIFE = 2 * 3600.0


def prior(load: float) -> float:
    """Share of requests that is late before anything was seen."""
    return 1 / (1 + math.exp(-(_STEEPNESS * (load - _KNEE) + math.log(_KNEE_SHARE / (1 - _KNEE_SHARE)))))


_LOADS = tuple((at + 0.5) * _WIDTH for at in range(_BINS))
_PRIOR = tuple(map(prior, _LOADS))
_CALM_BINS = slice(0, round(_CALM / _WIDTH))
_WEIGHTS = tuple(_MODEL_WEIGHT if load < _CALM else _PRIOR_WEIGHT for load in _LOADS)


class Lateness:
    """What was seen of late requests."""

    def __init__(self) -> None:
        self._first = Decayed(_BINS, HALF_LIFE)
        self._tokens = Decayed(_BINS, HALF_LIFE)
        self._judged = Decayed(_BINS, HALF_LIFE)

    def observed(self, load: float, first: float, tokens: float, judged: float, now: float) -> None:
        """Of `judged` requests at a load `first` had a late first token, and `tokens` more had late tokens."""
        at = int(load / _WIDTH)
        self._first.add(at, first * _OWN, now)
        self._tokens.add(at, tokens * _OWN, now)
        self._judged.add(at, judged * _OWN, now)

    def curve(self, now: float) -> "Curve":
        """What is to be expected by load."""
        first, tokens, judged = (kept.present(now) for kept in (self._first, self._tokens, self._judged))
        calm = sum(judged[_CALM_BINS]) + _CALM_WEIGHT
        by_load = (
            sum(map(math.prod, zip(judged[_CALM_BINS], _LOADS, strict=False))) + _CALM_WEIGHT * _CALM / 2
        )
        own, slope = sum(first[_CALM_BINS]) / calm, sum(tokens[_CALM_BINS]) / by_load
        # Where nothing queues all the same: any difference would be paid for, and buy nothing.
        beyond = _rising(first, judged, [own] * _BINS)[_CALM_BINS.stop :]
        firsts = [own] * _CALM_BINS.stop + [max(own, each) for each in beyond]
        others = [max(before, slope * load) for before, load in zip(_PRIOR, _LOADS, strict=True)]
        late = _rising(tokens, judged, others)
        known = [at for at, each in enumerate(judged) if each >= _KNOWN]
        # Beyond what is known at least in proportion, too.
        for at in range(known[-1] + 1, _BINS) if known else ():
            late[at] = max(late[at], late[known[-1]] * _LOADS[at] / _LOADS[known[-1]])
        return Curve([min(1.0, both) for both in map(sum, zip(firsts, late, strict=True))])


def _rising(late: Sequence[float], judged: Sequence[float], prior: Sequence[float]) -> list[float]:
    """The share in each bin, none less than in those below it."""
    blocks: list[tuple[float, float, int]] = []
    for mine, seen, before, weight in zip(late, judged, prior, _WEIGHTS, strict=True):
        block = ((mine + before * weight) / (seen + weight), seen + _PULL, 1)
        while blocks and blocks[-1][0] > block[0]:
            value, other, count = blocks.pop()
            whole = other + block[1]
            block = ((value * other + block[0] * block[1]) / whole, whole, count + block[2])
        blocks.append(block)
    return [value for value, _, count in blocks for _ in range(count)]


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
