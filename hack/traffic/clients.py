"""The load: OpenAI's own client with its own connection pools, sent at its time whatever came of earlier requests.

No retries: what its retries would hide is what is looked for.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from openai import AsyncOpenAI

from traffic.arrivals import Arrival, Mix, Shape
from traffic.counts import Outcome, Record, fault_of, judge

#: Seconds after which a request counts as failed, unless said otherwise.
TIMEOUT = 120.0
#: Seconds between two lines of progress.
_TELL = 10.0


class Load:
    """Sends requests from a thread of its own, so that whoever changes the deployment may block."""

    def __init__(
        self,
        base_url: str,
        model: str,
        arrivals: Iterator[Arrival],
        mix: Mix,
        timeout: float = TIMEOUT,
    ) -> None:
        """`timeout`: seconds after which a request counts as failed."""
        self._timeout = timeout
        self._base_url, self._model, self._arrivals, self._mix = base_url, model, arrivals, mix
        self._records: list[Record] = []
        self._enough: int | None = None
        self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="traffic", daemon=True)
        self._began = 0.0
        self.id_prefix = f"traffic-{secrets.token_hex(4)}-"
        """How ids of this load's requests begin, in the engines' logs too: a log may have those of earlier loads."""
        self.sent = 0
        self._long = 0
        self.lag = 0.0
        """Longest time that a request was sent after its time (s): what this machine could not keep up with."""

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._thread.join(self._timeout + 30)

    def now(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._began

    @property
    def records(self) -> list[Record]:
        """Requests that have ended, in the order of their ends."""
        return list(self._records)

    def finish(self, at_least: int) -> list[Record]:
        """Go on until so many requests besides long streams were sent, wait for the ends of all, and return them by
        number."""
        self._enough = at_least
        self._thread.join()
        if self._error is not None:
            raise self._error
        return sorted(self._records, key=lambda r: r.number)

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # told by `finish`
            self._error = error

    async def _run(self) -> None:
        clients = [
            AsyncOpenAI(base_url=self._base_url, api_key="none", max_retries=0, timeout=self._timeout)
            for _ in range(self._mix.clients)
        ]
        under_way: set[asyncio.Task[None]] = set()
        progress = asyncio.create_task(self._tell())
        for arrival in self._arrivals:
            await asyncio.sleep(max(0.0, arrival.at - self.now()))
            if self._over():
                break
            self.lag = max(self.lag, self.now() - arrival.at)
            self.sent += 1
            self._long += arrival.shape is Shape.LONG
            task = asyncio.create_task(self._one(clients[arrival.client], arrival))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        if under_way and not self._stopped:
            await asyncio.gather(*under_way)
        progress.cancel()
        for client in clients:
            await client.close()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_TELL)
            bad = sum(r.outcome is not Outcome.SUCCEEDED for r in self._records)
            ended = len(self._records)
            print(
                f"[{self.now():6.1f} s] {self.sent} sent, {self.sent - ended} under way, {bad} lost",
                flush=True,
            )

    def _over(self) -> bool:
        return self._stopped or (self._enough is not None and self.sent - self._long >= self._enough)

    async def _one(self, client: AsyncOpenAI, arrival: Arrival) -> None:
        sent = self.now()
        answer = _Answer(self.now)
        request_id, fault, detail = f"{self.id_prefix}{arrival.number}", "", ""
        try:
            if arrival.shape is Shape.PLAIN:
                await answer.whole(client, self._model, arrival, request_id)
            else:
                await answer.stream(client, self._model, arrival, request_id)
        except Exception as error:
            fault, detail = (
                fault_of(error),
                repr(error) + (f" from {error.__cause__!r}" if error.__cause__ else ""),
            )
        begun = answer.first_token is not None
        outcome, fault = judge(arrival.output_tokens, answer.tokens, answer.finish_reason, begun, fault)
        record = Record(
            number=arrival.number,
            shape=arrival.shape,
            client=arrival.client,
            sent=sent,
            ended=self.now(),
            outcome=outcome,
            fault=fault,
            first_token=answer.first_token,
            tokens=answer.tokens,
            detail=detail,
        )
        self._records.append(record)
        if outcome is not Outcome.SUCCEEDED:
            print(f"[{record.ended:6.1f} s] lost: {record}", flush=True)


class _Answer:
    """What has come of an answer so far."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.tokens = 0
        self.finish_reason: str | None = None
        self.first_token: float | None = None

    async def whole(self, client: AsyncOpenAI, model: str, arrival: Arrival, request_id: str) -> None:
        found = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": arrival.prompt}],
            max_tokens=arrival.output_tokens,
            temperature=0,
            extra_body={"ignore_eos": True},
            extra_headers={"X-Request-Id": request_id},
        )
        self.finish_reason = found.choices[0].finish_reason
        self.tokens = found.usage.completion_tokens if found.usage else 0

    async def stream(self, client: AsyncOpenAI, model: str, arrival: Arrival, request_id: str) -> None:
        async with await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": arrival.prompt}],
            max_tokens=arrival.output_tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
            extra_headers={"X-Request-Id": request_id},
        ) as chunks:
            async for chunk in chunks:
                for choice in chunk.choices:
                    if choice.delta.content:
                        self.tokens += 1
                        self.first_token = self.first_token or self._now()
                    self.finish_reason = choice.finish_reason or self.finish_reason
                if chunk.usage:
                    self.tokens = chunk.usage.completion_tokens
