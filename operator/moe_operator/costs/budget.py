"""What a deployment has spent of its budget, and what follows."""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from moe_operator.api.cost import BudgetAction, BudgetPeriod, BudgetSpec, BudgetState, BudgetStatus
from moe_operator.api.time_zones import time_zone
from moe_operator.api.times import format_time
from moe_operator.costs.accounts import Accounts
from moe_operator.costs.amounts import amount
from moe_operator.costs.figures import priced
from moe_operator.costs.holdings import GpuState
from moe_operator.costs.ledger import Ledger
from moe_operator.costs.marks import Mark, accounts_at

_UTC = ZoneInfo("UTC")


@dataclass(frozen=True)
class Spending:
    """Where a deployment stands with its budget."""

    status: BudgetStatus
    held: str | None
    """Why no more groups are made, for people; None: nothing holds them."""
    due: float
    """When to look again at the latest: it may be spent by then, or the period over."""


def zone_of(budget: BudgetSpec | None) -> ZoneInfo:
    """The budget's time zone; UTC without one, and where the database does not have it (`api.rules` refuses that)."""
    return (time_zone(budget.time_zone) if budget is not None else None) or _UTC


def period_of(period: BudgetPeriod, zone: ZoneInfo, now: float) -> tuple[float, float]:
    """When the present one began, and when the next one does."""
    today = datetime.fromtimestamp(now, zone).date()
    if period is BudgetPeriod.DAY:
        begin, end = today, today + timedelta(days=1)
    else:
        begin = today.replace(day=1)
        end = (begin + timedelta(days=32)).replace(day=1)
    starts = (datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() for day in (begin, end))
    return next(starts), next(starts)


def with_periods(before: Ledger, after: Ledger, zone: ZoneInfo) -> Ledger:
    """The ledger after a look, with what had been spent when the present day and month began. Both are kept whatever
    the budget is for, so that it may be set or changed at any time. `before` is in the same currency."""
    latest = Mark(after.at, after.latest)
    marks = [mark for mark in before.marks if mark.at < before.at]
    marks.append(Mark(before.at, before.latest))
    known, found = after.periods or {}, {}
    # Marks reach back a day. For a month that begins at another hour, as its zone is another, these know more.
    earlier = sorted((at, money) for at, money in known.values() if at < marks[0].at)
    marks = [*(_point(at, money) for at, money in earlier), *marks]
    for period in BudgetPeriod:
        start, _ = period_of(period, zone, after.at)
        kept = known.get(period.value)
        if kept is None or kept[0] != start:
            then = accounts_at(marks, start, latest)
            kept = (start, then[1].total_money if then is not None else 0.0)
        found[period.value] = kept
    return replace(after, periods=found)


def _point(at: float, money: float) -> Mark:
    """Of which only all of the money is known."""
    none = dict.fromkeys(GpuState, 0.0)
    return Mark(at, Accounts(money={**none, GpuState.SERVING: money}))


def spending(budget: BudgetSpec, ledger: Ledger) -> Spending:
    """By the last look; of a ledger `with_periods`."""
    start, end = period_of(budget.period, zone_of(budget), ledger.at)
    before = (ledger.periods or {}).get(budget.period.value, (start, 0.0))[1]
    spent, limit = max(0.0, ledger.latest.total_money - before), float(budget.amount)
    currency, each = ledger.currency, budget.period.value.lower()
    known = priced(ledger.latest) and not any(hold.price is None for hold in ledger.holds)
    numbers = f"{amount(spent)} of {amount(limit)} {currency} a {each}"
    held, due = None, end
    if spent >= limit:
        hold = budget.action is BudgetAction.HOLD
        state = BudgetState.HELD if hold else BudgetState.SPENT
        until = f"until {format_time(end)}"
        text = f"{numbers} are spent"
        if hold:
            held = f"{text} (cost.budget): no more groups are made {until}, or until it is raised"
            text += f": no more groups are made {until}"
        text += "; raise cost.budget.amount to allow more"
    elif not known:
        state = BudgetState.UNKNOWN
        text = f"{numbers}, without GPUs whose price is not known: set spec.cost.pricePerGPUHour"
    else:
        state, text = BudgetState.WITHIN, f"{numbers} are spent"
        rate = ledger.money_per_second()
        if rate > 0:
            # A little later, so that it is spent by then.
            due = min(due, ledger.at + (limit - spent) / rate + 0.5)
    return Spending(
        BudgetStatus(
            state=state,
            period_start=format_time(start),
            resets_at=format_time(math.ceil(end)),
            spent=amount(spent),
            amount=budget.amount,
            message=text,
        ),
        held,
        due,
    )
