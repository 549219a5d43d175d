"""The ledger against an independent account of any history. A breach here is money that was never spent, or that
nobody is told of, and a sum of them over months is a wrong decision about where to run a model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories.groups import NOW
from factories.ledgers import PRICE, counted, held
from moe_operator.costs import text
from moe_operator.costs.counters import BEHIND, Counters
from moe_operator.costs.holdings import GpuState, Meter, PodSeen
from moe_operator.costs.ledger import Ledger, advanced, opened

STARTING, SERVING, IDLE, DRAINING = GpuState
_END = 1000


@dataclass(frozen=True)
class _Life:
    """Of one pod, in seconds after NOW; whole ones, so that sums are exact."""

    gpus: int
    begun: int
    ready: int
    draining: int
    ended: int
    resets: tuple[int, ...]
    """When its engine began anew."""
    rate: int
    """Tokens per second while it serves."""
    priced: bool

    def state(self, at: int) -> GpuState:
        if at < self.ready:
            return STARTING
        return SERVING if at < self.draining else DRAINING

    def run(self, at: int) -> int:
        return sum(reset <= at for reset in self.resets)

    def tokens(self, at: int) -> int:
        """That its present engine has counted."""
        begun = max([self.ready, *(reset for reset in self.resets if reset <= at)])
        return self.rate * max(0, min(at, self.draining) - begun)

    def seen(self, name: str, at: int) -> PodSeen:
        history = [(STARTING, NOW + self.begun)]
        if at >= self.ready:
            history = [(SERVING, NOW + self.ready)]
        if at >= self.draining:
            history.append((DRAINING, NOW + self.draining))
        reading = counted(0, self.tokens(at), since=float(self.run(at) + 1)) if at >= self.ready else None
        return held(
            name,
            gpus=self.gpus,
            begun=NOW + self.begun,
            history=tuple(history),
            ended=float(NOW + self.ended) if at >= self.ended else None,
            price=PRICE if self.priced else None,
            run=self.run(at),
            reading=reading,
        )

    def seconds(self, state: GpuState, until: int) -> int:
        """GPU-seconds, straight from its times."""
        begin, end = {
            STARTING: (self.begun, self.ready),
            SERVING: (self.ready, self.draining),
            IDLE: (0, 0),
            DRAINING: (self.draining, self.ended),
        }[state]
        return self.gpus * max(0, min(end, until, self.ended) - begin)


@st.composite
def _lives(draw: st.DrawFn) -> _Life:
    times = sorted(draw(st.lists(st.integers(0, _END), min_size=4, max_size=4)))
    begun, ready, draining, ended = times
    resets = draw(st.lists(st.integers(ready, draining), max_size=2, unique=True))
    return _Life(
        gpus=draw(st.integers(1, 8)),
        begun=begun,
        ready=ready,
        draining=draining,
        ended=ended,
        resets=tuple(sorted(resets)),
        rate=draw(st.integers(0, 50)),
        priced=draw(st.booleans()),
    )


def _played(
    lives: Sequence[_Life], looks: Sequence[int], restarts: frozenset[int], skews: Sequence[int] = (0,)
) -> tuple[list[Ledger], dict[tuple[int, int], int]]:
    """The ledgers after each look, and what engines were last seen to have counted, by pod and run. A restart begins
    with nothing but the text. `skews`: by how much the operator's clock is off, in turn."""
    ledger = opened([], NOW, "USD")
    found, last = [], {}
    for number, at in enumerate(looks):
        now = NOW + at + skews[number % len(skews)]
        if recalled := at in restarts:
            ledger = text.read(text.written(ledger), text.VERSION, now)
        pods = [life.seen(f"pod-{n}", at) for n, life in enumerate(lives) if life.begun <= at]
        ledger = advanced(ledger, pods, now, recalled=recalled)
        found.append(ledger)
        for n, life in enumerate(lives):
            if life.ready <= at:
                last[n, life.run(at)] = life.tokens(at)
    return found, last


_LOOKS = st.lists(st.integers(0, _END), min_size=1, max_size=15).map(sorted)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(_lives(), max_size=5), _LOOKS, st.frozensets(st.integers(0, _END), max_size=4), st.data())
def test_gpu_seconds_and_money_are_those_of_the_pods_own_times(
    lives: list[_Life], looks: list[int], some: frozenset[int], data: st.DataObject
) -> None:
    restarts = some | data.draw(st.frozensets(st.sampled_from(looks)))
    ledger = _played(lives, looks, restarts)[0][-1]
    at = looks[-1]
    for state in GpuState:
        expected = sum(life.seconds(state, at) for life in lives)
        assert ledger.accounts.gpu_seconds[state] == pytest.approx(expected, abs=0.01)
        priced = sum(life.seconds(state, at) for life in lives if life.priced)
        assert ledger.accounts.money[state] == pytest.approx(priced / 1000, abs=0.001)
    unpriced = sum(life.seconds(state, at) for state in GpuState for life in lives if not life.priced)
    assert ledger.accounts.unpriced == pytest.approx(unpriced, abs=0.01)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(_lives(), max_size=5), _LOOKS, st.data())
