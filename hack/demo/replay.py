"""Replays a request trace against an endpoint: real arrival times, lengths scaled to a tiny model."""

import asyncio
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import aiohttp

TRACE = Path(__file__).parent / "traces" / "azure2023_conv_minute.csv"
#: The trace's lengths are divided by these: 1155 prompt and 211 output tokens on average become 72 and 7.
PROMPT_SCALE = 16
OUTPUT_SCALE = 32
#: Seconds after which a request counts as failed.
_REQUEST_TIMEOUT = 120


@dataclass(frozen=True)
class TraceRequest:
    """One request: when (s), and how many tokens in and out."""

    at: float
    prompt_tokens: int
    output_tokens: int


@dataclass
class Outcome:
    """What came of a replay. Latencies in seconds."""

    sent: int = 0
    succeeded: int = 0
    output_tokens: int = 0
    errors: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def summary(self) -> str:
        """One line of figures."""
        cuts = quantiles(self.latencies, n=100) if len(self.latencies) > 1 else [0.0] * 99
        return (
            f"{self.succeeded} of {self.sent} requests succeeded in {self.seconds:.0f} s, "
            f"{self.output_tokens} tokens, latency p50 {cuts[49]:.1f} s, p99 {cuts[98]:.1f} s"
        )


def read_trace(
    path: Path = TRACE, prompt_scale: float = PROMPT_SCALE, output_scale: float = OUTPUT_SCALE
) -> list[TraceRequest]:
    """The trace with lengths scaled down, at least one token each."""
    with path.open() as lines:
        return [
            TraceRequest(
                float(row["t_seconds"]),
                max(1, int(int(row["prompt_tokens"]) / prompt_scale)),
                max(1, int(int(row["output_tokens"]) / output_scale)),
            )
            for row in csv.DictReader(lines)
        ]


async def replay(
    base_url: str, model: str, requests: list[TraceRequest], progress: Callable[[str], None]
) -> Outcome:
    """Send every request at its time; a request that fails is counted, never retried."""
    outcome, started = Outcome(), time.monotonic()
    # A connection per request: a Service balances connections, and pooled ones would stay where they are.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT)

    async def one(request: TraceRequest) -> None:
        await asyncio.sleep(max(0.0, started + request.at - time.monotonic()))
        outcome.sent += 1
        body = {
            "model": model,
            "prompt": "a" * request.prompt_tokens,
            "max_tokens": request.output_tokens,
            "ignore_eos": True,
            "temperature": 0,
        }
        begun = time.monotonic()
        try:
            async with session.post(f"{base_url}/completions", json=body) as answer:
                found = await answer.json(content_type=None)
                if answer.status != 200:
                    raise ValueError(f"HTTP {answer.status}: {str(found)[:200]}")
                outcome.output_tokens += found["usage"]["completion_tokens"]
                outcome.succeeded += 1
                outcome.latencies.append(time.monotonic() - begun)
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            outcome.errors.append(f"{type(error).__name__}: {error}")

    async def report() -> None:
        while True:
            await asyncio.sleep(5)
            progress(f"{outcome.sent} of {len(requests)} requests sent, {outcome.succeeded} answered")

    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        reporter = asyncio.create_task(report())
        try:
            await asyncio.gather(*(one(request) for request in requests))
        finally:
            reporter.cancel()
    outcome.seconds = time.monotonic() - started
    return outcome
