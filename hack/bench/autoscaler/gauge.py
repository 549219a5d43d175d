"""`python -m bench.autoscaler.gauge FOLDER`: what a policy that knows the load, but not the future, costs.

The clairvoyant bound knows every request that will come. How much of the distance to it could a better policy make up?
A perfect gauge knows at every moment what groups' worth of work came in the last minute, from the requests themselves
and the exact capacity of a group, which no gauge of a real engine tells. It has so many times as many groups, at once
up, and down after a window. Factor and window are chosen in hindsight, the cheapest with which enough requests are
within the objective: for each trace and cold start by itself, which no policy could know beforehand; for each cold
start, shared by all traces; and one for all, as is asked of a policy that is to serve traces it has not seen.

It is no bound: forecasts may do better than a factor. It tells how much of what a policy costs is paid for not knowing
what comes next, whatever it measures and however well.
"""

import argparse
import math
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.autoscaler import scenarios
from bench.autoscaler.cells import BOUND, SHARE, Cell, run, serve
from bench.autoscaler.scenarios import INTERVAL, prepared
from bench.autoscaler.store import Store, default_folder, default_record
from bench.autoscaler.tuning import COLD_STARTS
from bench.autoscaler.workers import pool
from moe_operator.simulator.policies.baseline import Tunable, one
from moe_operator.simulator.policy import FleetState, View

GAUGE = "perfect-gauge"
#: Factors that are tried: FIRST, one STEP more, and so on, below FIRST + STEPS x STEP.
FIRST, STEP, STEPS = 0.8, 0.05, 64
#: Seconds before groups go that are tried.
WINDOWS = (0.0, 120.0, 300.0, 600.0)
#: Seconds over which work is averaged, as the operator's own gauges are.
_AVERAGED = 60.0


@dataclass(frozen=True)
class Setting:
    """Of a gauge. `step`: which factor of those that are tried; `window`: seconds before groups go."""

    step: int
    window: float

    @property
    def factor(self) -> float:
        """Groups for each group's worth of work."""
        return FIRST + self.step * STEP


@dataclass(frozen=True)
class Found:
    """What a setting came to. `over`: GPU-hours over the bound's."""

    attainment: float
    over: float

    @property
    def held(self) -> bool:
        """Whether enough requests were within the objective."""
        return self.attainment >= SHARE


class Gauge:
    """Groups in proportion to the work of the last minute."""

    name = GAUGE
    undrain = True
    tunable: Tunable = one("factor", (1.0,), "groups for each group's worth of work")

    def __init__(self, need: np.ndarray[Any, np.dtype[np.float64]], setting: Setting) -> None:
        """`need`: groups at full capacity, every INTERVAL seconds."""
        self.interval = INTERVAL
        self._need, self._factor, self._window = need, setting.factor, setting.window
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


def measured(place: Cell, setting: Setting, store: Store) -> Found:
    """One setting in one place, from the store if it is there."""
    key = (GAUGE, place.known_as, setting.factor, setting.window, _AVERAGED)
    kept = store.get(key)
    return Found(**(kept if kept is not None else store.put(key, vars(_simulated(place, setting, store)))))


def _simulated(place: Cell, setting: Setting, store: Store) -> Found:
    found = prepared(place.scenario, place.seed, store)
    result = serve(place, found, Gauge(found.need, setting))
    over = result.gpu_hours / run(replace(place, policy=BOUND), store).gpu_hours
    return Found(result.attainment(), over)


def least(place: Cell, window: float, store: Store) -> int | None:
    """Which factor is the least that holds; None: none of those tried does."""
    low, high = -1, STEPS
    while high - low > 1:
        middle = (low + high) // 2
        held = measured(place, Setting(middle, window), store).held
        low, high = (low, middle) if held else (middle, high)
    return high if high < STEPS else None


@dataclass(frozen=True)
class Shared:
    """The cheapest setting that holds in several places, and how it did in each."""

    setting: Setting
    places: dict[Cell, Found]

    @property
    def over(self) -> float:
        """Mean of the places' GPU-hours over the bound's."""
        return sum(found.over for found in self.places.values()) / len(self.places)


def cheapest(
    places: Sequence[Cell], leasts: dict[tuple[Cell, float], int | None], workers: Executor, store: Store
) -> Shared | None:
    """With each window the factor that the most demanding place needs; of these the cheapest. None: none holds."""
    best: Shared | None = None
    for window in WINDOWS:
        steps = [leasts[place, window] for place in places]
        if any(step is None for step in steps):
            continue
        setting = Setting(max(step for step in steps if step is not None), window)
        waiting = [workers.submit(measured, place, setting, store) for place in places]
        one_of = Shared(setting, dict(zip(places, (each.result() for each in waiting), strict=True)))
        if best is None or one_of.over < best.over:
            best = one_of
    return best


def _line(place: Cell, shared: Shared | None) -> str:
    if shared is None:
        return "none holds"
    found, setting = shared.places[place], shared.setting
    return f"{found.attainment:>8.2%} at {found.over:>5.2f} ({setting.factor:.2f}, {setting.window:>3g} s)"


def main(argv: Sequence[str] | None = None) -> int:
    """A line for each trace and cold start. Exit 0."""
    parser = argparse.ArgumentParser(prog="bench.autoscaler.gauge", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="with traces")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args(argv)
    store = Store(str(default_folder()), str(default_record()))
    places = [
        Cell(scenario, GAUGE, cold_start, arguments.seed)
        for scenario in scenarios.scored(arguments.folder)
        if not scenario.stress
        for cold_start in COLD_STARTS
    ]
    with pool(arguments.jobs) as workers:
        asked = {
            (place, window): workers.submit(least, place, window, store)
            for place in places
            for window in WINDOWS
        }
        leasts = {key: each.result() for key, each in asked.items()}

        def each_of(groups: list[list[Cell]]) -> dict[Cell, Shared | None]:
            return {
                place: found
                for group in groups
                for found in [cheapest(group, leasts, workers, store)]
                for place in group
            }

        kinds = {
            "for each place": each_of([[place] for place in places]),
            "for each cold start": each_of([[p for p in places if p.cold_start == c] for c in COLD_STARTS]),
            "one for all": each_of([places]),
        }
    print("share in the objective, GPU-hours over the bound's, and the setting chosen (factor, window)")
    print(f"{'':<49}" + "".join(f"{kind:<34}" for kind in kinds))
    for place in places:
        lines = "".join(f"{_line(place, of[place]):<34}" for of in kinds.values())
        print(f"{place.scenario.name:<42}{place.cold_start:>5g} s{lines}".rstrip())
    for kind, of in kinds.items():
        found = [shared.places[place] for place, shared in of.items() if shared is not None]
        if len(found) == len(places):
            mean, held = (
                sum(one_of.over for one_of in found) / len(found),
                sum(one_of.held for one_of in found),
            )
            print(f"{kind}: {mean:.3f} times the bound, {held} of {len(found)} held")
        else:
            print(f"{kind}: none of those tried holds everywhere")
    return 0


if __name__ == "__main__":
    sys.exit(main())
