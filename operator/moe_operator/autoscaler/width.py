"""Whether groups of another width would serve the same demand with clearly fewer GPU-hours. Pure.

A wider group holds the weights once more thinly, so more of each GPU is left for the KV cache, and each step reads the
experts' weights for more requests; but it waits for more ranks, talks over more links, and is a coarser unit: part of a
group does not serve. Which of them wins depends on how much is asked, so demand is remembered as a distribution: in
groups of the present width, as measured and with the room that the autoscaler gives it. A model of the engine only says
how many groups of the present width one of another is worth, so its absolute errors cancel.

What that would cost in each width is a sum over the distribution, rounded up to whole groups and held within the
limits:

    GPU-hours a day = 24 x width x mean of groups(demand / worth)

`minGroups` counts groups of any width, as it is about how many may be lost at a time; `maxGroups` is a budget, so it
counts GPUs in groups of the planned width.

A change costs a rollout, and numbers are noisy: it has to save clearly, for long, and not soon after the last one.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from moe_operator.autoscaler.decayed import Decayed
from moe_operator.catalog.saturation import Resource
from moe_operator.planner.group_capacity import RequestMix

#: What was asked counts half after so many seconds: a day and its night are in it.
HALF_LIFE = 12 * 3600.0
#: Seconds of demand that have to be seen before anything is said.
EVIDENCE = 6 * 3600.0
#: Share of GPU-hours that another width has to save, and that it has to save still to stay recommended.
CLEARLY, STILL = 0.15, 0.05
#: Share of GPU-hours by which a width has to be better than one that is recommended already.
BETTER = 0.05
#: Seconds for which that has to be so.
FOR = 3600.0
#: Seconds between two changes of what is recommended.
BETWEEN = 6 * 3600.0
#: Seconds over which the most that was wanted counts: groups come at once and go slowly.
_LINGERS = 600.0
#: Seconds between two looks at all widths.
_EVERY = 120.0
#: Seconds that one sample counts for at most: what lies between two that are further apart was not seen.
_GAP = 60.0
#: Bins of the distribution: from _LEAST groups on, each so many times the one before.
_LEAST, _RATIO, _BINS = 0.01, 1.02, 560
#: Of the time, what the ceiling of another width may cut more of than that of the present one.
_RARE = 1e-3
#: Of a group, by which demand may exceed whole groups: bins are as coarse.
_SLACK = 0.02


@dataclass(frozen=True, slots=True)
class Option:
    """A width, and what a group of it takes."""

    gpus: int
    worth: float
    """In groups of the present width."""
    bound: Resource
    """What a group of it runs out of first."""
    kv_tokens: int
    """That the KV caches of a group hold."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the spec allows."""

    groups: int
    """Least, of any width."""
    gpus: int
    """Most, of all groups together."""

    def range(self, gpus: int) -> tuple[int, int] | None:
        """Least and most groups of a width; None where not even the least are within the limits."""
        least = max(1, self.groups)
        most = self.gpus // gpus
        return (least, most) if most >= least else None


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one width."""

    gpu_hours: float
    """A day."""
    most: int
    """Groups at the most that was asked."""
    cut: float
    """Share of the time in which more was asked than the limits allow."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Another width, and the numbers behind it."""

    option: Option
    costs: Costs
    present: Option
    now: Costs

    @property
    def saves(self) -> float:
        """Share of the GPU-hours."""
        return 1 - self.costs.gpu_hours / self.now.gpu_hours

    def words(self) -> str:
        """For people."""
        there, here = self.option, self.present
        text = (
            f"for what was asked of late, groups of {there.gpus} GPUs would take {self.costs.gpu_hours:.0f} GPU-hours"
            f" a day and groups of {here.gpus} take {self.now.gpu_hours:.0f} ({self.saves:.0%} less): at most"
            f" {_groups(self.costs.most)} of {there.gpus} GPUs in place of {self.now.most} of {here.gpus}; by estimate"
            f" a group of {there.gpus} serves what {there.worth:.2f} of {here.gpus} do"
        )
        if here.bound is Resource.KV_CACHE and there.gpus > here.gpus:
            text += (
                f", which run out of KV cache first ({here.kv_tokens} tokens in a group; one of {there.gpus} GPUs has"
                f" {there.kv_tokens})"
            )
        return text


