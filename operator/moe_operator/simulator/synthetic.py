"""Made-up traces with the traits of production traffic: to choose settings on, so that recorded traces only judge.

A load is a sum of kinds of requests, each with its own hour of the day and its own clients. Rates follow

    rate(t) = mean x day(t) x noise(t) x surges(t)

`day` is a wave; `noise` a slow random factor, whose growth from one ten minutes to the next has a stated 90th and 99th
percentile; surges are steps and spikes. Each client sends at its share of the rate, in bursts: intervals of a gamma
distribution, in the time that the rate makes. Its own lengths are longer or shorter than its kind's.
"""

import math
import zlib
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from moe_operator.simulator.trace import Trace, TraceError

Floats = NDArray[np.float64]
Int32s = NDArray[np.int32]

DAY = 86_400.0
#: Seconds over which growth is stated and measured.
SPAN = 600.0
#: Of the noise, from one span to the next. Production rates forecast by their last value are wrong by 0.175, 0.202 and
#: 0.236 of their mean after 10, 20 and 30 minutes (ServeGen's deepseek-r1): (1 - f^3) / (1 - f) = (0.236 / 0.175)^2.
MEMORY = 0.55
#: Seconds between the points of a rate's curve.
_GRID = 15.0
#: The noise's largest factor, and one over its least.
_MOST_NOISE = 4.0
_LONGEST = 131_072


@dataclass(frozen=True)
class Lengths:
    """Tokens, log-normal: half are below `median`, `spread` is the deviation of the logarithm."""

    median: float
    spread: float
    most: int = _LONGEST

    def draw(self, size: int, factor: Floats, rng: np.random.Generator) -> Int32s:
        """`size` lengths of at least 1, each times its factor."""
        drawn = self.median * factor * np.exp(self.spread * rng.standard_normal(size))
        return np.clip(np.rint(drawn), 1, self.most).astype(np.int32)


@dataclass(frozen=True)
class Kind:
    """What is asked: lengths, and the mean share of a prompt that an earlier request began with as well."""

    name: str
    prompt: Lengths
    output: Lengths
    cached: float = 0.0


CHAT = Kind("chat", Lengths(500, 1.1, 32_768), Lengths(190, 0.9, 4_096), cached=0.3)
REASONING = Kind("reasoning", Lengths(450, 1.3, 65_536), Lengths(950, 1.0, 32_768))
DOCUMENTS = Kind("documents", Lengths(8_000, 0.8), Lengths(180, 0.8, 4_096))
AGENTS = Kind("agents", Lengths(11_000, 0.8), Lengths(260, 1.1, 16_384), cached=0.75)


@dataclass(frozen=True)
class Part:
    """One kind of request within a load."""

    kind: Kind
    share: float = 1.0
    """Of the requests over a whole day."""
    swing: float = 0.5
    """Of its day: the rate is 1 + swing at the peak and 1 - swing twelve hours later, times its mean; 0 to 1."""
    peak: float = 14.0
    """Hour of its day's peak, from the trace's beginning."""


@dataclass(frozen=True)
class Surge:
    """The rate times `factor` from `begin` on: reached after `rise`, held for `hold`, gone after `fall` (seconds)."""

    begin: float
    factor: float
    rise: float = 0.0
    hold: float = math.inf
    fall: float = 0.0


@dataclass(frozen=True)
class Load:
    """A made-up trace's recipe. Raises TraceError for one that makes none."""

    name: str
    parts: tuple[Part, ...]
    rate: float
    """Requests per second on average over a day, surges aside."""
    duration: float = DAY
    day: float = DAY
    """Seconds of a day's wave; 24 of its hours."""
    growth: tuple[float, float] = (1.20, 1.8)
    """90th and 99th percentile of the noise's growth over SPAN; (1.0, 1.0): none."""
    surges: tuple[Surge, ...] = ()
    clients: int = 60
    """Of each kind; the n-th sends in proportion to n^-`skew`."""
    skew: float = 1.1
    bursts: float = 2.0
    """Squared coefficient of variation of a client's intervals; 1: Poisson."""
    habits: float = 0.3
    """Deviation of the logarithm of how much longer a client's requests are than its kind's."""

    def __post_init__(self) -> None:
        if (
            not self.parts
            or min(self.rate, self.duration, self.day) <= 0
            or self.clients < 1
            or self.bursts <= 0
        ):
            raise TraceError(
                f"load {self.name} makes no request: give parts, and a rate, a duration, clients and bursts above 0"
            )
        if any(not 0 <= part.swing <= 1 or part.share <= 0 for part in self.parts):
            raise TraceError(f"load {self.name}: a part's swing is from 0 to 1 and its share above 0")
        low, high = self.growth
        if not 1 <= low <= high or (low == 1) != (high == 1):
            raise TraceError(
                f"load {self.name}: growth {self.growth} is none: 1 <= 90th percentile <= 99th is needed, "
                "or 1.0 twice for no noise"
            )


