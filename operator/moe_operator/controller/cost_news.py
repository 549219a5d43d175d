"""What Events tell of budgets. Pure."""

from collections.abc import Iterator

from moe_operator.api import reasons
from moe_operator.api.cost import BudgetState, CostStatus
from moe_operator.controller.width_news import News

_SPENT = (BudgetState.SPENT, BudgetState.HELD)


def budget_news(before: CostStatus | None, after: CostStatus | None) -> Iterator[News]:
    """Type, reason and note: once when a budget is spent, and once when there is something of it again."""
    old = before.budget if before is not None else None
    new = after.budget if after is not None else None
    if new is None:
        return
    was, now = old is not None and old.state in _SPENT, new.state in _SPENT
    if now and (not was or (old is not None and old.state is not new.state)):
        yield "Warning", reasons.BUDGET_SPENT, new.message
    elif was and not now:
        yield "Normal", reasons.BUDGET_RESUMED, new.message
