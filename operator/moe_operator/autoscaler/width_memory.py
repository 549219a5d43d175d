"""What a width is decided on (`width.Grounds`), apart from the process that saw it. Pure.

Of the distribution of demand only quantiles are kept, as places of its bins: 63 of the same share, and finer ones of
the 64th that is asked for most, as peaks rule a width out. What another width costs is a mean of whole groups over it,
so what a chunk leaves out is at most half of one, at each number of groups: a hundredth of the mean or two. Demand that
stays where it is keeps its place exactly. It takes 136 characters, whatever was asked.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moe_operator.autoscaler import width
from moe_operator.autoscaler.decayed import Decayed
from moe_operator.autoscaler.width import Grounds, History, Leaning, MixMeter
from moe_operator.planner.group_capacity import RequestMix

#: Of all time, from the least that was asked to the most: the last one is as rare as what rules a width out.
CHUNKS = (1 / 64,) * 63 + (1 / 128, 1 / 256, 1 / 512, 1 / 1024, 1 / 1024)
#: What is seen counts as this many seconds at most, in what is needed before anything is said.
_MOST_SEEN = 2.0
#: Differences that are worth a write (see `memory.moved`): of demand (shares of its mean and of its highest), of the
#: mean lengths of requests (logarithm), of their number where it is too small (logarithm), of the share of prompts that
#: was cached, of what was seen (a part of what is needed), and of what will be recommended (a part of the time for
#: which it has to be so).
_DEMAND, _HIGHEST, _LENGTH, _COUNT, _CACHED, _SEEN, _LEANS = 0.05, 0.15, 0.1, 0.5, 0.05, 1 / 12, 0.25
#: Groups: less than that is as good as nothing.
_LITTLE = 0.1


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of groups of one width, as of one moment."""

    seconds: float
    """Seen, as far as it matters whether that is enough."""
    weight: float
    """Seconds that were seen, as they count now."""
    demand: tuple[int, ...]
    """The bin of each of CHUNKS; none: nothing was seen."""
    mix: tuple[float, ...] = (0.0,) * 4
    """Requests that ended, and their tokens: of prompts, of these cached, of outputs."""
    leaning: Leaning | None = None

    def aged(self, seconds: float) -> "Asked":
        """As it counts so many seconds later, if nothing was seen meanwhile."""
        left = 0.5 ** (seconds / width.HALF_LIFE)
        return replace(
            self,
            seconds=self.seconds * left,
            weight=self.weight * left,
            mix=tuple(each * left for each in self.mix),
            leaning=self.leaning if seconds < width.FOR else None,
        )

    @property
    def lengths(self) -> RequestMix | None:
        """Of requests; None while too few have ended."""
        return MixMeter(self.mix).mix


NOTHING = Asked(0.0, 0.0, ())


def asked(grounds: Grounds, now: float) -> Asked:
    """What it rests on by now, by the clock of what it was shown."""
    history = grounds.history
    weights = history._weights.present(now)
    if sum(weights) <= 0:
        return NOTHING
    return Asked(
        seconds=min(history.seconds, _MOST_SEEN * width.EVIDENCE),
        weight=sum(weights),
        demand=_places(weights),
        mix=grounds.meter.present(now),
        leaning=grounds.leaning,
    )


def grounds_of(memory: Asked, now: float) -> Grounds:
    """What is rested on by who remembers that, by a clock of its own."""
    bins = [0.0] * (width._BINS + 1)
    for at, share in zip(memory.demand, CHUNKS, strict=False):
        bins[at] += memory.weight * share
    history = History(seconds=memory.seconds)
    history._weights = Decayed(len(bins), width.HALF_LIFE, bins, now)
    return Grounds(history, MixMeter(memory.mix, now), memory.leaning)


def _places(weights: Sequence[float]) -> tuple[int, ...]:
    """The bin in the middle of each chunk."""
    total, at, upto, reached = sum(weights), 0, weights[0], 0.0
    found = []
    for chunk in CHUNKS:
        while upto < (reached + chunk / 2) * total and at < len(weights) - 1:
            at += 1
            upto += weights[at]
        found.append(at)
        reached += chunk
    return tuple(found)


def apart(before: Asked, now: Asked) -> float:
    """How far two are apart: from 1 on it is worth a write."""
    if bool(before.demand) is not bool(now.demand):
        return math.inf
    seen = min(now.seconds, width.EVIDENCE) - min(before.seconds, width.EVIDENCE)
    found = [
        abs(seen) / (_SEEN * width.EVIDENCE),
        _leaning_apart(before.leaning, now.leaning),
        _lengths_apart(before, now),
    ]
    if now.demand:
        groups = [[width._middle(at) for at in each.demand] for each in (before, now)]
        by = sum(share * abs(a - b) for share, a, b in zip(CHUNKS, *groups, strict=True))
        mean = max(sum(share * a for share, a in zip(CHUNKS, each, strict=True)) for each in groups)
        low, high = sorted(each[-1] for each in groups)
        found += [by / (_LITTLE + mean) / _DEMAND, (high - low) / (_LITTLE + high) / _HIGHEST]
    return max(found)


def _lengths_apart(before: Asked, now: Asked) -> float:
    one, other = before.lengths, now.lengths
    if one is None or other is None:
        # Of too few requests nothing is said: whether they are too few is no matter of one more or less.
        return 0.0 if one is other else abs(math.log((before.mix[0] + 1) / (now.mix[0] + 1))) / _COUNT
    return max(
        abs(math.log(one.prompt / other.prompt)) / _LENGTH,
        abs(math.log(one.output / other.output)) / _LENGTH,
        abs(one.cached - other.cached) / _CACHED,
    )


def _leaning_apart(before: Leaning | None, now: Leaning | None) -> float:
    """One that comes and goes is none of long: only for so long as it has held it matters."""
    was, held = (one.held if one is not None else 0.0 for one in (before, now))
    same = before is not None and now is not None and before.gpus == now.gpus
    return (abs(was - held) if same else max(was, held)) / (_LEANS * width.FOR)
