"""The operator's own scaling: as many groups as are worth having for the demand that is to be expected. Pure.

Each look measures demand in groups (`demand`), compares it with what was forecast a lead time before (`forecast`),
learns how late requests are at which load (`lateness`) and how the budget of late requests is spent (`budget`). Then
`sizing` weighs another group against the late requests that it would avoid:

- up, at once, to the number that is worth having when a group that is ordered now would serve;
- down to the number that is worth having for the highest demand until a group could be had again, once nothing more
  was worth having for a part of a cold start.

Numbers are absolute, and groups that start count as there: nothing is ordered twice.
"""

import math
from collections import deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from moe_operator.autoscaler.budget import Budget
from moe_operator.autoscaler.capacity import Limits, certainty
from moe_operator.autoscaler.demand import Demand, DemandMeter
from moe_operator.autoscaler.forecast import Forecaster, Forecasts
from moe_operator.autoscaler.group_window import GroupLoad, GroupWindow
from moe_operator.autoscaler.growth import Points
from moe_operator.autoscaler.idle_step_time import IdleStepTime
from moe_operator.autoscaler.lateness import Curve, Lateness
from moe_operator.autoscaler.reading import Reading
from moe_operator.autoscaler.sizing import Losses, Sized, best_room, late_with, sized, steady_room
from moe_operator.catalog.saturation import Resource

#: Seconds between decisions.
TICK = 15.0
#: Groups that one pays for rather than have all requests of one group late, while the budget is spent as aimed at.
WORTH = 36.0
#: How long fewer groups must have done before one goes, in cold starts: the first while the budget of late requests is
#: there to be spent, the sum of both while it is spent as aimed at. Within these limits, in seconds.
_WINDOW_SHARE, _WINDOW_CAUTION = 0.6, 1.4
_WINDOW_LEAST, _WINDOW_MOST = 120.0, 600.0
#: Seconds for which fewer must have done before a group that starts is given up: it has cost little yet.
_GIVES_UP = 120.0
#: Groups that go at one time.
AT_ONCE = 2
#: Seconds after some have gone before more do, while the budget is spent as aimed at: what fewer do has to be seen.
_PACE = 120.0
#: Groups that there may be for each that serves, and besides: what is seen of few says little of many.
_TIMES, _BESIDES = 2, 2
#: Seconds that metrics and decisions are behind, in the lead time.
_BEHIND = 30.0
#: Seconds after groups were full in which requests end that tell of that time, at most.
_AFTERMATH = 900.0
#: Seconds after which a group that serves should have been read.
_UNREAD = 60.0
#: Of the objective's time per output token, the mean step of a full group: each request is to keep it, not their mean.
_FULL = 0.8
#: Of the idle step times that two plans expect, the largest difference (logarithm) at which they are of one engine.
_LIKE = 0.25
#: Seconds for which what is learned is kept before it is summed up anew, and by how much what is forecast may move
#: (logarithm), as growth is that of this demand.
_KEPT, _KEPT_WITHIN = 120.0, 0.16
#: Groups of demand below which it does not matter how it moves.
_LITTLE = 0.01


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a deployment's groups."""

    ranks: int
    slots: int
    """Requests that a rank works on at once; 0: unknown."""
    ttft: float | None = None
    """The objective: seconds to the first token; None: none."""
    tpot: float | None = None
    """Seconds per output token."""
    idle_step_time: float | None = None
    """What the plan expects, in seconds."""
    gpus: int = 0
    """GPUs of a group; 0: unknown."""

    def like(self, other: "Profile") -> bool:
        """Whether what was learned of the one holds for the other. Plans of one engine differ a little, and those of
        earlier versions expect nothing."""
        same = (self.ranks, self.gpus, self.slots, self.ttft, self.tpot) == (
            other.ranks,
            other.gpus,
            other.slots,
            other.ttft,
            other.tpot,
        )
        planned, expected = self.idle_step_time, other.idle_step_time
        return same and (not planned or not expected or abs(math.log(planned / expected)) <= _LIKE)


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a decision was made of. In groups, unless said otherwise."""

    level: float
    forecast: float
    forecaster: Forecaster
    load: float
    """Mean share of the groups that serve."""
    resource: Resource | None
    """What the most loaded group runs out of first."""
    arrivals: float
    """Requests per second."""
    waiting: float
    """Requests."""
    lead: float
    """Seconds until a group that is ordered now serves."""
    up: Sized
    down: Sized
    late: float
    """Share of requests that was late, over hours."""
    worth: float
    saturated: bool
    late_as_is: float
    """Share of requests that would be late with the groups that there are."""
    losses: Losses = field(compare=False)
    room: float
    """Groups for each group's worth of demand that are worth having."""


