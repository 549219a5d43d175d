"""A least-squares line through a metric's last samples, drawn out to a horizon.

Source: vllm-project/aibrix pkg/controller/podautoscaler/prediction/predictor.go @9835400.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Projector:
    """Times are seconds."""

    horizon: float = 120.0
    window: float = 180.0
    """The line is drawn through the samples of this long (`observeWindowSeconds`)."""
    least_samples: int = 3
    least_span: float = 0.5
    """Share of the window that the samples must span."""
    most_growth: float = 4.0
    """The projection is at most this many times the mean."""

    def project(self, samples: Sequence[tuple[float, float]], now: float) -> float | None:
        """The value at the horizon, from (time, value) pairs; None where there is too little to go by.

        It starts at the mean of the window and not at the line's own end: a steady ramp is projected half a
        window late.
        """
        kept = sorted(
            (sample for sample in samples if now - self.window < sample[0] <= now),
            key=lambda sample: sample[0],
        )
        if len(kept) < self.least_samples or kept[-1][0] - kept[0][0] < self.least_span * self.window:
            return None
        mean_time = math.fsum(at for at, _ in kept) / len(kept)
        mean = math.fsum(value for _, value in kept) / len(kept)
        spread = math.fsum((at - mean_time) ** 2 for at, _ in kept)
        if spread == 0:
            return None
        slope = math.fsum((at - mean_time) * (value - mean) for at, value in kept) / spread
        projected = max(0.0, mean + slope * self.horizon)
        return min(projected, mean * self.most_growth) if mean > 0 else projected
