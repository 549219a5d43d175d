"""What a run came to: each request's fate, the GPU time it took, and what the fleet looked like on the way."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_operator.simulator import kernel
from moe_operator.simulator.fleet import Life
from moe_operator.simulator.trace import Trace

Floats = NDArray[np.float64]
Bytes = NDArray[np.int8]


@dataclass(frozen=True)
class Objective:
    """Seconds to the first token, and seconds per further token on average, that a request may take at most."""

    ttft: float = 5.0
    tpot: float = 0.080


@dataclass(frozen=True)
class Action:
    """A change of the number of groups asked for, at `time` (s)."""

    time: float
    before: int
    after: int


@dataclass(frozen=True)
class Timeline:
    """By minute, for plots. Groups and requests are means of samples; rates per second; `attained` is the share of the
    requests that arrived in the minute that were served within the objective (NaN if none did), `ttft_p99` theirs in
    seconds (NaN if none had a first token)."""

    minute: Floats
    desired: Floats
    ready: Floats
    starting: Floats
    draining: Floats
    running: Floats
    waiting: Floats
    """At groups and at the gateway."""
    arrivals: Floats
    prompt_tokens: Floats
    output_tokens: Floats
    """Of what arrived, not of what was served."""
    attained: Floats
    ttft_p99: Floats


@dataclass(frozen=True)
class Result:
    """One run. Arrays hold one entry per request, in the trace's order; times in seconds."""

    policy: str
    trace: Trace
    objective: Objective
    ttft: Floats
    """From arrival at the gateway; NaN without a first token."""
    tpot: Floats
    """Mean per token after the first; 0 with one token only, NaN if unfinished."""
    outcome: Bytes
    """kernel.FINISHED, CUT, REJECTED or IN_FLIGHT (unfinished when the run ended)."""
    preemptions: int
    gpus: int
    """Of a group."""
    group_seconds: dict[Life, float]
    """By state, up to the trace's end."""
    cancelled_seconds: float
    """Of groups that were cancelled before they were ready; part of `group_seconds`."""
    actions: tuple[Action, ...]
    samples: Floats
    """Rows of time, desired, ready, starting, draining, running, waiting, at the gateway."""

    # --- The objective ---------------------------------------------------------------------------

    def met(self, objective: Objective | None = None) -> NDArray[np.bool_]:
        """Which requests were served within an objective. What was not finished was not."""
        goal = objective or self.objective
        with np.errstate(invalid="ignore"):
            within: NDArray[np.bool_] = (self.ttft <= goal.ttft) & (self.tpot <= goal.tpot)
        served: NDArray[np.bool_] = within & (self.outcome == kernel.FINISHED)
        return served

    def attainment(self, objective: Objective | None = None) -> float:
        """Share of the requests served within an objective, from 0 to 1; 1 if there were none."""
        met = self.met(objective)
        return float(met.mean()) if len(met) else 1.0

    def token_attainment(self, objective: Objective | None = None) -> float:
        """Share of the output tokens that belong to such requests."""
        total = self.trace.output.sum()
        return float(self.trace.output[self.met(objective)].sum() / total) if total else 1.0

    def count(self, outcome: int) -> int:
        """Requests with an outcome."""
        return int(np.count_nonzero(self.outcome == outcome))

    # --- GPUs ------------------------------------------------------------------------------------

    @property
    def group_hours(self) -> float:
        """Hours of groups from creation to end."""
        return sum(self.group_seconds.values()) / 3600

    @property
    def gpu_hours(self) -> float:
        """Hours of GPUs held: serving, starting and draining."""
        return self.group_hours * self.gpus

    def gpu_hours_of(self, life: Life) -> float:
        """Hours of GPUs of groups in a state."""
        return self.group_seconds[life] * self.gpus / 3600

    @property
    def wasted_gpu_hours(self) -> float:
        """Hours of GPUs of groups that were cancelled before they served."""
        return self.cancelled_seconds * self.gpus / 3600

    # --- Changes ---------------------------------------------------------------------------------

    def reversals(self, window: float = 600.0) -> int:
        """How often groups were added within `window` seconds after some were taken away."""
        last_down, count = -np.inf, 0
        for action in self.actions:
            if action.after < action.before:
                last_down = action.time
            elif action.time - last_down <= window:
                count += 1
                last_down = -np.inf
        return count

    # --- Pictures --------------------------------------------------------------------------------

    def timeline(self) -> Timeline:
        """By minute of the trace."""
        minutes = max(1, int(np.ceil(self.trace.duration / 60)))
        # The last arrival may be at the very end.
        of_request = np.minimum((self.trace.arrival // 60).astype(np.int64), minutes - 1)
        of_sample = np.minimum((self.samples[:, 0] // 60).astype(np.int64), minutes - 1)

        def mean(values: Floats, minute: NDArray[np.int64]) -> Floats:
            count = np.bincount(minute, minlength=minutes)
            with np.errstate(invalid="ignore", divide="ignore"):
                averages: Floats = np.bincount(minute, values, minlength=minutes) / count
            return averages

        def rate(values: NDArray[np.int32]) -> Floats:
            summed: Floats = np.bincount(of_request, values, minlength=minutes) / 60
            return summed

        slow = np.full(minutes, np.nan)
        edges = np.searchsorted(of_request, np.arange(minutes + 1))
        for minute in range(minutes):
            seen = self.ttft[edges[minute] : edges[minute + 1]]
            seen = seen[~np.isnan(seen)]
            if len(seen):
                slow[minute] = np.quantile(seen, 0.99)
        samples = self.samples.T
        desired, ready, starting, draining, running = (mean(samples[at], of_sample) for at in range(1, 6))
        return Timeline(
            minute=np.arange(minutes, dtype=np.float64),
            desired=desired,
            ready=ready,
            starting=starting,
            draining=draining,
            running=running,
            waiting=mean(samples[6] + samples[7], of_sample),
            arrivals=np.bincount(of_request, minlength=minutes) / 60,
            prompt_tokens=rate(self.trace.prompt),
            output_tokens=rate(self.trace.output),
            attained=mean(self.met().astype(np.float64), of_request),
            ttft_p99=slow,
        )