def test_tokens_are_what_each_engine_was_last_seen_to_have_counted(
    lives: list[_Life], looks: list[int], data: st.DataObject
) -> None:
    """Whatever began anew, and whoever looked: but for what engines of one token per request had counted."""
    restarts = data.draw(st.frozensets(st.sampled_from(looks)))
    ledgers, last = _played(lives, looks, restarts)
    assert ledgers[-1].accounts.count("output") == sum(last.values())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(-3000, 3000)), max_size=20),
    st.frozensets(st.integers(0, 20)),
)
def test_energy_is_the_sum_of_what_the_meter_rose(
    steps: list[tuple[int, int]], restarts: frozenset[int]
) -> None:
    """Whatever began anew, and whoever looked."""
    ledger, at, joules, expected, metered = opened([], NOW, "USD"), 0, 1_000_000, 0, 0
    for number, (seconds, more) in enumerate([(0, 0), *steps]):
        at, joules = at + seconds, joules + more
        if number in restarts:
            ledger = text.read(text.written(ledger), text.VERSION, NOW + at)
        pod = held(gpus=2, history=((SERVING, NOW),), meter=Meter(float(joules), float(NOW + at)))
        ledger = advanced(ledger, [pod], NOW + at, recalled=number in restarts)
        if seconds and more >= 0:
            expected, metered = expected + more, metered + 2 * seconds
    assert ledger.accounts.joules == pytest.approx(expected)
    assert ledger.accounts.metered == pytest.approx(metered)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(_lives(), max_size=4),
    _LOOKS,
    st.frozensets(st.integers(0, _END), max_size=3),
    st.lists(st.integers(-300, 300), min_size=1, max_size=5),
)
def test_no_sum_ever_falls_or_is_below_nothing(
    lives: list[_Life], looks: list[int], restarts: frozenset[int], skews: list[int]
) -> None:
    """By whatever clock, also one that goes back."""
    before = None
    for ledger in _played(lives, looks, restarts, skews)[0]:
        sums = ledger.accounts
        every = [
            sums.joules,
            sums.metered,
            *sums.gpu_seconds.values(),
            *sums.money.values(),
            sums.unpriced,
            *sums.counts,
        ]
        assert all(value >= 0 for value in every)
        if before is not None:
            # Text has milliseconds and millionths.
            assert all(now >= then - 0.005 for now, then in zip(every, before, strict=True))
        before = every


@dataclass(frozen=True)
class _Look:
    """Of an operator, so many seconds after the one before; it sees what was so many seconds ago."""

    after: int
    late: int
    writes: bool
    crashes: bool
    """Afterwards: the next one begins with what is written."""
    away: int
    """Seconds without any operator, after a crash."""


_WATCHED = st.lists(
    st.builds(
        _Look, st.integers(1, 12), st.integers(0, 15), st.booleans(), st.booleans(), st.integers(0, 300)
    ),
    max_size=60,
)


@settings(max_examples=800, deadline=None, derandomize=True)
@given(st.lists(_lives(), max_size=4), _WATCHED)
def test_no_counter_falls_whenever_operators_end_and_however_late_they_see(
    lives: list[_Life], looks: list[_Look]
) -> None:
    """Lost: all that a deployment was ever held for, which Prometheus counts once more. Nor do they say more than was
    held, but for the seconds by which somebody saw late, or failed to write what he saw: not for those without an
    operator."""
    ledger, written, at, sees = opened([], NOW, "USD"), None, 0.0, 0
    counters, anew, unwritten, late = Counters(), False, 0.0, 0
    led_until = -math.inf
    said: dict[str, float] = {}
    gpus = sum(life.gpus for life in lives)
    for look, following in zip(looks, [*looks[1:], *looks[-1:]], strict=True):
        at += look.after
        later = following.after / 2
        sees = max(sees, int(at) - look.late)
        late = max(late, look.late)
        pods = [life.seen(f"pod-{n}", sees) for n, life in enumerate(lives) if life.begun <= sees]
        if anew:
            counters = Counters.after(ledger, led_until, NOW + at)
        ledger, anew = advanced(ledger, pods, NOW + at, recalled=anew), False
        counters.looked(ledger)
        ledger = replace(ledger, told=counters.ahead(ledger))
        # The first of all looks that find something is written at once.
        if look.writes or (written is None and ledger.holds):
            written = text.written(ledger)
        known = text.read(written, text.VERSION, NOW + at) if written is not None else None
        for moment in (at, at + later):
            counters.tell(ledger, known, NOW + moment)
            told = {f"{state} s": value for state, value in counters.told.seconds.items()}
            told |= {f"{state} USD": value for state, value in counters.told.money.items()}
            told["unpriced"] = counters.told.unpriced
            most = sum(life.seconds(state, int(at)) for state in GpuState for life in lives)
            assert sum(counters.told.seconds.values()) <= most + 0.01 + gpus * (late + unwritten)
            assert not [name for name, value in told.items() if value < said.get(name, 0.0)], (said, told)
            said = told
        if look.crashes and known is not None:
            at += later
            unwritten += max(0.0, NOW + at - BEHIND - known.at)
            ledger, led_until, anew = known, NOW + at, True
            at += look.away
    # What nobody moves any more is told in full.
    done = at + 2 * _END
    pods = [life.seen(f"pod-{n}", int(done)) for n, life in enumerate(lives)]
    ledger = advanced(ledger, pods, NOW + done)
    counters.looked(ledger)
    counters.tell(ledger, ledger, NOW + done + BEHIND)
    for state in GpuState:
        over = counters.told.seconds[state] - ledger.accounts.gpu_seconds[state]
        assert -0.01 <= over <= 0.01 + gpus * (late + unwritten)
