"""What an autoscaler has learned, apart from the process that learned it: taken out of one, put into another. Pure.

Only what takes hours to learn is kept. What takes minutes (readings, the trend, forecasts that are not due yet) a
successor sees for itself; but for the window before groups go and when some went last, which are of use to one that
follows at once, and for `width_memory`. Values are as of one moment, so they carry no clock: whoever restores them says
how old they are, and they count for less accordingly. `memory_text` writes them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from moe_operator.autoscaler import growth, lateness
from moe_operator.autoscaler.auto import _PACE, TICK, Autoscaler, Profile
from moe_operator.autoscaler.budget import AIMED, LATELY, Budget, Spent
from moe_operator.autoscaler.budget import HALF_LIFE as BUDGET_HALF_LIFE
from moe_operator.autoscaler.cold_start import ColdStart
from moe_operator.autoscaler.decayed import Decayed
from moe_operator.autoscaler.demand import WORK, DemandMeter
from moe_operator.autoscaler.forecast import MEMORY, Forecaster, Forecasts
from moe_operator.autoscaler.group_window import SMOOTHED
from moe_operator.autoscaler.growth import Growth
from moe_operator.autoscaler.idle_step_time import HALF_LIFE as IDLE_HALF_LIFE
from moe_operator.autoscaler.idle_step_time import IdleStepTime
from moe_operator.autoscaler.lateness import Lateness
from moe_operator.autoscaler.usual import Usual
from moe_operator.autoscaler.width import Grounds
from moe_operator.autoscaler.width_memory import NOTHING, Asked, apart, asked

#: Seconds for which full groups are felt, at most.
MOST_AFTER = 3600.0
#: Seconds of growth, and of the usual demand, that are remembered at most. Each counts once, so looks without a pause
#: come to 1.44 half-lives; what was made of pauses is no more evidence than that.
_MOST_SEEN = 1.5 * growth.HALF_LIFE
#: Seconds that clocks of two nodes may differ by.
_SKEW = 600.0
#: Seconds for which nobody may have looked, and the window before groups go goes on.
_UNSEEN = 60.0
#: Numbers of groups in that window, each less than the one before: of a longer fall it begins anew.
MOST_DOWNS = 16

#: Differences of two memories that are worth a write, each about a twentieth of what it does to a decision: of the idle
#: step time, of work and of cold starts (logarithms); of the budget's share spent; of growth (mean difference of the
#: ratio's logarithm); of the usual demand (logarithm); of lateness (share at any load); of the errors of two
#: forecasters (logarithm).
_IDLE, _WORK, _START, _SPENT, _GROWTH, _USUAL = 0.03, 0.15, 0.05, 0.1 * AIMED, 0.01, 0.3
_LATE, _ERROR = 0.02, 0.1


class Unusable(StrEnum):
    """Why what was remembered is not used."""

    OTHER_VERSION = "OtherVersion"
    """Another version of the operator wrote it."""
    DAMAGED = "Damaged"
    """Its text is not whole, or not as it was written."""
    OUT_OF_BOUNDS = "OutOfBounds"
    """A figure is none that groups can have."""
    OTHER_GROUPS = "OtherGroups"
    """It is about another layout or objective."""
    FROM_THE_FUTURE = "FromTheFuture"
    """It was written later than now."""


class UnusableError(ValueError):
    """What was remembered is not used; `reason` says why."""

    def __init__(self, reason: Unusable, message: str) -> None:
        super().__init__(message)
        self.reason = reason


Bins = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """What was learned, as of one moment."""

    profile: Profile
    lead: float
    idle: IdleStepTime
    calm: float
    levels: float
    rates: float
    late_requests: float
    judged_requests: float
    late_lately: float
    judged_lately: float
    after: float
    errors: Bins
    starts: Bins
    late_first: Bins
    late_tokens: Bins
    judged: Bins
    growth: tuple[tuple[Bins, Bins], ...]
    usual: tuple[float, float]
    """Group seconds, and seconds: what growth is measured against."""
    downs: tuple[tuple[float, int], ...] = ()
    """The window before groups go: seconds ago, and groups that were wanted then. Only the last of those of which no
    more were wanted since, the newest first, and from when on."""
    fell: float | None = None
    """Seconds since there were fewer groups than before; None: long enough for more to go."""
    groups: int = 0
    """That there were at the last look: of whoever finds fewer some have gone since."""
    asked: Asked = NOTHING

    @property
    def idle_step_time(self) -> float | None:
        """Seconds; None while unknown."""
        return self.idle.value

    @property
    def work(self) -> float | None:
        """Group seconds that a request takes; None while unknown."""
        return self._meter().work

    @property
    def forecaster(self) -> Forecaster:
        """The one with the least error."""
        return tuple(Forecaster)[self.errors.index(min(self.errors))]

    @property
    def spent(self) -> float:
        """Share of requests that was late, at the mean rate of late."""
        before = max(self.judged_requests * math.log(2) / BUDGET_HALF_LIFE, 1e-3)
        return Spent(BUDGET_HALF_LIFE, self.late_requests, self.judged_requests).share(before)

    def _meter(self) -> DemandMeter:
        return DemandMeter(_calm=self.calm, _levels=self.levels, _rates=self.rates)

    def _lateness(self, now: float) -> Lateness:
        made = Lateness()
        bins = self.late_first, self.late_tokens, self.judged
        made._first, made._tokens, made._judged = (_decayed(one, lateness.HALF_LIFE, now) for one in bins)
        return made

    def aged(self, seconds: float) -> "Memory":
        """As it counts so many seconds later, if nothing was seen meanwhile."""

        def left(half_life: float) -> float:
            return float(0.5 ** (seconds / half_life))

        idle, work = left(IDLE_HALF_LIFE), left(WORK)
        budget, lately = left(BUDGET_HALF_LIFE), left(LATELY)
        errors, bins, ratios = left(MEMORY), left(lateness.HALF_LIFE), left(growth.HALF_LIFE)
        return replace(
            self,
            idle=replace(
                self.idle,
                weight=self.idle.weight * idle,
                x=self.idle.x * idle,
                xx=self.idle.xx * idle,
                t=self.idle.t * idle,
                xt=self.idle.xt * idle,
            ),
            levels=self.levels * work,
            rates=self.rates * work,
            late_requests=self.late_requests * budget,
            judged_requests=self.judged_requests * budget,
            late_lately=self.late_lately * lately,
            judged_lately=self.judged_lately * lately,
            after=max(0.0, self.after - seconds),
            errors=_times(self.errors, errors),
            late_first=_times(self.late_first, bins),
            late_tokens=_times(self.late_tokens, bins),
            judged=_times(self.judged, bins),
            growth=tuple((_times(end, ratios), _times(most, ratios)) for end, most in self.growth),
            usual=(self.usual[0] * ratios, self.usual[1] * ratios),
            downs=tuple((ago + seconds, groups) for ago, groups in self.downs),
            fell=None if self.fell is None else self.fell + seconds,
            asked=self.asked.aged(seconds),
        )


def snapshot(
    autoscaler: Autoscaler, starts: ColdStart, now: float, grounds: Grounds | None = None
) -> Memory | None:
    """What it has learned by now, by its own clock, which is that of `grounds` too; None while it has seen no load.

    It knows the insides of what it keeps, so that these need not know of it: a test says what would be left out.
    """
    forecasts, meter, budget = autoscaler._forecasts, autoscaler._meter, autoscaler._budget
    if forecasts.empty or (budget.long.judged <= 0 and meter.work is None):
        return None
    idle, long, lately = autoscaler._idle, budget.long.present(now), budget.lately.present(now)
    return Memory(
        profile=autoscaler.profile,
        lead=forecasts._growth[0][0].lead,
        idle=replace(idle, at=None, prior=autoscaler.profile.idle_step_time),
        calm=min(meter._calm, WORK),
        levels=meter._levels,
        rates=meter._rates,
        late_requests=long.late,
        judged_requests=long.judged,
        late_lately=lately.late,
        judged_lately=lately.judged,
        after=max(0.0, min(autoscaler._full_until - now, MOST_AFTER)),
        errors=tuple(forecasts._errors),
        starts=starts.seen,
        late_first=tuple(autoscaler._lateness._first.present(now)),
        late_tokens=tuple(autoscaler._lateness._tokens.present(now)),
        judged=tuple(autoscaler._lateness._judged.present(now)),
        growth=tuple(
            (_bounded(end._seen.present(now)), _bounded(most._seen.present(now)))
            for end, most in forecasts._growth
        ),
        usual=_usual(forecasts._usual),
        downs=_downs(autoscaler, now),
        fell=now - autoscaler._fell if now - autoscaler._fell < _PACE else None,
        groups=autoscaler._current,
        asked=NOTHING if grounds is None else asked(grounds, now),
    )


def _bounded(seconds: Sequence[float]) -> Bins:
    return _times(tuple(seconds), _MOST_SEEN / max(sum(seconds), _MOST_SEEN))


def _usual(usual: Usual) -> tuple[float, float]:
    """The same mean, of no more seconds than are remembered."""
    share = _MOST_SEEN / max(usual.seconds, _MOST_SEEN)
    return usual.demand * share, usual.seconds * share


def _downs(autoscaler: Autoscaler, now: float) -> tuple[tuple[float, int], ...]:
    found: list[tuple[float, int]] = []
    for at, groups in reversed(autoscaler._downs):
        if not found or groups > found[-1][1]:
            found.append((max(0.0, now - at), groups))
    if found:
        found.append((max(0.0, now - autoscaler._downs[0][0]), found[-1][1]))
    return tuple(found) if len(found) <= MOST_DOWNS else ()


def _window(downs: Sequence[tuple[float, int]], now: float) -> Iterator[tuple[float, int]]:
    """One of which the highest number is the same from any look of it on to its end."""
    if not downs or downs[0][0] > _UNSEEN:
        return
    for (since, groups), (until, fewer) in pairwise(reversed(downs)):
        yield now - since, groups
        for tick in range(1, math.ceil((since - until) / TICK)):
            yield now - since + tick * TICK, fewer
    yield now - downs[0][0], downs[0][1]


def restored(memory: Memory, profile: Profile, now: float, age: float) -> tuple[Autoscaler, ColdStart]:
    """An autoscaler that has learned that, `age` seconds ago; `now` by its own clock, `profile` of the groups that
    there are now. Raises UnusableError."""
    if not memory.profile.like(profile):
        raise UnusableError(Unusable.OTHER_GROUPS, f"it is about {memory.profile}, not {profile}")
    if age < -_SKEW:
        raise UnusableError(Unusable.FROM_THE_FUTURE, f"it was written {-age:.0f} s from now")
    old, starts = memory.aged(max(0.0, age)), ColdStart(memory.starts)
    made = Autoscaler(profile, starts.expected)
    made._idle = replace(old.idle, at=now, prior=profile.idle_step_time)
    made._meter = old._meter()
    made._budget = Budget(
        Spent(BUDGET_HALF_LIFE, old.late_requests, old.judged_requests, now),
        Spent(LATELY, old.late_lately, old.judged_lately, now),
    )
    made._downs.extend(_window(old.downs, now))
    made._fell = -math.inf if old.fell is None else now - old.fell
    made._current = old.groups
    made._full_until = now + old.after if old.after > 0 else -math.inf
    made._lateness = old._lateness(now)
    made._forecasts = Forecasts(old.lead)
    made._forecasts.lead = made.lead
    # Groups that were there before its process have filled.
    made._forecasts.filled = now
    made._forecasts.sure_from = now + SMOOTHED
    made._forecasts._errors = list(old.errors)
    made._forecasts._usual = Usual(*old.usual)
    for (end, most), seen in zip(made._forecasts._growth, old.growth, strict=True):
        end._seen = _decayed(seen[0], growth.HALF_LIFE, now)
        most._seen = _decayed(seen[1], growth.HALF_LIFE, now)
    return made, starts


def _decayed(weights: Bins, half_life: float, now: float) -> Decayed:
    return Decayed(len(weights), half_life, list(weights), now)


def _times(weights: Bins, factor: float) -> Bins:
    return tuple(each * factor for each in weights)


# --- How far apart -------------------------------------------------------------------------------


def moved(before: Memory, now: Memory) -> float:
    """How far two memories are apart: from 1 on they would decide differently enough to be worth a write."""
    if not before.profile.like(now.profile):
        return math.inf
    which, was = tuple(Forecaster).index(now.forecaster), tuple(Forecaster).index(before.forecaster)
    found = [
        # Of two that are as good it does not matter which.
        _apart(now.errors[was], now.errors[which]) / _ERROR if was != which else 0.0,
        _apart(before.idle_step_time, now.idle_step_time) / _IDLE,
        _apart(before.work, now.work) / _WORK,
        _apart(Usual(*before.usual).value, Usual(*now.usual).value) / _USUAL,
        _apart(ColdStart(before.starts).expected, ColdStart(now.starts).expected) / _START,
        abs(before.spent - now.spent) / _SPENT,
        _lateness_apart(before, now) / _LATE,
        apart(before.asked, now.asked),
    ]
    for part, highest in enumerate((False, True)):
        prior = Growth(now.lead, highest=highest)._prior
        one, other = _mixed(before.growth[which][part], prior), _mixed(now.growth[which][part], prior)
        found.append(_shifted(one, other) * growth._WIDTH / _GROWTH)
    return max(found)


def _apart(one: float | None, other: float | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    return abs(math.log(one / other)) if one > 0 and other > 0 else math.inf


def _mixed(seen: Bins, prior: Sequence[float]) -> list[float]:
    whole = sum(seen) + growth.PRIOR_SECONDS
    return [(mine + each * growth.PRIOR_SECONDS) / whole for mine, each in zip(seen, prior, strict=True)]


def _shifted(one: Sequence[float], other: Sequence[float]) -> float:
    """Bins by which the one's weight has to be moved, on average, to make it the other."""
    carried = total = 0.0
    for mine, theirs in zip(one, other, strict=True):
        carried += mine - theirs
        total += abs(carried)
    return total


def _lateness_apart(before: Memory, now: Memory) -> float:
    one, other = (memory._lateness(0.0).curve(0.0).values for memory in (before, now))
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
