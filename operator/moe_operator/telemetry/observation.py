"""What was measured of one pod's engine, and how it is summed up. Times are seconds of a monotonic clock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from moe_operator.telemetry.engine_counters import EngineCounters, merged
from moe_operator.telemetry.figures import Mark, Span


@dataclass(frozen=True)
class PodObservation:
    """One scrape of one pod, all its ranks together, and what changed since earlier ones."""

    pod_uid: str
    at: float
    """When the last successful scrape ended."""
    running: int
    """Requests being computed (vllm:num_requests_running) over all ranks of the pod."""
    waiting: int
    in_flight: int | None
    """HTTP requests open, counted by the agent; None without agent."""
    prompt_tokens_per_second: float
    """Over the telemetry window; 0 before two scrapes."""
    output_tokens_per_second: float
    time_to_first_token: float | None
    """Mean in seconds over the window; None if no request got a first token in it."""
    time_per_output_token: float | None
    progress_at: float
    """When a token was last seen to come, or when the pod was last seen without work."""
    used_at: float = 0.0
    """When the pod last had a request that was not the operator's own, or was first seen."""
    failures: int = 0
    """Scrapes that failed in a row since `at`."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds that the engine took over each part of its start, as the agent says; empty without agent."""
    idle_connections: int = 0
    """Connections on which clients may send another request; counted by the agent, while the pod drains."""
    draining: bool = False
    """Whether the agent was told to drain."""
    request_slots: int = 0
    """Requests that the pod's ranks can compute at once (max-num-seqs x ranks), 0 if unknown."""

    counters: EngineCounters = field(default_factory=EngineCounters)
    """The newest reading, of which the rates and means above are made."""
    newest: Mark | None = None
    """The same, with each of the ranks."""
    recent: Mark | None = None
    """An earlier one, for rates; None where there is none since the engine began."""
    long: Mark | None = None
    """One of some minutes ago, for percentiles."""

    @property
    def span(self) -> Span:
        """Of all ranks together, for figures."""
        recent, long = self.recent, self.long
        return Span(self.counters, recent.counters if recent else None, long.counters if long else None)

    @property
    def timed(self) -> bool:
        """Whether a request got its first token in the time that percentiles look back."""
        return (
            self.long is not None and self.counters.first_token.count > self.long.counters.first_token.count
        )

    @property
    def requests(self) -> int:
        """In the pod, however they are counted: the engine does not know of one whose answer is still being sent, the
        agent of none that its pod handed to another rank."""
        return max(self.running + self.waiting, self.in_flight or 0)

    @property
    def busy(self) -> bool:
        return self.requests > 0


@dataclass(frozen=True)
class Snapshot:
    """The last observations by pod uid."""

    pods: dict[str, PodObservation]
    taken_at: float
    unheard: Mapping[str, float] = field(default_factory=dict)
    """Pods that serve and of which nothing was ever observed, and since when they have been asked."""

    def counters(self, pods: Iterable[str], tolerated_failures: int = 0) -> EngineCounters | None:
        """The reading of these pods, by uid, together; None where there is none of one of them, or where more scrapes
        of one than are tolerated failed in a row: a part says nothing of the whole."""
        seen = [self.pods.get(uid) for uid in pods]
        found = [s.counters for s in seen if s is not None and s.failures <= tolerated_failures]
        return merged(found) if found and len(found) == len(seen) else None
