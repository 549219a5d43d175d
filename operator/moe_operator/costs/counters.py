"""What counters say of GPUs that are held: never less than before, whoever says it.

In a counter that falls Prometheus takes all of it for new. Two things would have one fall: that a group came to another
state is seen some seconds later, when so many were told for the state before; and an operator may end before it has
written what it told. So counters are BEHIND, and say no more than follows from the ledger as it is written, which is
where the next operator goes on.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from moe_operator.costs.accounts import Accounts
from moe_operator.costs.ledger import Ledger, in_currency
from moe_operator.costs.told import Told

#: Seconds by which counters are behind: so late may be seen when a group came to another state.
BEHIND = 30.0
#: Least seconds between two moments of the past that are kept for that.
_APART = 3.0


@dataclass
class Counters:
    """Of one deployment."""

    told: Told = field(default_factory=Told)
    _began_with: Ledger | None = None
    """As it was written by the operator before; None: there was none."""
    _sure: float = 0.0
    """Up to this moment that operator may have told that all went on as it was written."""
    _currency: str | None = None
    _past: deque[tuple[float, Accounts]] = field(default_factory=deque)
    """The accounts at moments, oldest first, back to BEHIND before the last."""

    @staticmethod
    def after(written: Ledger, led_until: float, now: float) -> "Counters":
        """Those of an operator that begins at `now` with what is written. `led_until`: until when, at the latest,
        another one told. Of the time without any nothing is told ahead: of a group that was gone in its first minute
        that would be an hour too much."""
        sure = max(written.at, min(led_until, now) - BEHIND)
        told = Told.of(written.accounts_at(sure), written.elsewhere)
        if written.told is not None:
            told = told.most(written.told)
        return Counters(told, written, sure, written.currency)

    def looked(self, ledger: Ledger) -> None:
        """Take up the ledger after a look."""
        if ledger.currency != self._currency:
            self._currency, self.told = ledger.currency, self.told.without_money()
            self._past.clear()
        if not self._past or ledger.at >= self._past[-1][0] + _APART:
            self._past.append((ledger.at, ledger.latest))
        while len(self._past) > 1 and self._past[1][0] <= ledger.at - BEHIND:
            self._past.popleft()

    def tell(self, ledger: Ledger, written: Ledger | None, now: float) -> None:
        """Go on to what may be said at `now`. `ledger`: as it was taken up last; `written`: as others find it; None:
        not yet, when they would begin as this one did."""
        seen = Told.of(self._seen_at(ledger, now - BEHIND), ledger.elsewhere)
        if written is not None:
            known = in_currency(written, ledger.currency)
            seen = seen.least(Told.of(known.accounts_at(now - BEHIND), known.elsewhere))
        self.told = self.told.most(seen)

    def ahead(self, ledger: Ledger) -> Told | None:
        """What is to be written with a ledger, so that whoever begins with it says no less."""
        latest = Told.of(ledger.latest, ledger.elsewhere)
        return self.told if latest.most(self.told) != latest else None

    def _seen_at(self, ledger: Ledger, moment: float) -> Accounts:
        """The accounts at a moment, as they are known by now; before the first look what was written then."""
        newest = ledger.at, ledger.latest
        if moment >= newest[0]:
            return ledger.accounts_at(moment)
        for (before, then), (after, later) in pairwise((*self._past, newest)):
            if before <= moment < after:
                return then.towards(later, (moment - before) / (after - before))
        if self._began_with is None:
            return Accounts()
        began = in_currency(self._began_with, ledger.currency)
        first, then = self._past[0]
        if moment <= self._sure:
            return began.accounts_at(moment)
        return began.accounts_at(self._sure).towards(then, (moment - self._sure) / (first - self._sure))
