"""How long a group takes from the decision until it serves: what was seen, or what is to be expected. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

#: Seconds assumed before any start was seen: a large model read from shared storage.
PRIOR = 300.0
#: Starts that are remembered: they change with the image, the weights' place and the nodes.
KEPT = 20
#: Of the starts seen, the share that is to be no longer than what is counted with.
QUANTILE = 0.9
#: Starts from which on the prior no longer counts as one of them.
_ENOUGH = KEPT // 4


@dataclass(frozen=True, slots=True)
class ColdStart:
    """The last starts, in seconds, oldest first."""

    seen: tuple[float, ...] = ()
    prior: float = PRIOR

    def observed(self, seconds: float) -> "ColdStart":
        """With one more start. A length that is not positive says nothing."""
        if not seconds > 0:
            return self
        return ColdStart((*self.seen, seconds)[-KEPT:], self.prior)

    @property
    def expected(self) -> float:
        """Seconds to count with: the 0.9 quantile of what was seen, with the prior while that is little."""
        known = self.seen if len(self.seen) >= _ENOUGH else (*self.seen, self.prior)
        return quantile(sorted(known), QUANTILE)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between order statistics, as numpy's default. `ordered` must not be empty."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
