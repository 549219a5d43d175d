"""Latency as the status has it: three digits, and written only when it says something else. Pure."""

from moe_operator.api.status import LatencyStatus, PercentilesStatus
from moe_operator.telemetry.figures import LONG, Figures
from moe_operator.telemetry.percentiles import Percentiles

#: Share by which the median or the 95th percentile must have moved: they are read from buckets, of which each is wider.
_STEP = 0.1


def latency_status(found: Figures | None) -> LatencyStatus | None:
    """None where no percentile is known."""
    if found is None or not (found.first_token or found.per_token):
        return None
    return LatencyStatus(
        window_seconds=round(LONG),
        time_to_first_token_milliseconds=_milliseconds(found.first_token),
        time_per_output_token_milliseconds=_milliseconds(found.per_token),
    )


def latency_moved(old: LatencyStatus | None, new: LatencyStatus | None) -> bool:
    """Whether it is worth telling anew."""
    if old is None or new is None:
        return old is not new
    pairs = (
        (old.time_to_first_token_milliseconds, new.time_to_first_token_milliseconds),
        (old.time_per_output_token_milliseconds, new.time_per_output_token_milliseconds),
    )
    return any(_moved(before, after) for before, after in pairs)


def _moved(before: PercentilesStatus | None, after: PercentilesStatus | None) -> bool:
    if before is None or after is None:
        return before is not after
    return any(_apart(a, b) for a, b in ((before.p50, after.p50), (before.p95, after.p95)))


def _apart(before: str | None, after: str | None) -> bool:
    if before is None or after is None:
        return before is not after
    try:
        then, now = float(before), float(after)
    except ValueError:
        return True  # nobody's figure
    return not abs(now - then) <= _STEP * max(abs(now), abs(then))


def _milliseconds(of: Percentiles) -> PercentilesStatus | None:
    if not of:
        return None
    return PercentilesStatus(p50=_text(of.p50), p95=_text(of.p95), p99=_text(of.p99))


def _text(seconds: float | None) -> str | None:
    """Three digits that count, without an exponent."""
    if seconds is None:
        return None
    value = float(f"{1000 * seconds:.3g}")
    return f"{value:.6f}".rstrip("0").rstrip(".")
