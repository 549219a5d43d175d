"""What counters say across operators. One that falls is counted once more by Prometheus, in full; one that runs ahead
is GPUs on a bill that nobody held."""

from dataclasses import replace

import pytest

from factories.groups import NOW
from factories.ledgers import PRICE, held
from moe_operator.costs import text
from moe_operator.costs.counters import BEHIND, Counters
from moe_operator.costs.holdings import GpuState
from moe_operator.costs.ledger import Ledger, advanced, in_currency, opened

SERVING = GpuState.SERVING
_POD = held(gpus=8, history=((SERVING, NOW),), price=PRICE)
_GONE = replace(_POD, ended=NOW + 60.0)


def _written(at: float) -> Ledger:
    """By an operator that saw the pod serve since NOW, and wrote it then."""
    ledger = advanced(opened([_POD], NOW, "USD"), [_POD], NOW + at)
    return text.read(text.written(ledger), text.VERSION, NOW + at)


def _recalled(before: Ledger, now: float, led_until: float) -> tuple[Counters, Ledger]:
    """The successor's counters after its first look, which finds that the pod was gone after a minute."""
    counters = Counters.after(before, led_until, now)
    ledger = advanced(before, [_GONE], now, recalled=True)
    counters.looked(ledger)
    counters.tell(ledger, before, now)
    return counters, ledger


def test_an_hour_without_an_operator_is_not_told_for_a_group_that_went_in_its_first_minute() -> None:
    counters, ledger = _recalled(_written(30), NOW + 3600, led_until=NOW + 40)
    assert counters.told.seconds[SERVING] == pytest.approx(8 * 60, rel=0.01)
    assert counters.ahead(ledger) is None


def test_what_was_told_in_an_operators_last_minute_is_said_again_by_all_that_come_after() -> None:
    """The first could not write that the group had gone: it may have told more than there was, and so do the others."""
    before = _written(30)
    counters, ledger = _recalled(before, NOW + 210, led_until=NOW + 200)
    assert counters.told.seconds[SERVING] == 8 * (200 - BEHIND)
    ahead = counters.ahead(ledger)
    assert ahead is not None
    assert ahead.seconds[SERVING] > ledger.accounts.gpu_seconds[SERVING] == 480

    after = text.read(text.written(replace(ledger, told=ahead)), text.VERSION, NOW + 300)
    assert after.told == ahead
    third = Counters.after(after, NOW + 210, NOW + 300)
    assert third.told == counters.told


def test_what_was_told_in_another_currency_is_no_money_in_this_one() -> None:
    counters, ledger = _recalled(_written(30), NOW + 210, led_until=NOW + 200)
    euros = in_currency(replace(ledger, told=counters.ahead(ledger)), "EUR")
    assert euros.told is not None
    assert set(euros.told.money.values()) == {0.0}
    assert euros.told.seconds == counters.told.seconds


def test_a_damaged_account_of_it_is_refused() -> None:
    counters, ledger = _recalled(_written(30), NOW + 210, led_until=NOW + 200)
    good = text.written(replace(ledger, told=counters.ahead(ledger)))
    bad = good.replace('"told":[[', '"told":[[-1,')
    assert bad != good
    with pytest.raises(text.UnusableLedgerError, match="damaged"):
        text.read(bad, text.VERSION, NOW + 300)
