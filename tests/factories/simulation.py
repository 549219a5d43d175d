"""Engines, policies and fleets for tests of the simulator."""

from collections.abc import Callable, Mapping
from typing import Any

from moe_operator.simulator.engine_model import EngineModel
from moe_operator.simulator.policy import FleetState
from moe_operator.simulator.result import Result
from moe_operator.simulator.run import simulate
from moe_operator.simulator.scrape import View
from moe_operator.simulator.trace import Trace, make_trace


def engine(**fields: Any) -> EngineModel:
    """A group of one rank whose steps take a second each, unless told otherwise."""
    small = {
        "name": "small",
        "ranks": 1,
        "gpus": 1,
        "slots": 4,
        "batch_tokens": 64,
        "kv_tokens": 16_000,
        "base": 1.0,
    }
    return EngineModel(**{**small, **fields})


class Scripted:
    """Wants what it was told to, from a time (s) on; keeps what it saw."""

    def __init__(
        self, script: Mapping[float, int] | None = None, *, interval: float = 15.0, undrain: bool = False
    ) -> None:
        self.name = "scripted"
        self.interval = interval
        self.undrain = undrain
        self.script = dict(script or {})
        self.seen: list[tuple[float, FleetState]] = []
        self.watch: Callable[[View, float], None] = lambda view, now: None

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        self.seen.append((now, fleet))
        self.watch(view, now)
        told = [wanted for time, wanted in sorted(self.script.items()) if time <= now]
        return told[-1] if told else fleet.desired


def run(
    trace: Trace, model: EngineModel | None = None, policy: Scripted | None = None, **options: Any
) -> Result:
    """A run with one group unless told otherwise, cold starts of 100 s, and nothing drawn."""
    given = {"cold_start": 100.0, "seed": 0, "start_groups": 1, "jitter": 0.0, **options}
    return simulate(trace, model or engine(), policy or Scripted(), **given)


def together(count: int, prompt: int, output: int, *, at: float = 0.0) -> Trace:
    """Requests of one size that arrive at once."""
    return make_trace([at] * count, [prompt] * count, [output] * count)
