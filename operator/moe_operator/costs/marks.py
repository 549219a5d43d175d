"""The accounts at earlier moments, thinned with age: what spans of time are taken from.

Between two marks all is taken to grow evenly. GPUs that go on do so exactly; tokens do as far as load is even over the
minutes between two marks of the last hour, or the hour between two earlier ones.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from moe_operator.costs.accounts import Accounts

HOUR, DAY = 3600.0, 86400.0
#: Least seconds between two marks: of the last hour, and of the day before.
FINE, COARSE = 300.0, HOUR


@dataclass(frozen=True, slots=True)
class Mark:
    """The accounts at one moment."""

    at: float
    accounts: Accounts


def marked(marks: Sequence[Mark], new: Mark) -> tuple[Mark, ...]:
    """The marks with another one: at most 12 of the last hour, 24 of the day, and one before. The newest comes only
    once the last is FINE old."""
    if marks and new.at - marks[-1].at < FINE:
        return tuple(marks)
    kept: list[Mark] = []
    for mark in (*marks, new):
        apart = COARSE if new.at - mark.at > HOUR else FINE
        # The first of those that lie closer stays, as its successors' distance to it is known.
        if not kept or mark is new or mark.at - kept[-1].at >= apart:
            kept.append(mark)
    beyond = sum(mark.at <= new.at - DAY for mark in kept)
    return tuple(kept[max(0, beyond - 1) :])


def accounts_at(marks: Sequence[Mark], at: float, latest: Mark) -> tuple[float, Accounts] | None:
    """The accounts at a moment before `latest`, and when they were: at the first mark where that is later. None
    without any mark."""
    every = [*(mark for mark in marks if mark.at < latest.at), latest]
    if len(every) == 1:
        return None
    if at <= every[0].at:
        return every[0].at, every[0].accounts
    index = min(bisect_right([mark.at for mark in every], at), len(every) - 1)
    before, after = every[index - 1], every[index]
    share = min(1.0, (at - before.at) / (after.at - before.at))
    return at, before.accounts.towards(after.accounts, share)
