"""Percentiles of times from the buckets of a histogram. Pure.

Within a bucket entries are taken as spread evenly, as Prometheus' `histogram_quantile` does. Unlike there, what the
buckets do not tell is absent: a percentile beyond the last finite bound, one in a bucket so wide that it would say
nothing, and one of so few requests that it would be a single one's luck.

Histograms of ranks, pods and groups are added up, bucket by bucket: a mean of percentiles is no percentile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moe_operator.telemetry.engine_counters import Histogram

#: A bucket whose bounds are further apart than by this factor is too wide, unless it is narrower than FINE seconds.
#: vLLM's own are at most a factor of 5 apart, and begin with 1 ms (first token) and 10 ms (output token).
COARSE, FINE = 5.0, 0.0101
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Percentiles:
    """In seconds; None where it is not known."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None

    def __bool__(self) -> bool:
        """Whether any is known."""
        return self.p50 is not None or self.p95 is not None or self.p99 is not None


def percentiles(of: Histogram, others: float = 0.0) -> Percentiles:
    """Of all entries. `others`: of them, those that are not meant and cannot be told apart: they do not count for
    whether there are enough."""
    told = [percentile(of.bounds, of.counts, share, of.count - others) for share in (0.5, 0.95, 0.99)]
    return Percentiles(*told)


def percentile(
    bounds: Sequence[float], counts: Sequence[float], share: float, entries: float | None = None
) -> float | None:
    """The time (s) that `share` (0 to 1, without its ends) of the entries kept. `counts` are cumulative, one for each
    bound, ascending. `entries`: of all, those that count for whether there are enough: at least one must be slower, so
    1 / (1 - share) of them."""
    total = counts[-1] if counts else 0.0
    enough = total if entries is None else min(entries, total)
    if enough * (1 - share) < 1 - _ROUNDING:
        return None
    wanted = share * total
    lower = below = 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= wanted and count > below:
            if math.isinf(bound) or _coarse(lower, bound):
                return None
            return lower + (bound - lower) * min(1.0, (wanted - below) / (count - below))
        lower, below = bound, count
    return None


def _coarse(lower: float, upper: float) -> bool:
    return upper - lower > FINE and upper > COARSE * lower * (1 + _ROUNDING)
