"""`status.latency` in one line for people."""

from moe_operator.api.status import LatencyStatus, PercentilesStatus


def latency_text(latency: LatencyStatus) -> str:
    """In milliseconds."""
    said = [
        f"{name} {_percentiles(of)}"
        for name, of in (
            ("first token", latency.time_to_first_token_milliseconds),
            ("per output token", latency.time_per_output_token_milliseconds),
        )
        if of is not None
    ]
    return f"{'; '.join(said)} (last {latency.window_seconds // 60} minutes)"


def _percentiles(of: PercentilesStatus) -> str:
    told = (("p50", of.p50), ("p95", of.p95), ("p99", of.p99))
    return ", ".join(f"{name} {value} ms" for name, value in told if value is not None)
