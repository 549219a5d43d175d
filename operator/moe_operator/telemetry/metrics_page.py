"""Reads the few lines of vLLM's metrics page that the operator needs, by rank and summed over the pod's ranks.

A byte regular expression instead of a full parser: the page has about 50 KB per rank, of which some sixty lines
matter (measured, for one rank: 0.33 ms against 7 ms with prometheus_client's parser).
"""

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from math import isfinite, nan

from moe_operator.telemetry.engine_counters import EngineCounters, Histogram, merged
from moe_operator.telemetry.ignored import Counts, Ignored
from moe_operator.telemetry.rank_table import RankTable

#: Names as vLLM 0.32 writes them; earlier versions called some of them otherwise.
_LINE = re.compile(
    rb"^vllm:(num_requests_running|num_requests_waiting|num_preemptions_total|kv_cache_usage_perc|"
    rb"cache_config_info|prefix_cache_(?:queries|hits)_total|"
    rb"spec_decode_num_(?:draft|accepted)_tokens_total|"
    rb"prompt_tokens_total|prompt_tokens_cached_total|generation_tokens_total|request_success_total|"
    rb"inter_token_latency_seconds_(?:sum|count)|"
    rb"(?:time_to_first_token|request_time_per_output_token)_seconds_(?:sum|count|bucket))"
    # Labels as vLLM's client writes them, in the order of their names: these two first, where there are any.
    rb"(?:\{(?:engine=\"([^\"}\n]*)\",)?(?:le=\"([^\"}\n]*)\",)?([^}\n]*)\})? (NaN|[+-]?Inf|[0-9.eE+-]+)",
    re.MULTILINE,
)
#: What its lines begin with.
BEGINNINGS = (
    b"vllm:num_requests_",
    b"vllm:num_preemptions_total",
    b"vllm:kv_cache_usage_perc",
    b"vllm:cache_config_info",
    b"vllm:prefix_cache_",
    b"vllm:spec_decode_num_draft_tokens_total",
    b"vllm:spec_decode_num_accepted_tokens_total",
    b"vllm:prompt_tokens_total",
    b"vllm:prompt_tokens_cached_total",
    b"vllm:generation_tokens_total",
    b"vllm:request_success_total",
    b"vllm:inter_token_latency_seconds_sum",
    b"vllm:inter_token_latency_seconds_count",
    b"vllm:time_to_first_token_seconds_",
    b"vllm:request_time_per_output_token_seconds_",
)
#: No engine counts so far.
_ABSURD = 1e18
#: Ranks of one page that are read: those of one pod.
_MOST_RANKS = 1024
#: Of the KV cache; sums of shares may be above 1 by rounding.
_FULL = 1.000001
_ENGINE = re.compile(rb'(?:^|,)engine="([^"]*)"')
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,5}")
_BOUND = re.compile(rb'(?:^|,)le="([^"]*)"')
_BLOCKS = re.compile(rb'(?:^|,)num_gpu_blocks="([0-9]{1,12})"')
_UNFINISHED = re.compile(rb'(?:^|,)finished_reason="(?:abort|error)"')
_FAILED = re.compile(rb'(?:^|,)finished_reason="error"')
_RUNNING, _USAGE = b"num_requests_running", b"kv_cache_usage_perc"
_FIRST_TOKEN, _PER_TOKEN = b"time_to_first_token_seconds", b"request_time_per_output_token_seconds"
_BUCKETS, _INFINITE = (_FIRST_TOKEN + b"_bucket", _PER_TOKEN + b"_bucket"), b"+Inf"


@dataclass(frozen=True)
class EngineMetrics:
    """What a page says."""

    ranks: frozenset[bytes]
    """The ranks, by their labels, that told all of their figures as numbers."""
    counters: EngineCounters
    """Over the ranks. `at`, `since` and `ranks_lost` are not known from one page."""
    table: RankTable = field(default_factory=RankTable)
    """Of these ranks each by itself, where its label is a number."""
    ignored: Counts = field(default_factory=Counts)
    """What was not used."""


@dataclass(slots=True)
class _Rank:
    """What lines said of one."""

    sums: dict[bytes, float] = field(default_factory=dict)
    first_token: dict[bytes, float] = field(default_factory=dict)
    """Counts by upper bound, as the page has them."""
    per_token: dict[bytes, float] = field(default_factory=dict)
    mute: bool = False
    """It said something that is no figure."""


