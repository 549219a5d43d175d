"""When requests come and what they ask for: drawn from a seed, whatever becomes of earlier ones."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from demo.replay import TraceRequest


class Shape(StrEnum):
    """How a request wants its answer."""

    PLAIN = "plain"
    """In one piece."""
    STREAM = "stream"
    """Token by token."""
    LONG = "long"
    """Token by token, for longer than a drain waits: such a stream may be cut by a planned change."""


@dataclass(frozen=True)
class Mix:
    """What requests are like. Rates in requests a second, lengths in tokens, shares of all requests."""

    rate: float
    prompt: tuple[int, int] = (8, 48)
    """Shortest and longest prompt; both ends count."""
    output: tuple[int, int] = (4, 20)
    stream_share: float = 0.5
    long_share: float = 0.0
    long_output: int = 1000
    clients: int = 8
    """Clients, each with a connection pool of its own."""


@dataclass(frozen=True)
class Arrival:
    """One request to send `at` seconds after the start."""

    number: int
    at: float
    shape: Shape
    client: int
    prompt: str
    output_tokens: int


def poisson(mix: Mix, seed: int) -> Iterator[Arrival]:
    """Requests without end, with exponential gaps: a Poisson process. The same seed gives the same requests."""
    rng = random.Random(seed)
    at, number = 0.0, 0
    while True:
        at += rng.expovariate(mix.rate)
        drawn = rng.random()
        shape = Shape.PLAIN
        if drawn < mix.long_share:
            shape = Shape.LONG
        elif drawn < mix.long_share + (1 - mix.long_share) * mix.stream_share:
            shape = Shape.STREAM
        output = rng.randint(*mix.output)
        yield Arrival(
            number=number,
            at=at,
            shape=shape,
            client=rng.randrange(mix.clients),
            prompt="".join(rng.choices("abcdefgh ", k=rng.randint(*mix.prompt))),
            output_tokens=mix.long_output if shape is Shape.LONG else output,
        )
        number += 1


def replayed(requests: Sequence[TraceRequest], clients: int, every: Callable[[], int]) -> Iterator[Arrival]:
    """A trace again and again, without end: of its requests each `every()`-th, asked as the load goes on. Every other
    is a stream; clients take turns."""
    length = math.ceil(requests[-1].at)
    seen = number = 0
    while True:
        for request in requests:
            if seen % every() == 0:
                yield Arrival(
                    number=number,
                    at=seen // len(requests) * length + request.at,
                    shape=Shape.STREAM if number % 2 else Shape.PLAIN,
                    client=number % clients,
                    prompt="a" * request.prompt_tokens,
                    output_tokens=request.output_tokens,
                )
                number += 1
            seen += 1
