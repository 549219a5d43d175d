"""Turns scrapes of one pod into an observation: rates over a window, and when work last made progress. Pure."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
    _scrapes: deque[tuple[float, EngineMetrics]] = field(default_factory=deque)
    _progress_at: float | None = None
    _used_at: float | None = None
    _raw: EngineMetrics | None = None
    """The last scrape as it came."""
    _own: Own = field(default_factory=Own)
    """The operator's own requests when the engine's counters began."""
    _failures: int = 0
    _in_flight: int | None = None
    _idle_connections: int = 0

    def failed(self) -> None:
        """A scrape got no answer."""
        self._failures += 1

    def add(
        self,
        at: float,
        metrics: EngineMetrics,
        in_flight: int | None,
        idle_connections: int = 0,
        own: Own | None = None,
    ) -> None:
        """Take up a scrape, without what the operator itself asked for. Counters that fell were reset: what came before
        them does not count."""
        own = own or Own()
        raw, self._raw = self._raw, metrics
        if (
            raw is None
            or metrics.output_tokens < raw.output_tokens
            or metrics.prompt_tokens < raw.prompt_tokens
        ):
            self._scrapes.clear()
            self._own = own
        last = self._scrapes[-1][1] if self._scrapes else None
        metrics = self._others(metrics, last, own)
        in_flight = in_flight if in_flight is None else max(0, in_flight - own.in_flight)
        moved = last is None or metrics.output_tokens > last.output_tokens
        idle = metrics.running == 0 and metrics.waiting == 0 and not in_flight
        if moved or idle or self._progress_at is None:
            self._progress_at = at
        if moved or not idle or self._used_at is None:
            self._used_at = at
        self._failures = 0
        self._in_flight = in_flight
        self._idle_connections = idle_connections
        self._scrapes.append((at, metrics))
        while len(self._scrapes) > 2 and self._scrapes[1][0] <= at - WINDOW:
            self._scrapes.popleft()

    def _others(self, metrics: EngineMetrics, last: EngineMetrics | None, own: Own) -> EngineMetrics:
        """What others asked for. While an own request is open its tokens are already taken off: no counter falls for
        that."""
        prompt = metrics.prompt_tokens - max(0, own.prompt_tokens - self._own.prompt_tokens)
        output = metrics.output_tokens - max(0, own.output_tokens - self._own.output_tokens)
        return replace(
            metrics,
            running=max(0, metrics.running - own.in_flight),
            waiting=max(0, metrics.waiting - max(0, own.in_flight - metrics.running)),
            prompt_tokens=max(prompt, last.prompt_tokens) if last else prompt,
            output_tokens=max(output, last.output_tokens) if last else output,
        )

    def observation(self) -> PodObservation | None:
        """What is known now; None before the first scrape."""
        if not self._scrapes or self._progress_at is None:
            return None
        (began, first), (at, last) = self._scrapes[0], self._scrapes[-1]
        span = at - began
        # Else those that were timed are the operator's own.
        used = last.output_tokens > first.output_tokens or last.prompt_tokens > first.prompt_tokens
        return PodObservation(
            pod_uid=self.pod_uid,
            at=at,
            running=last.running,
            waiting=last.waiting,
            in_flight=self._in_flight,
            idle_connections=self._idle_connections,
            kv_usage_percent=last.kv_usage * 100,
            prompt_tokens_total=last.prompt_tokens,
            output_tokens_total=last.output_tokens,
            prompt_tokens_per_second=(last.prompt_tokens - first.prompt_tokens) / span if span else 0.0,
            output_tokens_per_second=(last.output_tokens - first.output_tokens) / span if span else 0.0,
            time_to_first_token=_mean(
                last.first_token_sum - first.first_token_sum, last.first_token_count - first.first_token_count
            )
            if used
            else None,
            time_per_output_token=_mean(
                last.per_token_sum - first.per_token_sum, last.per_token_count - first.per_token_count
            )
            if used
            else None,
            progress_at=self._progress_at,
            used_at=self._used_at if self._used_at is not None else at,
            failures=self._failures,
            phases=self.phases,
            request_slots=self.slots,
        )


def _mean(total: float, count: float) -> float | None:
    return total / count if count > 0 else None
