"""A histogram that forgets: what is older counts for less. Pure.

Instead of shrinking every bin whenever something is added, what is added grows with time; the sums are brought back to
size before they become too large. Adding is one step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

#: Half-lives after which sums are brought back to size.
_LONG = 64.0


@dataclass
class Decayed:
    """`bins` sums of weights that halve every `half_life` seconds."""

    bins: int
    half_life: float
    weights: list[float] = field(default_factory=list)
    _began: float | None = None

    def __post_init__(self) -> None:
        self.weights = self.weights or [0.0] * self.bins

    def add(self, at: int, weight: float, now: float) -> None:
        """`weight` more in bin `at` (the nearest that there is)."""
        if self._began is None:
            self._began = now
        age = (now - self._began) / self.half_life
        if age > _LONG:
            shrunk = 2.0**-age
            self.weights = [each * shrunk for each in self.weights]
            self._began, age = now, 0.0
        self.weights[min(max(at, 0), self.bins - 1)] += weight * 2.0**age

    def present(self, now: float) -> Sequence[float]:
        """The weights as they count now."""
        if self._began is None:
            return self.weights
        shrunk = math.pow(2.0, -(now - self._began) / self.half_life)
        return [each * shrunk for each in self.weights]
