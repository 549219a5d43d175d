"""Metrics pages as vLLM writes them, and what is read from them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from moe_operator.telemetry.engine_counters import EngineCounters, Histogram
from moe_operator.telemetry.metrics_page import EngineMetrics

#: A few of vLLM's bounds (s).
BOUNDS = (0.01, 0.1, 1.0, math.inf)
#: All of vLLM 0.32's: of the time to first token, and of the time per output token.
FIRST_TOKEN_BOUNDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0, math.inf,
)  # fmt: skip
PER_TOKEN_BOUNDS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, math.inf,
)  # fmt: skip


def histogram(*entries: float, bounds: Sequence[float] = BOUNDS) -> Histogram:
    """With these entries, in seconds."""
    counts = tuple(float(sum(entry <= bound for entry in entries)) for bound in bounds)
    return Histogram(tuple(bounds), counts, sum(entries))


def entered(bounds: Sequence[float], entries: Mapping[float, int]) -> Histogram:
    """With so many entries of each time, in seconds."""
    counts = tuple(float(sum(n for time, n in entries.items() if time <= bound)) for bound in bounds)
    return Histogram(tuple(bounds), counts, sum(time * n for time, n in entries.items()))


def counters(**overrides: Any) -> EngineCounters:
    """Of one rank that has done nothing."""
    return EngineCounters(**{"ranks": 1, "first_token": histogram(), "per_token": histogram(), **overrides})


def metrics(ranks: Sequence[int] = (0,), **overrides: Any) -> EngineMetrics:
    """A page of these ranks, with the figures of all of them."""
    labels = frozenset(str(rank).encode() for rank in ranks)
    return EngineMetrics(labels, counters(**{"ranks": len(labels), **overrides}))


def page(ranks: Mapping[int, EngineCounters], model: str = "org/tiny-moe") -> bytes:
    """The page of ranks by number, among lines that do not matter. Bounds as prometheus_client writes them."""
    lines = ["# HELP vllm:num_requests_running Number of requests in model execution batches."]
    for rank, seen in ranks.items():
        rest = f'model_name="{model}"}}'
        own = f'{{engine="{rank}",{rest}'
        lines += [
            f"vllm:num_requests_running{own} {float(seen.running)}",
            f"vllm:num_requests_waiting{own} {float(seen.waiting)}",
            f'vllm:num_requests_waiting_by_reason{own[:-1]},reason="capacity"}} 7.0',
            f"vllm:kv_cache_usage_perc{own} {seen.kv_worst!r}",
            f"vllm:num_preemptions_total{own} {seen.preemptions!r}",
            f"vllm:num_preemptions_created{own} 1.7e+09",
            f"vllm:prompt_tokens_total{own} {seen.prompt_tokens!r}",
            f'vllm:prompt_tokens_by_source_total{own[:-1]},source="local_compute"}} 7.0',
            f"vllm:prompt_tokens_cached_total{own} {seen.cached_prompt_tokens!r}",
            f'vllm:prompt_tokens_cached_by_source_total{own[:-1]},source="device"}} 7.0',
            f"vllm:generation_tokens_total{own} {seen.output_tokens!r}",
            f"vllm:prefix_cache_queries_total{own} {seen.prefix_queries!r}",
            f"vllm:prefix_cache_hits_total{own} {seen.prefix_hits!r}",
            f"vllm:external_prefix_cache_queries_total{own} 7.0",
        ]
        if seen.kv_blocks:
            lines.append(
                f'vllm:cache_config_info{{block_size="16",cache_dtype="auto",engine="{rank}",'
                f'num_gpu_blocks="{seen.kv_blocks}"}} 1.0'
            )
        if seen.draft_tokens:
            lines += [
                f"vllm:spec_decode_num_drafts_total{own} 7.0",
                f"vllm:spec_decode_num_draft_tokens_total{own} {seen.draft_tokens!r}",
                f"vllm:spec_decode_num_accepted_tokens_total{own} {seen.accepted_tokens!r}",
                f'vllm:spec_decode_num_accepted_tokens_per_pos_total{own[:-1]},position="0"}} 7.0',
            ]
        ended = {"stop": seen.finished, "length": 0.0, "abort": seen.aborted, "error": 0.0, "repetition": 0.0}
        lines += [
            f'vllm:request_success_total{{engine="{rank}",finished_reason="{reason}",{rest} {count!r}'
            for reason, count in ended.items()
        ]
        lines += [
            f"vllm:inter_token_latency_seconds_sum{own} {seen.inter_token_sum!r}",
            f"vllm:inter_token_latency_seconds_count{own} {seen.inter_token_count!r}",
            f'vllm:inter_token_latency_seconds_bucket{{engine="{rank}",le="+Inf",{rest} 7.0',
        ]
        for name, told in (
            ("time_to_first_token_seconds", seen.first_token),
            ("request_time_per_output_token_seconds", seen.per_token),
        ):
            for bound, count in zip(told.bounds, told.counts, strict=True):
                le = "+Inf" if math.isinf(bound) else repr(bound)
                lines.append(f'vllm:{name}_bucket{{engine="{rank}",le="{le}",{rest} {count!r}')
            lines += [f"vllm:{name}_count{own} {told.count!r}", f"vllm:{name}_sum{own} {told.total!r}"]
    return "\n".join([*lines, ""]).encode()


#: Of two ranks, as text.
PAGE = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_running{engine="1",model_name="tiny"} 2.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 0.0
vllm:num_requests_waiting{engine="1",model_name="tiny"} 4.0
vllm:num_requests_waiting_by_reason{engine="1",model_name="tiny",reason="capacity"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.75
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 1000.0
vllm:prompt_tokens_total{engine="1",model_name="tiny"} 1.5e+03
vllm:generation_tokens_total{engine="0",model_name="tiny"} 40.0
vllm:generation_tokens_total{engine="1",model_name="tiny"} 2.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="tiny"} 6.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="tiny"} 3.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.5",model_name="tiny"} 3.0
"""
