"""The operator's own telemetry loop, scraping in-memory engines: only the HTTP request is replaced."""

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import cast

import aiohttp

from fakecluster.engines import Engine, Engines, State
from moe_operator.telemetry.collector import Collector, Key, Target
from moe_operator.telemetry.own_requests import OwnRequests

#: Seconds that a scrape takes, and until one of a machine that does not answer is given up.
_ANSWER, _TIMEOUT = 0.01, 2.0


class MemoryCollector(Collector):
    """A Collector whose pages come from `Engines`."""

    def __init__(
        self,
        engines: Engines,
        targets: Callable[[], Iterable[Target]],
        on_news: Callable[[Key], None],
        clock: Callable[[], float],
        own: OwnRequests,
    ) -> None:
        # There is no session: `_get`, its only user, is replaced.
        super().__init__(cast(aiohttp.ClientSession, None), targets, on_news, clock, own)
        self._engines = engines

    async def _get(self, target: Target, path: str) -> bytes | None:
        engine = self._engines.at(target.host)
        if engine is None or not self._engines.reachable(engine.node):
            await asyncio.sleep(_TIMEOUT)
            return None
        await asyncio.sleep(_ANSWER)
        if engine.state is not State.UP:
            return None
        self._engines.count(engine)
        if path == "/metrics":
            return _page(engine)
        return json.dumps({"in_flight": engine.running + engine.canaries}).encode()


def _page(engine: Engine) -> bytes:
    """The lines of vLLM's metrics page that matter, all ranks of the pod as one."""
    answered = int(engine.tokens / 100) + engine.canary_tokens
    values = {
        "num_requests_running": engine.running + engine.canaries,
        "num_requests_waiting": 0,
        "kv_cache_usage_perc": min(1.0, engine.running / 100),
        "prompt_tokens_total": int(2 * engine.tokens) + 2 * engine.canary_tokens,
        "generation_tokens_total": int(engine.tokens) + engine.canary_tokens,
        "time_to_first_token_seconds_sum": 0.2 * answered,
        "time_to_first_token_seconds_count": answered,
        "request_time_per_output_token_seconds_sum": 0.02 * answered,
        "request_time_per_output_token_seconds_count": answered,
    }
    return "".join(f'vllm:{name}{{engine="0"}} {value}\n' for name, value in values.items()).encode()