def generate(load: Load, seed: int) -> Trace:
    """The trace of a recipe: the same for the same seed."""
    # Of the name too, or all loads of a seed would rise and fall together.
    rng = np.random.default_rng([seed, zlib.crc32(load.name.encode())])
    grid = np.arange(0.0, load.duration + _GRID, _GRID)
    common = noise(load.duration, load.growth, rng)
    factor = np.interp(grid, *common) * _surged(load.surges, grid)
    whole = sum(part.share for part in load.parts)
    columns: list[tuple[Floats, Int32s, Int32s, Int32s]] = []
    for part in load.parts:
        wave = 1 + part.swing * np.cos(2 * np.pi * (grid / load.day - part.peak / 24))
        expected = np.concatenate(
            [[0.0], np.cumsum(load.rate * part.share / whole * (wave * factor)[:-1] * _GRID)]
        )
        weights = np.arange(1, load.clients + 1) ** -load.skew
        for weight in weights / weights.sum():
            times = _arrivals(expected * weight, grid, load.bursts, rng)
            times = times[times < load.duration]
            columns.append((times, *_lengths(part.kind, len(times), load.habits, rng)))
    times, prompt, output, cached = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(times, kind="stable")
    return Trace(times[order], prompt[order], output[order], cached[order], load.duration)


def _arrivals(expected: Floats, grid: Floats, bursts: float, rng: np.random.Generator) -> Floats:
    """Times at which a client of so many `expected` requests up to each point of the grid sends one."""
    total = float(expected[-1])
    shape = 1 / bursts
    # The first interval began before the trace did: part of it is over.
    steps = rng.gamma(shape, bursts, int(total + 6 * math.sqrt(total * bursts) + 16))
    steps[0] *= rng.random()
    reached = np.cumsum(steps)
    return np.interp(reached[reached < total], expected, grid)


def _lengths(kind: Kind, size: int, habits: float, rng: np.random.Generator) -> tuple[Int32s, Int32s, Int32s]:
    mine = np.exp(habits * rng.standard_normal(2))
    prompt = kind.prompt.draw(size, np.full(size, mine[0]), rng)
    output = kind.output.draw(size, np.full(size, mine[1]), rng)
    if not kind.cached:
        return prompt, output, np.zeros(size, dtype=np.int32)
    # From nothing (a first turn) to nearly all (a long conversation).
    share = rng.beta(3 * kind.cached, 3 * (1 - kind.cached), size)
    return prompt, output, np.floor(prompt * share).astype(np.int32)


def _surged(surges: tuple[Surge, ...], grid: Floats) -> Floats:
    factor = np.ones(len(grid))
    for surge in surges:
        up = np.clip((grid - surge.begin) / max(surge.rise, 1e-9), 0, 1)
        end = surge.begin + surge.rise + surge.hold
        down = np.clip((grid - end) / max(surge.fall, 1e-9), 0, 1) if math.isfinite(end) else 0.0
        factor *= 1 + (surge.factor - 1) * (up - down)
    return factor


# --- Noise ---------------------------------------------------------------------------------------


def noise(duration: float, growth: tuple[float, float], rng: np.random.Generator) -> tuple[Floats, Floats]:
    """(seconds, factors) of a random factor with a mean near 1, to be read linearly between its points.

    Its mean over one SPAN, over that of the SPAN before, has the percentiles of `growth`: for a long duration; a day
    has but 144 spans.
    """
    knots = np.arange(-SPAN / 2, duration + 1.5 * SPAN, SPAN)
    if growth[1] == 1:
        return knots, np.ones(len(knots))
    scale, tail = _scale_and_tail(growth)
    return knots, _walk(rng.standard_normal(len(knots)), scale, tail)


def _walk(normal: Floats, scale: float, tail: float) -> Floats:
    """Factors that forget: steps are powers of normal ones, so that few are far greater than most."""
    steps = scale * np.sign(normal) * np.abs(normal) ** tail
    level, levels = 0.0, np.empty(len(steps))
    most = math.log(_MOST_NOISE)
    for at, step in enumerate(steps):
        level = min(max(MEMORY * level + step, -most), most)
        levels[at] = level
    return np.exp(levels)


