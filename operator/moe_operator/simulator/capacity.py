"""What a group can serve of a trace's mix, found by serving it, and how many groups a trace needs over time by that.

For what knows the trace: bounds in hindsight, scaling a trace to a fleet, the number of groups to start a run with.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moe_operator.simulator import kernel
from moe_operator.simulator.engine_model import EngineModel
from moe_operator.simulator.policies.static import Static
from moe_operator.simulator.result import Objective
from moe_operator.simulator.run import simulate
from moe_operator.simulator.trace import Trace, TraceError, step_load

Floats = NDArray[np.float64]

#: Groups that serve while their rate is found: bursts even out over several, as they do in a fleet.
_GROUPS = 4
#: Seconds that they serve before requests count, and seconds in which requests count.
_WARM_UP, _COUNTED = 900.0, 1200.0
_PRECISION = 0.02
#: The highest rate of a group that is looked for.
_MOST_RATE = 4096.0


@dataclass(frozen=True)
class Capacity:
    """Of one group, for a mix of requests."""

    rate: float
    """Requests per second that it sustains with enough of them within the objective."""
    tpot: float
    """Mean seconds per output token at that rate."""
    work: float
    """What that rate comes to in a second, as `_work` counts it: of requests of other lengths it is more or fewer."""


def sustained(
    trace: Trace, engine: EngineModel, objective: Objective, *, share: float = 0.99, seed: int = 0
) -> Capacity:
    """The highest rate of Poisson arrivals of the trace's mix with at least `share` of them within the objective.

    Raises TraceError where no rate is slow enough.
    """
    serves = partial(_served, trace, engine, objective, seed)
    low, high = 0.0, 1.0
    while high < _MOST_RATE and serves(high)[0] >= share:
        low, high = high, 2 * high
    if low == 0.0:
        # Slower than one request a second, or never.
        low = high
        while low > 1e-3 and serves(low)[0] < share:
            low, high = low / 2, low
        if low <= 1e-3:
            raise TraceError(
                f"a group of {engine.name} does not serve {share:.0%} of these requests within "
                f"{objective.ttft:g} s and {objective.tpot * 1000:g} ms even one by one: "
                "give a wider objective, or another engine"
            )
    while high / low > 1 + _PRECISION:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if serves(middle)[0] >= share else (low, middle)
    return Capacity(low, serves(low)[1], low * float(sum(map(np.mean, _work(trace, engine)))))


def _served(
    trace: Trace, engine: EngineModel, objective: Objective, seed: int, rate: float
) -> tuple[float, float]:
    load = step_load(trace, duration=_WARM_UP + _COUNTED, base=rate * _GROUPS, steps={}, seed=seed)
    result = simulate(
        load,
        engine,
        Static(),
        cold_start=0.0,
        seed=seed,
        start_groups=_GROUPS,
        floor=_GROUPS,
        ceiling=_GROUPS,
        objective=objective,
    )
    counted = load.arrival >= _WARM_UP
    if not counted.any():
        return 1.0, 0.0
    finished = counted & (result.outcome == kernel.FINISHED)
    tpot = float(result.tpot[finished].mean()) if finished.any() else math.inf
    return float(result.met()[counted].mean()), tpot


def needed(trace: Trace, engine: EngineModel, capacity: Capacity, interval: float = 15.0) -> Floats:
    """Groups at full capacity that the trace needs in each interval (seconds), 1.0 being one group busy.

    A request's work is that of its prompt when it arrives, and that of its output evenly over the time that this
    takes; a group does `capacity.work` of it a second. Where requests hold more of
    the KV cache or of the slots than that, these count.
    """
    count = max(1, math.ceil(trace.duration / interval))
    if not len(trace):
        return np.zeros(count)
    prompt_work, output_work = _work(trace, engine)
    seconds = np.maximum(trace.output * capacity.tpot, 1e-3)
    at = np.minimum((trace.arrival / interval).astype(np.int64), count - 1)
    work = np.bincount(at, prompt_work, minlength=count) / interval
    work += _spread(trace.arrival, seconds, output_work / seconds, interval, count)
    slots = _spread(trace.arrival, seconds, np.ones(len(trace)), interval, count) / engine.group_slots
    # While it decodes, a request holds its prompt and on average half of its output.
    held = trace.prompt + trace.output / 2.0
    kv = _spread(trace.arrival, seconds, held, interval, count) / (engine.ranks * engine.kv_tokens)
    return np.maximum(np.maximum(work / capacity.work, slots), kv)


def _work(trace: Trace, engine: EngineModel) -> tuple[Floats, Floats]:
    """Of each request's prompt and of its output, in seconds of a group beyond what its steps take anyway."""
    found = trace.cached * engine.prefix_cache_share
    context = trace.prompt + trace.output / 2.0
    each = engine.shared + (engine.decode + engine.kv * context) / engine.ranks
    return _prompt_cost(engine) * (trace.prompt - found), each * trace.output


def _prompt_cost(engine: EngineModel) -> float:
    """Seconds of a group for a prompt token: its rank's step holds up all others, unless they compute prompts too. Half
    is between the two."""
    return engine.shared + engine.prefill * (0.5 + 0.5 / engine.ranks)


def _spread(begin: Floats, seconds: Floats, level: Floats, interval: float, count: int) -> Floats:
    """Mean over each interval of the sum of `level` from `begin` on for `seconds`."""
    end = begin + seconds
    edges = np.arange(count + 1) * interval
    started, ended = np.argsort(begin, kind="stable"), np.argsort(end, kind="stable")

    def area(times: Floats, levels: Floats) -> Floats:
        """Up to each edge, of levels that last from their time on."""
        summed = np.concatenate([[0.0], np.cumsum(levels)])
        moments = np.concatenate([[0.0], np.cumsum(levels * times)])
        at = np.searchsorted(times, edges, "right")
        reached: Floats = edges * summed[at] - moments[at]
        return reached

    total = area(begin[started], level[started]) - area(end[ended], level[ended])
    means: Floats = np.diff(total) / interval
    return np.maximum(means, 0.0)