@dataclass
class History:
    """What was wanted, in groups of the present width and parts of them, decaying."""

    _weights: Decayed = field(default_factory=lambda: Decayed(_BINS + 1, HALF_LIFE))
    _recent: deque[tuple[float, float]] = field(default_factory=deque)
    _at: float | None = None
    _since: float | None = None
    """When what is seen without a pause began."""
    seconds: float = 0.0
    """Seen in all."""

    def observed(self, now: float, wanted: float) -> None:
        """Take up a sample."""
        passed = 0.0 if self._at is None else min(max(0.0, now - self._at), _GAP)
        self._since = now if self._at is None else self._since
        self._at = now
        while self._recent and self._recent[-1][1] <= wanted:
            self._recent.pop()
        self._recent.append((now, wanted))
        while self._recent[0][0] < now - _LINGERS:
            self._recent.popleft()
        most = self._recent[0][1]
        at = 0 if most <= _LEAST else 1 + int(math.log(most / _LEAST) / math.log(_RATIO))
        self._weights.add(at, passed, now)
        self.seconds += passed

    @property
    def recent(self) -> float | None:
        """The most that was wanted in the last _LINGERS seconds. Where not all of them were seen, as by who has just
        taken over, the most of all that was; None where nothing was."""
        if self._at is not None and self._since is not None and self._at - self._since >= _LINGERS:
            return self._recent[0][1]
        every = [wanted for wanted, _ in self.shares()] + [wanted for _, wanted in self._recent]
        return max(every, default=None)

    def pause(self) -> None:
        """What is asked now says nothing of other times."""
        self._at = None

    def shares(self) -> list[tuple[float, float]]:
        """(groups wanted, share of the time)."""
        weights = self._weights.weights  # all of them decay alike
        total = sum(weights)
        if total <= 0:
            return []
        return [(_middle(at), weight / total) for at, weight in enumerate(weights) if weight > 0]


def _middle(at: int) -> float:
    return 0.0 if at == 0 else _LEAST * _RATIO ** (at - 0.5)


def needed(wanted: float, option: Option) -> int:
    """Groups of a width for so many of the present one."""
    return math.ceil(wanted / option.worth - _SLACK)


def costs(shares: Sequence[tuple[float, float]], option: Option, limits: Limits) -> Costs | None:
    """What a width would take for what was asked; None where the limits leave no room for it."""
    allowed = limits.range(option.gpus)
    if allowed is None or option.worth <= 0:
        return None
    least, most = allowed
    mean = cut = 0.0
    highest = least
    for wanted, share in shares:
        asked = max(least, needed(wanted, option))
        cut += share if asked > most else 0.0
        mean += share * min(asked, most)
        highest = max(highest, min(asked, most))
    return Costs(24 * option.gpus * mean, highest, cut)


def best(
    shares: Sequence[tuple[float, float]],
    present: Option,
    others: Sequence[Option],
    limits: Limits,
    advised: int | None = None,
) -> Advice | None:
    """The width to go to: the cheapest that saves clearly, or the one that is advised already, while that still saves
    and none is better. None: the present one will do."""
    here = costs(shares, present, limits)
    if here is None or here.gpu_hours <= 0:
        return None
    found = []
    for option in others:
        allowed, there = limits.range(option.gpus), costs(shares, option, limits)
        if allowed is None or allowed[0] == allowed[1]:
            continue  # with one number only nothing is measured, and nothing would lead back
        if there is not None and there.cut <= here.cut + _RARE:
            found.append(Advice(option, there, present, here))
    cheapest = min(found, key=lambda one: (one.costs.gpu_hours, one.option.gpus), default=None)
    kept = next((one for one in found if one.option.gpus == advised), None)
    if kept is not None and kept.saves >= STILL:
        better = cheapest is not None and cheapest.saves >= max(CLEARLY, kept.saves + BETTER)
        return cheapest if better else kept
    return cheapest if cheapest is not None and cheapest.saves >= CLEARLY else None


