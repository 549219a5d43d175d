"""The simulator's engine under a load, told in the words of `verify.engine_run`: what a real one is compared with.

The simulator counts in vLLM's blocks on GPUs; vLLM's kernels for CPUs have larger ones. `with_blocks` has to be called
before anything else imports the kernel: it is compiled for one size, which is why what is compiled is kept apart.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localcluster.layout import cache_root
from verify.simulator_loads import Load

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """What an engine did with a load. Times in seconds."""

    first: Floats
    last: Floats
    """Of each request."""
    at: Floats
    """Moments, evenly apart, that the following are of."""
    running: Floats
    waiting: Floats
    kv: Floats
    """Share of the blocks in use."""
    tokens: Floats
    """Output tokens so far."""
    preemptions: int
    prefix_hits: int
    """Tokens."""


def with_blocks(size: int) -> None:
    """Blocks of `size` tokens in all that is simulated by this process."""
    if "moe_operator.simulator.kernel" in sys.modules:
        raise RuntimeError("the kernel has been imported: set its blocks first")
    os.environ["NUMBA_CACHE_DIR"] = str(cache_root() / "numba" / f"blocks-of-{size}")
    from moe_operator.simulator import engine_model

    engine_model.BLOCK = size


def course(load: Load, engine: Any, interval: float) -> Course:
    """Serve a load with one group of an EngineModel, to its last token."""
    from moe_operator.simulator import kernel
    from moe_operator.simulator.trace import make_trace

    trace = make_trace(
        [r.arrival for r in load.requests],
        [r.prompt for r in load.requests],
        [r.output for r in load.requests],
        [r.known for r in load.requests],
        load.duration,
    )
    requests, groups, constants = (
        kernel.requests(trace, engine),
        kernel.groups(1, engine),
        kernel.constants(engine),
    )
    groups.state[0] = kernel.READY
    rows: list[tuple[float, ...]] = []
    now = 0.0
    while not np.all(requests.outcome != kernel.IN_FLIGHT):
        now += interval
        kernel.run_until(requests, groups, constants, now)
        counters = groups.counters[0].sum(axis=0)
        rows.append(
            (
                now,
                groups.running[0].sum(),
                groups.waiting[0].sum(),
                groups.used[0].sum() / engine.kv_blocks / engine.ranks,
                counters[kernel.OUTPUT],
            )
        )
    at, running, waiting, kv, tokens = np.array(rows).T
    counters = groups.counters[0].sum(axis=0)
    return Course(
        requests.first,
        requests.last,
        at,
        running,
        waiting,
        kv,
        tokens,
        int(counters[kernel.PREEMPTIONS]),
        int(counters[kernel.CACHED]),
    )


def real_course(load: Load, answer: dict[str, Any], interval: float) -> Course:
    """The same of what `verify.engine_run` tells: gauges as they stood at each moment."""
    steps = np.array(answer["steps"])
    ends = steps[:, 1]
    last = np.array(answer["last"], dtype=np.float64)
    first = np.array(answer["first"], dtype=np.float64)
    at = np.arange(interval, ends[-1] + interval, interval)
    step = np.searchsorted(ends, at, side="right") - 1
    known = step >= 0

    def gauge(column: int) -> Floats:
        found: Floats = np.where(known, steps[np.maximum(step, 0), column], 0.0)
        return found

    made = np.cumsum(steps[:, 9])
    tokens = np.where(known, made[np.maximum(step, 0)], 0.0)
    return Course(
        first,
        last,
        at,
        gauge(5),
        gauge(6),
        gauge(7),
        tokens,
        int(steps[-1, 8]),
        int(answer["prefix_hits"]),
    )
