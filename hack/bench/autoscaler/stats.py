"""Means with intervals: what other seeds would have given."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mean:
    """A mean and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 3) -> str:
        """`0.912 (0.903 to 0.921)`."""
        if self.low == self.high:
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def bootstrap(by_seed: Sequence[float], *, draws: int = 10_000, seed: int = 0) -> Mean:
    """Of one figure per seed, each already a mean (of paired ratios, say) over all traces and cold starts of the seed.

    Percentile bootstrap over seeds: they are what is drawn, traces and cold starts are what was chosen.
    """
    values = np.asarray(by_seed, dtype=np.float64)
    if not len(values):
        return Mean(float("nan"), float("nan"), float("nan"))
    drawn = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    means = values[drawn].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Mean(float(values.mean()), float(low), float(high))
