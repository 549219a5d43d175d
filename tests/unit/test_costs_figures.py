"""Prices, ratios, comparisons and budgets to hand calculations. Lost otherwise: the number that self-hosting is decided
by, and the hand that keeps a deployment from spending more."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from factories.groups import NOW
from factories.ledgers import PRICE, held
from moe_operator.api.cost import (
    ApiPriceSpec,
    BudgetPeriod,
    BudgetSpec,
    BudgetState,
    CostSpec,
    PriceSource,
)
from moe_operator.costs.accounts import Accounts
from moe_operator.costs.amounts import amount, four_digits
from moe_operator.costs.budget import period_of, spending, with_periods
from moe_operator.costs.figures import Split, comparison, cost_figures
from moe_operator.costs.holdings import GpuState
from moe_operator.costs.ledger import Ledger, advanced, opened
from moe_operator.costs.marks import DAY
from moe_operator.costs.price import ListPrice, price_of, status_of

LISTED = ListPrice(Decimal("4.10"), "contract of April", shipped=False)


# --- whose price -----------------------------------------------------------------------------------


def _price(annotation: str | None = None, listed: ListPrice | None = LISTED, **spec: Any) -> Any:
    return price_of(CostSpec.model_validate(spec), "B200", "node-1", annotation, listed)


@pytest.mark.parametrize(
    ("given", "millionths", "source"),
    [
        (_price("1.5", pricePerGPUHour="2.10"), 2_100_000, PriceSource.SPEC),
        (_price("1.5"), 1_500_000, PriceSource.NODE),
        (_price("1.5 USD"), 1_500_000, PriceSource.NODE),
        (_price(), 4_100_000, PriceSource.PRICE_LIST),
        (_price(listed=ListPrice(Decimal("8.60"), "a list", shipped=True)), 8_600_000, PriceSource.CATALOGUE),
        (_price("1.95 EUR", currency="EUR"), 1_950_000, PriceSource.NODE),
        (_price(pricePerGPUHour="0"), 0, PriceSource.SPEC),
    ],
)
def test_the_nearer_price_counts(given: Any, millionths: int, source: PriceSource) -> None:
    assert (given.millionths, given.source) == (millionths, source)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (_price(listed=None), "no price of B200 is known: set spec.cost.pricePerGPUHour"),
        (_price(currency="EUR"), "known in USD only, not in EUR"),
        (_price("cheap", listed=None), "'cheap' is no price: write"),
        (_price("1.5 EUR", listed=None), "has a price in EUR, which is not converted"),
    ],
)
def test_without_a_price_the_reason_is_told(given: Any, says: str) -> None:
    assert given.millionths is None
    assert says in status_of([(8, given)]).message
    assert status_of([(8, given)]).per_gpu_hour is None


def test_nodes_that_differ_have_a_mean_by_gpus() -> None:
    status = status_of([(8, _price("1")), (24, _price("2"))])
    assert (status.per_gpu_hour, status.source) == ("1.75", PriceSource.MIXED)


# --- ratios ----------------------------------------------------------------------------------------


def _span(**counts: float) -> Accounts:
    """10 GPU-hours at 3.60, a quarter of them idle: 36 in all."""
    found = Accounts().with_gpus(GpuState.SERVING, 27_000, PRICE).with_gpus(GpuState.IDLE, 9_000, PRICE)
    names = ("input", "cached_input", "output", "completed", "aborted", "failed", "preempted")
    return found.with_counts(tuple(float(counts.get(name, 0)) for name in names))


def test_figures_are_those_of_a_hand_calculation() -> None:
    """36 over 4 million tokens. An input token takes 0.2 of an output token's time: 2 million computed ones weigh as
    0.4 million, so output has 1/1.4 of the cost."""
    span = _span(input=3e6, cached_input=1e6, output=1e6, completed=900, aborted=80, failed=20)
    found = cost_figures(span, NOW, Split(0.2))
    assert (found.cost, found.idle_cost, found.gpu_hours.total, found.gpu_hours.idle) == (
        "36.00",
        "9.00",
        "10.0000",
        "2.5000",
    )
    assert found.per_million_tokens == "9"
    assert found.per_million_output_tokens == "25.71"
    assert found.per_million_input_tokens == "3.429"
    assert (found.per_request, found.per_completed_request) == ("0.036", "0.04")
    whole = 3 * float(found.per_million_input_tokens) + float(found.per_million_output_tokens)
    assert whole == pytest.approx(36, rel=1e-3), "both together are all of the cost"


def test_without_a_sized_plan_input_and_output_are_not_told_apart() -> None:
    found = cost_figures(_span(input=1, output=1), NOW, None)
    assert found.per_million_tokens is not None
    assert found.per_million_input_tokens is None


def test_without_a_price_hours_are_told_all_the_same() -> None:
    span = Accounts().with_gpus(GpuState.SERVING, 7200, None)
    found = cost_figures(span, NOW, None)
    assert (found.cost, found.gpu_hours.total, found.unpriced_gpu_hours) == (None, "2.0000", "2.0000")


def test_nothing_is_divided_by_nothing() -> None:
    found = cost_figures(Accounts(), NOW, Split(0.2))
    assert (found.per_million_tokens, found.per_request, found.cost) == (None, None, "0")


def test_an_apis_price_gives_saving_and_break_even() -> None:
    """There 2 x 5 + 1 x 1 + 1 x 30 = 41, here 36, over half a day."""
    api = ApiPriceSpec(input_per_million="5", cached_input_per_million="1", output_per_million="30")
    span = _span(input=3e6, cached_input=1e6, output=1e6)
    found = comparison(span, DAY / 2, api)
    assert found is not None
    assert (found.api_cost, found.saving, found.saving_percent) == ("41.00", "5.00", 12)
    assert found.break_even_tokens_per_day == round(2 * 36 / 41 * 4e6)
    assert comparison(_span(), DAY, api) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.000123456, "0.0001235"), (1234567.0, "1235000"), (-0.5, "-0.5")]
)
def test_numbers_have_no_exponents(value: float, text: str) -> None:
    assert four_digits(value) == text


def test_money_has_cents() -> None:
    assert [amount(v) for v in (0.0, 0.01234, 1.0, 1234.567, -3.0)] == [
        "0",
        "0.01234",
        "1.00",
        "1234.57",
        "-3.00",
    ]


# --- budgets ---------------------------------------------------------------------------------------

MIDNIGHT = datetime(2027, 1, 16, tzinfo=UTC).timestamp()


def test_periods_follow_the_calendar_of_the_zone() -> None:
    """On 28 March 2027 a day in Berlin has 23 hours."""
    berlin = ZoneInfo("Europe/Berlin")
    noon = datetime(2027, 3, 28, 12, tzinfo=berlin).timestamp()
    start, end = period_of(BudgetPeriod.DAY, berlin, noon)
    assert (end - start) / 3600 == 23
    start, end = period_of(BudgetPeriod.MONTH, berlin, noon)
    assert datetime.fromtimestamp(start, berlin).isoformat() == "2027-03-01T00:00:00+01:00"
    assert datetime.fromtimestamp(end, berlin).isoformat() == "2027-04-01T00:00:00+02:00"


def _budget(**overrides: Any) -> BudgetSpec:
    return BudgetSpec.model_validate({"amount": "20", "period": "Day", "action": "Hold", **overrides})


def _looked(at: float, ledger: Ledger | None = None) -> Ledger:
    """8 GPUs at 0.001 a second since an hour before midnight: 28.80 an hour."""
    pod = held(begun=MIDNIGHT - 3600, history=((GpuState.SERVING, MIDNIGHT - 3600),))
    before = ledger or opened([pod], MIDNIGHT - 3600, "USD")
    return with_periods(before, advanced(before, [pod], at), ZoneInfo("UTC"))


def test_a_budget_is_spent_and_comes_back_with_the_next_day() -> None:
    ledger = _looked(MIDNIGHT - 3500)
    within = spending(_budget(), ledger)
    assert (within.status.state, within.held) == (BudgetState.WITHIN, None)
    assert within.due == pytest.approx(MIDNIGHT - 3600 + 20 / 0.008, abs=1), "looked at when it is spent"
    ledger = _looked(within.due, ledger)
    spent = spending(_budget(), ledger)
    assert spent.status.state is BudgetState.HELD
    assert spent.held is not None
    assert "until 2027-01-16T00:00:00Z" in spent.held
    assert spent.due == MIDNIGHT
    warned = spending(_budget(action="Warn"), ledger)
    assert (warned.status.state, warned.held) == (BudgetState.SPENT, None)
    ledger = _looked(MIDNIGHT + 100, ledger)
    fresh = spending(_budget(), ledger)
    assert (fresh.status.state, fresh.status.spent) == (BudgetState.WITHIN, "0.8")
    assert spending(_budget(period="Month"), ledger).status.spent == "29.60"


def test_what_was_spent_before_midnight_is_known_to_who_comes_after_it() -> None:
    """Nothing is written at midnight: the ledger from before has it."""
    ledger = _looked(MIDNIGHT + 5 * 3600, _looked(MIDNIGHT - 600))
    assert spending(_budget(), ledger).status.spent == amount(5 * 28.8)


@pytest.mark.parametrize(
    ("zone", "period", "hours"),
    [
        ("UTC", "Month", 480),
        ("America/New_York", "Month", 475),
        ("Europe/Berlin", "Month", 480),  # it began an hour before, of which nothing is kept any more
        ("UTC", "Day", 12),
        ("America/New_York", "Day", 7),
        ("Asia/Tokyo", "Day", 21),
    ],
)
def test_a_budget_in_another_time_zone_knows_what_was_spent_since_its_month_began(
    zone: str, period: str, hours: float
) -> None:
    """Kept for UTC, and set on the 21st, for a day at noon. Lost otherwise: nearly all of a month's
    spending, and its hold."""
    begin = datetime(2027, 2, 1, tzinfo=UTC).timestamp()
    pod = held(begun=begin - 7200, history=((GpuState.SERVING, begin - 7200),))
    ledger = opened([pod], begin - 7200, "USD")
    noon = begin + 20 * 86400 + (12 * 3600 if period == "Day" else 0)
    for at in range(int(begin) - 3600, int(noon), 1800):
        ledger = with_periods(ledger, advanced(ledger, [pod], float(at)), ZoneInfo("UTC"))
    ledger = with_periods(ledger, advanced(ledger, [pod], noon), ZoneInfo(zone))
    spent = spending(_budget(period=period, timeZone=zone), ledger).status.spent
    assert spent is not None
    assert float(spent) == pytest.approx(28.8 * hours, rel=0.001)


def test_without_a_price_a_budget_holds_nobody() -> None:
    pod = held(begun=MIDNIGHT, price=None)
    ledger = with_periods(
        opened([pod], MIDNIGHT, "USD"),
        advanced(opened([pod], MIDNIGHT, "USD"), [pod], MIDNIGHT + 900),
        ZoneInfo("UTC"),
    )
    found = spending(_budget(), ledger)
    assert (found.status.state, found.held) == (BudgetState.UNKNOWN, None)
    assert "pricePerGPUHour" in found.status.message