@dataclass(frozen=True, slots=True)
class Want:
    """Groups that are wanted, before what limits them."""

    groups: int
    numbers: Numbers | None
    """None while nothing was measured: then as many as there are."""
    blind: int = 0
    """Groups that serve and say nothing: none goes for that time."""
    held_until: float | None = None
    """Fewer would do from then on, if nothing changes."""


@dataclass(frozen=True, slots=True)
class _Learned:
    """What was summed up `at` a moment, for what was `forecast` then."""

    at: float
    forecast: float
    curve: Curve
    room: float
    """Groups for each group's worth of demand that are best for what comes at the lead's end."""
    most_room: float
    """For the most within it."""

    def holds(self, now: float, forecast: float) -> bool:
        moved = abs(math.log(max(forecast, _LITTLE) / max(self.forecast, _LITTLE)))
        return now - self.at < _KEPT and moved <= _KEPT_WITHIN


@dataclass
class Autoscaler:
    """One deployment's: keeps what was seen and learned. `cold_start` in seconds is the caller's to learn."""

    profile: Profile
    cold_start: float
    worth: float = WORTH
    window: float | None = None
    """Seconds for which fewer groups must have done before one goes; None: a part of the cold start."""
    _groups: dict[Hashable, GroupWindow] = field(default_factory=dict)
    _meter: DemandMeter = field(default_factory=DemandMeter)
    _lateness: Lateness = field(default_factory=Lateness)
    _budget: Budget = field(default_factory=Budget)
    _downs: deque[tuple[float, int]] = field(default_factory=deque)
    _kept: _Learned | None = None
    _demand: Demand | None = None
    _resource: Resource | None = None
    blind: int = 0
    """Groups that serve and say nothing."""
    serving: int = 0
    _worth: Mapping[Hashable, float] = field(default_factory=dict)
    _current: int = 0
    _fell: float = -math.inf
    """When there were fewer groups than before."""
    _full_until: float = -math.inf
    """When the last request that was at work while groups were full has ended."""

    def __post_init__(self) -> None:
        self._idle = IdleStepTime(prior=self.profile.idle_step_time)
        self._forecasts = Forecasts(self.lead)

    @property
    def lead(self) -> float:
        """Seconds from a look at which more is needed until a group serves."""
        return self.cold_start + TICK + _BEHIND

    # --- What is seen ----------------------------------------------------------------------------

    def read(
        self, group: Hashable, reading: Reading, *, born: float | None = None, slots: int | None = None
    ) -> None:
        """Take up a reading of a group. `born`: when it began to serve, for one that was not read before; `slots`: of
        its ranks, if not the profile's."""
        window = self._groups.get(group)
        if window is None:
            slots = self.profile.slots if slots is None else slots
            window = self._groups[group] = GroupWindow(slots, born)
        window.add(reading)

    def look(
        self,
        now: float,
        serving: Mapping[Hashable, float | None],
        draining: Collection[Hashable],
        worth: Mapping[Hashable, float] | None = None,
    ) -> None:
        """Measure and learn, of the groups that serve (and since when, if known) and of those that drain. `worth`: what
        groups of another width count for."""
        self._worth = worth or {}
        for gone in [key for key in self._groups if key not in serving and key not in draining]:
            del self._groups[gone]
        tpot = self.profile.tpot
        limits = Limits(idle_step_time=self._idle.value, step_time=None if tpot is None else _FULL * tpot)
        loads = [
            load
            for key, born in serving.items()
            if (load := self._load(key, now, limits)) is not None or born is None or born <= now - _UNREAD
        ]
        self.blind, self.serving = sum(load is None for load in loads), len(serving)
        leaving = [load for key in draining if (load := self._load(key, now, limits)) is not None]
        demand = self._meter.look(now, loads, leaving)
        self._demand = demand
        if demand is None:
            return
        for load in loads:
            if load is not None and load.step_time is not None:
                sure = certainty(load.share.value)
                self._idle = self._idle.observed(now, load.running, load.step_time, sure)
        self._resource = max(
            (load.share for load in loads if load is not None), key=lambda share: share.value
        ).resource
        # Silence is demand too: else what was forecast last would hold for as long as it lasts.
        self._forecasts.lead = self.lead
        self._forecasts.observed(demand, now)
        if demand.saturated:
            self._full_until = now + min(2 * demand.lasts, _AFTERMATH)
        if demand.judged > 0:
            self._budget.observed(demand.late, demand.judged, now)
            # Who was at work while groups were full ends late when they are no longer.
            if demand.seen and (demand.saturated or now >= self._full_until):
                self._learn_lateness(demand, [*loads, *leaving], now)

    def _learn_lateness(self, demand: Demand, loads: Sequence[GroupLoad | None], now: float) -> None:
        full, rest = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
        for load in loads:
            if load is not None and load.judged > 0:
                # What one has piled up is late though the others have little to do.
                of = full if demand.saturated or load.share.value > 1 else rest
                of[0] += load.late_first
                of[1] += load.late_tokens
                of[2] += load.judged
        # Where more come than end, the load is on its way to what made those late that ended.
        heading = demand.load * demand.pressure
        for at, (first, tokens, judged) in ((max(1.0, heading), full), (heading, rest)):
            if judged > 0:
                self._lateness.observed(at, first, tokens, judged, now)

    def _load(self, key: Hashable, now: float, limits: Limits) -> GroupLoad | None:
        window = self._groups.get(key)
        if window is None:
            return None
        load = window.look(now, limits, self.profile.ttft, self.profile.tpot)
        return load if load is None or key not in self._worth else replace(load, worth=self._worth[key])

    # --- What is wanted --------------------------------------------------------------------------

    def want(self, now: float, current: int, floor: int, ceiling: int, at_once: int = AT_ONCE) -> Want:
        """How many groups, of which there are or start `current`; `at_once`: groups that may go at one time."""
        demand, blind = self._demand, self.blind
        if current < self._current:
            self._fell = now
        self._current = current
        if demand is None or self._forecasts.empty:
            self._downs.clear()
            return Want(current, None, blind)
        value = self._forecasts.value
        at_end, highest = self._forecasts.points(now)
        caution = self._budget.factor(demand.arrivals)
        worth = self.worth * caution
        steady = self._budget.steady(demand.arrivals)
        learned = self._learned(now, at_end, highest, worth, steady)
        curve = learned.curve
        up = sized(value, learned.room, at_end, curve, worth, floor, ceiling)
        down = sized(value, learned.most_room, highest, curve, worth, floor, ceiling)
        if down.groups < up.groups:
            down = up
        numbers = Numbers(
            level=demand.level,
            forecast=value,
            forecaster=self._forecasts.chosen,
            load=demand.load,
            resource=self._resource,
            arrivals=demand.arrivals,
            waiting=demand.waiting,
            lead=self.lead,
            up=up,
            down=down,
            late=self._budget.spent(demand.arrivals),
            worth=worth,
            saturated=demand.saturated,
            late_as_is=late_with(current, value, at_end, curve),
            losses=Losses(demand.arrivals, value, at_end, curve, floor, up.groups),
            room=learned.room,
        )
        if not demand.seen:
            # How the load is now is clear at the next look.
            return Want(current, numbers, blind)
        if self._downs and self._downs[-1][0] == now:
            self._downs.pop()  # asked again of the same look
        self._downs.append((now, down.groups))
        window = self.window
        if window is None:
            window = (_WINDOW_SHARE + _WINDOW_CAUTION * min(1.0, caution)) * self.cold_start
            window = max(_WINDOW_LEAST, min(window, _WINDOW_MOST))
        while self._downs[0][0] < now - window:
            self._downs.popleft()
        most = max(current, _TIMES * self.serving + _BESIDES)
        if up.groups > current:
            return Want(min(up.groups, most), numbers, blind)
        if down.groups >= current or blind:
            if blind:
                self._downs.clear()
            return Want(current, numbers, blind)
        kept = max(groups for _, groups in self._downs)
        if current > self.serving and self._downs[0][0] <= now - _GIVES_UP + TICK:
            lately = max(groups for at, groups in self._downs if at >= now - _GIVES_UP)
            if lately < current:
                return Want(max(lately, self.serving), numbers)
        higher = [at for at, groups in self._downs if groups >= current]
        since = max(higher) if higher else self._downs[0][0]
        seen = self._fell + _PACE * min(1.0, caution)
        if kept < current and since <= now - window + TICK and seen <= now:
            return Want(max(kept, current - at_once), numbers)
        return Want(current, numbers, held_until=max(since + window, seen))

    def _learned(self, now: float, at_end: Points, highest: Points, worth: float, steady: float) -> _Learned:
        """Lateness by load, and the best room for it."""
        forecast = self._forecasts.value
        if self._kept is None or not self._kept.holds(now, forecast):
            curve = self._lateness.curve(now)
            least = steady_room(curve, self.worth, steady)
            room, most_room = (best_room(points, curve, worth, least) for points in (at_end, highest))
            self._kept = _Learned(now, forecast, curve, room, most_room)
        return self._kept
