"""What engines have counted and where they stand, of a pod or of a group: figures of which a reader takes differences.

Totals begin with the engines, not with the operator, so one reading says little. Of two readings of the same pods
differences may be taken where `since` and `ranks` are the same in both: an engine that began anew, a rank that stopped
or began to tell, and a pod that was replaced change one of them. Times in seconds.

The operator's own requests are taken off as far as they can be told apart: each asks for one token, so they are known
in the gauges, in tokens, in finished requests and in the time per output token, where vLLM enters 0 for them. In the
time to first token they stay: one entry for each rank at admission, and one in each `recovery.idleCanary` of an idle
group. So do those of them that were given up, in `aborted`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Histogram:
    """As Prometheus has them: `counts` are cumulative, one for each upper bound; the last bound is infinite."""

    bounds: tuple[float, ...] = ()
    """Ascending; as the page has them, since users set other ones than vLLM's (`custom-histogram-buckets`)."""
    counts: tuple[float, ...] = ()
    total: float = 0.0
    """Sum of all that was entered, in seconds."""

    @property
    def count(self) -> float:
        """Entries."""
        return self.counts[-1] if self.counts else 0.0

    def without_zeros(self, entries: float) -> "Histogram":
        """Without so many entries of 0: they are below every bound."""
        return Histogram(self.bounds, tuple(max(0.0, c - entries) for c in self.counts), self.total)

    def since(self, earlier: "Histogram") -> "Histogram":
        """What was entered after `earlier`; nothing where the two are not of one histogram."""
        if self.bounds != earlier.bounds:
            return Histogram()
        # Own requests that are taken off before an engine has counted them may leave a bucket short for a moment.
        grown = (max(0.0, now - then) for now, then in zip(self.counts, earlier.counts, strict=True))
        return Histogram(self.bounds, tuple(accumulate(grown, max)), max(0.0, self.total - earlier.total))

    def not_below(self, earlier: "Histogram") -> "Histogram":
        """With no count below an earlier one, where the bounds are the same."""
        if self.bounds != earlier.bounds:
            return self
        return Histogram(self.bounds, tuple(map(max, self.counts, earlier.counts)), self.total)


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """One reading. Sums over ranks, and over pods of what was `merged`, where nothing else is said."""

    at: float = 0.0
    """When it was taken, by the telemetry's clock; of several pods the oldest."""
    since: float = 0.0
    """Since when its counters run on: no engine began anew, and no rank stopped or began to tell; of several pods the
    newest."""
    ranks: int = 0
    """Ranks whose figures are in it: those that told all of theirs as numbers."""
    ranks_lost: int = 0
    """Ranks of these pods that told once and do not now."""
    running: int = 0
    """Requests being computed (vllm:num_requests_running)."""
    waiting: int = 0
    """Requests that no rank computes yet (vllm:num_requests_waiting)."""
    running_worst: int = 0
    """Requests that the fullest rank computes; one more or less while an own request is open."""
    kv_worst: float = 0.0
    """Share of the KV cache that the fullest rank uses, 0 to 1 (vllm:kv_cache_usage_perc)."""
    kv_sum: float = 0.0
    """Such shares of all ranks together: over `ranks` it is their mean."""
    kv_blocks: int = 0
    """Blocks of the KV caches, as the engines made them (num_gpu_blocks of vllm:cache_config_info); 0: not told."""
    prompt_tokens: float = 0.0
    """vllm:prompt_tokens_total: all of a prompt, when its last part has been computed."""
    cached_prompt_tokens: float = 0.0
    """Of these, those that were not computed but found in a cache, the engine's own or one that a connector reaches
    (vllm:prompt_tokens_cached_total)."""
    output_tokens: float = 0.0
    """vllm:generation_tokens_total: what clients get. Under speculative decoding accepted drafts are in it,
    refused ones are not."""
    finished: float = 0.0
    """Requests that came to their end (vllm:request_success_total: stop, length, repetition)."""
    aborted: float = 0.0
    """Requests that did not: their client left, or the engine failed them (abort, error)."""
    failed: float = 0.0
    """Of `aborted`, those that the engine failed (error)."""
    preemptions: float = 0.0
    """Requests that lost their KV cache to others and are computed again (vllm:num_preemptions_total)."""
    prefix_queries: float = 0.0
    """Prompt tokens that were looked up in the engine's own prefix cache (vllm:prefix_cache_queries_total)."""
    prefix_hits: float = 0.0
    """Of these, those that were found (vllm:prefix_cache_hits_total)."""
    draft_tokens: float = 0.0
    """Tokens that speculative decoding proposed (vllm:spec_decode_num_draft_tokens_total)."""
    accepted_tokens: float = 0.0
    """Of these, those that the model accepted (vllm:spec_decode_num_accepted_tokens_total)."""
    inter_token_sum: float = 0.0
    """Seconds between a request's tokens (vllm:inter_token_latency_seconds)."""
    inter_token_count: float = 0.0
    """Steps that brought a request tokens, but for its first: under speculative decoding one brings several. So the
    mean is that of the step time as requests see it, not of the time per token."""
    first_token: Histogram = Histogram()
    """Time to first token (vllm:time_to_first_token_seconds); entered with the first token."""
    own_prompt_tokens: float = 0.0
    """Prompt tokens of the operator's own requests, which were taken off."""
    own_output_tokens: float = 0.0
    """The same of tokens generated: one for each of its requests."""
    per_token: Histogram = Histogram()
    """Mean time per output token of a request but for its first (vllm:request_time_per_output_token_seconds); entered
    when it ends, 0 for one of a single token."""

    def fell_from(self, earlier: "EngineCounters") -> bool:
        """Whether a counter is lower than it was: the engine began anew. Sums of seconds may differ by rounding."""
        return any(getattr(self, name) < getattr(earlier, name) for name in _WHOLE) or any(
            now.count < then.count
            for now, then in ((self.first_token, earlier.first_token), (self.per_token, earlier.per_token))
        )


