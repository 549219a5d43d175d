"""The ledger to hand calculations. Lost otherwise: trust in every figure of money, and GPU-hours that nobody bills."""

from dataclasses import replace

import pytest

from factories.groups import NOW
from factories.ledgers import PRICE, counted, held
from moe_operator.costs import text
from moe_operator.costs.accounts import Accounts
from moe_operator.costs.holdings import GpuState, PodSeen
from moe_operator.costs.ledger import Ledger, advanced, in_currency, opened
from moe_operator.costs.marks import DAY, HOUR, Mark, accounts_at, marked

STARTING, SERVING, IDLE, DRAINING = GpuState


def _serving(**overrides: object) -> PodSeen:
    return held(history=((SERVING, NOW + 100),), **overrides)


def _idle(since: float, **overrides: object) -> PodSeen:
    return held(history=((SERVING, NOW + 100), (IDLE, since)), **overrides)


def _draining(since: float, **overrides: object) -> PodSeen:
    return held(history=((SERVING, NOW + 100), (DRAINING, since)), **overrides)


def _away(ledger: Ledger, pods: list[PodSeen], now: float) -> Ledger:
    """The next operator's first look: all it has is the text."""
    return advanced(text.read(text.written(ledger), text.VERSION, now), pods, now, recalled=True)


def _seconds(ledger: Ledger) -> dict[str, float]:
    return {state.value: round(value, 3) for state, value in ledger.accounts.gpu_seconds.items()}


def test_a_groups_life_is_accounted_by_state_and_priced() -> None:
    """8 GPUs: 100 s of start, 300 s with requests, 600 s idle, 60 s of drain, at 0.001 a GPU-second."""
    ledger = opened([held()], NOW + 1, "USD")
    for pods, at in (
        ([held()], 1),
        ([_serving()], 130),
        ([_idle(NOW + 400)], 405),
        ([_draining(NOW + 1000)], 1001),
        ([], 1060),
    ):
        ledger = advanced(ledger, pods, NOW + at)
    assert _seconds(ledger) == {"starting": 800, "serving": 2400, "idle": 4800, "draining": 480}
    assert ledger.accounts.total_money == pytest.approx(8.48)
    assert ledger.accounts.money[IDLE] == pytest.approx(4.8)
    assert ledger.holds == ()


def test_what_merely_goes_on_follows_from_the_ledger_as_it_was_written() -> None:
    """Lost otherwise: a write per deployment every few seconds, for ever."""
    ledger = advanced(opened([_serving()], NOW + 200, "USD"), [_serving()], NOW + 200)
    later = text.read(text.written(ledger), text.VERSION, NOW + 7200).accounts_at(NOW + 7200)
    assert later.gpu_seconds[SERVING] == pytest.approx(8 * 7100)
    assert later.total_money == pytest.approx(8 * 7.2)


def test_an_operator_that_was_away_finds_when_groups_came_and_changed() -> None:
    ledger = advanced(opened([held()], NOW + 10, "USD"), [held()], NOW + 10)
    second = held("tiny-g1-0", begun=NOW + 500, history=((SERVING, NOW + 560),))
    ledger = _away(ledger, [_draining(NOW + 3000), second], NOW + 4000)
    assert _seconds(ledger) == {
        "starting": 8 * (100 + 60),
        "serving": 8 * (2900 + 3440),
        "idle": 0,
        "draining": 8000,
    }


def test_a_pod_that_was_replaced_meanwhile_ended_when_its_successor_began() -> None:
    ledger = advanced(opened([_serving()], NOW + 200, "USD"), [_serving()], NOW + 200)
    successor = held(uid="uid-2", begun=NOW + 1000, history=((STARTING, NOW + 1000),))
    ledger = _away(ledger, [successor], NOW + 5000)
    assert _seconds(ledger) == {"starting": 8 * (100 + 4000), "serving": 8 * 900, "idle": 0, "draining": 0}


