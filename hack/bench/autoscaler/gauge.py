"""`python -m bench.autoscaler.gauge FOLDER`: what a policy that knows the load, but not the future, costs at least.

The clairvoyant bound knows every request that will come. How much of the distance to it could a better policy make up?
A perfect gauge knows at every moment what groups' worth of work came in the last minute, from the requests themselves
and the exact capacity of a group, which no gauge of a real engine tells. It has so many times as many groups, at once
up, and down after a window. That factor and the window are chosen in hindsight for each trace and cold start by itself,
the cheapest with which enough requests are within the objective: what no policy could know beforehand. So it is no
bound, as forecasts may do better than a factor; but what is asked of a policy with one setting for all traces can
hardly be much less.
"""

import argparse
import math
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.autoscaler import scenarios
from bench.autoscaler.cells import BOUND, SETTLE, SHARE, Cell, run
from bench.autoscaler.scenarios import CEILING, INTERVAL, OBJECTIVE, prepared
from bench.autoscaler.store import Store, default_folder
from bench.autoscaler.tuning import COLD_STARTS
from bench.autoscaler.workers import pool
from moe_operator.simulator.hindsight import starting_groups
from moe_operator.simulator.policies.baseline import Tunable, one
from moe_operator.simulator.policy import FleetState, View
from moe_operator.simulator.run import simulate

GAUGE = "perfect-gauge"
#: Factors that are tried, and windows (s) before groups go.
_LEAST, _STEP, _STEPS = 0.8, 0.05, 64
WINDOWS = (0.0, 120.0, 300.0, 600.0)
#: Seconds over which work is averaged, as the operator's own gauges are.
_AVERAGED = 60.0


@dataclass(frozen=True)
class Found:
    """The cheapest that held. `over`: GPU-hours over the bound's."""

    factor: float
    window: float
    attainment: float
    gpu_hours: float
    over: float


class Gauge:
    """Groups in proportion to the work of the last minute."""

    name = GAUGE
    undrain = True
    tunable: Tunable = one("factor", (1.0,), "groups for each group's worth of work")

    def __init__(self, need: np.ndarray[Any, np.dtype[np.float64]], factor: float, window: float) -> None:
        """`need`: groups at full capacity, every INTERVAL seconds."""
        self.interval = INTERVAL
        self._need, self._factor, self._window = need, factor, window
        self._wanted: deque[tuple[float, int]] = deque()

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        until = int(now // INTERVAL)
        seen = self._need[max(0, until - round(_AVERAGED / INTERVAL)) : until]
        level = float(seen.mean()) if len(seen) else 0.0
        wanted = math.ceil(self._factor * level - 1e-9) if len(seen) else fleet.desired
        self._wanted.append((now, wanted))
        while self._wanted[0][0] < now - self._window:
            self._wanted.popleft()
        return min(max(max(groups for _, groups in self._wanted), fleet.floor), fleet.ceiling)


def cheapest(place: Cell, store: Store) -> Found:
    """The one that holds at the least cost."""
    key = (place, _LEAST, _STEP, WINDOWS)
    kept = store.get(key)
    return Found(**(kept if kept is not None else store.put(key, vars(_searched(place, store)))))


def _searched(place: Cell, store: Store) -> Found:
    found = prepared(place.scenario, place.seed, store)
    bound = run(replace(place, policy=BOUND), store)
    holding: list[Found] = []

    def held(step: int, window: float) -> bool:
        factor = _LEAST + step * _STEP
        result = simulate(
            found.trace,
            found.engine,
            Gauge(found.need, factor, window),
            cold_start=place.cold_start,
            seed=place.seed,
            start_groups=starting_groups(found.need, INTERVAL, 1, CEILING),
            floor=1,
            ceiling=CEILING,
            objective=OBJECTIVE,
            settle=SETTLE,
        )
        if result.attainment() < SHARE:
            return False
        over = result.gpu_hours / bound.gpu_hours
        holding.append(Found(factor, window, result.attainment(), result.gpu_hours, over))
        return True

    for window in WINDOWS:
        low, high = -1, _STEPS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if held(middle, window) else (middle, high)
    if not holding:
        return Found(math.inf, 0.0, 0.0, math.inf, math.inf)
    return min(holding, key=lambda one: one.gpu_hours)


def main(argv: Sequence[str] | None = None) -> int:
    """A line for each trace and cold start. Exit 0."""
    parser = argparse.ArgumentParser(prog="bench.autoscaler.gauge", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="with traces")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args(argv)
    store = Store(str(default_folder()))
    places = [
        Cell(scenario, GAUGE, cold_start, arguments.seed)
        for scenario in scenarios.scored(arguments.folder)
        if not scenario.stress
        for cold_start in COLD_STARTS
    ]
    over = []
    with pool(arguments.jobs) as workers:
        waiting = [workers.submit(cheapest, place, store) for place in places]
        for place, one_of in zip(places, waiting, strict=True):
            found = one_of.result()
            over.append(found.over)
            print(
                f"{place.scenario.name:<42}{place.cold_start:>5g} s  {found.attainment:>7.2%} at {found.over:>5.2f}"
                f"  factor {found.factor:.2f}, window {found.window:g} s",
                flush=True,
            )
    print(f"mean {sum(over) / len(over):.3f} times the bound")
    return 0


if __name__ == "__main__":
    sys.exit(main())
