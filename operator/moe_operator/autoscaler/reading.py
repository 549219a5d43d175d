"""What one look at a group's engines says: gauges, and counters as the engines have them. Times in seconds."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Buckets:
    """A cumulative histogram: observations up to each bound."""

    bounds: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()

    def since(self, earlier: "Buckets") -> "Buckets":
        """What came after `earlier`; nothing where the two are not of one histogram."""
        if self.bounds != earlier.bounds or len(self.counts) != len(earlier.counts):
            return Buckets()
        return Buckets(self.bounds, tuple(map(float.__sub__, self.counts, earlier.counts)))


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at one group, over all of its ranks."""

    at: float
    running: float
    """Requests at work, all ranks together."""
    waiting: float
    kv: float
    """Share of the KV cache in use, mean over ranks, 0 to 1."""
    finished: float
    """Requests that ended, since the engines began."""
    gaps: float
    """Times between two tokens of a request that were counted, and their sum in seconds: vLLM's
    inter_token_latency_seconds."""
    gap_seconds: float
    first_token: Buckets = Buckets()
    """Times to first token."""
    per_token: Buckets = Buckets()
    """Mean times per output token, a request each."""
    ranks: int = 1
    """How many ranks it covers."""
    since: float = 0.0
    """Since when its counters run on, where that is known."""
    prompt_tokens: float = 0.0
    cached_tokens: float = 0.0
    """Of the prompt tokens, those that were found in a cache."""
    output_tokens: float = 0.0

    def usable(self) -> bool:
        """Whether these are numbers that engines can have."""
        return all(
            math.isfinite(value) and value >= 0
            for value in (self.running, self.waiting, self.kv, self.finished, self.gaps, self.gap_seconds)
        )

    def follows(self, earlier: "Reading") -> bool:
        """Whether counters went on since `earlier`: engines that started again begin at zero, and a page that lacks a
        rank says less than the one before."""
        return (
            (self.ranks, self.since) == (earlier.ranks, earlier.since)
            and self.finished >= earlier.finished
            and self.gaps >= earlier.gaps
            and self.gap_seconds >= earlier.gap_seconds
        )