def test_a_pod_whose_containers_ended_holds_nothing_any_more() -> None:
    ledger = advanced(opened([_serving()], NOW + 200, "USD"), [_serving()], NOW + 200)
    for at in (400, 500, 9000):
        ledger = advanced(ledger, [_serving(ended=NOW + 300.0)], NOW + at)
    assert advanced(ledger, [], NOW + 9999).accounts.total_seconds == pytest.approx(8 * 300)
    assert ledger.accounts_at(NOW + 10_000).total_seconds == pytest.approx(8 * 300)


def test_a_clock_that_goes_back_takes_nothing_and_counts_nothing_twice() -> None:
    ledger = opened([_serving()], NOW + 200, "USD")
    for at in (200, 1000, 400, 900, 1200):
        after = advanced(ledger, [_serving()], NOW + at)
        assert after.accounts.total_seconds >= ledger.accounts.total_seconds
        ledger = after
    assert ledger.accounts.total_seconds == pytest.approx(8 * 1200)


def test_a_pod_from_the_future_counts_from_when_it_began() -> None:
    """The API server's clock may be ahead of the operator's."""
    pod = held(begun=NOW + 30, history=((STARTING, NOW + 30),))
    ledger = opened([pod], NOW, "USD")
    for at in (0, 20, 130):
        ledger = advanced(ledger, [pod], NOW + at)
    assert ledger.accounts.total_seconds == pytest.approx(8 * 100)


def test_a_price_holds_until_another_is_seen() -> None:
    ledger = advanced(opened([held()], NOW, "USD"), [held()], NOW)
    ledger = advanced(ledger, [held(price=2 * PRICE)], NOW + 100)
    ledger = advanced(ledger, [held(price=None)], NOW + 200)
    ledger = advanced(ledger, [held(price=PRICE)], NOW + 300)
    assert ledger.accounts.total_money == pytest.approx(0.8 + 1.6)
    assert ledger.accounts.unpriced == pytest.approx(800)


def test_another_currency_begins_with_nothing_and_says_so() -> None:
    ledger = advanced(opened([held()], NOW, "USD"), [held()], NOW + 100)
    euros = in_currency(ledger, "EUR")
    assert (euros.currency, euros.accounts.total_money, euros.accounts.unpriced) == ("EUR", 0.0, 800)
    assert in_currency(ledger, "USD") is ledger
    later = _away(euros, [held(price=None)], NOW + 1000)
    assert later.accounts.total_money == 0.0, "what was a price in dollars is none in euros"
    assert (later.accounts.unpriced, later.elsewhere) == (8000, 800), "800 of them had one"
    back = in_currency(later, "USD")
    assert (back.accounts.total_money, back.elsewhere) == (0.0, 800)


# --- tokens ----------------------------------------------------------------------------------------


def _told(ledger: Ledger) -> tuple[float, float, float]:
    return tuple(ledger.accounts.count(name) for name in ("input", "output", "completed"))  # type: ignore[return-value]


def test_tokens_are_counted_across_restarts_of_the_engine() -> None:
    ledger = opened([], NOW, "USD")
    for run, since, prompt, output in (
        (0, 1.0, 100, 50),
        (0, 1.0, 300, 90),
        (1, 9.0, 40, 20),
        (1, 9.0, 60, 30),
    ):
        pod = _serving(run=run, reading=counted(prompt, output, since=since))
        ledger = advanced(ledger, [pod], NOW + 200)
    assert _told(ledger) == (360, 120, 9 + 3)


def test_a_scrape_that_is_ahead_of_the_watch_counts_a_restart_once() -> None:
    """The new engine's counters may be read before its restart is seen, or the old one's after."""
    for runs in ((0, 0, 1), (0, 1, 1)):
        ledger = opened([], NOW, "USD")
        for run, (since, output) in zip(runs, ((1.0, 100), (9.0, 30), (9.0, 50)), strict=True):
            ledger = advanced(ledger, [_serving(run=run, reading=counted(0, output, since=since))], NOW + 200)
        assert _told(ledger)[1] == 150
    late = opened([], NOW, "USD")
    for run, since, output in ((0, 1.0, 100), (1, 1.0, 100), (1, 9.0, 50)):
        late = advanced(late, [_serving(run=run, reading=counted(0, output, since=since))], NOW + 200)
    assert _told(late)[1] == 150


