"""What a Prometheus would know of the groups: samples at intervals, seen late, sometimes wrong or missing.

Only ready and draining groups are scraped. A `View` answers as of a moment: it sees the samples that are at least
`delay` old, and its windows end where its sight ends, not at the moment itself.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moe_operator.simulator import kernel
from moe_operator.simulator.fleet import Fleet, Group, Life

Floats = NDArray[np.float64]

GAUGES = ("running", "waiting", "kv_usage", "kv_usage_worst", "running_worst", "ranks")
"""Requests running and waiting (sums of ranks); share of the KV cache in use (mean of ranks, worst rank); running
requests of the worst rank; ranks that told."""
COUNTERS = kernel.COUNTERS
HISTOGRAMS = kernel.HISTOGRAMS
BOUNDS = {"ttft": kernel.TTFT_BUCKETS, "tpot": kernel.TOKEN_BUCKETS, "itl": kernel.TOKEN_BUCKETS}
"""Upper bounds of buckets, in seconds, without the last one, which has none."""
FRONTEND = ("arrivals", "arrived_prompt_tokens")
"""The gateway's counters."""

_COLUMN = {name: at for at, name in enumerate((*GAUGES, *COUNTERS))}
_FRONTEND_COLUMN = {name: at for at, name in enumerate(FRONTEND)}
_HISTOGRAM = {name: len(_COLUMN) + at * kernel.WIDEST for at, name in enumerate(HISTOGRAMS)}
_WIDTH = len(_COLUMN) + len(HISTOGRAMS) * kernel.WIDEST

#: Prometheus answers with a sample up to so old (s): its default lookback.
STALENESS = 300.0


@dataclass(frozen=True)
class Fault:
    """Something wrong with samples from `begin` to before `end` (s).

    gap: no samples. stale: the last ones from before, again and again. nan: no numbers. missing_rank: as if rank `rank`
    had stopped telling. reset: counters begin anew at `begin`, for good.
    """

    kind: Literal["gap", "stale", "nan", "missing_rank", "reset"]
    begin: float
    end: float = np.inf
    group: int | None = None
    """The number of the group concerned; every group and the gateway if not given."""
    rank: int = 0

    def hits(self, group: int | None, time: float) -> bool:
        """Whether it concerns a group (the gateway: None) at a time."""
        return self.begin <= time < self.end and self.group in (None, group)


class Series:
    """Samples of one target in order of time."""

    def __init__(self, width: int) -> None:
        self._times = np.empty(64)
        self._values = np.empty((64, width))
        self._known: list[float] = []
        """The times again: a search in a list takes a tenth of one in an array."""
        self.zero: dict[Fault, Floats] = {}
        """What counters stood at when a reset began."""

    def append(self, time: float, values: Floats) -> None:
        """One more sample."""
        size = len(self._known)
        if size == len(self._times):
            self._times = np.concatenate([self._times, np.empty_like(self._times)])
            self._values = np.concatenate([self._values, np.empty_like(self._values)])
        self._times[size] = time
        self._values[size] = values
        self._known.append(time)

    def between(self, begin: float, end: float) -> tuple[Floats, Floats]:
        """Times and samples (one a row) from `begin` to `end`, both included."""
        first, last = bisect_left(self._known, begin), bisect_right(self._known, end)
        return self._times[first:last], self._values[first:last]

    def last(self, end: float) -> tuple[float, Floats] | None:
        """The newest sample up to `end`."""
        at = bisect_right(self._known, end) - 1
        return (self._known[at], self._values[at]) if at >= 0 else None


