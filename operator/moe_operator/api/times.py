"""Times as Kubernetes writes them (RFC 3339, UTC) and as the operator computes (seconds since the epoch)."""

from datetime import UTC, datetime


def parse_time(text: str | None) -> float | None:
    """Seconds since the epoch; None for an absent time. Raises ValueError for text that is no time."""
    if not text:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def format_time(seconds: float) -> str:
    """Whole seconds, as `metav1.Time` is written."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
