"""The EngineClient over HTTP: canaries with the arguments that real requests use, and the word to drain or to stay."""

import asyncio
import json
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from moe_operator.telemetry.engine import CanaryResult
from moe_operator.telemetry.page_reader import PLAIN, PageError, Wanted, address, read_content

log = logging.getLogger(__name__)

#: Proves the operator to the agent.
TOKEN_HEADER = "X-Moe-Agent-Token"
#: Pins one of a pod's own ranks, counted from 0 in every pod.
RANK_HEADER = "X-data-parallel-rank"
_DRAIN_TIMEOUT = 3.0
_LONGEST_MESSAGE = 300
#: Of an answer of one token: a few KB, whatever a container sends.
_WANTED = Wanted(None, 64 * 2**10)
#: No prompt of one character and no answer of one token is so long, whatever an engine adds.
_MOST_TOKENS = 2**20
#: How an answer of one token may end.
_ENDS = ("length", "stop")


@dataclass(frozen=True)
class _Answer:
    """Of one rank; `fault` is empty where it is whole."""

    fault: str = ""
    refused: bool = False
    prompt_tokens: int = 0
    output_tokens: int = 0


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
        failed = [(rank, answer) for rank, answer in enumerate(answers) if answer.fault]
        rank, worst = min(failed, key=lambda one: one[1].refused, default=(0, _Answer()))
        return CanaryResult(
            passed=not failed,
            message=f"rank {first_rank + rank} at {host}:{port}: {worst.fault}" if failed else "",
            seconds=seconds,
            refused=worst.refused,
            prompt_tokens=sum(answer.prompt_tokens for answer in answers),
            output_tokens=sum(answer.output_tokens for answer in answers),
        )

    async def drain(self, host: str, port: int, token: str | None = None) -> bool:
        """POST to the agent; an engine without agent answers 404, which is no failure of ours to report."""
        return await self._tell("POST", host, port, token)

    async def undrain(self, host: str, port: int, token: str | None = None) -> bool:
        """DELETE at the agent; else as `drain`."""
        return await self._tell("DELETE", host, port, token)

    async def _tell(self, method: str, host: str, port: int, token: str | None) -> bool:
        try:
            async with self._session.request(
                method,
                address(host, port, "/moe/v1/drain"),
                json={"reason": "the group is going away"} if method == "POST" else None,
                headers={**PLAIN, TOKEN_HEADER: token} if token else PLAIN,
                timeout=aiohttp.ClientTimeout(total=_DRAIN_TIMEOUT),
                allow_redirects=False,
            ) as answer:
                return answer.status == 200
        except Exception as error:
            log.debug("%s:%d could not be told: %s", host, port, error)
            return False

    async def _one_token(
        self, host: str, port: int, model: str, rank: int, deadline: float, token: str | None
    ) -> _Answer:
        """Asked as clients ask; where they need a key, which the operator does not have, the agent asks in its place.
        An engine that gives no log-probabilities is asked without."""
        body = {"model": model, "prompt": "1", "max_tokens": 1, "temperature": 0, "ignore_eos": True}
        ranked = {RANK_HEADER: str(rank)}
        sure = True
        try:
            path = "/v1/completions"
            status, text = await self._post(host, port, path, {**body, "logprobs": 1}, ranked, deadline)
            if status == 400 and "logprob" in text:
                sure = False
                status, text = await self._post(host, port, path, body, ranked, deadline)
            elif status == 401 and token:
                sure = False  # an agent of an earlier version asks without
                headers = {**ranked, TOKEN_HEADER: token}
                status, text = await self._post(
                    host, port, "/moe/v1/canary", {"model": model}, headers, deadline
                )
            if status != 200:
                fault = f"HTTP {status}: {text[:_LONGEST_MESSAGE]}"
                return _Answer(fault, refused=400 <= status < 500)
            return _judge(json.loads(text), with_log_probability=sure)
        except TimeoutError:
            return _Answer(f"no token within {deadline:.0f} s")
        except PageError as error:
            return _Answer(str(error))
        except Exception as error:  # whatever an engine answers says of it alone
            return _Answer(f"{type(error).__name__}: {error}"[:_LONGEST_MESSAGE])

    async def _post(
        self, host: str, port: int, path: str, body: Any, headers: dict[str, str], deadline: float
    ) -> tuple[int, str]:
        limit = aiohttp.ClientTimeout(total=deadline)
        # A connection that is kept would look like a client's, which a drain waits for.
        headers = {**headers, **PLAIN, "Connection": "close"}
        async with self._session.post(
            address(host, port, path), json=body, headers=headers, timeout=limit, allow_redirects=False
        ) as answer:
            try:
                (text,) = await read_content(answer, _WANTED)
            except PageError as error:
                if answer.status == 200:
                    raise
                return answer.status, str(error)
            return answer.status, text.decode(errors="replace")


def _judge(answer: Any, *, with_log_probability: bool) -> _Answer:
    """A whole answer has a token, says why it ended, and gives a log-probability that is a number: ranks whose GPU or
    peers compute nonsense give NaN, of which vLLM makes HTTP 500 or null."""
    try:
        usage, choice = answer["usage"], (answer["choices"] or [{}])[0]
        prompt, output = int(usage.get("prompt_tokens") or 0), int(usage["completion_tokens"])
        logprobs = choice.get("logprobs")
        values = logprobs["token_logprobs"] if logprobs is not None else None
        fault = ""
        if prompt < 0 or max(prompt, output) > _MOST_TOKENS:
            return _Answer(f"an answer of {prompt:.3g} and {output:.3g} tokens, not of one")
        if output < 1:
            fault = f"an answer without a token: {str(answer)[:200]}"
        elif choice.get("finish_reason") not in _ENDS:
            fault = f"an answer that ended by {choice.get('finish_reason')}: {str(answer)[:200]}"
        elif values is None and with_log_probability:
            fault = f"an answer without a log-probability: {str(answer)[:200]}"
        elif values is not None and not _finite(values):
            fault = f"log-probabilities that are no numbers: {str(values)[:200]}"
        return _Answer(fault, prompt_tokens=prompt, output_tokens=output)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError):
        return _Answer(f"an answer of another shape: {str(answer)[:200]}")


def _finite(values: Any) -> bool:
    return bool(values) and all(isinstance(one, int | float) and math.isfinite(one) for one in values)
