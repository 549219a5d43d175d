"""What became of requests, and sums over them. Pure: times are seconds since the load began."""

import errno
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from traffic.arrivals import Shape


class Outcome(StrEnum):
    """How a request ended, as its user sees it."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """No answer, or an error in its place."""
    CUT = "cut"
    """An answer that ended early: a stream that broke off, no finish reason, or fewer tokens than asked for."""


@dataclass(frozen=True)
class Record:
    """One request that was sent."""

    number: int
    shape: Shape
    client: int
    sent: float
    ended: float
    outcome: Outcome
    fault: str = ""
    """What went wrong, in few words; empty when it succeeded."""
    first_token: float | None = None
    """When the first token of a stream came."""
    tokens: int = 0
    detail: str = ""
    """The error as the client saw it."""
    pod: str = ""
    """The pod whose engine took the request, if its log tells."""

    @property
    def latency(self) -> float:
        """Seconds from sending to the end."""
        return self.ended - self.sent


def judge(asked: int, tokens: int, finish_reason: str | None, begun: bool, fault: str) -> tuple[Outcome, str]:
    """Outcome and fault of a request for exactly `asked` tokens.

    `begun`: whether a part of the answer had come before the fault, "" if there was none.
    """
    if fault:
        return (Outcome.CUT if begun else Outcome.FAILED), fault
    if finish_reason is None:
        return Outcome.CUT, "no finish reason"
    if tokens < asked:
        return Outcome.CUT, "too few tokens"
    return Outcome.SUCCEEDED, ""


def fault_of(error: BaseException) -> str:
    """An error of the OpenAI client in few words, by what lies beneath it.

    By names of classes: the client's HTTP library is its own business, and has changed its name before.
    """
    chain = list(_chain(error))
    names = {cls.__name__ for each in chain for cls in type(each).__mro__}
    numbers = {each.errno for each in chain if isinstance(each, OSError)}
    status = next((code for each in chain if (code := getattr(each, "status_code", None))), None)
    if status is not None:
        return f"HTTP {status}"
    if names & {"TimeoutException", "APITimeoutError", "TimeoutError"}:
        return "timeout"
    if errno.ECONNREFUSED in numbers or "ConnectionRefusedError" in names:
        return "connection refused"
    if "gaierror" in names:
        return "name not found"
    if "RemoteProtocolError" in names:
        return "connection closed"
    if names & {"ReadError", "WriteError", "ConnectionResetError", "BrokenPipeError", "BrokenResourceError"}:
        return "connection reset"
    if "ConnectError" in names:
        return "connection failed"
    return "error in the stream" if type(error).__name__ == "APIError" else type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        left += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions


@dataclass(frozen=True)
class Counts:
    """Sums over records. Long streams stand apart, and are in none of the other figures."""

    sent: int
    succeeded: int
    failed: int
    cut: int
    faults: dict[str, int]
    """Of failed and cut requests, by fault."""
    latency_p50: float | None
    """Seconds, of requests that succeeded; None if there was none."""
    latency_p99: float | None
    first_token_p50: float | None
    """Seconds from sending to the first token, of streams that succeeded."""
    first_token_p99: float | None
    long_sent: int
    long_cut: int
    """Long streams that were cut or failed."""
    pods: dict[str, int]
    """Requests, long ones too, by the pod that took them."""


def count(records: Iterable[Record]) -> Counts:
    """Sum up."""
    everything = list(records)
    short = [r for r in everything if r.shape is not Shape.LONG]
    long = [r for r in everything if r.shape is Shape.LONG]
    by = Counter(r.outcome for r in short)
    good = [r for r in short if r.outcome is Outcome.SUCCEEDED]
    latencies = [r.latency for r in good]
    firsts = [r.first_token - r.sent for r in good if r.first_token is not None]
    return Counts(
        sent=len(short),
        succeeded=by[Outcome.SUCCEEDED],
        failed=by[Outcome.FAILED],
        cut=by[Outcome.CUT],
        faults=dict(sorted(Counter(r.fault for r in short if r.fault).items())),
        latency_p50=quantile(latencies, 0.5),
        latency_p99=quantile(latencies, 0.99),
        first_token_p50=quantile(firsts, 0.5),
        first_token_p99=quantile(firsts, 0.99),
        long_sent=len(long),
        long_cut=sum(r.outcome is not Outcome.SUCCEEDED for r in long),
        pods=dict(sorted(Counter(r.pod for r in everything if r.pod).items())),
    )


def lost(records: Iterable[Record]) -> list[Record]:
    """Requests that failed or were cut, without long streams."""
    return [r for r in records if r.shape is not Shape.LONG and r.outcome is not Outcome.SUCCEEDED]


def unexcused(records: Iterable[Record], dead: Iterable[str], at: float, within: float) -> list[Record]:
    """Lost requests that a crash of the pods `dead` at `at` does not explain, long streams included.

    A crash explains the loss of what was in flight on these pods or was sent to them at most `within` seconds
    later. Where no engine took the request, its pod is unknown: it never got further than the dead pods' network,
    so the time alone decides.
    """
    gone = set(dead)
    return [
        r
        for r in records
        if r.outcome is not Outcome.SUCCEEDED
        and not ((r.pod in gone or not r.pod) and r.ended >= at and r.sent <= at + within)
    ]


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of all do not exceed; None of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
