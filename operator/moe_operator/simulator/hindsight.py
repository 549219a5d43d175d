"""The bound: the cheapest run of a fleet that knows the trace, found in hindsight."""

import math
from dataclasses import dataclass

import numpy as np

from moe_operator.simulator.capacity import Floats
from moe_operator.simulator.engine_model import EngineModel
from moe_operator.simulator.policies.clairvoyant import Clairvoyant, ClairvoyantSettings
from moe_operator.simulator.result import Objective, Result
from moe_operator.simulator.run import JITTER, simulate
from moe_operator.simulator.trace import Trace

#: What the utilisation is searched between, and how finely. More than 1: a capacity that holds for Poisson arrivals on
#: a few groups may be exceeded where arrivals are more even, or for as long as the share wanted allows.
_LEAST, _MOST, _STEP = 0.5, 1.25, 0.025


@dataclass(frozen=True)
class Bound:
    """The cheapest run found; `held` if it holds the share wanted, else it is the one that came nearest."""

    result: Result
    utilisation: float
    held: bool


def bound(
    trace: Trace,
    engine: EngineModel,
    need: Floats,
    interval: float,
    *,
    cold_start: float,
    seed: int,
    floor: int,
    ceiling: int,
    objective: Objective,
    share: float = 0.99,
    smoothed: tuple[float, ...] = (60.0, 120.0),
) -> Bound:
    """The cheapest fleet with at least `share` of the requests within the objective, by the schedule of
    `policies.clairvoyant` on `need` (groups at full capacity by `interval` seconds).

    For each of `smoothed` (seconds over which the need is averaged: a group's queue bridges shorter peaks) the highest
    utilisation that holds is searched for by bisection, as cost falls and misses grow with it. Groups are created early
    by the longest cold start that may be drawn.
    """
    tried: list[Bound] = []

    def run(utilisation: float, work: Floats) -> Bound:
        policy = Clairvoyant(
            (work / utilisation).tolist(),
            interval,
            ClairvoyantSettings(
                utilisation=1.0, cold_start=cold_start, margin=JITTER * cold_start, least=floor
            ),
        )
        result = simulate(
            trace,
            engine,
            policy,
            cold_start=cold_start,
            seed=seed,
            # What it would have started before the trace begins is there.
            start_groups=min(max(max(policy.existing[:1], default=floor), floor), ceiling),
            floor=floor,
            ceiling=ceiling,
            objective=objective,
        )
        found = Bound(result, utilisation, result.attainment() >= share)
        tried.append(found)
        return found

    steps = round((_MOST - _LEAST) / _STEP)
    for seconds in smoothed:
        work = _smooth(need, round(seconds / interval))
        low, high = -1, steps + 1
        while high - low > 1:
            middle = (low + high) // 2
            held = run(round(_LEAST + middle * _STEP, 6), work).held
            low, high = (middle, high) if held else (low, middle)
    holding = [one for one in tried if one.held]
    if holding:
        return min(holding, key=lambda one: one.result.gpu_hours)
    return max(tried, key=lambda one: (one.result.attainment(), -one.result.gpu_hours))


def _smooth(need: Floats, size: int) -> Floats:
    """Means over `size` intervals, fewer at the ends."""
    if size <= 1 or not len(need):
        return need
    ones = np.ones(min(size, len(need)))
    means: Floats = np.convolve(need, ones, "same") / np.convolve(np.ones(len(need)), ones, "same")
    return means


def starting_groups(need: Floats, interval: float, floor: int, ceiling: int, utilisation: float = 0.7) -> int:
    """Groups that a fleet has when the trace begins, as if it had run before: for the need of the first ten minutes."""
    first = need[: max(1, math.ceil(600 / interval))]
    peak = float(first.mean()) if len(first) else 0.0
    return min(max(math.ceil(peak / utilisation - 1e-9), floor), ceiling)
