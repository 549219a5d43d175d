"""The operator's own telemetry loop, scraping in-memory engines: only the HTTP request is replaced."""

import asyncio
import json
import math
from collections.abc import Callable, Iterable
from typing import cast

import aiohttp

from factories.engine_pages import histogram, page
from fakecluster.engines import Engine, Engines, EngineSettings, State
from moe_operator.telemetry.collector import Collector, Key, Target
from moe_operator.telemetry.engine_counters import EngineCounters, Histogram, merged_histograms
from moe_operator.telemetry.own_requests import OwnRequests

#: Seconds that a scrape takes, and until one of a machine that does not answer is given up.
_ANSWER, _TIMEOUT = 0.01, 2.0
#: Of a pod of the manifests that tests apply.
_RANKS = 8
#: Seconds to the first token.
_FIRST_TOKEN = 0.2


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
        telling = self._engines.settings.telling
        if engine is None or not telling or not self._engines.reachable(engine.node):
            await asyncio.sleep(_TIMEOUT)
            return None
        await asyncio.sleep(_ANSWER)
        if engine.state is not State.UP:
            return None
        self._engines.count(engine)
        if path == "/metrics":
            return _page(engine, self._engines.settings)
        draining = {"since": 0.0, "reason": ""} if engine.draining else None
        return json.dumps({"in_flight": engine.running + engine.canaries, "draining": draining}).encode()


#: As fine as vLLM's where objectives lie: what is in the objective's own bucket counts as late in part.
_BOUNDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 1.0, 2.5, 5.0, 10.0, math.inf)


def _page(engine: Engine, settings: EngineSettings) -> bytes:
    """The lines of vLLM's metrics page that matter, all ranks of the pod as its first. Requests of others have
    100 tokens."""
    ended, step = int(engine.tokens / 100), settings.step_seconds
    running = engine.running + engine.canaries
    told = EngineCounters(
        ranks=1,
        running=running,
        running_worst=running,
        kv_worst=min(1.0, engine.running / 100),
        kv_blocks=settings.kv_blocks,
        prompt_tokens=int(2 * engine.tokens) + 2 * engine.canary_tokens,
        output_tokens=int(engine.tokens) + engine.canary_tokens,
        finished=ended + engine.canary_tokens,
        inter_token_sum=step * 99 * ended,
        inter_token_count=99 * ended,
        first_token=_entered(_FIRST_TOKEN, ended + engine.canary_tokens),
        # A canary has one token, of which vLLM says 0.
        per_token=merged_histograms([_entered(step, ended), _entered(0.0, engine.canary_tokens)]),
    )
    return page({engine.index * _RANKS: told})


def _entered(seconds: float, times: int) -> Histogram:
    one = histogram(seconds, bounds=_BOUNDS)
    return Histogram(one.bounds, tuple(count * times for count in one.counts), one.total * times)