class Scraper:
    """Takes samples of a fleet."""

    def __init__(self, fleet: Fleet, *, interval: float, delay: float, faults: Iterable[Fault] = ()) -> None:
        """`interval` between samples and `delay` until they are seen, in seconds."""
        self.fleet = fleet
        self.interval, self.delay = interval, delay
        self.faults = tuple(faults)
        self.groups: dict[int, Series] = {}
        self.frontend = Series(len(FRONTEND))

    def scrape(self, time: float) -> None:
        """A sample of every group that serves, and of the gateway."""
        groups = [group for life in (Life.READY, Life.DRAINING) for group in self.fleet.of(life)]
        for group, values in zip(groups, self._of_groups(groups, time), strict=True):
            series = self.groups.get(group.number)
            if series is None:
                series = self.groups[group.number] = Series(_WIDTH)
            self._take(series, group.number, time, values)
        self._take(self.frontend, None, time, np.array(kernel.arrived(self.fleet.requests), dtype=np.float64))

    def _of_groups(self, groups: Sequence[Group], time: float) -> Floats:
        """What each group tells, one a row."""
        places, at = self.fleet.places, np.array([group.place for group in groups], dtype=np.int64)
        told = np.ones((len(groups), self.fleet.engine.ranks), dtype=bool)
        for fault in self.faults:
            if fault.kind == "missing_rank":
                told[[fault.hits(group.number, time) for group in groups], fault.rank] = False
        ranks = told.sum(axis=1)
        running = np.where(told, places.running[at], 0)
        usage = np.where(told, places.used[at] / self.fleet.engine.kv_blocks, 0.0)
        values = np.empty((len(groups), _WIDTH))
        gauges = (
            running.sum(axis=1),
            np.where(told, places.waiting[at], 0).sum(axis=1),
            usage.sum(axis=1) / np.maximum(ranks, 1),
            usage.max(axis=1),
            running.max(axis=1),
            ranks,
        )
        for column, gauge in enumerate(gauges):
            values[:, column] = gauge
        values[:, len(GAUGES) : len(_COLUMN)] = np.where(told[:, :, None], places.counters[at], 0).sum(axis=1)
        values[:, len(_COLUMN) :] = places.histograms[at].reshape(len(groups), values.shape[1] - len(_COLUMN))
        return values

    def _take(self, series: Series, group: int | None, time: float, values: Floats) -> None:
        monotone = slice(len(GAUGES) if group is not None else 0, None)
        for fault in self.faults:
            if not fault.hits(group, time):
                continue
            if fault.kind == "gap":
                return
            if fault.kind == "stale" and (last := series.last(time)) is not None:
                values = last[1].copy()
            elif fault.kind == "nan":
                values = np.full_like(values, np.nan)
            elif fault.kind == "reset":
                values[monotone] -= series.zero.setdefault(fault, values[monotone].copy())
        series.append(time, values)


class Sample:
    """One sample of one group."""

    def __init__(self, at: float, values: Floats) -> None:
        self.at = at
        self._values = values

    def __getitem__(self, metric: str) -> float:
        """A gauge or counter."""
        return float(self._values[_COLUMN[metric]])

    def cumulative(self, histogram: str) -> tuple[float, ...]:
        """Observations up to each bound, the last without one."""
        first = _HISTOGRAM[histogram]
        counts: list[float] = np.cumsum(self._values[first : first + len(BOUNDS[histogram]) + 1]).tolist()
        return tuple(counts)


