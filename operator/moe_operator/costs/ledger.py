"""The accounts of one deployment, brought from look to look.

What is closed is summed up; what runs on is a list of holds, each with the moment until which it is accounted for. So
the sums at any later moment follow from the ledger as it was written, and GPUs that merely go on need no write. After
an operator was away the pods' own timestamps say when what it missed began and changed. Nothing counts twice: a hold is
known by its pod's uid, an engine's tokens by the counters that they were last read from.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from moe_operator.catalog.profile import MOST_WATTS
from moe_operator.costs.accounts import Accounts
from moe_operator.costs.holdings import ORDER, TOKENS, GpuState, Hold, Meter, PodSeen, Reading
from moe_operator.costs.marks import Mark, marked
from moe_operator.costs.told import Told

_NONE = (0.0,) * len(TOKENS)
_IN_TRAFFIC = (GpuState.SERVING, GpuState.IDLE)


@dataclass(frozen=True)
class Ledger:
    """Times in seconds since the epoch."""

    since: float
    """Since when is counted."""
    at: float
    """The last look."""
    currency: str = "USD"
    accounts: Accounts = field(default_factory=Accounts)
    holds: tuple[Hold, ...] = ()
    marks: tuple[Mark, ...] = ()
    """The accounts at earlier moments, oldest first."""
    periods: Mapping[str, tuple[float, float]] | None = None
    """By the name of a budget's period: when the present one began, and what had been spent until then."""
    elsewhere: float = 0.0
    """GPU-seconds that had a price in an earlier currency; `accounts.unpriced` has them too."""
    told: Told | None = None
    """What counters had said where it is more than the accounts have, when an operator ended that had not written what
    it saw; None: nowhere."""

    def accounts_at(self, now: float) -> Accounts:
        """The accounts if all that is held goes on as it was last seen; tokens as they were last read."""
        found = self.accounts
        for hold in self.holds:
            if not hold.ended and now > hold.until:
                found = found.with_gpus(hold.state, hold.gpus * (now - hold.until), hold.price)
        return found

    @property
    def latest(self) -> Accounts:
        """The accounts as of the last look."""
        return self.accounts_at(self.at)

    def money_per_second(self) -> float:
        """What is being spent."""
        return sum(hold.gpus * (hold.price or 0) for hold in self.holds if not hold.ended) / 3600e6


def opened(pods: Sequence[PodSeen], now: float, currency: str) -> Ledger:
    """Accounts that begin with the first of the pods that are there."""
    since = min([now, *(pod.begun for pod in pods)])
    return Ledger(since=since, at=now, currency=currency, marks=(Mark(since, Accounts()),))


def advanced(
    ledger: Ledger,
    pods: Sequence[PodSeen],
    now: float,
    *,
    recalled: bool = False,
    watched_until: float = -math.inf,
) -> Ledger:
    """The ledger after a look at `now`: `pods` are all that hold or held GPUs and are there. `recalled`: whether it is
    one of the first looks of this operator: what a group in traffic was doing meanwhile is left open until its engines
    tell. `watched_until`: until when the operator before may have looked; it would have written what began to change.

    A clock that goes back adds nothing, until it has come to where it was.
    """
    known = {hold.uid: hold for hold in ledger.holds}
    accounts, holds = ledger.accounts, []
    for pod in pods:
        before = known.pop(pod.uid, None)
        if before is not None and pod.unsure and before.state in _IN_TRAFFIC and pod.state in _IN_TRAFFIC:
            if recalled and not before.ended:
                holds.append(before)  # its energy too: the next meter says what came since
                continue
            pod = replace(pod, history=((before.state, before.until),))
        for state, gpu_seconds, price in _spans(pod, before, now, watched_until if recalled else None):
            accounts = accounts.with_gpus(state, gpu_seconds, price)
        reading, more = _counted(pod, before)
        accounts = accounts.with_counts(more)
        if before is not None and not before.ended:
            accounts = accounts.with_energy(*taken(before, pod.meter))
        end = _end(pod, now)
        holds.append(
            Hold(
                uid=pod.uid,
                place=pod.place,
                gpus=pod.gpus,
                state=pod.state,
                until=max(end, before.until if before else pod.begun),
                price=pod.price,
                run=pod.run,
                reading=reading,
                meter=pod.meter or (before.meter if before else None),
                ended=pod.ended is not None,
            )
        )
    successors = {pod.place: pod.begun for pod in sorted(pods, key=lambda pod: -pod.begun)}
    for gone in known.values():
        # Of a pod that went unseen its successor's begin is the latest end, else this moment.
        end = min(now, max(gone.until, successors.get(gone.place, now)))
        if not gone.ended and end > gone.until:
            accounts = accounts.with_gpus(gone.state, gone.gpus * (end - gone.until), gone.price)
    found = replace(ledger, at=max(now, ledger.at), accounts=accounts, holds=tuple(holds))
    return replace(found, marks=marked(ledger.marks, Mark(found.at, found.latest)))