#: Counters of whole things.
_WHOLE = (
    "prompt_tokens",
    "cached_prompt_tokens",
    "output_tokens",
    "finished",
    "aborted",
    "failed",
    "preemptions",
    "prefix_queries",
    "prefix_hits",
    "draft_tokens",
    "accepted_tokens",
    "inter_token_count",
)
_LEAST, _MOST = ("at",), ("since", "running_worst", "kv_worst")
_HISTOGRAMS = ("first_token", "per_token")
_SUMS = tuple(f.name for f in fields(EngineCounters) if f.name not in (*_LEAST, *_MOST, *_HISTOGRAMS))


def merged(readings: Sequence[EngineCounters]) -> EngineCounters:
    """Several pods' as one. Raises ValueError for none."""
    if not readings:
        raise ValueError("no readings to merge")
    found: dict[str, float | Histogram] = {n: sum(getattr(r, n) for r in readings) for n in _SUMS}
    found.update({n: min(getattr(r, n) for r in readings) for n in _LEAST})
    found.update({n: max(getattr(r, n) for r in readings) for n in _MOST})
    found.update({n: merged_histograms(getattr(r, n) for r in readings) for n in _HISTOGRAMS})
    return EngineCounters(**found)  # type: ignore[arg-type]


def merged_histograms(histograms: Iterable[Histogram]) -> Histogram:
    """Entries of all. Where bounds differ, as between revisions that set their own, those that all have are kept:
    counts are cumulative, so there the sums are exact. Those without any bound have no entries."""
    known = [one for one in histograms if one.bounds]
    if not known:
        return Histogram()
    total = sum(one.total for one in known)
    first = known[0].bounds
    if all(one.bounds == first for one in known):
        return Histogram(first, tuple(map(sum, zip(*(one.counts for one in known), strict=True))), total)
    tables = [dict(zip(one.bounds, one.counts, strict=True)) for one in known]
    common = tuple(bound for bound in first if all(bound in table for table in tables))
    return Histogram(common, tuple(sum(table[bound] for table in tables) for bound in common), total)
