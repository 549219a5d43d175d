"""Sums and means over a view, as the autoscalers' own queries take them."""

import math
from collections.abc import Iterable

from moe_operator.simulator.policy import View

STALE_AFTER = 60.0
"""Seconds after which a sample is no reading any more. Prometheus itself looks back 5 minutes; the autoscalers
that scrape engines themselves see at once that one is gone."""


def total(view: View, metric: str) -> float | None:
    """`sum(metric)`: None for an empty result, NaN where one of the values is."""
    latest = view.latest(metric)
    values = [latest[group] for group in sorted(latest)]
    return math.fsum(values) if values else None


def newest_sum(view: View, metrics: Iterable[str]) -> tuple[float, float] | None:
    """(time of the newest scrape, sum over the groups of several gauges' newest samples), stale ones left out.

    None where all are stale or no numbers. For autoscalers that scrape for themselves and keep what they saw: a
    view tells the past of those groups alone that are ready now.
    """
    summed, newest = 0.0, None
    for name in metrics:
        for times, values in view.window(name, STALE_AFTER).values():
            known = next(
                (index for index in reversed(range(len(times))) if math.isfinite(values[index])), None
            )
            if known is not None:
                at = float(times[known])
                summed += float(values[known])
                newest = at if newest is None else max(newest, at)
    return None if newest is None else (newest, summed)


def peaks(view: View, metric: str, seconds: float) -> dict[int, float]:
    """`max_over_time(metric[seconds])` by group; as in Prometheus, NaN only where there is nothing else."""
    found: dict[int, float] = {}
    for group, (times, values) in view.window(metric, seconds).items():
        known = [float(values[index]) for index in range(len(times))]
        finite = [value for value in known if not math.isnan(value)]
        if known:
            found[group] = max(finite) if finite else math.nan
    return found
