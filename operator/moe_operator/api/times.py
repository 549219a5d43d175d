"""Times as Kubernetes writes them (RFC 3339, UTC) and as the operator computes (seconds since the epoch)."""

import re
from contextlib import suppress
from datetime import UTC, datetime

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def parse_time(text: str | None) -> float | None:
    """Seconds since the epoch; None for an absent time. Raises ValueError for text that is no time."""
    if not text:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def format_time(seconds: float) -> str:
    """Whole seconds, as `metav1.Time` is written."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_rfc3339(text: str) -> float:
    """Seconds since the epoch of a time that people wrote. Raises ValueError for any that RFC 3339 does not know: one
    without its offset would be another moment in each place where it is read."""
    if _RFC_3339.fullmatch(text):
        with suppress(ValueError, OverflowError):  # the 31st of February; a year that UTC does not have
            return datetime.fromisoformat(text.upper().replace("Z", "+00:00")).astimezone(UTC).timestamp()
    raise ValueError(f"{text[:64]!r} is no time: write it as 2027-01-15T18:00:00Z, or +01:00 in place of Z")
