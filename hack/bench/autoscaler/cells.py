"""One run of one policy: the figures that a report is made of."""

import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from bench.autoscaler.scenarios import (
    CEILING,
    INTERVAL,
    OBJECTIVE,
    Prepared,
    Scenario,
    engine,
    prepared,
)
from bench.autoscaler.store import CELL, Store, code_of
from moe_operator.simulator import kernel
from moe_operator.simulator.candidates import candidates
from moe_operator.simulator.fleet import Life
from moe_operator.simulator.hindsight import bound, starting_groups
from moe_operator.simulator.policies.static import StaticSettings
from moe_operator.simulator.policy import Policy
from moe_operator.simulator.result import Objective, Result
from moe_operator.simulator.run import simulate

STRICT = Objective(2.0, 0.050)
#: Wanted share of requests within the objective.
SHARE = 0.99
#: Seconds at the beginning in which nothing is scaled in: the trace begins with idle groups.
SETTLE = 600.0
BOUND, STATIC = "clairvoyant", "static"


@dataclass(frozen=True)
class Cell:
    """What to run. `choice` is the number of a policy's variant, whose settings may differ by engine; None: its
    defaults. The bound and the static fleet are searched for within one cell."""

    scenario: Scenario
    policy: str
    cold_start: float
    seed: int
    choice: int | None = None

    @property
    def known_as(self) -> "Cell":
        """The same wherever a trace's file lies."""
        return replace(self, scenario=self.scenario.known_as)


@dataclass(frozen=True)
class Figures:
    """What came of it."""

    attainment: float
    token_attainment: float
    strict: float
    strict_tokens: float
    gpu_hours: float
    starting: float
    draining: float
    cancelled: float
    need_hours: float
    """GPU-hours of groups used to their full capacity at every moment."""
    actions: int
    reversals: int
    ttft_p99: float | None
    tpot_p99: float | None
    missing: int
    """Cut, rejected or unfinished."""
    requests: int
    seconds: float
    """Of this machine."""
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        """Whether enough requests were within the objective."""
        return self.attainment >= SHARE


def run(cell: Cell, store: Store) -> Figures:
    """The cell's figures, from the store if they are there."""
    # The settings themselves, as a variant's number says nothing of what it stands for.
    key = (CELL, cell.known_as, _settings(cell), code_of(cell.policy))
    found = store.get(key)
    if found is None:
        found = store.put(key, asdict(_run(cell, store)))
    return Figures(**found)


def _settings(cell: Cell) -> Any:
    if cell.policy in (BOUND, STATIC):
        return None
    candidate, of = candidates()[cell.policy], engine(cell.scenario.engine)
    if cell.choice is None:
        return candidate.defaults(of, OBJECTIVE)
    return candidate.variants(of, OBJECTIVE)[cell.choice]


def result_of(cell: Cell, store: Store) -> tuple[Result, Prepared]:
    """All of a run that is neither the bound nor the static fleet, for a picture."""
    found = prepared(cell.scenario, cell.seed, store)
    return serve(cell, found, _policy(cell, found, _settings(cell))), found


def _run(cell: Cell, store: Store) -> Figures:
    begin = time.process_time()
    found = prepared(cell.scenario, cell.seed, store)
    extra: dict[str, float] = {}
    if cell.policy == BOUND:
        best = bound(
            found.trace,
            found.engine,
            found.need,
            INTERVAL,
            cold_start=cell.cold_start,
            seed=cell.seed,
            floor=1,
            ceiling=CEILING,
            objective=OBJECTIVE,
            share=SHARE,
        )
        result, extra = best.result, {"utilisation": best.utilisation}
    elif cell.policy == STATIC:
        result, groups = _static(cell, found)
        extra = {"groups": groups}
    else:
        result = serve(cell, found, _policy(cell, found, _settings(cell)))
    return _figures(result, found, time.process_time() - begin, extra)


def _policy(cell: Cell, found: Prepared, settings: Any) -> Policy:
    return candidates()[cell.policy].make(settings, found.engine, OBJECTIVE)


def serve(cell: Cell, found: Prepared, policy: Policy, start: int | None = None) -> Result:
    """What a policy makes of a cell's trace, with `start` groups at the beginning; None: as many as are needed then."""
    return simulate(
        found.trace,
        found.engine,
        policy,
        cold_start=cell.cold_start,
        seed=cell.seed,
        start_groups=start if start is not None else starting_groups(found.need, INTERVAL, 1, CEILING),
        floor=1,
        ceiling=CEILING,
        objective=OBJECTIVE,
        settle=SETTLE,
    )


def _static(cell: Cell, found: Prepared) -> tuple[Result, int]:
    """The least fleet that holds the objective over the whole trace; the greatest if none does."""

    def of(groups: int) -> Result:
        return serve(cell, found, _policy(cell, found, StaticSettings(float(groups))), groups)

    low, high, best = 0, CEILING, None
    while high - low > 1:
        middle = (low + high) // 2
        result = of(middle)
        if result.attainment() >= SHARE:
            high, best = middle, result
        else:
            low = middle
    return best or of(CEILING), high


def _figures(result: Result, found: Prepared, seconds: float, extra: dict[str, float]) -> Figures:
    missing = sum(result.count(outcome) for outcome in (kernel.CUT, kernel.REJECTED, kernel.IN_FLIGHT))
    return Figures(
        attainment=_short(result.attainment()),
        token_attainment=_short(result.token_attainment()),
        strict=_short(result.attainment(STRICT)),
        strict_tokens=_short(result.token_attainment(STRICT)),
        gpu_hours=_short(result.gpu_hours),
        starting=_short(result.gpu_hours_of(Life.STARTING)),
        draining=_short(result.gpu_hours_of(Life.DRAINING)),
        cancelled=_short(result.wasted_gpu_hours),
        need_hours=_short(float(found.need.sum()) * INTERVAL / 3600 * found.engine.gpus),
        actions=len(result.actions),
        reversals=result.reversals(),
        ttft_p99=_p99(result.ttft),
        tpot_p99=_p99(result.tpot),
        missing=missing,
        requests=len(result.trace),
        seconds=round(seconds, 2),
        extra={name: _short(value) for name, value in extra.items()},
    )


def _p99(values: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    seen = values[np.isfinite(values)]
    return _short(float(np.quantile(seen, 0.99))) if len(seen) else None


def _short(value: float) -> float:
    """As exact as anybody needs it: thousands are kept."""
    return round(value, 6)
