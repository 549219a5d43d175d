"""What Dynamo's planner learns about an aggregated engine: the time of a step, from prefill tokens and KV tokens.

Source: the wheel ai-dynamo 1.6.1, dynamo/planner/core/perf_model/base.py and agg.py. (1.6.1 asks AISimulate's
native model first and has this regression for engines that it does not know; it learns from the same steps.)
Everything is per data-parallel rank. Times are seconds.
"""

import math
from collections import deque
from dataclasses import dataclass, field

MOST_CACHED = 0.95
"""Share of a prompt that a prefix cache may take off at most, so that a backlog stays visible."""
UNKNOWN_KV_BATCH = 1024
LEAST_STEP = 1e-6


@dataclass(frozen=True)
class Step:
    """One forward pass, or the mean of many: what was computed and how long it took."""

    prefill_tokens: float
    prefill_requests: float
    decode_kv: float
    """Tokens in the KV cache of the requests that decode."""
    decode_requests: float
    seconds: float
    """0: not timed; it counts for the averages alone."""


@dataclass
class Average:
    """A mean over the last values; zeros before the first other value do not count."""

    size: int
    _values: deque[float] = field(default_factory=deque)
    _live: bool = False

    def add(self, value: float) -> None:
        self._live = self._live or value != 0.0
        if not self._live:
            return
        self._values.append(value)
        if len(self._values) > self.size:
            self._values.popleft()

    @property
    def value(self) -> float:
        return math.fsum(self._values) / len(self._values) if self._values else 0.0


Observation = tuple[float, float, float]
"""Prefill tokens, KV tokens, seconds."""