@dataclass
class MixMeter:
    """Means of the requests that end: from counters, decaying."""

    _sums: tuple[float, ...] = (0.0,) * 4
    _at: float | None = None

    def observed(self, now: float, finished: float, prompt: float, cached: float, output: float) -> None:
        """Take up what was counted since the last time."""
        seen = (finished, prompt, cached, output)
        before, self._at = self.present(now), now
        self._sums = tuple(sum_ + max(0.0, more) for sum_, more in zip(before, seen, strict=True))

    def present(self, now: float) -> tuple[float, ...]:
        """Requests, and their tokens (of prompts, of these cached, of outputs), as they count now."""
        left = 1.0 if self._at is None else 0.5 ** (max(0.0, now - self._at) / HALF_LIFE)
        return tuple(each * left for each in self._sums)

    @property
    def mix(self) -> RequestMix | None:
        """None while too few have ended."""
        count, prompt, cached, output = self._sums
        if count < _KNOWN or prompt <= 0 or output <= 0:
            return None
        return RequestMix(max(1.0, prompt / count), max(1.0, output / count), min(cached / prompt, 1.0))


#: Requests from which on their mean is taken for what is usual.
_KNOWN = 100.0


@dataclass(frozen=True, slots=True)
class Leaning:
    """What will be recommended if it stays so."""

    gpus: int | None
    """In a group; None: none is better than the present width."""
    held: float = 0.0
    """Seconds for which it was seen to be so."""


@dataclass
class Grounds:
    """What a recommendation rests on, of groups of one width: what hours bring, and a successor is to know
    (`width_memory`)."""

    history: History = field(default_factory=History)
    meter: MixMeter = field(default_factory=MixMeter)
    leaning: Leaning | None = None

    def pause(self) -> None:
        """What is asked now says nothing of other times: what was about to change waits anew."""
        self.history.pause()
        self.leaning = None


@dataclass
class WidthAdvisor:
    """One deployment's, for one present width: what is recommended."""

    width: int
    advised: int | None = None
    """GPUs in a group."""
    changed: float = -math.inf
    """When that last changed, by the clock of `consider`."""
    advice: Advice | None = None
    """With the numbers of when it was found; None after a restart."""
    grounds: Grounds = field(default_factory=Grounds)
    _looked: float = -math.inf

    def due(self, now: float) -> bool:
        """Whether it is time to look at all widths again, and enough was seen."""
        return self.grounds.history.seconds >= EVIDENCE and now - self._looked >= _EVERY

    def consider(self, now: float, present: Option, others: Sequence[Option], limits: Limits) -> None:
        """Look at all widths: after a while `advised` follows."""
        grounds = self.grounds
        passed = 0.0 if math.isinf(self._looked) else min(max(0.0, now - self._looked), 2 * _EVERY)
        self._looked = now
        found = best(grounds.history.shares(), present, others, limits, self.advised)
        target = found.option.gpus if found is not None else None
        if target == self.advised:
            grounds.leaning = None
            self.advice = self.advice or found
            return
        leaning = grounds.leaning
        if leaning is None or leaning.gpus != target:
            leaning = Leaning(target)
        else:
            leaning = Leaning(target, min(leaning.held + passed, FOR))
        grounds.leaning = leaning
        if leaning.held >= FOR and now - self.changed >= BETWEEN:
            self.advised, self.advice, self.changed, grounds.leaning = target, found, now, None


def _groups(count: int) -> str:
    return "1 group" if count == 1 else f"{count} groups"
