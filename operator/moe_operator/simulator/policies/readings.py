"""Sums and means over a view, as the autoscalers' own queries take them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from moe_operator.simulator.policy import View

STALE_AFTER = 60.0
"""Seconds after which a sample is no reading any more. Prometheus itself looks back 5 minutes; the autoscalers
that scrape engines themselves see at once that one is gone."""


def total(view: View, metric: str) -> float | None:
    """`sum(metric)`: None for an empty result, NaN where one of the values is."""
    values = [view.latest(metric)[group] for group in sorted(view.latest(metric))]
    return math.fsum(values) if values else None


@dataclass(frozen=True)
class Pooled:
    """A gauge over a window that ends with the newest sample in sight, `newest`."""

    newest: float
    per_scrape: float
    """Mean over the scrapes of the sum over the groups."""
    per_group: float
    """Mean over the scrapes of the mean over the groups."""


def pooled(view: View, metrics: Iterable[str], seconds: float) -> Pooled | None:
    """The sum of several gauges of a group, pooled over the window; None without a sample that is not stale.

    The window ends with the newest sample and not now: the autoscalers that are re-implemented here with
    windows of seconds scrape for themselves, and at a scrape every 15 s such a window would hold nothing.
    """
    names = list(metrics)
    series: dict[int, dict[float, float]] = {}
    for name in names:
        for group, (times, values) in view.window(name, seconds + STALE_AFTER).items():
            sums = series.setdefault(group, {})
            for index in range(len(times)):
                value = float(values[index])
                if math.isfinite(value):
                    at = float(times[index])
                    sums[at] = sums.get(at, 0.0) + value
    newest = max((at for sums in series.values() for at in sums), default=None)
    if newest is None:
        return None
    kept = {
        group: [value for at, value in sums.items() if at > newest - seconds]
        for group, sums in series.items()
    }
    scrapes = max(len(values) for values in kept.values())
    samples = [value for values in kept.values() for value in values]
    overall = math.fsum(samples)
    return Pooled(newest, overall / scrapes, overall / len(samples))


def peaks(view: View, metric: str, seconds: float) -> dict[int, float]:
    """`max_over_time(metric[seconds])` by group; as in Prometheus, NaN only where there is nothing else."""
    found: dict[int, float] = {}
    for group, (times, values) in view.window(metric, seconds).items():
        known = [float(values[index]) for index in range(len(times))]
        finite = [value for value in known if not math.isnan(value)]
        if known:
            found[group] = max(finite) if finite else math.nan
    return found