def parse_metrics(page: bytes) -> EngineMetrics | None:
    """None for a page without vLLM's gauges (not vLLM, or an engine that has not begun). What is not a number is left
    out of the sums, and its rank out of `ranks`; so is a histogram whose counts are not cumulative."""
    ranks: dict[bytes, _Rank] = {}
    ignored = Counts()
    known: dict[bytes, float] = {}
    blocks = 0
    for name, engine, bound, labels, text in _LINE.findall(page):
        engine = engine or _label(_ENGINE, labels)
        rank = ranks.get(engine)
        if rank is None:
            if len(ranks) >= _MOST_RANKS:
                ignored[Ignored.TOO_MANY_SERIES] += 1
                continue
            rank = ranks[engine] = _Rank()
        value = known.get(text)
        if value is None:
            value = known[text] = _value(text)
        if not 0 <= value < _ABSURD or (name == _USAGE and value > _FULL):  # NaN too: nothing to say
            rank.mute = True
            ignored[Ignored.OUT_OF_RANGE if isfinite(value) else Ignored.NOT_A_NUMBER] += 1
        elif name in _BUCKETS:
            counts = rank.first_token if name == _BUCKETS[0] else rank.per_token
            bound = bound or _label(_BOUND, labels)
            counts[bound] = counts.get(bound, 0.0) + value
        elif name == b"cache_config_info":
            # Of all engines of the API server together, and again for each of them.
            blocks = max(blocks, int(_label(_BLOCKS, labels) or 0))
        else:
            sums = rank.sums
            if name == b"request_success_total" and _UNFINISHED.search(labels):
                name = b"aborted"
                if _FAILED.search(labels):
                    sums[b"failed"] = sums.get(b"failed", 0.0) + value
            sums[name] = sums.get(name, 0.0) + value
    found = {engine: _counters(rank, ignored) for engine, rank in ranks.items()}
    if not any(_RUNNING in rank.sums for rank in ranks.values()):
        return None
    told = frozenset(engine for engine, rank in ranks.items() if _RUNNING in rank.sums and not rank.mute)
    table = [(int(engine), found[engine]) for engine in told if _NUMBER.fullmatch(engine)]
    return EngineMetrics(told, _all(list(found.values()), len(told), blocks), RankTable.of(table), ignored)


def _value(text: bytes) -> float:
    """NaN too for what is no number at all."""
    try:
        return float(text)
    except ValueError:
        return nan


def _counters(rank: _Rank, ignored: Counts) -> EngineCounters:
    """Of one rank. Says that it is mute where a histogram of it is none."""
    get = rank.sums.get
    usage, running = get(_USAGE, 0.0), round(get(_RUNNING, 0.0))
    return EngineCounters(
        ranks=1,
        running=running,
        waiting=round(get(b"num_requests_waiting", 0.0)),
        running_worst=running,
        kv_worst=usage,
        kv_sum=usage,
        prompt_tokens=get(b"prompt_tokens_total", 0.0),
        cached_prompt_tokens=get(b"prompt_tokens_cached_total", 0.0),
        output_tokens=get(b"generation_tokens_total", 0.0),
        finished=get(b"request_success_total", 0.0),
        aborted=get(b"aborted", 0.0),
        failed=get(b"failed", 0.0),
        preemptions=get(b"num_preemptions_total", 0.0),
        prefix_queries=get(b"prefix_cache_queries_total", 0.0),
        prefix_hits=get(b"prefix_cache_hits_total", 0.0),
        draft_tokens=get(b"spec_decode_num_draft_tokens_total", 0.0),
        accepted_tokens=get(b"spec_decode_num_accepted_tokens_total", 0.0),
        inter_token_sum=get(b"inter_token_latency_seconds_sum", 0.0),
        inter_token_count=get(b"inter_token_latency_seconds_count", 0.0),
        first_token=_histogram(_FIRST_TOKEN, rank, rank.first_token, ignored),
        per_token=_histogram(_PER_TOKEN, rank, rank.per_token, ignored),
    )


def _all(ranks: list[EngineCounters], told: int, blocks: int) -> EngineCounters:
    """Together. `told`: how many count as covered."""
    if len(ranks) == 1:
        return replace(ranks[0], ranks=told, kv_blocks=blocks)
    return replace(merged(ranks), ranks=told, kv_blocks=blocks)


def _label(pattern: re.Pattern[bytes], labels: bytes) -> bytes:
    found = pattern.search(labels)
    return found.group(1) if found else b""


def _histogram(name: bytes, rank: _Rank, buckets: dict[bytes, float], ignored: Counts) -> Histogram:
    """The count closes it: a page may lack buckets."""
    buckets.pop(b"", None)
    if (total := rank.sums.get(name + b"_count")) is not None:
        buckets[_INFINITE] = total
    if not buckets:
        return Histogram()
    order = _bounds(tuple(buckets))
    if order is None:
        ignored[Ignored.NOT_A_SERIES] += 1
        rank.mute = True
        return Histogram()
    bounds, places = order
    read = list(buckets.values())
    counts = tuple([read[place] for place in places])
    if any(below > above for below, above in pairwise(counts)):
        ignored[Ignored.OUT_OF_RANGE] += 1
        rank.mute = True
        return Histogram()
    return Histogram(bounds, counts, rank.sums.get(name + b"_sum", 0.0))


@lru_cache(maxsize=256)
def _bounds(texts: tuple[bytes, ...]) -> tuple[tuple[float, ...], tuple[int, ...]] | None:
    """Upper bounds ascending, and the place of each in the page; None where one is no time or there twice. Kept, as
    all ranks of an engine have the same ones."""
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return None
    places = sorted(range(len(values)), key=values.__getitem__)
    bounds = tuple(values[place] for place in places)
    ascending = all(below < above for below, above in pairwise(bounds))
    return (bounds, tuple(places)) if ascending and bounds[0] >= 0 else None
