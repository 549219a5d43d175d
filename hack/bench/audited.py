"""What the API server itself took for the operator's writes, from the local cluster's audit log."""

import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

Span = tuple[float, float]
"""Begin and end, in seconds since the epoch."""


def operators_writes() -> list[Span]:
    """Every write of the operator's that was answered, its lease aside."""
    return sorted(_spans(Path(os.environ["KUBECONFIG"]).parent / "logs" / "audit.jsonl"))


def _spans(log: Path) -> Iterator[Span]:
    for line in log.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if (
            event.get("stage") == "ResponseComplete"
            and str(event.get("userAgent")).startswith("moe-operator")
            and "/leases" not in event["requestURI"]
        ):
            yield _seconds(event["requestReceivedTimestamp"]), _seconds(event["stageTimestamp"])


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def within(writes: list[Span], begin: float, end: float) -> float:
    """Seconds of a span in which at least one of them was being answered."""
    total, until = 0.0, begin
    for one, other in writes:
        start, stop = max(one, until), min(other, end)
        if stop > start:
            total, until = total + stop - start, stop
    return total
