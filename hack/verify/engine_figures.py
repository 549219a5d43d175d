"""Figures of a load served twice, by a real engine and by the simulator's: how far they are apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from verify.simulated_engine import Course
from verify.simulator_loads import Load

Floats = NDArray[np.float64]

#: Share of the real figure that the simulated one may be off.
WITHIN = 0.15
#: Seconds over which rates and gauges are averaged before courses are compared.
SPAN = 5.0


@dataclass(frozen=True)
class Figure:
    """One figure. Within `floor` of each other two values count as the same."""

    name: str
    unit: str
    real: float
    simulated: float
    floor: float = 0.0
    apart: float | None = None
    """Of a course: the mean distance, in the figure's unit; the figures then are its means."""
    known: bool = False
    """It is known to be off, as what makes it is not modelled: shown, and not counted."""

    @property
    def distance(self) -> float:
        """In the figure's unit."""
        return abs(self.simulated - self.real) if self.apart is None else self.apart

    @property
    def deviation(self) -> float:
        """As a share of the real figure."""
        return self.distance / abs(self.real) if self.real else (0.0 if not self.distance else np.inf)

    @property
    def held(self) -> bool:
        """Whether it is near enough."""
        return self.known or self.distance <= max(self.floor, WITHIN * abs(self.real))

    def verdict(self) -> str:
        """Of one that is further off than WITHIN, or of any other: nothing."""
        if self.deviation <= WITHIN:
            return ""
        if self.distance <= self.floor:
            return f"less than {self.floor:g} {self.unit}".rstrip()
        return "not modelled" if self.known else "OFF"

    def text(self) -> str:
        """One line."""
        limit = "" if self.deviation <= WITHIN else f" {self.verdict()}"
        return (
            f"{self.name:<34}{self.real:>10.3f} real {self.simulated:>10.3f} simulated {self.unit:<9}"
            f"{self.deviation:>7.1%}{limit}"
        )


def compare(load: Load, real: Course, made: Course) -> list[Figure]:
    """All figures.

    Floors: an arrival meets a step under way, so times to the first token differ by up to a step or two (50 ms);
    half a request in a queue, one hundredth of the cache, five preemptions, one block's tokens.
    """
    arrival = np.array([request.arrival for request in load.requests])
    outputs = np.array([request.output for request in load.requests])
    tokens = float(outputs.sum())
    gaps = np.maximum(outputs - 1, 1)
    several = outputs > 1

    def both(name: str, unit: str, floor: float, real_value: float, made_value: float) -> Figure:
        return Figure(name, unit, float(real_value), float(made_value), floor)

    ttft = [course.first - arrival for course in (real, made)]
    tpot = [((course.last - course.first) / gaps)[several] for course in (real, made)]
    busy = [_while_loaded(course, load.duration) for course in (real, made)]
    figures = [
        both("output tokens per second", "tokens/s", 0.0, tokens / real.last.max(), tokens / made.last.max()),
        _course("the same, every 5 s", "tokens/s", 0.0, *(_rate(course) for course in busy)),
        both("first token, mean", "s", 0.05, ttft[0].mean(), ttft[1].mean()),
        both("first token, P90", "s", 0.05, np.quantile(ttft[0], 0.9), np.quantile(ttft[1], 0.9)),
        both("in the queue, mean", "s", 0.05, *(_queued(course, len(arrival)) for course in (real, made))),
        both("per further token, mean", "ms", 0.0, tpot[0].mean() * 1e3, tpot[1].mean() * 1e3),
        both(
            "per further token, P90",
            "ms",
            0.0,
            np.quantile(tpot[0], 0.9) * 1e3,
            np.quantile(tpot[1], 0.9) * 1e3,
        ),
        _course("running, every 5 s", "requests", 0.5, *(_mean(c, c.running) for c in busy)),
        _course("waiting, every 5 s", "requests", 0.5, *(_mean(c, c.waiting) for c in busy)),
        _course("KV cache in use, every 5 s", "%", 1.0, *(100 * _mean(c, c.kv) for c in busy)),
        both("preemptions", "", 5.0, real.preemptions, made.preemptions),
    ]
    if any(request.shared for request in load.requests):
        figures.append(
            both("prompt tokens found in the cache", "tokens", 32.0, real.prefix_hits, made.prefix_hits)
        )
    return [replace(figure, known=figure.name in load.unmodelled) for figure in figures]


def _queued(course: Course, requests: int) -> float:
    """Seconds of a request, by Little's law."""
    return float(course.waiting.sum() * (course.at[1] - course.at[0])) / requests


def _course(name: str, unit: str, floor: float, real: Floats, made: Floats) -> Figure:
    size = min(len(real), len(made))
    real, made = real[:size], made[:size]
    return Figure(
        name, unit, float(real.mean()), float(made.mean()), floor, float(np.abs(made - real).mean())
    )


def _while_loaded(course: Course, duration: float) -> Course:
    """Up to the last arrival: after it the two empty their queues."""
    size = int(np.searchsorted(course.at, duration, side="right"))
    return replace(
        course,
        at=course.at[:size],
        running=course.running[:size],
        waiting=course.waiting[:size],
        kv=course.kv[:size],
        tokens=course.tokens[:size],
    )


def _spans(course: Course) -> int:
    return round(SPAN / float(course.at[1] - course.at[0]))


def _mean(course: Course, values: Floats) -> Floats:
    size = _spans(course)
    whole = len(values) // size * size
    means: Floats = values[:whole].reshape(-1, size).mean(axis=1)
    return means


def _rate(course: Course) -> Floats:
    size = _spans(course)
    reached = np.concatenate([[0.0], course.tokens[size - 1 :: size]])
    rates: Floats = np.diff(reached) / SPAN
    return rates
