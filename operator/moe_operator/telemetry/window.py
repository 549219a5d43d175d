"""Turns scrapes of one pod into an observation: rates over a window, and when work last made progress. Pure."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil

from moe_operator.telemetry.engine_counters import EngineCounters, Histogram
from moe_operator.telemetry.figures import APART, LONG, RECENT, Mark
from moe_operator.telemetry.metrics_page import EngineMetrics
from moe_operator.telemetry.observation import PodObservation
from moe_operator.telemetry.own_requests import Own

#: Seconds that rates and means look back.
WINDOW = 30.0


@dataclass
class PodWindow:
    """The scrapes of one pod within the window. Times are seconds of a monotonic clock."""

    pod_uid: str
    slots: int = 0
    """Requests that the pod can compute at once."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the engine's start by part."""
    draining: bool = False
    """Whether the agent was told to drain."""
    _scrapes: deque[EngineCounters] = field(default_factory=deque)
    _marks: deque[Mark] = field(default_factory=deque)
    """Readings of some minutes, further apart."""
    _unused: bool = True
    """Whether nobody has used it since the first of them."""
    _newest: Mark | None = None
    _progress_at: float | None = None
    _used_at: float | None = None
    _raw: EngineMetrics | None = None
    """The last scrape as it came."""
    _since: float = 0.0
    """When the engine's counters were first seen since they began."""
    _ranks: frozenset[bytes] = frozenset()
    """All ranks that ever told."""
    _own: Own = field(default_factory=Own)
    """The operator's own requests that the engine's counters do not have."""
    _failures: int = 0
    _in_flight: int | None = None
    _idle_connections: int = 0
    _observation: PodObservation | None = None
    """Made when it is asked for first after a scrape."""

    def failed(self) -> None:
        """A scrape got no answer."""
        self._failures += 1
        self._observation = None

    def add(
        self,
        at: float,
        metrics: EngineMetrics,
        in_flight: int | None,
        idle_connections: int = 0,
        own: Own | None = None,
    ) -> None:
        """Take up a scrape, without what the operator itself asked for. Counters that fell were reset, and those of
        other ranks are others: what came before them does not count."""
        own = own or Own()
        self._observation = None
        raw, self._raw = self._raw, metrics
        if raw is None or metrics.ranks != raw.ranks or metrics.counters.fell_from(raw.counters):
            self._scrapes.clear()
            self._marks.clear()
            self._newest, self._unused = None, True
            self._since = at
            # A new engine was asked whether it works before it was scraped first: that is in its counters.
            self._own = Own() if raw is None and _holds(metrics.counters, own) else own
        self._ranks |= metrics.ranks
        last = self._scrapes[-1] if self._scrapes else None
        seen = replace(
            _others(metrics.counters, last, own, self._own),
            at=at,
            since=self._since,
            ranks_lost=len(self._ranks - metrics.ranks),
        )
        in_flight = in_flight if in_flight is None else max(0, in_flight - own.in_flight)
        moved = last is None or seen.output_tokens > last.output_tokens
        idle = seen.running == 0 and seen.waiting == 0 and not in_flight
        if moved or idle or self._progress_at is None:
            self._progress_at = at
        if moved or not idle or self._used_at is None:
            self._used_at = at
        self._failures = 0
        self._in_flight = in_flight
        self._idle_connections = idle_connections
        self._mark(Mark(seen, metrics.table))
        self._scrapes.append(seen)
        while len(self._scrapes) > 2 and self._scrapes[1].at <= at - WINDOW:
            self._scrapes.popleft()

    def _mark(self, newest: Mark) -> None:
        """Keep what figures look back to. While nobody uses the engine that is the scrape before, so that what the
        operator asks of it meanwhile is in no figure."""
        at, marks, before = newest.counters.at, self._marks, self._newest
        self._newest = newest
        unused = self._unused
        self._unused = not marks or not _used(newest.counters, marks[0].counters)
        if before is not None and unused:
            marks.clear()
            marks.append(before)
        elif not marks or at - marks[-1].counters.at >= APART:
            marks.append(newest)
        while len(marks) > 1 and marks[1].counters.at <= at - LONG:
            marks.popleft()

    def observation(self) -> PodObservation | None:
        """What is known since the last scrape; None before the first."""
        if self._observation is None:
            self._observation = self._observed()
        return self._observation

    def _observed(self) -> PodObservation | None:
        if not self._scrapes or self._progress_at is None:
            return None
        first, last = self._scrapes[0], self._scrapes[-1]
        span = last.at - first.at
        # Else those that were timed are the operator's own.
        used = _used(last, first)
        earlier = [mark for mark in self._marks if mark.counters.at < last.at]
        recent = [mark for mark in earlier if mark.counters.at <= last.at - RECENT] or earlier[:1]
        return PodObservation(
            pod_uid=self.pod_uid,
            at=last.at,
            running=last.running,
            waiting=last.waiting,
            in_flight=self._in_flight,
            idle_connections=self._idle_connections,
            prompt_tokens_per_second=(last.prompt_tokens - first.prompt_tokens) / span if span else 0.0,
            output_tokens_per_second=(last.output_tokens - first.output_tokens) / span if span else 0.0,
            time_to_first_token=_mean(last.first_token, first.first_token) if used else None,
            time_per_output_token=_mean(last.per_token, first.per_token) if used else None,
            progress_at=self._progress_at,
            used_at=self._used_at if self._used_at is not None else last.at,
            failures=self._failures,
            phases=self.phases,
            draining=self.draining,
            request_slots=self.slots,
            counters=last,
            newest=self._newest,
            recent=recent[-1] if recent else None,
            # While nobody uses it, those that were timed are the operator's own.
            long=earlier[0] if earlier and not self._unused else None,
        )


