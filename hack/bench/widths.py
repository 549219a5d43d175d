"""`python -m bench.widths`: whether the width that is recommended costs fewer GPU-hours, by the simulator.

For some models and kinds of requests a made-up day is served by the operator's own autoscaler in each width that groups
could have. From the run in the planned width the recommendation is made, as the operator makes it; the runs in the
others say what it is worth. Engines are the planner's (`planner.step_times`): ratios between widths are judged, by what
the formula leaves out (queues, bursts, ranks that wait for one another, preemption), and not the planner's figures.
"""

import argparse
import time
from dataclasses import asdict, dataclass
from typing import cast

from moe_operator.api.deployment import parse
from moe_operator.autoscaler.auto import WORTH
from moe_operator.autoscaler.width import Advice, History, Limits, Option, best, costs
from moe_operator.catalog.operator_config import default_config
from moe_operator.cli.inventory_source import usual
from moe_operator.planner.group_capacity import RequestMix
from moe_operator.planner.plan import Refusal
from moe_operator.planner.planning import plan
from moe_operator.planner.widths import Width, widths
from moe_operator.simulator.candidates import served
from moe_operator.simulator.engine_model import EngineModel
from moe_operator.simulator.policies.operator import Operator, OperatorSettings
from moe_operator.simulator.policy import FleetState, Policy
from moe_operator.simulator.result import Objective, Result
from moe_operator.simulator.run import simulate
from moe_operator.simulator.scrape import View
from moe_operator.simulator.synthetic import CHAT, DOCUMENTS, REASONING, Kind, Load, Part, generate
from moe_operator.simulator.trace import Trace

TTFT, TPOT = 5.0, 0.08
HOURS = 10.0
#: Hours in which the autoscaler learns.
WARM = 2.0
COLD_START = 300.0
SETTLE = 600.0
#: Requests in time.
HELD = 0.99


@dataclass(frozen=True)
class Cell:
    """A model and what is asked of it."""

    model: str
    accelerator: str
    kind: Kind
    groups: float
    """Load on average, in groups of the planned width."""


CELLS = (
    Cell("Qwen/Qwen3.5-397B-A17B", "B200", REASONING, 2.0),
    Cell("Qwen/Qwen3.5-397B-A17B", "B200", CHAT, 0.25),
    Cell("openai/gpt-oss-120b", "H100", DOCUMENTS, 1.5),
    Cell("openai/gpt-oss-120b", "H100", REASONING, 0.3),
    Cell("zai-org/GLM-4.6", "H200", CHAT, 2.0),
)


class Watched(Operator):
    """The operator's policy, and what it wanted."""

    def __init__(self, settings: OperatorSettings) -> None:
        super().__init__(settings)
        self.history = History()

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        found = super().desired(view, fleet, now)
        numbers = self.want.numbers
        if numbers is not None and now >= WARM * 3600:
            self.history.observed(now, numbers.forecast * numbers.room)
        return found


def possible(cell: Cell) -> tuple[int, tuple[Width, ...]]:
    """The planned width, and all."""
    site = default_config()
    deployment = parse(
        {
            "metadata": {"name": "bench", "namespace": "bench", "uid": "0", "generation": 1},
            "spec": {
                "model": {"name": cell.model},
                "hardware": {"accelerator": cell.accelerator},
                "objective": {"timeToFirstToken": f"{TTFT:g}s", "timePerOutputToken": f"{TPOT * 1000:g}ms"},
            },
        }
    )
    inventory = usual(deployment.spec, site.catalog).inventory
    planned = plan(deployment, inventory, site.catalog)
    assert not isinstance(planned, Refusal), planned.message
    return planned.width, widths(deployment, planned, inventory, site.catalog)


def engine_of(width: Width) -> EngineModel:
    """The simulator's engine of one group."""
    return EngineModel(
        name=f"{width.gpus}-wide",
        ranks=width.size.ranks,
        gpus=width.gpus,
        slots=width.size.slots,
        batch_tokens=width.size.batch_tokens,
        kv_tokens=width.size.kv_tokens,
        **asdict(width.times),
    )


def trace_of(cell: Cell, rate: float, seed: int) -> Trace:
    """Hours with the wave and the noise of a day."""
    part = Part(cell.kind, swing=0.5, peak=14.0)
    load = Load(cell.kind.name, (part,), rate, duration=HOURS * 3600, day=HOURS * 3600, growth=(1.1, 1.4))
    return generate(load, seed)