def test_a_rank_that_stops_to_tell_and_comes_back_is_not_counted_twice() -> None:
    ledger = opened([], NOW, "USD")
    for ranks, since, output in ((2, 1.0, 1000), (1, 5.0, 500), (2, 9.0, 1010), (2, 9.0, 1030)):
        ledger = advanced(ledger, [_serving(reading=counted(0, output, ranks=ranks, since=since))], NOW + 200)
    assert _told(ledger)[1] == 1020


def test_an_operator_goes_on_from_the_counters_that_were_written() -> None:
    pod = _serving(reading=counted(100, 50))
    ledger = advanced(opened([pod], NOW + 200, "USD"), [pod], NOW + 200)
    ledger = _away(ledger, [_serving(reading=counted(700, 350, since=77.0))], NOW + 4000)
    assert _told(ledger) == (700, 350, 35)
    begun_anew = _away(ledger, [_serving(run=1, reading=counted(900, 400, since=78.0))], NOW + 5000)
    assert _told(begun_anew) == (1600, 750, 75)


def test_the_operators_own_requests_are_nobodys_tokens_after_a_restart_either() -> None:
    """Else an idle deployment would have a cost per million tokens, of canaries."""
    own = counted(0, 0, own_prompt=40.0, own_output=8.0)
    ledger = advanced(opened([], NOW, "USD"), [_idle(NOW + 100, reading=own)], NOW + 200)
    now = replace(counted(400, 80, since=50.0), completed=80.0)  # of one token each, as the engine has them
    ledger = _away(ledger, [_idle(NOW + 100, reading=now)], NOW + 9000)
    assert _told(ledger) == (0, 0, 0)
    assert ledger.accounts.gpu_seconds[IDLE] == pytest.approx(8 * 8900)


def test_idle_engines_that_were_asked_while_nobody_looked_count_as_serving() -> None:
    pod = _idle(NOW + 100, reading=counted(100, 50))
    ledger = advanced(opened([], NOW, "USD"), [pod], NOW + 200)
    ledger = _away(ledger, [_idle(NOW + 3990, reading=counted(900, 450, since=50.0))], NOW + 4000)
    assert _told(ledger)[1] == 450
    assert ledger.accounts.gpu_seconds[SERVING] == pytest.approx(8 * 3790)


def test_only_the_time_that_nobody_watched_counts_as_used_where_an_idle_group_was_asked() -> None:
    pod = _idle(NOW + 100, reading=counted(100, 50))
    ledger = advanced(opened([], NOW, "USD"), [pod], NOW + 200)
    asked = _idle(NOW + 3990, reading=counted(900, 450, since=50.0))
    read = text.read(text.written(ledger), text.VERSION, NOW + 4000)
    found = advanced(read, [asked], NOW + 4000, recalled=True, watched_until=NOW + 3900)
    assert found.accounts.gpu_seconds[SERVING] == pytest.approx(8 * 90)
    assert found.latest.gpu_seconds[IDLE] == pytest.approx(8 * (3800 + 10))
    late = advanced(read, [asked], NOW + 4000, recalled=True, watched_until=NOW + 9000)
    assert late.latest.gpu_seconds[SERVING] == 0, "a clock that is ahead makes no time"


def test_until_engines_tell_what_was_done_meanwhile_is_left_open() -> None:
    """The first looks after a start are before the first scrape."""
    pod = _idle(NOW + 100, reading=counted(100, 50))
    ledger = advanced(opened([], NOW, "USD"), [pod], NOW + 200)
    unsure = _serving(unsure=True)
    ledger = _away(ledger, [unsure], NOW + 4000)
    assert ledger.latest.total_seconds == pytest.approx(8 * 4000)
    told = _idle(NOW + 3990, reading=counted(100, 50, since=3.0))
    ledger = advanced(ledger, [told], NOW + 4010, recalled=True)
    assert ledger.accounts.gpu_seconds[SERVING] == 0
    assert ledger.accounts.total_seconds == pytest.approx(8 * 4010)


