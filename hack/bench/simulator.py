"""`python -m bench.simulator [FOLDER]`: time and memory of a day of 1.4 million requests on 12 groups of 8 ranks.

FOLDER holds a trace of a day with a quarter of that, `servegen_r1_1day_x0.25.csv.gz`, of which four jittered copies
are laid over one another; without it a day of the same size is made up. The engine is that for DeepSeek-R1.
A static policy, so that what is measured is the simulator. Compiling is measured apart, by a first run of a minute.
"""

import argparse
import json
import platform
import resource
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from moe_operator.simulator import kernel
from moe_operator.simulator.engine_model import engines
from moe_operator.simulator.policy import FleetState, View
from moe_operator.simulator.result import Result
from moe_operator.simulator.run import simulate
from moe_operator.simulator.trace import Trace, cut, make_trace, read_trace, scaled

NAME = "servegen_r1_1day_x0.25.csv.gz"
GROUPS = 12
#: Wanted on one core.
TARGET_SECONDS, TARGET_GB = 60.0, 1.5


class Static:
    """As many groups as there are."""

    name = "static"
    interval = 15.0
    undrain = False

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        """No change."""
        return fleet.desired


def made_up(seed: int = 7) -> Trace:
    """A day with as many requests, a wave of the day in their rate, and lengths like a reasoning model's."""
    rng = np.random.default_rng(seed)
    n = 1_383_616
    grid = np.linspace(0, 86_400, 1441)
    rate = 1 + 0.6 * np.sin(2 * np.pi * grid / 86_400)
    arrival = np.sort(np.interp(rng.random(n), np.cumsum(rate) / rate.sum(), grid))
    prompt = np.clip(rng.lognormal(6.4, 1.2, n), 1, 60_000)
    output = np.clip(rng.lognormal(6.9, 0.9, n), 1, 32_768)
    return make_trace(arrival, prompt.astype(np.int32), output.astype(np.int32), duration=86_400.0)


def _run(trace: Trace) -> tuple[Result, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = simulate(
        trace,
        engines()["deepseek-r1-8xh200"],
        Static(),
        cold_start=300.0,
        seed=1,
        start_groups=GROUPS,
        ceiling=GROUPS,
    )
    return result, time.perf_counter() - wall, time.process_time() - cpu


def main() -> int:
    """Exit 1 if the targets are missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    folder = parser.parse_args().folder
    trace = scaled(read_trace(folder / NAME), 4, seed=1) if folder else made_up()
    _, _, compiling = _run(cut(trace, 0, 60))
    result, wall, cpu = _run(trace)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    figures = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "trace": NAME if folder else "made up",
        "requests": len(trace),
        "finished": result.count(kernel.FINISHED),
        "first minute, compiling, s": round(compiling, 1),
        "cpu s": round(cpu, 1),
        "wall s": round(wall, 1),
        "peak memory, GB": round(peak, 2),
        "attainment": round(result.attainment(), 4),
        "tokens per wall s": int(int(trace.output.sum()) / wall),
    }
    print(json.dumps(figures, indent=2))
    missed = cpu > TARGET_SECONDS or peak > TARGET_GB
    print(f"target: {TARGET_SECONDS:g} s on one core, {TARGET_GB} GB: {'missed' if missed else 'met'}")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