def _holds(counters: EngineCounters, own: Own) -> bool:
    """Whether the counters may have all of the own requests in them: else the engine is another than was asked."""
    return counters.output_tokens >= own.output_tokens and counters.prompt_tokens >= own.prompt_tokens


def _used(last: EngineCounters, first: EngineCounters) -> bool:
    """Whether anybody but the operator had it compute something."""
    return last.output_tokens > first.output_tokens or last.prompt_tokens > first.prompt_tokens


def _others(counters: EngineCounters, last: EngineCounters | None, own: Own, before: Own) -> EngineCounters:
    """What others asked for. While an own request is open its tokens are already taken off: no counter falls for
    that. `before`: the own requests when the counters began."""
    running = max(0, counters.running - own.in_flight)
    answered = max(0, own.answered - before.answered)
    own_prompt = max(0, own.prompt_tokens - before.prompt_tokens)
    own_output = max(0, own.output_tokens - before.output_tokens)
    found = replace(
        counters,
        running=running,
        waiting=max(0, counters.waiting - max(0, own.in_flight - counters.running)),
        running_worst=_worst(counters, running, own.in_flight),
        prompt_tokens=counters.prompt_tokens - own_prompt,
        output_tokens=counters.output_tokens - own_output,
        finished=counters.finished - answered,
        per_token=counters.per_token.without_zeros(answered),
        own_prompt_tokens=own_prompt,
        own_output_tokens=own_output,
    )
    if last is None:
        return found
    return replace(
        found,
        prompt_tokens=max(found.prompt_tokens, last.prompt_tokens),
        output_tokens=max(found.output_tokens, last.output_tokens),
        finished=max(found.finished, last.finished),
        per_token=found.per_token.not_below(last.per_token),
    )


def _worst(counters: EngineCounters, running: int, own: int) -> int:
    """The fullest rank's requests: own ones are spread evenly. No less than it must have of the `running` ones."""
    ranks = max(1, counters.ranks)
    return max(counters.running_worst - ceil(own / ranks), ceil(running / ranks))


def _mean(last: Histogram, first: Histogram) -> float | None:
    count = last.count - first.count
    return (last.total - first.total) / count if count > 0 else None
