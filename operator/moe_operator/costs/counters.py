"""What counters say of GPUs that are held: never less than before, whoever says it.

In a counter that falls Prometheus takes all of it for new. Two things would have one fall: that a group came to another
state is seen some seconds later, when so many were told for the state before; and an operator may end before it has
written what it told. So counters are BEHIND, and say no more than follows from the ledger as it is written, which is
where the next operator goes on.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from moe_operator.costs.accounts import Accounts
from moe_operator.costs.holdings import GpuState
from moe_operator.costs.ledger import Ledger, in_currency

#: Seconds by which counters are behind: so late may be seen when a group came to another state.
BEHIND = 30.0
#: Least seconds between two moments of the past that are kept for that.
_APART = 3.0


@dataclass
class Counters:
    """Of one deployment. Seconds are GPU-seconds; they begin with nothing."""

    began_with: Ledger | None = None
    """As it was written by the operator before; None: there was none."""
    seconds: Mapping[GpuState, float] = field(default_factory=dict)
    money: Mapping[GpuState, float] = field(default_factory=dict)
    unpriced: float = 0.0
    """Seconds that never had a price, in whichever currency."""
    _currency: str | None = None
    _past: deque[tuple[float, Accounts]] = field(default_factory=deque)
    """The accounts at moments, oldest first, back to BEHIND before the last."""

    def looked(self, ledger: Ledger) -> None:
        """Take up the ledger after a look."""
        if ledger.currency != self._currency:
            self._currency, self.money = ledger.currency, {}
            self._past.clear()
        if not self._past or ledger.at >= self._past[-1][0] + _APART:
            self._past.append((ledger.at, ledger.latest))
        while len(self._past) > 1 and self._past[1][0] <= ledger.at - BEHIND:
            self._past.popleft()

    def tell(self, ledger: Ledger, written: Ledger | None, now: float) -> None:
        """Go on to what may be said at `now`. `ledger`: as it was taken up last; `written`: as others find it; None:
        not yet, when they would begin as this one did."""
        seen = self._seen_at(ledger, now - BEHIND).rounded()
        known = in_currency(written, ledger.currency) if written is not None else None
        sure = known.accounts_at(now - BEHIND).rounded() if known is not None else seen
        self.seconds = _more(self.seconds, seen.gpu_seconds, sure.gpu_seconds)
        self.money = _more(self.money, seen.money, sure.money)
        unpriced = min(
            seen.unpriced - ledger.elsewhere,
            sure.unpriced - (known if known is not None else ledger).elsewhere,
        )
        self.unpriced = max(self.unpriced, round(unpriced, 3))

    def _seen_at(self, ledger: Ledger, moment: float) -> Accounts:
        """The accounts at a moment, as they are known by now; before the first look what was written then."""
        newest = ledger.at, ledger.latest
        if moment >= newest[0]:
            return ledger.accounts_at(moment)
        for (before, then), (after, later) in pairwise((*self._past, newest)):
            if before <= moment < after:
                return then.towards(later, (moment - before) / (after - before))
        if self.began_with is None:
            return Accounts()
        return in_currency(self.began_with, ledger.currency).accounts_at(moment)


def _more(
    told: Mapping[GpuState, float], seen: Mapping[GpuState, float], sure: Mapping[GpuState, float]
) -> Mapping[GpuState, float]:
    return {state: max(told.get(state, 0.0), min(seen[state], sure[state])) for state in GpuState}
