"""Requests at even times, whatever became of earlier ones, and what the client itself counts of them."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from harness.requests import complete


@dataclass(frozen=True)
class Answer:
    """One request, by the client's clock (s since the epoch) and the answer's own count of tokens."""

    sent: float
    ended: float
    input: int
    output: int


class SteadyLoad:
    """`rate` requests a second, each for `tokens` of output, to each of the addresses in turn."""

    def __init__(self, bases: Sequence[str], model: str, *, rate: float, tokens: int) -> None:
        self._bases, self._model, self._rate, self._tokens = bases, model, rate, tokens
        self._stop = threading.Event()
        self._requests: list[threading.Thread] = []
        self._sender = threading.Thread(target=self._send, daemon=True)
        self.answers: list[Answer] = []
        self.errors: list[str] = []
        self.begun = 0.0

    def __enter__(self) -> Self:
        self.begun = time.time()
        self._sender.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more, and wait for the ends of all."""
        self._stop.set()
        self._sender.join()
        for request in self._requests:
            request.join()

    def rate_between(self, begin: float, end: float) -> tuple[float, float]:
        """Input and output tokens a second of the requests that ended in between."""
        found = [one for one in list(self.answers) if begin <= one.ended < end]
        return sum(one.input for one in found) / (end - begin), sum(one.output for one in found) / (
            end - begin
        )

    def _send(self) -> None:
        started, number = time.monotonic(), 0
        while not self._stop.wait(max(0.0, started + number / self._rate - time.monotonic())):
            base = self._bases[number % len(self._bases)]
            request = threading.Thread(target=self._one, args=(base, number), daemon=True)
            self._requests.append(request)
            request.start()
            number += 1

    def _one(self, base: str, number: int) -> None:
        sent = time.time()
        prompt = f"{number:05d} " + "hello " * 10  # none is found in a cache
        try:
            found = complete(base, self._model, prompt, self._tokens, ignore_eos=True)
        except (OSError, ValueError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            return
        usage = found["usage"]
        self.answers.append(Answer(sent, time.time(), usage["prompt_tokens"], usage["completion_tokens"]))
