"""Loads to compare the simulator's engine with a real one on: seeded, with lengths that vary."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

#: Seconds between batches of a calibration: nothing of one is left when the next begins.
_APART = 1000.0


@dataclass(frozen=True)
class Request:
    """Lengths in tokens, arrival in seconds; `shared` tokens of the prompt are those of its family."""

    arrival: float
    prompt: int
    output: int
    family: int
    shared: int = 0
    known: int = 0
    """Of `shared`, what an earlier request began with as well."""


@dataclass(frozen=True)
class Load:
    """Requests in order of arrival."""

    name: str
    seed: int
    requests: tuple[Request, ...]
    duration: float
    """Seconds over which they arrive."""
    about: str = ""
    unmodelled: tuple[str, ...] = ()
    """Figures that the simulator is known to miss, as it does not model what makes them."""

    def job(self) -> dict[str, object]:
        """As `verify.engine_run` reads it."""
        rows = [[r.arrival, r.prompt, r.output, r.family, r.shared] for r in self.requests]
        return {"seed": self.seed, "requests": rows}


@dataclass(frozen=True)
class Lengths:
    """Log-normal tokens: half are below `median`; `spread` is the deviation of the logarithm."""

    median: float
    spread: float
    least: int
    most: int

    def draw(self, rng: np.random.Generator, size: int) -> list[int]:
        """So many."""
        drawn = np.exp(math.log(self.median) + self.spread * rng.standard_normal(size))
        lengths: list[int] = np.clip(np.rint(drawn), self.least, self.most).astype(int).tolist()
        return lengths


PROMPTS = Lengths(110, 0.8, 8, 640)
OUTPUTS = Lengths(60, 0.7, 4, 300)


def batches(seed: int, sizes: tuple[int, ...], prompts: tuple[int, ...], output: int) -> Load:
    """So many requests of one length at once, for all sizes and lengths: steps of every kind, to fit times to."""
    requests: list[Request] = []
    for size in sizes:
        for prompt in prompts:
            at = _APART * (1 + len({r.arrival for r in requests}))
            requests += [Request(at, prompt, output, len(requests) + n) for n in range(size)]
    return Load("batches", seed, tuple(requests), requests[-1].arrival)


def poisson(name: str, seed: int, rate: float, duration: float, about: str = "") -> Load:
    """Arrivals by chance at `rate` requests per second."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.random(rng.poisson(rate * duration))) * duration
    prompts, outputs = PROMPTS.draw(rng, len(times)), OUTPUTS.draw(rng, len(times))
    requests = tuple(
        Request(float(at), prompt, output, number)
        for number, (at, prompt, output) in enumerate(zip(times, prompts, outputs, strict=True))
    )
    return Load(name, seed, requests, duration, about)


def with_prefixes(load: Load, families: list[int], *, length: int, block: int) -> Load:
    """The same arrivals, each prompt behind its family's beginning of `length` tokens."""
    seen: set[int] = set()
    requests = []
    for request, family in zip(load.requests, families, strict=True):
        known = length // block * block if family in seen else 0
        seen.add(family)
        requests.append(
            replace(request, prompt=request.prompt + length, family=family, shared=length, known=known)
        )
    return replace(load, requests=tuple(requests))


def in_turn(load: Load, families: int) -> list[int]:
    """One family after the other: when one comes again, its last request has long ended. Conversations are so."""
    return [number % families for number in range(len(load.requests))]


def by_chance(load: Load, families: int) -> list[int]:
    """Any: those that run share beginnings, as with instructions that all requests have."""
    drawn: list[int] = np.random.default_rng(load.seed + 1).integers(0, families, len(load.requests)).tolist()
    return drawn
