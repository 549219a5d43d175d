"""Requests at even times, whatever became of earlier ones, and what the client itself counts of them."""

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from harness.requests import Stream

#: Seconds that a request may take, and its longest silence.
PATIENCE = 120.0


class SteadyLoad:
    """`rate` streams a second, each of `tokens`, to each of the addresses in turn."""

    def __init__(self, bases: Sequence[str], model: str, *, rate: float, tokens: int) -> None:
        self._bases, self._model, self._rate, self._tokens = bases, model, rate, tokens
        self._stop = threading.Event()
        self._sender = threading.Thread(target=self._send, daemon=True)
        self.streams: list[Stream] = []
        self.begun = 0.0

    def __enter__(self) -> Self:
        self.begun = time.time()
        self._sender.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send no more. Raises AssertionError unless all come to their ends whole."""
        self._stop.set()
        self._sender.join()
        if error is None:
            for stream in self.streams:
                stream.join(PATIENCE)

    @property
    def answered(self) -> int:
        """Streams that have ended."""
        return sum(stream.ended is not None for stream in list(self.streams))

    @property
    def input(self) -> int:
        """Tokens of all prompts, by the answers; those under way are not among them."""
        return sum(stream.prompt_tokens for stream in self.streams)

    @property
    def output(self) -> int:
        """Tokens that came."""
        return sum(stream.received for stream in self.streams)

    @property
    def span(self) -> tuple[float, float]:
        """From the first request to the last token of a load that is over."""
        return self.streams[0].begun, max(stream.ended or 0.0 for stream in self.streams)

    def rates(self, begin: float, end: float) -> tuple[float, float]:
        """Input and output tokens a second, as they came: a prompt's with the first token of its answer."""
        prompts = output = 0
        per_prompt = next(stream.prompt_tokens for stream in self.streams if stream.prompt_tokens)
        for stream in list(self.streams):
            arrivals = list(stream.arrivals)
            if not arrivals or arrivals[-1][0] < begin or arrivals[0][0] >= end:
                continue
            prompts += per_prompt * (begin <= arrivals[0][0])
            output += sum(count for at, count in arrivals if begin <= at < end)
        return prompts / (end - begin), output / (end - begin)

    def _send(self) -> None:
        started, number = time.monotonic(), 0
        while not self._stop.wait(max(0.0, started + number / self._rate - time.monotonic())):
            base = self._bases[number % len(self._bases)]
            prompt = f"{number:05d} " + "hello " * 10  # of one length, and none is found in a cache
            self.streams.append(Stream(base, self._model, self._tokens, prompt=prompt, timeout=PATIENCE))
            number += 1