class View:
    """What is known at `now` (s). Groups are named by their numbers."""

    def __init__(self, scraper: Scraper, now: float) -> None:
        self.now = now
        self.end = now - scraper.delay
        """Where sight ends: the time of the newest sample that can be seen."""
        self._scraper = scraper
        self._ready = tuple(group.number for group in scraper.fleet.of(Life.READY))
        self._draining = tuple(group.number for group in scraper.fleet.of(Life.DRAINING))

    def groups(self) -> tuple[int, ...]:
        """Ready groups, as of now."""
        return self._ready

    def draining(self) -> tuple[int, ...]:
        """Draining groups, as of now. Queries answer for them too if asked with `draining`."""
        return self._draining

    def slots(self) -> int:
        """Requests that a group runs at once, over all of its ranks."""
        return self._scraper.fleet.engine.group_slots

    def latest(self, metric: str, *, draining: bool = False) -> dict[int, float]:
        """The newest sample of a gauge or counter, at most STALENESS old: of each group that has one. May be NaN."""
        column, found = _COLUMN[metric], {}
        for number, series in self._chosen(draining):
            last = series.last(self.end)
            if last is not None and last[0] > self.now - STALENESS:
                found[number] = float(last[1][column])
        return found

    def newest(self, number: int) -> Sample | None:
        """The newest sample of a ready or draining group, however old; None without one."""
        series = self._scraper.groups.get(number)
        last = series.last(self.end) if series is not None else None
        return None if last is None else Sample(last[0], last[1])

    def window(
        self, metric: str, seconds: float, *, draining: bool = False
    ) -> dict[int, tuple[Floats, Floats]]:
        """Times and values of the samples of the last `seconds` that can be seen, both ends included."""
        column, found = _COLUMN[metric], {}
        for number, series in self._chosen(draining):
            times, values = series.between(self.end - seconds, self.end)
            found[number] = (times, values[:, column])
        return found

    def increase(self, counter: str, seconds: float, *, draining: bool = False) -> dict[int, float]:
        """By how much a counter grew over such a window, of each group with two samples in it.

        Between samples, not extrapolated; a fall is a reset, after which all that is counted is new; NaN is skipped.
        """
        column, found = _COLUMN[counter], {}
        for number, series in self._chosen(draining):
            grown = _grown(series.between(self.end - seconds, self.end)[1][:, column, None])
            if grown is not None:
                found[number] = float(grown[0])
        return found

    def frontend_increase(self, counter: str, seconds: float) -> float:
        """By how much a counter of the gateway grew over such a window; NaN with less than two samples in it."""
        column = _FRONTEND_COLUMN[counter]
        grown = _grown(self._scraper.frontend.between(self.end - seconds, self.end)[1][:, column, None])
        return float("nan") if grown is None else float(grown[0])

    def frontend_window(self, counter: str, seconds: float) -> tuple[Floats, Floats]:
        """Times and values of a counter of the gateway over such a window."""
        times, values = self._scraper.frontend.between(self.end - seconds, self.end)
        return times, values[:, _FRONTEND_COLUMN[counter]]

    def quantile(self, histogram: str, q: float, seconds: float, *, draining: bool = False) -> float | None:
        """Seconds below which a share `q` of what was observed over such a window lies, over all groups.

        PromQL's histogram_quantile: linear inside a bucket, from 0 in the first; what is in the last, which has no
        upper bound, counts as the highest bound. None if nothing was observed.
        """
        counts = self.buckets(histogram, seconds, draining=draining)
        return histogram_quantile(q, BOUNDS[histogram], counts)

    def buckets(self, histogram: str, seconds: float, *, draining: bool = False) -> Floats:
        """Observations by bucket (not cumulative) over such a window, over all groups; one more than BOUNDS."""
        first = _HISTOGRAM[histogram]
        size = len(BOUNDS[histogram]) + 1
        total = np.zeros(size)
        for _, series in self._chosen(draining):
            grown = _grown(series.between(self.end - seconds, self.end)[1][:, first : first + size])
            if grown is not None:
                total += grown
        return total

    def _chosen(self, draining: bool) -> Iterable[tuple[int, Series]]:
        numbers = (*self._ready, *self._draining) if draining else self._ready
        known = self._scraper.groups
        return ((number, known[number]) for number in numbers if number in known)


def _grown(values: Floats) -> Floats | None:
    """Growth of counters (columns) over samples (rows), reset-safe; None for less than two."""
    if np.isnan(values[:, 0]).any():
        values = values[~np.isnan(values).any(axis=1)]
    if len(values) < 2:
        return None
    steps = values[1:] - values[:-1]
    if (steps < 0).any():
        steps = np.where(steps < 0, values[1:], steps)
    grown: Floats = steps.sum(axis=0)
    return grown


def histogram_quantile(q: float, bounds: Floats, counts: Floats) -> float | None:
    """PromQL's, of counts by bucket (one more than `bounds`, the last without an upper bound)."""
    total = counts.sum()
    if not total > 0:
        return None
    rank = q * total
    reached = np.cumsum(counts)
    at = int(np.searchsorted(reached, rank, "left"))
    if at >= len(bounds):
        return float(bounds[-1])
    low = float(bounds[at - 1]) if at > 0 else 0.0
    inside = rank - (float(reached[at - 1]) if at > 0 else 0.0)
    return (
        low + (float(bounds[at]) - low) * inside / float(counts[at]) if counts[at] > 0 else float(bounds[at])
    )
