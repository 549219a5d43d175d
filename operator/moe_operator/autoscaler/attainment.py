"""Which share of requests kept an objective, from the buckets of a histogram. Pure.

vLLM's buckets are coarser than objectives: of time to first token there is none between 1 and 2.5 s, of time per output
token none between 75 and 100 ms. What lies in the objective's own bucket is put down in proportion.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Within:
    """Requests that kept the objective, of so many."""

    kept: float
    total: float

    @property
    def share(self) -> float | None:
        """0 to 1; None where there was none."""
        return self.kept / self.total if self.total > 0 else None


def within(bounds: Sequence[float], counts: Sequence[float], objective: float) -> Within:
    """`counts` are cumulative as Prometheus has them, one for each bound (s, ascending, the last may be infinite).

    Requests of the bucket with the objective are taken as spread evenly in it; above the last finite bound
    none kept it. Raises ValueError where the two do not belong together.
    """
    if len(bounds) != len(counts) or not counts:
        raise ValueError(f"{len(bounds)} bounds and {len(counts)} counts")
    below_bound = below = 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if bound == objective:
            return Within(count, counts[-1])
        if bound > objective:
            if math.isinf(bound):
                break
            part = (objective - below_bound) / (bound - below_bound)
            return Within(below + (count - below) * part, counts[-1])
        below_bound, below = bound, count
    return Within(below, counts[-1])
