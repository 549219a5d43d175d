"""The EngineClient over HTTP: canaries with the arguments that real requests use, and the word to drain."""

import asyncio
import json
import time
from typing import Any

import aiohttp

from moe_operator.telemetry.engine import CanaryResult

#: Proves the operator to the agent.
TOKEN_HEADER = "X-Moe-Agent-Token"
#: Pins one of a pod's own ranks, counted from 0 in every pod.
RANK_HEADER = "X-data-parallel-rank"
_DRAIN_TIMEOUT = 3.0
_LONGEST_MESSAGE = 300


class HttpEngineClient:
    """Talks to pods at their own addresses."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def canary(
        self,
        host: str,
        port: int,
        model: str,
        ranks: int,
        first_rank: int,
        *,
        deadline: float,
        token: str | None = None,
    ) -> CanaryResult:
        """One token from every rank of the pod, all at once: in a group, ranks step together."""
        begun = time.monotonic()
        answers = await asyncio.gather(
            *(self._one_token(host, port, model, rank, deadline, token) for rank in range(ranks))
        )
        seconds = time.monotonic() - begun
        for rank, fault in enumerate(answers):
            if fault:
                return CanaryResult(False, f"rank {first_rank + rank} at {host}:{port}: {fault}", seconds)
        return CanaryResult(True, "", seconds)

    async def drain(self, host: str, port: int, token: str | None = None) -> bool:
        """POST to the agent; an engine without agent answers 404, which is no failure of ours to report."""
        try:
            async with self._session.post(
                f"{_base(host, port)}/moe/v1/drain",
                json={"reason": "the group is going away"},
                headers={TOKEN_HEADER: token} if token else None,
                timeout=aiohttp.ClientTimeout(total=_DRAIN_TIMEOUT),
            ) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _one_token(
        self, host: str, port: int, model: str, rank: int, deadline: float, token: str | None
    ) -> str:
        """Empty if the rank gave a token, else what went wrong.

        Asked as clients ask; where they need a key, which the operator does not have, the agent asks in its place.
        """
        body = {"model": model, "prompt": "1", "max_tokens": 1, "temperature": 0, "ignore_eos": True}
        ranked = {RANK_HEADER: str(rank)}
        try:
            status, text = await self._post(host, port, "/v1/completions", body, ranked, deadline)
            if status == 401 and token:
                headers = {**ranked, TOKEN_HEADER: token}
                status, text = await self._post(
                    host, port, "/moe/v1/canary", {"model": model}, headers, deadline
                )
            if status != 200:
                return f"HTTP {status}: {text[:_LONGEST_MESSAGE]}"
            return _judge(json.loads(text))
        except TimeoutError:
            return f"no token within {deadline:.0f} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"[:_LONGEST_MESSAGE]

    async def _post(
        self, host: str, port: int, path: str, body: Any, headers: dict[str, str], deadline: float
    ) -> tuple[int, str]:
        limit = aiohttp.ClientTimeout(total=deadline)
        url = f"{_base(host, port)}{path}"
        async with self._session.post(url, json=body, headers=headers, timeout=limit) as answer:
            return answer.status, await answer.text()


def _judge(answer: Any) -> str:
    try:
        tokens = answer["usage"]["completion_tokens"]
        return "" if answer["choices"] and tokens >= 1 else f"an answer without a token: {str(answer)[:200]}"
    except (KeyError, TypeError):
        return f"an answer of another shape: {str(answer)[:200]}"


def _base(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
