"""Requests to engines, over the standard library: what a client sees."""

import http.client
import json
import threading
import time
import urllib.request
from typing import Any


def complete(
    base_url: str, model: str, prompt: str, max_tokens: int, *, timeout: float = 120, **fields: Any
) -> dict[str, Any]:
    """One completion. Raises OSError (URLError, HTTPError) when the engine refuses or is away."""
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **fields}
    with urllib.request.urlopen(_request(base_url, body), timeout=timeout) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _request(base_url: str, body: dict[str, Any]) -> urllib.request.Request:
    return urllib.request.Request(
        f"{base_url}/completions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )


class Stream:
    """A streamed completion of exactly `tokens` tokens, read in the background from its construction on."""

    def __init__(
        self, base_url: str, model: str, tokens: int, *, prompt: str = "hello", timeout: float = 120
    ) -> None:
        """`timeout`: longest silence, in seconds."""
        self.wanted, self.received = tokens, 0
        self.arrivals: list[tuple[float, int]] = []
        """When tokens came (s since the epoch), and how many at once."""
        self.prompt_tokens = 0
        """By the engine's own count; 0 before the end."""
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.begun = time.time()
        """Seconds since the epoch; `ended` is None while it runs."""
        self.ended: float | None = None
        body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        told = {"stream": True, "stream_options": {"include_usage": True}}
        self._request = _request(base_url, {**body, **told})
        self._timeout = timeout
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            with urllib.request.urlopen(self._request, timeout=self._timeout) as answer:
                for line in answer:
                    if line.startswith(b"data: {"):
                        self._take(json.loads(line[6:]))
        except (OSError, http.client.HTTPException) as error:
            self.error = f"{type(error).__name__}: {error}"
        self.ended = time.time()

    def _take(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            self.error = str(chunk["error"])
        self.prompt_tokens = (chunk.get("usage") or {}).get("prompt_tokens", self.prompt_tokens)
        for choice in chunk.get("choices") or []:
            # The tiny model's tokens are one character each, and the engine may send several at a time.
            self.received += len(choice["text"])
            self.arrivals.append((time.time(), len(choice["text"])))
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def wait(self, seconds: float) -> None:
        """Until it has ended, whole or not, or so many seconds are over."""
        self._reader.join(seconds)

    def join(self, seconds: float) -> None:
        """Wait for its end. Raises AssertionError when it is not whole, or not at its end after so many seconds."""
        self.wait(seconds)
        assert self.ended is not None, f"the stream still runs, {self.received} of {self.wanted} tokens"
        assert self.error is None, f"after {self.received} of {self.wanted} tokens: {self.error}"
        assert (self.finish_reason, self.received) == ("length", self.wanted)
