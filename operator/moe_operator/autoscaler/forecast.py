"""Forecasts of demand one lead time ahead, and which of them has been right. Pure.

Each forecaster is simple; how far each was off is kept (`growth`), and the one that was off least, lately, is used.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from moe_operator.autoscaler.demand import Demand
from moe_operator.autoscaler.group_window import SMOOTHED, UNSEEN
from moe_operator.autoscaler.growth import Growth, Points
from moe_operator.autoscaler.usual import Usual, scaled


class Forecaster(StrEnum):
    """Where demand will be a lead time from now."""

    LEVEL = "Level"
    """Where it is."""
    SLOW = "Slow"
    """Where it was on average over three minutes."""
    ARRIVALS = "Arrivals"
    """Where arrivals lead."""
    HIGHER = "Higher"
    """At the level, or where arrivals lead if that is more."""
    TREND = "Trend"
    """Half as far from where it is as the last ten minutes' slope would lead."""


#: Seconds that a point of demand is averaged over when it is compared with what was forecast for it: shorter peaks
#: pass within queues and within the mean of a request's own life.
AVERAGED = 120.0
#: A forecaster's errors count half after so many seconds.
MEMORY = 7200.0
_SLOW, _TREND = 180.0, 600.0
#: Demand below which ratios say nothing, in groups.
_NOTHING = 0.05
#: Seconds from the first request on in which empty groups fill: that demand grows then says nothing of later.
_FILLING = 600.0
#: Seconds for which points are kept before they are made anew.
_KEPT = 120.0


@dataclass
class _Pending:
    at: float
    values: tuple[float, ...]
    scales: tuple[float, ...]
    """Of each forecast's growth."""
    saturated: bool
    highest: float = 0.0


@dataclass
class Forecasts:
    """The forecasters of a deployment, for a `lead` (s) that may change as cold starts are learned."""

    lead: float
    sure_from: float = -math.inf
    """Until then a look says something of itself, and nothing of what comes of it: what gauges are averaged over has
    only begun."""
    _levels: deque[tuple[float, float]] = field(default_factory=deque)
    _pending: deque[_Pending] = field(default_factory=deque)
    _recent: deque[tuple[float, float]] = field(default_factory=deque)
    _errors: list[float] = field(default_factory=lambda: [0.0] * len(Forecaster))
    _growth: list[tuple[Growth, Growth]] = field(default_factory=list)
    _at: float | None = None
    _usual: Usual = field(default_factory=Usual)
    _points: tuple[float, int, Points, Points] | None = None
    filled: float = math.inf
    """When empty groups had filled."""

    def __post_init__(self) -> None:
        self._growth = [
            (Growth(self.lead, highest=False), Growth(self.lead, highest=True)) for _ in Forecaster
        ]

    def observed(self, demand: Demand, now: float) -> None:
        """Compare with what was forecast for now, and forecast anew."""
        if demand.level < _NOTHING:
            self.filled = math.inf
        elif self.filled == math.inf:
            self.filled = now + _FILLING
        passed = 0.0 if self._at is None else now - self._at
        self._at = now
        if passed > UNSEEN:
            # How demand came to what it is was not seen: that is neither growth nor a trend, and no time of its own.
            passed, self.sure_from = 0.0, max(self.sure_from, now + SMOOTHED)
        value = demand.value
        if now >= self.filled and not demand.saturated:
            self._usual.observed(value, passed)
        if now < self.sure_from:
            for begun in (self._levels, self._recent, self._pending):
                begun.clear()
        self._levels.append((now, value))
        while self._levels[0][0] < now - _TREND:
            self._levels.popleft()
        self._recent.append((now, value))
        while self._recent[0][0] < now - AVERAGED:
            self._recent.popleft()
        mean = sum(each for _, each in self._recent) / len(self._recent)
        half = AVERAGED / 2
        for pending in self._pending:
            if mean > pending.highest and now >= pending.at + half:
                pending.highest = mean
        kept = 0.5 ** (passed / MEMORY)
        while self._pending and self._pending[0].at <= now - self.lead - half:
            self._judge(self._pending.popleft(), mean, passed, kept, now)
        values = self._forecast(demand)
        scales = tuple(map(self._usual.scale, values))
        self._pending.append(_Pending(now, values, scales, demand.saturated))

    def _judge(self, pending: _Pending, mean: float, passed: float, kept: float, now: float) -> None:
        if pending.saturated or pending.at < self.filled:
            # How much was asked for was not to be seen: that is no growth.
            return
        for which, (forecast, scale) in enumerate(zip(pending.values, pending.scales, strict=True)):
            if forecast < _NOTHING or mean < _NOTHING:
                continue
            at_end, highest = self._growth[which]
            at_end.observed((mean / forecast) ** (1 / scale), passed, now)
            highest.observed((max(pending.highest, mean) / forecast) ** (1 / scale), passed, now)
            self._errors[which] = self._errors[which] * kept + abs(math.log(mean / forecast)) * passed

    def _forecast(self, demand: Demand) -> tuple[float, ...]:
        value = demand.value
        values = [each for _, each in self._levels]
        half = len(values) // 2
        trend = value
        if half >= 5:
            span = self._levels[-1][0] - self._levels[0][0]
            early, late = sum(values[:half]) / half, sum(values[half:]) / (len(values) - half)
            trend = max(0.3 * value, value + 0.5 * (late - early) / (span / 2) * self.lead)
        since = self._levels[-1][0] - _SLOW
        slow = [each for at, each in self._levels if at >= since]
        arriving = demand.arriving if demand.arriving > 0 else value
        return (
            value,
            value if demand.saturated else sum(slow) / len(slow),
            max(arriving, value) if demand.saturated else arriving,
            max(value, arriving),
            trend,
        )

    @property
    def empty(self) -> bool:
        """Whether nothing was observed yet."""
        return not self._pending

    @property
    def chosen(self) -> Forecaster:
        """The one with the least error of late."""
        return tuple(Forecaster)[self._best()]

    def _best(self) -> int:
        return min(range(len(self._errors)), key=self._errors.__getitem__)

    @property
    def value(self) -> float:
        """Demand that is forecast, in groups, as a median: its ratios say how it may turn out."""
        return self._pending[-1].values[self._best()]

    def points(self, now: float) -> tuple[Points, Points]:
        """Ratios of what may come to `value`: at the lead's end, and the highest within it."""
        best = self._best()
        if self._points is None or self._points[1] != best or now - self._points[0] >= _KEPT:
            at_end, highest = self._growth[best]
            self._points = (now, best, at_end.points(now), highest.points(now))
        scale = self._usual.scale(self.value)
        return scaled(self._points[2], scale), scaled(self._points[3], scale)
