"""When a deployment was Ready, for its record: by Prometheus' samples, else by the condition. Pure."""

import math

from moe_operator.api import reasons
from moe_operator.api.status import Condition
from moe_operator.api.times import format_time
from moe_operator.cli.report.data import Source, UptimeRecord
from moe_operator.cli.report.figures import Recorded, uptime
from moe_operator.cli.report.period import Span
from moe_operator.cli.report.subject import Subject, time_of


def uptime_of(subject: Subject) -> UptimeRecord:
    """By Prometheus; without it by the condition, which knows nothing of before its last transition."""
    span = subject.span
    ready = next((one for one in subject.status.conditions if one.type == reasons.READY), None)
    if subject.recorded is not None:
        return recorded_uptime(subject.recorded, span, ready, subject.made)
    since = time_of(ready.last_transition_time) if ready else None
    if ready is None or since is None:
        return UptimeRecord(source=Source.NONE, message="the operator has written no condition Ready")
    begin, end = max(since, span.begin), min(subject.now, span.end)
    known = max(0.0, end - begin)
    up = known if ready.status == "True" else 0.0
    return UptimeRecord(
        source=Source.STATUS,
        ready=ready.status,
        since=ready.last_transition_time,
        known_seconds=round(known),
        ready_seconds=round(up),
        ready_percent=_percent(up, known),
        message="only since the last transition of the condition Ready: what was before is not known without"
        " Prometheus",
    )


def recorded_uptime(
    found: Recorded, span: Span, ready: Condition | None = None, created: float | None = None
) -> UptimeRecord:
    """`ready`: as it is now. `created`: when the deployment was made, where Prometheus has no samples of an earlier
    one of its name."""
    seen = uptime(found, span)
    begin = max(span.begin, created or 0.0)
    covered = min(100.0, 100.0 * seen.known / max(1.0, span.end - begin))
    since = "" if begin == span.begin else " since it was made"
    message = f"Prometheus has samples of {covered:.1f} % of the period{since}"
    if seen.first is None:
        message = "Prometheus has no samples of it in the period: was the operator scraped, with honorLabels?"
    elif seen.first > begin + found.step:
        message += f", the first of {format_time(seen.first + 0.5)}"
    return UptimeRecord(
        source=Source.PROMETHEUS,
        ready=ready.status if ready else None,
        since=ready.last_transition_time if ready else None,
        known_seconds=round(seen.known),
        ready_seconds=round(seen.ready),
        ready_percent=_percent(seen.ready, seen.known),
        outages=list(seen.outages),
        outages_left_off=seen.left_off,
        window_seconds=round(found.step),
        message=message,
    )


def _percent(part: float, of: float) -> float | None:
    """To three places, never more than it is: 100 is without a second missing."""
    return math.floor(100_000.0 * part / of + 1e-6) / 1000 if of else None