def in_currency(ledger: Ledger, currency: str) -> Ledger:
    """The ledger with its money in a currency: in another one than before it begins with nothing, and what is held has
    no price until one is seen."""
    if currency == ledger.currency:
        return ledger
    had_one = ledger.accounts.total_seconds - ledger.accounts.unpriced
    return replace(
        ledger,
        currency=currency,
        accounts=ledger.accounts.without_money(),
        holds=tuple(replace(hold, price=None) for hold in ledger.holds),
        marks=tuple(Mark(mark.at, mark.accounts.without_money()) for mark in ledger.marks),
        periods=None,
        elsewhere=round(ledger.elsewhere + max(0.0, had_one), 3),
        told=ledger.told.without_money() if ledger.told is not None else None,
    )


def taken(before: Hold, meter: Meter | None) -> tuple[float, float]:
    """Joules, and GPU-seconds that they are of, since a pod's energy was read last. Nothing where a counter began anew,
    or says what GPUs cannot take."""
    then = before.meter
    if meter is None or then is None or meter.since != then.since or meter.at <= then.at:
        return 0.0, 0.0
    joules, gpu_seconds = meter.joules - then.joules, before.gpus * (meter.at - then.at)
    if not 0 <= joules <= MOST_WATTS * gpu_seconds:
        return 0.0, 0.0
    return joules, gpu_seconds


def _end(pod: PodSeen, now: float) -> float:
    return now if pod.ended is None else min(pod.ended, now)


def _spans(
    pod: PodSeen, before: Hold | None, now: float, watched_until: float | None
) -> Iterator[tuple[GpuState, float, int | None]]:
    """(state, GPU-seconds, price) since the pod was accounted for last."""
    start, end = (before.until if before else pod.begun), _end(pod, now)
    if end <= start or (before is not None and before.ended):
        return
    price = pod.price if before is None else before.price  # one holds until another is seen
    state, at = (before.state if before else GpuState.STARTING), start
    for following, since in _changes(pod, before, watched_until, end):
        change = min(max(since, at), end)
        if change > at:
            yield state, pod.gpus * (change - at), price
        state, at = following, change
    if end > at:
        yield state, pod.gpus * (end - at), price


def _changes(
    pod: PodSeen, before: Hold | None, watched_until: float | None, end: float
) -> Iterator[tuple[GpuState, float]]:
    if before is None:
        yield from pod.history
        return
    state = pod.state
    if (before.state, state) in (
        (GpuState.IDLE, GpuState.SERVING),
        (GpuState.IDLE, GpuState.IDLE),
    ):
        if watched_until is not None and _asked(pod, before):
            yield GpuState.SERVING, max(before.until, watched_until)  # when in between nobody knows
            if state is GpuState.IDLE:
                yield pod.history[-1]
        elif state is GpuState.SERVING:
            yield state, end  # the look that found the first request
        return
    for following, since in pod.history[:-1]:
        if ORDER[following] > ORDER[before.state]:
            yield following, since
    if pod.history and state is not before.state:
        yield pod.history[-1]


def _asked(pod: PodSeen, before: Hold) -> bool:
    """Whether anybody but the operator had an idle engine compute something since it was seen last."""
    now, then = pod.reading, before.reading
    return now is None or then is None or any(_goes_on(now, then, idle=True))


def _counted(pod: PodSeen, before: Hold | None) -> tuple[Reading | None, tuple[float, ...]]:
    """The newest reading, and what it has more than the one before."""
    now, then = pod.reading, before.reading if before else None
    if now is None:
        return then, _NONE
    if before is None or then is None:
        return now, _from_the_beginning(now, pod)
    if then.since is not None and then.since == now.since:
        return now, _less(now.counts, then.counts)
    if pod.run == before.run and now.ranks != then.ranks:
        return now, _NONE  # a rank that stopped or began to tell: what it counted was counted before
    if pod.run != before.run or _fell(now.with_own(), then.with_own()):
        return now, _from_the_beginning(now, pod)
    idle = then.since is None and before.state is GpuState.IDLE
    return now, _goes_on(now, then, idle=idle)


def _from_the_beginning(now: Reading, pod: PodSeen) -> tuple[float, ...]:
    """All that an engine has counted, as engines begin at 0: it was for this deployment. One that nobody uses has been
    asked for one token of each rank, when it was let into the traffic."""
    return _NONE if pod.state is not GpuState.SERVING and _own_alone(now.counts) else now.counts


def _own_alone(counts: tuple[float, ...]) -> bool:
    """Whether these may all be the operator's requests, of one token each."""
    output, completed = counts[TOKENS.index("output")], counts[TOKENS.index("completed")]
    return output <= completed and not any(
        counts[TOKENS.index(n)] for n in ("aborted", "failed", "preempted")
    )


def _goes_on(now: Reading, then: Reading, *, idle: bool) -> tuple[float, ...]:
    """What an engine counted in between, seen by two operators. The later one knows nothing of what the earlier asked
    for after `then` was written: in an engine that was `idle`, requests of one token each are taken for those."""
    more = _less(now.with_own().counts, then.with_own().counts)
    mine = (now.own_prompt, 0.0, now.own_output, now.own_output, 0.0, 0.0, 0.0)
    more = _less(more, mine)
    return _NONE if idle and _own_alone(more) else more


def _fell(now: Reading, then: Reading) -> bool:
    return any(a < b for a, b in zip(now.counts, then.counts, strict=True))


def _less(now: tuple[float, ...], then: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(max(0.0, a - b) for a, b in zip(now, then, strict=True))
