"""What is served by what: traces made or read, each with an engine, scaled so that its peak needs 8 to 16 groups."""

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from bench.autoscaler.store import Store
from moe_operator.simulator import synthetic
from moe_operator.simulator.capacity import Capacity, Floats, needed, sustained
from moe_operator.simulator.engine_model import EngineModel, engines
from moe_operator.simulator.result import Objective
from moe_operator.simulator.trace import Trace, cut, on_off_load, read_trace, scaled, step_load

OBJECTIVE = Objective()
#: Seconds between points of a need.
INTERVAL = 15.0
#: Groups at full capacity that the busiest ten minutes of a trace are scaled to. At the 70 to 85 % of it that a fleet
#: is used to, 12 groups.
PEAK_NEED = 9.6
#: Groups at most, of every policy.
CEILING = 32
_HOUR = 3600.0
#: From so many output tokens on average on, a trace is taken for one of a reasoning model.
_REASONING = 700


@dataclass(frozen=True)
class Scenario:
    """A trace on an engine. Hashable, small, and enough to make the trace again in any process."""

    name: str
    engine: str
    source: str
    """A recipe's name, or a file's path."""
    begin: float = 0.0
    end: float | None = None
    """The cut of it, seconds."""
    duration: float | None = None
    """A recipe's whole day is squeezed into so many seconds."""
    shape: str = ""
    """`step` or `on-off`: its lengths with other arrivals."""
    stress: bool = False
    """Changes faster than groups start: reported, but nobody is held to 99 % on it."""
    peak: float = PEAK_NEED
    digest: str = ""
    """Of a file: another one of its name has results of its own."""

    @property
    def known_as(self) -> "Scenario":
        """The same wherever its file lies."""
        return replace(self, source="") if self.digest else self


def engine(name: str) -> EngineModel:
    """By name; `deepseek-r1-8xh200-kv` is the same with a KV cache that binds before steps are too long."""
    if name == "deepseek-r1-8xh200-kv":
        # As if 16-bit caches and longer contexts had left less: a request of R1's mean holds 2,000 tokens, so 80 fit.
        return engines()["deepseek-r1-8xh200"].model_copy(
            update={"name": name, "kv_tokens": 160_000, "slots": 1024}
        )
    return engines()[name]


@dataclass(frozen=True)
class Prepared:
    """One scenario's trace for one seed."""

    trace: Trace
    engine: EngineModel
    capacity: Capacity
    need: Floats
    """Groups at full capacity, every INTERVAL seconds."""


@lru_cache(maxsize=16)
def prepared(scenario: Scenario, seed: int, store: Store) -> Prepared:
    """Scaled to the scenario's peak; the seed draws which requests are in it and when they come, as far as they are
    drawn."""
    of = engine(scenario.engine)
    capacity = _capacity(scenario, store)
    plain = _raw(scenario, 1.0, seed)
    trace = _scaled(scenario, scenario.peak / busiest(needed(plain, of, capacity, INTERVAL)), seed)
    return Prepared(trace, of, capacity, needed(trace, of, capacity, INTERVAL))


def _capacity(scenario: Scenario, store: Store) -> Capacity:
    """What a group sustains of the mix."""
    key = ("capacity", scenario.known_as)
    found = store.get(key)
    if found is None:
        capacity = sustained(_raw(scenario, 1.0, 0), engine(scenario.engine), OBJECTIVE)
        found = store.put(key, asdict(capacity))
    return Capacity(**found)


def size(scenario: Scenario, store: Store) -> tuple[int, float]:
    """Requests, and groups at full capacity in the busiest ten minutes, of the first seed."""
    found = prepared(scenario, 1, store)
    return len(found.trace), busiest(found.need)


def busiest(need: Floats, seconds: float = 600.0) -> float:
    """The greatest mean over so long."""
    size = min(len(need), round(seconds / INTERVAL))
    return float(np.convolve(need, np.ones(size) / size, "valid").max())