@cache
def _scale_and_tail(growth: tuple[float, float]) -> tuple[float, float]:
    """What makes `_walk` grow so, found on 140 days of it by fixed-point steps."""
    # Evenly through the distribution, so that its tail is not left to luck.
    strata = [NormalDist().inv_cdf((at + 0.5) / 20_000) for at in range(20_000)]
    normal = np.random.default_rng(0).permutation(strata)
    wanted = np.log(growth)
    scale, tail = float(wanted[0]), 1.0
    for _ in range(60):
        found = np.log(_percentiles(_walk(normal, scale, tail)))
        scale *= (wanted[0] / found[0]) ** 0.8
        tail = min(max(tail + 0.6 * math.log((wanted[1] / wanted[0]) / (found[1] / found[0])), 0.3), 12.0)
    return scale, tail


def _percentiles(knots: Floats) -> tuple[float, float]:
    # Linear between knots at the middles of spans: a span's mean is 3/4 its own knot's and 1/8 of each neighbour's.
    means = 0.75 * knots[1:-1] + 0.125 * (knots[:-2] + knots[2:])
    grown = means[1:] / means[:-1]
    return float(np.quantile(grown, 0.9)), float(np.quantile(grown, 0.99))


def growth(trace: Trace, *, tokens: bool = False) -> tuple[float, float]:
    """90th and 99th percentile of the growth of requests (or output tokens) from one SPAN to the next; (1.0, 1.0) for
    a trace of fewer than three spans."""
    spans = int(trace.duration // SPAN)
    if spans < 3:
        return 1.0, 1.0
    weights = trace.output.astype(np.float64) if tokens else np.ones(len(trace))
    of = np.minimum((trace.arrival // SPAN).astype(np.int64), spans)
    counts = np.bincount(of, weights, minlength=spans + 1)[:spans]
    grown = counts[1:] / np.maximum(counts[:-1], 1)
    return float(np.quantile(grown, 0.9)), float(np.quantile(grown, 0.99))


# --- Recipes -------------------------------------------------------------------------------------

#: Growth of production rates over ten minutes, as measured in ServeGen's (arXiv 2505.09999): deepseek-r1, and its
#: large, middle and small chat models.
GROWTHS = {"r1": (1.32, 2.05), "large": (1.22, 2.04), "middle": (1.15, 1.57), "small": (1.07, 1.91)}

_RECIPES = (
    Load("reasoning-day", (Part(REASONING, swing=0.35),), rate=4.0, growth=GROWTHS["r1"], clients=73),
    Load("chat-day", (Part(CHAT, swing=0.75),), rate=10.0, growth=GROWTHS["large"], clients=120),
    Load(
        "documents-day",
        (Part(DOCUMENTS, swing=0.8, peak=11.0),),
        rate=4.0,
        growth=GROWTHS["middle"],
        bursts=4.0,
    ),
    Load("agents-day", (Part(AGENTS, swing=0.6, peak=15.0),), rate=4.0, growth=GROWTHS["small"], bursts=6.0),
    Load(
        "shifting-mix",
        (
            Part(CHAT, share=5, swing=0.8, peak=13.0),
            Part(REASONING, share=2, swing=0.9, peak=22.0),
            Part(DOCUMENTS, share=1, swing=1.0, peak=4.0),
            Part(AGENTS, share=1, swing=0.9, peak=10.0),
        ),
        rate=6.0,
        growth=GROWTHS["middle"],
    ),
    Load(
        "spiky-mix",
        (Part(CHAT, share=3, swing=0.4), Part(REASONING, share=2, swing=0.4)),
        rate=4.0,
        growth=GROWTHS["small"],
        surges=(
            Surge(3 * 3600, 1.6, rise=300, hold=2400, fall=600),
            Surge(8 * 3600, 2.0, rise=600, hold=1800, fall=300),
            Surge(13 * 3600, 1.5, rise=120, hold=4 * 3600, fall=60),
            Surge(20 * 3600, 0.5, rise=60),
        ),
    ),
)

#: The recipes that come along, by name. Rates are for a start: a benchmark scales them to its fleet.
RECIPES: dict[str, Load] = {load.name: load for load in _RECIPES}


def at_rate(load: Load, rate: float) -> Load:
    """The same load at another rate: of more clients or fewer, each as busy as before."""
    return replace(load, rate=rate, clients=max(1, round(load.clients * rate / load.rate)))


def shortened(load: Load, duration: float) -> Load:
    """A whole day of it in `duration` seconds: waves and surges come faster, noise and lengths stay as they are."""
    faster = duration / load.duration
    surges = tuple(
        replace(s, begin=s.begin * faster, rise=s.rise * faster, hold=s.hold * faster, fall=s.fall * faster)
        for s in load.surges
    )
    return replace(load, duration=duration, day=load.day * faster, surges=surges)
