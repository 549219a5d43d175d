"""Finds a policy's cheapest setting that holds the objective everywhere it is asked to.

A sweep's combinations fall into lines, along each of which the first asks for the most groups and the last for the
fewest. On each line the last one that holds is found by bisection, as cost falls and misses grow along it; of what
the lines gave the cheapest is taken.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from threading import Lock

from bench.autoscaler.cells import SHARE, Cell, Figures, run
from bench.autoscaler.scenarios import Scenario
from bench.autoscaler.store import Store
from moe_operator.simulator.candidates import Candidate
from moe_operator.simulator.policies.baseline import Tunable

#: Seconds that groups take to come, of every trace.
COLD_STARTS = (120.0, 300.0, 600.0)

Place = tuple[Scenario, float]
"""A trace and a cold start (s)."""


@dataclass(frozen=True)
class Tuned:
    """What was found for one policy."""

    policy: str
    choice: int | None
    """Number of the variant; None: its defaults, as there is nothing to choose."""
    label: str
    held: int
    """On how many places."""
    places: int
    worst: float
    """The least attainment of any place."""
    cost: float
    """GPU-hours over those of groups that are always full, mean of places."""
    tried: int


class Bench:
    """Runs cells on other processes, and says how far it is."""

    def __init__(self, pool: Executor, store: Store, tell: Callable[[str], None]) -> None:
        self.pool, self.store, self.tell = pool, store, tell
        self._lock = Lock()
        self.done = 0
        self.cpu = 0.0

    def run(self, cell: Cell) -> Figures:
        """One cell."""
        figures = self.pool.submit(run, cell, self.store).result()
        with self._lock:
            self.done += 1
            self.cpu += figures.seconds
        setting = "" if cell.choice is None else f" variant {cell.choice}"
        self.tell(
            f"{self.done}: {cell.scenario.name}, {cell.policy}{setting}, cold start {cell.cold_start:g} s, "
            f"seed {cell.seed}: {figures.attainment:.2%}, {figures.gpu_hours:.1f} GPU-h, {figures.seconds:.1f} s"
        )
        return figures

    def run_all(self, cells: Iterable[Cell], threads: int = 8) -> dict[Cell, Figures]:
        """Many, in any order."""
        wanted = list(dict.fromkeys(cells))
        with ThreadPoolExecutor(threads) as workers:
            return dict(zip(wanted, workers.map(self.run, wanted), strict=True))


def tune(bench: Bench, candidate: Candidate, places: Sequence[Place], seeds: Sequence[int]) -> Tuned:
    """The cheapest variant with at least SHARE of the requests (mean of seeds) within the objective on every place.

    Where none is: of those tried, the one that holds on most places, then the one with the best worst attainment.
    """
    judge = _Judge(bench, candidate.name, places, seeds)
    lines: list[list[int | None]] = [[None]]
    if candidate.tunable is not None:
        lines = _lines(candidate.tunable)
    with ThreadPoolExecutor(len(lines)) as workers:
        ends = workers.map(lambda line: _last_that_holds(judge, line), lines)
        chosen = [line[end] for line, end in zip(lines, ends, strict=True) if end >= 0] or _few(lines)
        results = dict(zip(chosen, workers.map(judge.all, chosen), strict=True))
    best = min(results, key=lambda choice: _order(results[choice]))
    held, worst, cost = _summary(results[best])
    return Tuned(candidate.name, best, label(candidate, best), held, len(places), worst, cost, judge.tried)


def label(candidate: Candidate, choice: int | None) -> str:
    """`kv 0.3, waiting 30`."""
    if choice is None or candidate.tunable is None:
        return "as it comes"
    values = zip(candidate.tunable.fields, candidate.tunable.grid[choice], strict=True)
    return ", ".join(f"{field} {value:g}" for field, value in values)


def _lines(tunable: Tunable) -> list[list[int | None]]:
    """Numbers of combinations, by line: one for each value of the settings with fewer values, where all are combined
    with all; else one in all."""
    distinct = [list(dict.fromkeys(values)) for values in zip(*tunable.grid, strict=True)]
    if len(tunable.fields) == 1 or prod(map(len, distinct)) != len(tunable.grid):
        return [list(range(len(tunable.grid)))]
    main = max(range(len(distinct)), key=lambda at: len(distinct[at]))
    lines: dict[tuple[float, ...], list[int | None]] = {}
    for number, values in enumerate(tunable.grid):
        lines.setdefault(values[:main] + values[main + 1 :], []).append(number)
    return list(lines.values())


def _last_that_holds(judge: "_Judge", line: list[int | None]) -> int:
    low, high = -1, len(line)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if judge.holds(line[middle]) else (low, middle)
    return low


def _few(lines: list[list[int | None]]) -> list[int | None]:
    """Where nothing holds: what asks for most, half and a quarter of the way."""
    return list(dict.fromkeys(line[len(line) * part // 4] for line in lines for part in (0, 1, 2)))


def _summary(results: dict[Place, list[Figures]]) -> tuple[int, float, float]:
    attained = [_mean(f.attainment for f in figures) for figures in results.values()]
    costs = [_mean(f.gpu_hours / f.need_hours for f in figures) for figures in results.values()]
    return sum(value >= SHARE for value in attained), min(attained), _mean(costs)


def _order(results: dict[Place, list[Figures]]) -> tuple[float, ...]:
    held, worst, cost = _summary(results)
    return (0.0, cost) if held == len(results) else (1.0, -held, -worst)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


class _Judge:
    """Whether one policy's variants hold, with the places first that failed last."""

    def __init__(self, bench: Bench, policy: str, places: Sequence[Place], seeds: Sequence[int]) -> None:
        self._bench, self._policy, self._seeds = bench, policy, tuple(seeds)
        # Long cold starts fail first.
        self._places = sorted(places, key=lambda place: -place[1])
        self._failed = dict.fromkeys(self._places, 0)
        self._lock = Lock()
        self._known: dict[int | None, bool] = {}

    @property
    def tried(self) -> int:
        return len(self._known)

    def holds(self, choice: int | None) -> bool:
        if choice not in self._known:
            with self._lock:
                places = sorted(self._places, key=lambda place: -self._failed[place])
            self._known[choice] = all(self._held(choice, place) for place in places)
        return self._known[choice]

    def all(self, choice: int | None) -> dict[Place, list[Figures]]:
        """Every place's figures."""
        self._known.setdefault(choice, False)
        return {place: self._figures(choice, place) for place in self._places}

    def _held(self, choice: int | None, place: Place) -> bool:
        if _mean(figures.attainment for figures in self._figures(choice, place)) >= SHARE:
            return True
        with self._lock:
            self._failed[place] = max(self._failed.values()) + 1
        return False

    def _figures(self, choice: int | None, place: Place) -> list[Figures]:
        scenario, cold_start = place
        return [
            self._bench.run(Cell(scenario, self._policy, cold_start, seed, choice)) for seed in self._seeds
        ]
