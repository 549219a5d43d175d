"""The period of a record, from what was asked for. Pure: the time comes in."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from moe_operator.api.base import parse_duration
from moe_operator.api.times import read_rfc3339
from moe_operator.cli.errors import UsageError

#: Without options.
DEFAULT = "30d"
#: Bounds of a period, in seconds.
SHORTEST, LONGEST = 60.0, 10 * 366 * 86400.0
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DAYS = re.compile(r"(\d{1,5})d(.*)")


@dataclass(frozen=True)
class Span:
    """From `begin` until just before `end`, in seconds since the epoch."""

    begin: float
    end: float
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    def has(self, at: float | None) -> bool:
        return at is not None and self.begin <= at < self.end


def period(since: str | None, begin: str | None, end: str | None, now: float) -> Span:
    """`--since`, or `--from` and `--to`. A date is a day in UTC: `--to` its end. Raises UsageError."""
    if since is not None and (begin is not None or end is not None):
        raise UsageError("--since ends now: give it, or --from and --to")
    if begin is None and end is None:
        length = _length(since or DEFAULT)
        return _checked(Span(now - length, now))
    if begin is None:
        raise UsageError("--to needs --from")
    notes: tuple[str, ...] = ()
    until = now if end is None else _time(end, "--to", day_end=True)
    if until > now:
        until, notes = now, ("it was not over when this was made: it ends then",)
    return _checked(Span(_time(begin, "--from", day_end=False), until, notes))


def _checked(span: Span) -> Span:
    if span.seconds < SHORTEST:
        raise UsageError("the period must begin at least a minute before its end, and before now")
    if span.seconds > LONGEST:
        raise UsageError("the period is longer than ten years")
    return span


def _length(text: str) -> float:
    """A duration as Kubernetes writes it, with days before it."""
    days = _DAYS.fullmatch(text)
    try:
        if days is None:
            return parse_duration(text)
        return int(days.group(1)) * 86400.0 + (parse_duration(days.group(2)) if days.group(2) else 0.0)
    except ValueError:
        raise UsageError(
            f"--since: {text!r} is not a duration: write for example 30d, 12h or 1d12h"
        ) from None


def _time(text: str, option: str, *, day_end: bool) -> float:
    try:
        if _DATE.fullmatch(text):
            day = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
            return day + 86400.0 if day_end else day
        return read_rfc3339(text)
    except ValueError:
        message = (
            f"{option}: {text[:64]!r} is no time: write 2026-11-30 (a day in UTC), or 2026-11-30T18:00:00Z"
        )
        raise UsageError(message) from None
