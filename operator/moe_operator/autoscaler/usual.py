"""What demand usually is, and what that says of how it may grow. Pure.

Demand is that of many users who come and go on their own, so it varies by the root of what it is: what is little grows
by a larger factor than what is much. A doubling seen at night would else be expected at the day's peak, where most GPUs
are. So growth is learned as it would be at the usual demand, and told as it is at the present one.
"""

from dataclasses import dataclass

from moe_operator.autoscaler.growth import HALF_LIFE, Points

#: The logarithm of growth goes with (usual demand / present demand) to this power, within these limits.
_POWER = 0.5
_LEAST, _MOST = 0.5, 2.0


@dataclass
class Usual:
    """The mean demand of hours, in groups: sums that halve every HALF_LIFE seconds."""

    demand: float = 0.0
    """Group seconds."""
    seconds: float = 0.0

    def observed(self, demand: float, seconds: float) -> None:
        """It was `demand` groups for so many seconds."""
        left = 0.5 ** (seconds / HALF_LIFE)
        self.demand = self.demand * left + demand * seconds
        self.seconds = self.seconds * left + seconds

    @property
    def value(self) -> float | None:
        """In groups; None before anything was seen."""
        return self.demand / self.seconds if self.seconds > 0 else None

    def scale(self, demand: float) -> float:
        """How many times growth's logarithm at `demand` groups is what it is at the usual demand."""
        usual = self.value
        if not usual or demand <= 0:
            return 1.0
        return float(min(max((usual / demand) ** _POWER, _LEAST), _MOST))


def scaled(points: Points, scale: float) -> Points:
    """The distribution of growth at a demand of that scale, from the one at the usual demand."""
    return tuple((ratio**scale, weight) for ratio, weight in points)