def held(
    trace: Trace, width: Width, objective: Objective, load: float, most: int, seed: int
) -> tuple[Result, Watched, float]:
    """The trace served in one width, by the autoscaler as it comes or, where it misses 99 %, by one that pays more for
    requests in time: runs are compared that hold the same. `load`: groups on average."""
    engine = engine_of(width)
    worth = WORTH
    while True:
        policy = Watched(OperatorSettings(served(engine, objective), worth=worth))
        result = simulate(
            trace,
            engine,
            cast(Policy, policy),  # a view as the simulator's own, of which it asks more
            cold_start=COLD_START,
            seed=seed,
            start_groups=min(most, max(1, round(1.5 * load))),
            floor=1,
            ceiling=most,
            objective=objective,
            settle=SETTLE,
        )
        if result.attainment() >= HELD or worth >= 8 * WORTH:
            return result, policy, worth
        worth *= 2


def judge(cell: Cell, seed: int) -> None:
    """Print what was recommended, and what each width took."""
    present, found = possible(cell)
    here = next(one for one in found if one.gpus == present)
    objective = Objective(TTFT, TPOT)
    probe = trace_of(cell, 1.0, seed)
    mix = RequestMix(
        float(probe.prompt.mean()), float(probe.output.mean()), float(probe.cached.sum() / probe.prompt.sum())
    )
    capacities = {one.gpus: one.capacity(mix, TPOT) for one in found}
    rate = cell.groups * capacities[present].requests_per_second
    trace = trace_of(cell, rate, seed)
    most = 16 * present
    print(
        f"{cell.model} on {cell.accelerator}, {cell.kind.name}: {mix.prompt:.0f} + {mix.output:.0f} tokens,"
        f" {len(trace)} requests in {HOURS:g} h, {cell.groups:g} groups of {present} by estimate"
    )
    runs = {}
    history = History()
    for width in sorted(found, key=lambda one: one.gpus != present):
        began = time.perf_counter()
        rates = rate / capacities[width.gpus].requests_per_second
        result, policy, worth = held(trace, width, objective, rates, most // width.gpus, seed)
        runs[width.gpus] = result
        if width is here:
            history = policy.history
        print(
            f"  {width.gpus:3d} GPUs x{capacities[width.gpus].requests_per_second / rate * cell.groups:.2f}:"
            f" {result.gpu_hours:7.1f} GPU-hours, {result.attainment():.2%} in time"
            f" (worth {worth:g}, {time.perf_counter() - began:.0f} s)",
            flush=True,
        )
    whole = capacities[present].requests_per_second
    options = [
        Option(
            one.gpus,
            capacities[one.gpus].requests_per_second / whole,
            capacities[one.gpus].bound,
            one.kv_tokens,
        )
        for one in found
    ]
    own = next(one for one in options if one.gpus == present)
    others = [one for one in options if one is not own]
    shares = history.shares()
    advice = best(shares, own, others, Limits(1, most))
    for option in options:
        expected = costs(shares, option, Limits(1, most))
        if expected is not None:
            print(f"      {option.gpus} GPUs expected: {expected.gpu_hours * HOURS / 24:.1f} GPU-hours")
    print(f"  {_verdict(advice, runs, present)}\n", flush=True)


def _verdict(advice: Advice | None, runs: dict[int, Result], present: int) -> str:
    if advice is None:
        cheapest = min(
            (g for g in runs if runs[g].attainment() >= HELD), key=lambda g: runs[g].gpu_hours, default=None
        )
        return f"nothing recommended; the cheapest that holds {HELD:.0%} is {cheapest} GPUs"
    wide = advice.option.gpus
    saved = 1 - runs[wide].gpu_hours / runs[present].gpu_hours
    held = f"{runs[wide].attainment():.2%} in time"
    return f"recommended: {wide} GPUs, to save {advice.saves:.0%}; it saves {saved:.0%} at {held}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cell", type=int, help="only this one, from 0 on")
    given = parser.parse_args()
    for cell in CELLS if given.cell is None else [CELLS[given.cell]]:
        judge(cell, given.seed)


if __name__ == "__main__":
    main()