# --- marks and text --------------------------------------------------------------------------------


def _sums(seconds: float) -> Accounts:
    return Accounts().with_gpus(SERVING, seconds, PRICE)


def test_marks_are_few_and_spans_come_out_of_them() -> None:
    marks: tuple[Mark, ...] = ()
    for minute in range(3 * 24 * 60):
        marks = marked(marks, Mark(NOW + 60 * minute, _sums(60 * minute)))
    assert len(marks) <= 12 + 24 + 2
    latest = Mark(NOW + 60 * (3 * 24 * 60 - 1), _sums(60 * (3 * 24 * 60 - 1)))
    for span in (HOUR, 7000.0, DAY):
        then = accounts_at(marks, latest.at - span, latest)
        assert then is not None
        assert then[0] == latest.at - span
        assert latest.accounts.since(then[1]).total_seconds == pytest.approx(span)


def test_the_ledger_reads_as_it_was_written() -> None:
    pods = [_serving(reading=counted(100, 50)), held("tiny-g1-0", price=None)]
    ledger = advanced(opened(pods, NOW + 150.25, "USD"), pods, NOW + 150.25)
    ledger = replace(ledger, periods={"Day": (NOW - 5, 1.25)})
    once = text.written(ledger)
    read = text.read(once, text.VERSION, NOW + 200)
    assert text.written(read) == once
    assert read.accounts == ledger.accounts
    assert read.periods == ledger.periods


#: Whole, and larger than a float can be.
LONG = "9" * 400


@pytest.mark.parametrize(
    ("change", "version"),
    [
        (lambda t: t, "0"),
        (lambda t: t[:-5], text.VERSION),
        (lambda t: "null", text.VERSION),
        (lambda t: t.replace('"at":', '"at":-'), text.VERSION),
        (lambda t: t.replace('"since":1', '"since":1e400,"x":1'), text.VERSION),
        (lambda t: t.replace('"holds":[]', '"holds":[[1]]'), text.VERSION),
        (lambda t: t.replace('"holds":[]', '"holds":[["u","p",8,99,1,null,1,null,0]]'), text.VERSION),
        (lambda t: t.replace('"holds":[]', f'"holds":[["u","p",{LONG},0,1,null,1,null,0]]'), text.VERSION),
        (lambda t: t.replace('"holds":[]', f'"holds":[["u","p",8,0,1,{LONG},1,null,0]]'), text.VERSION),
        (lambda t: t.replace('"sums":[[0', f'"sums":[[{LONG}'), text.VERSION),
        (lambda t: t.replace('"sums":[[0', '"sums":[[1e300'), text.VERSION),
        (lambda t: "[" * 100_000, text.VERSION),
        (lambda t: t.replace('"marks":[[', '"marks":[["x",'), text.VERSION),
    ],
)
def test_a_damaged_ledger_is_refused(change, version: str) -> None:  # type: ignore[no-untyped-def]
    """Lost: every pass over the deployment, which would raise, and with it its groups, to one damaged status."""
    with pytest.raises(text.UnusableLedgerError):
        text.read(change(text.written(opened([], NOW, "USD"))), version, NOW)


def test_a_hold_of_that_shape_is_read() -> None:
    """Else those above would be refused for their shape."""
    whole = text.written(opened([], NOW, "USD"))
    hold = text.read(
        whole.replace('"holds":[]', '"holds":[["u","p",8,0,1,null,1,null,0]]'), text.VERSION, NOW
    )
    assert (hold.holds[0].gpus, hold.holds[0].state) == (8, STARTING)
    assert '"sums":[[0' in whole


def test_a_ledger_from_the_future_is_refused() -> None:
    with pytest.raises(text.UnusableLedgerError, match="future"):
        text.read(text.written(opened([], NOW + 2 * DAY, "USD")), text.VERSION, NOW)
