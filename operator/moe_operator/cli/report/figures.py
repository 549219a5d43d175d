"""What Prometheus' samples say of a period. Pure: samples in, figures out.

Why not PromQL's increase(). The operator's accounts (tokens, requests, GPU-seconds, cost) go on over its restarts: a
new leader begins with the total. One that ended without its last write leaves a slightly smaller total, which
increase() takes for a counter that began at zero: it would add all of the total. And it misses what a series has
counted when it first appears. So differences are summed here, and a fall adds nothing but is told.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from moe_operator.api.times import format_time
from moe_operator.cli.report.data import Outage, Usage
from moe_operator.cli.report.period import Span
from moe_operator.costs.amounts import amount, hours

#: Samples of a series, in order: seconds since the epoch and value.
Samples = Sequence[tuple[float, float]]
#: A series' labels but the deployment's, `__name__` among them, sorted.
Labels = tuple[tuple[str, str], ...]
#: Windows of a period: what a Prometheus computes at once without effort.
WINDOWS = 1440
#: Outages that are listed.
_OUTAGES = 50


@dataclass(frozen=True)
class Recorded:
    """What Prometheus has of one deployment."""

    step: float
    """Seconds of a window."""
    ready_sum: Samples = ()
    """By window (at its end): samples of Ready that were 1."""
    ready_count: Samples = ()
    """By window: samples of Ready."""
    accounts: Mapping[Labels, Samples] = field(default_factory=dict)
    """Counters that outlive the operator, at the edges of windows."""
    losses: Mapping[Labels, Samples] = field(default_factory=dict)
    """Groups lost, by reason and replica: counted anew by every leader."""
    scalings: float | None = None
    """Changes of the wanted number of groups."""


def step_of(span: Span) -> float:
    """Seconds of a window: the period in equal parts, of a minute or longer."""
    return span.seconds / max(1, min(WINDOWS, int(span.seconds // 60)))


@dataclass(frozen=True)
class Uptime:
    """Ready in the period, in seconds."""

    known: float
    ready: float
    outages: tuple[Outage, ...]
    left_off: int
    first: float | None
    """Begin of the first window with a sample."""


def uptime(found: Recorded, span: Span) -> Uptime:
    """A window counts as known as far as it has as many samples as windows usually have."""
    ready = dict(found.ready_sum)
    counts = [(at, count) for at, count in found.ready_count if count > 0]
    usual = median(count for _, count in counts) if counts else 1.0
    known = up = 0.0
    outages: list[tuple[float, float, float]] = []
    for at, count in counts:
        length = found.step * min(1.0, count / usual)
        share = min(1.0, ready.get(at, 0.0) / count)
        known += length
        up += length * share
        if share < 1.0:
            begin, down = at - found.step, length * (1.0 - share)
            if outages and abs(outages[-1][1] - begin) < 1.0:
                outages[-1] = (outages[-1][0], at, outages[-1][2] + down)
            else:
                outages.append((begin, at, down))
    told = tuple(
        Outage(begin=format_time(begin + 0.5), end=format_time(end + 0.5), not_ready_seconds=round(down))
        for begin, end, down in outages[:_OUTAGES]
    )
    first = counts[0][0] - found.step if counts else None
    limit = span.seconds
    return Uptime(min(known, limit), min(up, limit), told, max(0, len(outages) - _OUTAGES), first)


@dataclass(frozen=True)
class Taken:
    """The period's figures, and what they lack."""

    usage: Usage | None
    """None: Prometheus has no accounts of the deployment in the period."""
    falls: int
    """Times that an account fell: an operator lost its last minutes, or the accounts began anew."""
    first: float | None
    """The first sample."""
    last: float | None
    """The last one."""