class StepModel:
    """seconds = a + b prefill_tokens + c decode_kv, by least squares over a bounded, spread-out sample."""

    def __init__(self, samples: int = 64, least: int = 5, buckets: int = 16) -> None:
        """`samples` are kept at most, the oldest of the fullest bucket goes first; `buckets` is a square."""
        self.samples = samples
        self.least = least
        self.isl = Average(samples)
        self.decode_length = Average(samples)
        self.prefill_tokens = Average(samples)
        self._per_axis = math.isqrt(buckets)
        self._buckets: dict[tuple[int, int], deque[Observation]] = {}
        self._low = [math.inf, math.inf]
        self._high = [-math.inf, -math.inf]
        self._fit: tuple[float, float, float] | None = None
        self._stale = True

    # --- Learning --------------------------------------------------------------------------------

    def add(self, step: Step) -> None:
        if step.prefill_requests > 0:
            self.isl.add(step.prefill_tokens / step.prefill_requests)
        if step.decode_requests > 0:
            self.decode_length.add(step.decode_kv / step.decode_requests)
        self.prefill_tokens.add(step.prefill_tokens)
        if step.seconds == 0.0:
            return
        seen: Observation = (step.prefill_tokens, step.decode_kv, step.seconds)
        if self._widen(seen):
            self._rebuild()
        self._buckets.setdefault(self._bucket(seen), deque()).append(seen)
        if self.count > self.samples:
            fullest = max(self._buckets, key=lambda key: len(self._buckets[key]))
            self._buckets[fullest].popleft()
            if not self._buckets[fullest]:
                del self._buckets[fullest]
        self._stale = True

    @property
    def count(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())

    @property
    def enough(self) -> bool:
        return self.count >= self.least

    def _widen(self, seen: Observation) -> bool:
        low, high = list(self._low), list(self._high)
        self._low = [min(low[axis], seen[axis]) for axis in (0, 1)]
        self._high = [max(high[axis], seen[axis]) for axis in (0, 1)]
        return (low, high) != (self._low, self._high)

    def _rebuild(self) -> None:
        kept = self._observations()
        self._buckets = {}
        for seen in kept:
            self._buckets.setdefault(self._bucket(seen), deque()).append(seen)

    def _bucket(self, seen: Observation) -> tuple[int, int]:
        return self._index(seen, 0), self._index(seen, 1)

    def _index(self, seen: Observation, axis: int) -> int:
        low, high = self._low[axis], self._high[axis]
        if high <= low:
            return 0
        return max(0, min(int((seen[axis] - low) / (high - low) * self._per_axis), self._per_axis - 1))

    def _observations(self) -> list[Observation]:
        return [seen for bucket in self._buckets.values() for seen in bucket]

    @property
    def fit(self) -> tuple[float, float, float] | None:
        """(a, b, c); None with too few observations, or where more work would take less time."""
        if self._stale:
            self._stale = False
            fitted = least_squares(self._observations()) if self.enough else None
            self._fit = fitted if fitted is not None and fitted[1] >= 0 and fitted[2] >= 0 else None
        return self._fit

    # --- Asking ----------------------------------------------------------------------------------

    def step(self, prefill_tokens: float, decode_kv: float) -> float | None:
        """Seconds of a step."""
        if self.fit is None:
            return None
        constant, per_prefill, per_kv = self.fit
        return max(LEAST_STEP, constant + per_prefill * prefill_tokens + per_kv * decode_kv)

    def next_ttft(
        self, queued: float, batched_tokens: int, decode_kv: float, cached: float | None = None
    ) -> float | None:
        """Seconds to the first token of the next request, behind `queued` prefill tokens."""
        if self.fit is None or batched_tokens <= 0:
            return None
        left = (queued + self.isl.value) * (1.0 - cached_share(cached))
        if left <= 0:
            return 0.0
        seconds = 0.0
        for _ in range(math.ceil(left / batched_tokens)):
            chunk = min(left, batched_tokens)
            seconds += self.step(chunk, decode_kv) or 0.0
            left -= chunk
        return seconds

    def next_itl(self, scheduled_kv: float, queued_kv: float) -> float | None:
        """Seconds of a decode step once one more request is in it, with the usual prefill beside it."""
        return self.step(self.prefill_tokens.value, scheduled_kv + queued_kv + self.decode_length.value)

    def best_rate(
        self,
        isl: float,
        osl: float,
        *,
        batched_tokens: int,
        ttft: float,
        itl: float,
        kv_tokens: int | None = None,
        slots: int | None = None,
        cached: float | None = None,
    ) -> float:
        """Requests per second of one rank at the largest batch that meets both objectives.

        0.0: the model is not ready. Where not even one request at a time meets them, the rate of one is given.
        Cache hits take off prefill, never KV residency.
        """
        if self.fit is None or isl <= 0 or osl <= 0 or batched_tokens <= 0:
            return 0.0
        computed = isl * (1.0 - cached_share(cached))
        context = isl + osl / 2.0
        by_kv = (
            max(1, int(kv_tokens / max(1.0, context))) if kv_tokens and kv_tokens > 0 else UNKNOWN_KV_BATCH
        )
        by_slots = slots if slots and slots > 0 else by_kv
        most = max(1, min(by_kv, by_slots, batched_tokens - 1))
        while most > 1 and most * computed / max(1.0, osl) > batched_tokens - most:
            most -= 1
        best = 0.0
        for batch in range(1, most + 1):
            kv = batch * context
            prefill = min(batch * computed / max(1.0, osl), batched_tokens)
            seconds = self.step(prefill, kv) or LEAST_STEP
            queued = int(min(batch * isl / max(1.0, osl), batched_tokens))
            first = self.next_ttft(queued, batched_tokens, int(kv), cached) or 0.0
            misses = seconds > itl or first > ttft
            if misses and batch > 1:
                break
            admitted = math.inf if computed <= 0 else max(0.0, batched_tokens - batch) / (computed * seconds)
            best = min(batch / (osl * seconds), admitted)
            if misses:
                break
        return best


def cached_share(cached: float | None) -> float:
    """The share of a prompt that is not computed, within bounds; nothing known: none."""
    return 0.0 if cached is None or math.isnan(cached) else max(0.0, min(MOST_CACHED, cached))


def least_squares(observations: list[Observation]) -> tuple[float, float, float]:
    """(a, b, c) of z = a + b x + c y; of all solutions the one of least norm where there are several."""
    count = len(observations)
    mean_x, mean_y, mean_z = (math.fsum(seen[axis] for seen in observations) / count for axis in range(3))
    centred = [(x - mean_x, y - mean_y, z - mean_z) for x, y, z in observations]
    xx, yy, xy, xz, yz = (
        math.fsum(seen[first] * seen[second] for seen in centred)
        for first, second in ((0, 0), (1, 1), (0, 1), (0, 2), (1, 2))
    )
    if xx > 0 and yy > 0 and 1.0 - xy * xy / (xx * yy) > 1e-12:
        scale = xx * yy - xy * xy
        b, c = (yy * xz - xy * yz) / scale, (xx * yz - xy * xz) / scale
    elif xx + yy > 0:
        trace = (xx + yy) ** 2
        b, c = (xx * xz + xy * yz) / trace, (xy * xz + yy * yz) / trace
    else:
        b = c = 0.0
    return mean_z - b * mean_x - c * mean_y, b, c