def _scaled(scenario: Scenario, factor: float, seed: int) -> Trace:
    if scenario.source in synthetic.RECIPES or scenario.shape:
        return _raw(scenario, factor, seed)
    # One and the same file: another seed thins and jitters it otherwise.
    return scaled(_raw(scenario, 1.0, seed), factor, seed)


def _raw(scenario: Scenario, factor: float, seed: int) -> Trace:
    if scenario.source in synthetic.RECIPES:
        load = synthetic.RECIPES[scenario.source]
        if scenario.duration is not None:
            load = synthetic.shortened(load, scenario.duration)
        # At a higher rate there are more clients, not wilder ones.
        load = synthetic.at_rate(load, load.rate * factor)
        trace = synthetic.generate(load, seed)
    else:
        trace = _read(scenario.source)
    if scenario.end is not None or scenario.begin:
        trace = cut(trace, scenario.begin, scenario.end if scenario.end is not None else trace.duration)
    if scenario.shape == "step":
        # Twice as much for three quarters of an hour, then four times for twenty minutes.
        steps = {1 * _HOUR: 2.0, 1.75 * _HOUR: 1.0, 2.5 * _HOUR: 4.0, 2.5 * _HOUR + 1200: 1.0}
        return step_load(trace, duration=3.5 * _HOUR, base=factor, steps=steps, seed=seed)
    if scenario.shape == "on-off":
        return on_off_load(
            trace, duration=3 * _HOUR, high=factor, low=factor / 4, on=1200, off=1200, seed=seed
        )
    return trace


@cache
def _read(path: str) -> Trace:
    return read_trace(path)


# --- Which there are -----------------------------------------------------------------------------

R1, R1_KV, QWEN = "deepseek-r1-8xh200", "deepseek-r1-8xh200-kv", "qwen3-235b-a22b-8xh200"


def training() -> list[Scenario]:
    """Made-up traces; cuts of days, with the morning's rise or the evening's fall."""
    hours = {
        "reasoning-day": (R1, 7, 10),
        "chat-day": (R1, 7, 9),
        "documents-day": (QWEN, 5, 9),
        "agents-day": (QWEN, 8, 11),
        "shifting-mix": (QWEN, 0, 4),
        "spiky-mix": (R1, 2, 5),
    }
    return [
        Scenario(f"train/{name}", of, name, begin * _HOUR, end * _HOUR)
        for name, (of, begin, end) in hours.items()
    ]


def scored(folder: Path) -> list[Scenario]:
    """The traces of a folder, and stress loads with their lengths. Raises TraceError for one that cannot be read."""
    files = sorted(path for path in folder.iterdir() if path.name.endswith((".csv", ".csv.gz")))
    found: list[Scenario] = []
    for path in files:
        trace, name = read_trace(path), path.name.partition(".csv")[0]
        of = R1 if trace.output.mean() >= _REASONING else QWEN
        whole = Scenario(name, of, str(path), digest=hashlib.sha256(path.read_bytes()).hexdigest()[:16])
        found.append(whole)
        if of == R1:
            end = min(trace.duration, 18 * _HOUR)
            part = replace(whole, engine=R1_KV, begin=max(0.0, end - 8 * _HOUR), end=end)
            found.append(replace(part, name=f"{name}, small KV cache"))
            found.append(replace(whole, name=f"{name}, steps", shape="step", stress=True))
        elif trace.prompt.mean() < 4000:
            found.append(replace(whole, name=f"{name}, on and off", shape="on-off", stress=True))
    return found


def short_training() -> list[Scenario]:
    """Small ones, for a look in five minutes."""
    return [
        Scenario("train/reasoning-day", R1, "reasoning-day", 8 * _HOUR, 9 * _HOUR, peak=5.0),
        Scenario("train/documents-day", QWEN, "documents-day", 8 * _HOUR, 9 * _HOUR, peak=5.0),
    ]


def short_scored() -> list[Scenario]:
    """Small ones, other than those tuned on."""
    return [
        Scenario("spiky-mix", R1, "spiky-mix", 7.5 * _HOUR, 9 * _HOUR, peak=5.0),
        Scenario("agents-day", QWEN, "agents-day", 9 * _HOUR, 10.5 * _HOUR, peak=5.0),
    ]
