"""A ledger as the status has it."""

from dataclasses import dataclass

from moe_operator.api.cost import CostSpec, CostStatus, LedgerStatus, PriceStatus
from moe_operator.api.times import format_time
from moe_operator.costs import text
from moe_operator.costs.accounts import Accounts
from moe_operator.costs.amounts import four_digits
from moe_operator.costs.budget import Spending
from moe_operator.costs.figures import Split, comparison, cost_figures, per_million
from moe_operator.costs.ledger import Ledger
from moe_operator.costs.marks import DAY, HOUR, Mark, accounts_at


@dataclass(frozen=True)
class Span:
    """What came in a span of time."""

    since: float
    accounts: Accounts


def spans(ledger: Ledger) -> tuple[Span, Span, Span]:
    """The last hour, the last day, and all, up to the last look."""
    now = ledger.latest
    found = []
    for length in (HOUR, DAY):
        then = accounts_at(ledger.marks, ledger.at - length, Mark(ledger.at, now))
        start, earlier = then if then is not None else (ledger.at, now)
        found.append(Span(start, now.since(earlier)))
    return found[0], found[1], Span(ledger.since, now)


def headline(ledger: Ledger) -> float | None:
    """Cost per million tokens of the shortest span that has any."""
    every = (per_million(span.accounts) for span in spans(ledger))
    return next((value for value in every if value is not None), None)


def statement(
    ledger: Ledger, spec: CostSpec, price: PriceStatus, split: Split | None, spending: Spending | None
) -> CostStatus:
    """As of the last look."""
    hour, day, total = spans(ledger)
    told = headline(ledger)
    return CostStatus(
        time=format_time(ledger.at),
        since=format_time(ledger.since),
        currency=ledger.currency,
        price=price,
        per_million_tokens=None if told is None else four_digits(told),
        last_hour=cost_figures(hour.accounts, hour.since, split),
        last_day=cost_figures(day.accounts, day.since, split),
        total=cost_figures(total.accounts, total.since, split),
        comparison=comparison(day.accounts, ledger.at - day.since, spec.compare_to)
        if spec.compare_to is not None
        else None,
        budget=spending.status if spending is not None else None,
        ledger=LedgerStatus(version=text.VERSION, state=text.written(ledger)),
    )
