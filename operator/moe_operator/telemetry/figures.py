"""What engines deliver: rates, gauges, ratios and percentiles, of a rank, a pod, a group or a deployment. Pure.

All of it comes from two readings of the same engines each: rates and ratios from the newest and one at least RECENT
seconds before, percentiles from the newest and one up to LONG seconds before. Where an engine began anew in between,
there is no earlier reading, and its window begins with the first one after. What is not known is absent: a sum over
engines of which one does not tell is not known, a ratio or a percentile is that of those that tell.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from moe_operator.telemetry.engine_counters import EngineCounters, merged_histograms
from moe_operator.telemetry.percentiles import Percentiles, percentiles
from moe_operator.telemetry.rank_table import RankTable

#: Seconds that rates and ratios look back at least, and that percentiles look back at most; seconds between two
#: readings that are kept for it.
RECENT, LONG, APART = 30.0, 300.0, 30.0
#: Prompt and output tokens of a rank, on average in a window, below which nothing is said of how even ranks are: one
#: request more or less would be the figure.
_EVEN_LEAST = 100.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A reading that is kept."""

    counters: EngineCounters
    """Of the pod, without the operator's own requests."""
    ranks: RankTable = field(default_factory=RankTable)
    """Of its ranks, as the engine has it."""


@dataclass(frozen=True, slots=True)
class Span:
    """Readings of the same engines."""

    now: EngineCounters
    recent: EngineCounters | None = None
    """Of RECENT seconds ago or a little more; less where there is none; None: there is no earlier one."""
    long: EngineCounters | None = None
    """Of up to LONG seconds ago."""


@dataclass(frozen=True, slots=True)
class Figures:
    """None: not known."""

    input_tokens_per_second: float | None = None
    output_tokens_per_second: float | None = None
    running: int | None = None
    """Requests being computed."""
    waiting: int | None = None
    """Requests that no rank computes yet."""
    kv_used: float | None = None
    """Share of the KV cache in use, 0 to 1, of all ranks together."""
    kv_used_worst: float | None = None
    """The same of the fullest rank."""
    prefix_hits: float | None = None
    """Share of the prompt tokens that were found in the engines' own prefix cache, of those that were looked up."""
    preemptions_per_minute: float | None = None
    draft_acceptance: float | None = None
    """Share of proposed tokens that were accepted; None without speculative decoding."""
    first_token: Percentiles = field(default_factory=Percentiles)
    """Time to first token."""
    per_token: Percentiles = field(default_factory=Percentiles)
    """Time per output token, a request each."""
    imbalance: float | None = None
    """Tokens of the busiest rank over the mean of all; 1: even."""


def figures(spans: Sequence[Span], whole: bool = True, imbalance: float | None = None) -> Figures:
    """Of these engines together. `whole`: whether these are all of those that are meant."""
    if not spans:
        return Figures()
    told = [(one.now, one.recent) for one in spans if one.recent is not None]
    seconds = [now.at - then.at for now, then in told]
    rated = whole and len(told) == len(spans) and all(span > 0 for span in seconds)

    def rate(name: str) -> float | None:
        if not rated:
            return None
        grown = (max(0.0, float(getattr(now, name) - getattr(then, name))) for now, then in told)
        return sum(more / span for more, span in zip(grown, seconds, strict=True))

    preempted = rate("preemptions")
    ranks = sum(one.now.ranks for one in spans)
    return Figures(
        input_tokens_per_second=rate("prompt_tokens"),
        output_tokens_per_second=rate("output_tokens"),
        running=sum(one.now.running for one in spans) if whole else None,
        waiting=sum(one.now.waiting for one in spans) if whole else None,
        kv_used=min(1.0, sum(one.now.kv_sum for one in spans) / ranks) if ranks else None,
        kv_used_worst=max(one.now.kv_worst for one in spans) if ranks else None,
        prefix_hits=_ratio(told, "prefix_hits", "prefix_queries"),
        preemptions_per_minute=None if preempted is None else 60 * preempted,
        draft_acceptance=_ratio(told, "accepted_tokens", "draft_tokens"),
        first_token=_percentiles(spans, "first_token"),
        per_token=_percentiles(spans, "per_token"),
        imbalance=imbalance,
    )


def imbalance(readings: Iterable[tuple[RankTable, RankTable | None]]) -> float | None:
    """Tokens of the busiest rank over the mean, from the newest and an earlier reading of each pod. None for one rank,
    where a pod has no earlier one, and where there are too few tokens to say."""
    grown: list[float] = []
    for now, then in readings:
        if then is None or not now.ranks or not now.like(then):
            return None
        grown += [max(0.0, a - b) for a, b in zip(now.tokens(), then.tokens(), strict=True)]
    mean = sum(grown) / len(grown) if grown else 0.0
    return max(grown) / mean if len(grown) > 1 and mean >= _EVEN_LEAST else None


def rank_spans(now: Mark, recent: Mark | None, long: Mark | None) -> list[tuple[int, Span]]:
    """Of each rank of a pod, by its number."""
    found = []
    for place, rank in enumerate(now.ranks.ranks):
        read = [_row(mark, now.ranks, place) for mark in (now, recent, long)]
        if read[0] is not None:
            found.append((rank, Span(read[0], read[1], read[2])))
    return found


def _row(mark: Mark | None, like: RankTable, place: int) -> EngineCounters | None:
    if mark is None or not mark.ranks.like(like):
        return None
    # The operator asks every rank alike.
    zeros = mark.counters.own_output_tokens / len(like.ranks)
    return mark.ranks.row(place, mark.counters.at, zeros)


def _ratio(told: Sequence[tuple[EngineCounters, EngineCounters]], part: str, whole: str) -> float | None:
    """Of sums. More than all of it is nobody's figure."""
    parts = sum(getattr(now, part) - getattr(then, part) for now, then in told)
    all_ = sum(getattr(now, whole) - getattr(then, whole) for now, then in told)
    return parts / all_ if all_ > 0 and 0 <= parts <= all_ else None


def _percentiles(spans: Sequence[Span], name: str) -> Percentiles:
    pairs = [(one.now, one.long) for one in spans if one.long is not None]
    grown = merged_histograms(getattr(now, name).since(getattr(then, name)) for now, then in pairs)
    # The operator's own requests are not told apart in the time to first token.
    own = sum(now.own_output_tokens - then.own_output_tokens for now, then in pairs)
    return percentiles(grown, own if name == "first_token" else 0.0)
