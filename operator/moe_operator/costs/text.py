"""The ledger as the status keeps it, and back. Compact, as it is written with every status: some 100 bytes for each pod
and each mark."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from moe_operator.costs.accounts import Accounts
from moe_operator.costs.holdings import TOKENS, GpuState, Hold, Meter, Reading
from moe_operator.costs.ledger import Ledger
from moe_operator.costs.marks import Mark
from moe_operator.costs.told import Told

VERSION = "1"
#: Seconds that the ledger may be ahead of the reader's clock.
_AHEAD = 86400.0
_STATES = tuple(GpuState)
#: Nobody counts so far: tokens of a year at 1e10 a second, milliseconds since the epoch.
_ABSURD = 1e18


class UnusableLedgerError(ValueError):
    """It is of another version, damaged, or from the future: accounts begin anew."""


def written(ledger: Ledger) -> str:
    """As `read` takes it, of `VERSION`."""
    return json.dumps(
        {
            "since": _seconds(ledger.since),
            "at": _seconds(ledger.at),
            "currency": ledger.currency,
            "sums": _sums(ledger.accounts),
            "holds": [_hold(hold) for hold in ledger.holds],
            "marks": [[_seconds(mark.at), _sums(mark.accounts)] for mark in ledger.marks],
            "periods": {
                name: [_seconds(start), round(money, 6)]
                for name, (start, money) in sorted((ledger.periods or {}).items())
            },
            **({"elsewhere": _seconds(ledger.elsewhere)} if ledger.elsewhere else {}),
            **({"told": _told(ledger.told)} if ledger.told is not None else {}),
        },
        separators=(",", ":"),
    )


def read(text: str, version: str, now: float) -> Ledger:
    """Raises UnusableLedgerError."""
    if version != VERSION:
        raise UnusableLedgerError(f"it is of version {version[:16]!r}, not {VERSION}")
    try:
        data = json.loads(text)
        ledger = Ledger(
            since=_number(data["since"]),
            at=_number(data["at"]),
            currency=str(data["currency"]),
            accounts=_accounts(data["sums"]),
            holds=tuple(_read_hold(*hold) for hold in data["holds"]),
            marks=tuple(Mark(_number(at), _accounts(sums)) for at, sums in data["marks"]),
            periods={
                str(name): (_number(start), _number(money))
                for name, (start, money) in data["periods"].items()
            },
            elsewhere=_number(data.get("elsewhere", 0)),
            told=_read_told(*data["told"]) if "told" in data else None,
        )
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise UnusableLedgerError(f"it is damaged: {type(error).__name__}") from error
    if ledger.at > now + _AHEAD:
        raise UnusableLedgerError("it is from the future")
    return ledger


def _seconds(value: float) -> float | int:
    """To the millisecond."""
    return _short(round(value, 3))


def _short(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def _sums(accounts: Accounts) -> list[Any]:
    kept = accounts.rounded()
    return [
        [_short(kept.gpu_seconds[state]) for state in _STATES],
        [_short(kept.money[state]) for state in _STATES],
        _short(kept.unpriced),
        [_short(count) for count in kept.counts],
        *([[_short(kept.joules), _short(kept.metered)]] if accounts.metered else []),
    ]


def _accounts(sums: Sequence[Any]) -> Accounts:
    seconds, money, unpriced, counts, *energy = sums
    joules, metered = _numbers(energy[0], 2) if energy else (0.0, 0.0)
    return Accounts(
        dict(zip(_STATES, _numbers(seconds), strict=True)),
        dict(zip(_STATES, _numbers(money), strict=True)),
        _number(unpriced),
        tuple(_numbers(counts, len(TOKENS))),
        joules,
        metered,
    )


def _told(told: Told) -> list[Any]:
    return [
        [_short(told.seconds[state]) for state in _STATES],
        [_short(told.money[state]) for state in _STATES],
        _short(told.unpriced),
    ]


def _read_told(seconds: Any, money: Any, unpriced: Any) -> Told:
    return Told(
        dict(zip(_STATES, _numbers(seconds), strict=True)),
        dict(zip(_STATES, _numbers(money), strict=True)),
        _number(unpriced),
    )


def _hold(hold: Hold) -> list[Any]:
    reading = hold.reading.with_own() if hold.reading is not None else None
    counted = [*(round(count) for count in reading.counts), reading.ranks] if reading is not None else None
    return [
        hold.uid,
        hold.place,
        hold.gpus,
        _STATES.index(hold.state),
        _seconds(hold.until),
        hold.price,
        hold.run,
        counted,
        int(hold.ended),
        *([_meter(hold.meter)] if hold.meter is not None else []),
    ]


def _meter(meter: Meter) -> list[Any]:
    return [_seconds(meter.joules), _seconds(meter.at), _seconds(meter.since)]


def _read_hold(
    uid: Any,
    place: Any,
    gpus: Any,
    state: Any,
    until: Any,
    price: Any,
    run: Any,
    counted: Any,
    ended: Any,
    meter: Any = None,
) -> Hold:
    return Hold(
        uid=str(uid),
        place=str(place),
        gpus=_whole(gpus),
        state=_STATES[_whole(state)],
        until=_number(until),
        price=None if price is None else _whole(price),
        run=_whole(run),
        reading=None if counted is None else _reading(_numbers(counted, len(TOKENS) + 1)),
        ended=bool(ended),
        meter=None if meter is None else Meter(*_numbers(meter, 3)),
    )


def _reading(numbers: Sequence[float]) -> Reading:
    prompt, cached, output, completed, aborted, failed, preempted, ranks = numbers
    return Reading(prompt, cached, output, completed, aborted, failed, preempted, int(ranks))


def _numbers(values: Iterable[Any], length: int = len(_STATES)) -> list[float]:
    found = [_number(value) for value in values]
    if len(found) != length:
        raise ValueError("another number of figures")
    return found


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _ABSURD:
        raise ValueError("no number of things that are counted")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _ABSURD:
        raise ValueError("no whole number")
    return value