def taken(found: Recorded, span: Span, since: float | None) -> Taken:
    """`since`: when the accounts began, where that is known: what begins in the period is counted from zero."""
    sums: dict[Labels, float] = {}
    falls = 0
    begins = _begins(found.accounts)
    for labels, samples in found.accounts.items():
        if not samples:
            continue
        first = samples[0][0]
        # A state that others' samples are older than began to be counted when it first appeared.
        late = first > begins[_name(labels)]
        anew = since is not None and span.begin <= since <= first
        grown, fell = _grown(samples, whole=late or anew, since=since)
        sums[labels] = grown
        falls = max(falls, fell)
    if not sums:
        return Taken(None, 0, None, None)
    times = [at for samples in found.accounts.values() for at, _ in samples]
    usage = _usage(sums, min(times), max(times))
    return Taken(usage, falls, min(times), max(times))


def lost(found: Recorded) -> dict[str, int]:
    """Groups lost by reason, at least: a leader that came and went between two samples is not seen."""
    counts: dict[str, float] = {}
    # Accounts are there from the first scrape on: a cause that they are older than was first met since then.
    known = [samples[0][0] for samples in (*found.losses.values(), *found.accounts.values()) if samples]
    begin = min(known, default=0.0)
    for labels, samples in found.losses.items():
        if not samples:
            continue
        reason = dict(labels).get("reason", "")
        amount_, before = 0.0, samples[0][1] if samples[0][0] <= begin else 0.0
        for _, value in samples:
            amount_ += value - before if value >= before else value
            before = value
        counts[reason] = counts.get(reason, 0.0) + amount_
    return {reason: round(count) for reason, count in sorted(counts.items()) if round(count) > 0}


def _name(labels: Labels) -> str:
    return dict(labels).get("__name__", "")


def _begins(series: Mapping[Labels, Samples]) -> dict[str, float]:
    begins: dict[str, float] = {}
    for labels, samples in series.items():
        if samples:
            name = _name(labels)
            begins[name] = min(begins.get(name, samples[0][0]), samples[0][0])
    return begins


def _grown(samples: Samples, *, whole: bool, since: float | None) -> tuple[float, int]:
    """What a total grew by, and how often it fell. Where the accounts began anew all of it counts, also where it is
    more than before by the next sample; one that has not moved yet is still that from before."""
    grown = samples[0][1] if whole else 0.0
    falls = 0
    anew = math.inf if since is None or since <= samples[0][0] else since
    for (_, before), (at, value) in pairwise(samples):
        if at >= anew and value != before:
            grown += value
            falls += before > 0
            anew = math.inf
        elif value >= before:
            grown += value - before
        else:
            falls += 1
    return grown, falls


def _usage(sums: Mapping[Labels, float], begin: float, end: float) -> Usage:
    def of(name: str, **wanted: str) -> float | None:
        found = [
            value
            for labels, value in sums.items()
            if _name(labels) == f"moe_operator_{name}_total" and wanted.items() <= dict(labels).items()
        ]
        return sum(found) if found else None

    def number(name: str, **wanted: str) -> int | None:
        value = of(name, **wanted)
        return None if value is None else round(value)

    held, unpriced = of("gpu_seconds"), of("unpriced_gpu_seconds")
    states = _values(sums, "gpu_seconds", "state")
    return Usage(
        begin=format_time(begin),
        end=format_time(end),
        input_tokens=number("tokens", kind="input"),
        cached_input_tokens=number("tokens", kind="cached_input"),
        output_tokens=number("tokens", kind="output"),
        requests_completed=number("requests", outcome="completed"),
        requests_aborted=number("requests", outcome="aborted"),
        requests_failed=number("requests", outcome="failed"),
        gpu_hours=None if held is None else hours(held),
        gpu_hours_by_state={one: hours(of("gpu_seconds", state=one) or 0.0) for one in states},
        unpriced_gpu_hours=hours(unpriced) if unpriced else None,
        cost={one: amount(of("cost", currency=one) or 0.0) for one in _values(sums, "cost", "currency")},
    )


def _values(sums: Iterable[Labels], name: str, label: str) -> list[str]:
    return sorted(
        {
            dict(one)[label]
            for one in sums
            if _name(one) == f"moe_operator_{name}_total" and label in dict(one)
        }
    )
