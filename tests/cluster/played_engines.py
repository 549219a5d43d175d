"""Engines of pods in which nothing runs, at the first addresses that a played kubelet gives: they compute nothing, and
say of themselves what a test wants."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from bench.played_engines import POD_ADDRESSES
from factories.engine_pages import counters, page
from moe_operator.api import names

#: Pods at most, one after the other, and ranks of each.
PODS, RANKS = 16, 8
#: Requests that a rank works on while its KV cache is full to what counts as full, seconds that each lasts, and tokens.
_FULL, _LASTS, _TOKENS = 20, 10.0, 200


class PlayedEngines:
    """They are all asked for the same."""

    def __init__(self, load: float = 0.0) -> None:
        self.requests = 0
        """In flight on each, as its agent counts them."""
        self.load = load
        """Of each, 1 is full: by its KV cache."""
        self.draining: set[str] = set()
        """Addresses of those that were told to drain."""
        self._done = 0.0
        self._at = time.monotonic()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["PlayedEngines"]:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/completions", self._token)
        app.router.add_get("/moe/v1/state", self._state)
        for method in ("POST", "DELETE"):
            app.router.add_route(method, "/moe/v1/drain", self._drain)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        for address in POD_ADDRESSES[:PODS]:
            await web.TCPSite(runner, address, names.HTTP_PORT).start()
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        running = round(self.load * _FULL)
        now = time.monotonic()
        self._done += (now - self._at) * running / _LASTS
        self._at = now
        done = float(int(self._done))
        rank = counters(
            running=running,
            kv_worst=self.load * 0.9,
            finished=done,
            prompt_tokens=done * _TOKENS,
            output_tokens=done * _TOKENS,
        )
        return web.Response(body=page(dict.fromkeys(range(RANKS), rank)))

    @staticmethod
    async def _token(_: web.Request) -> web.Response:
        choice = {"text": "1", "finish_reason": "length", "logprobs": {"token_logprobs": [-0.1]}}
        return web.json_response({"choices": [choice], "usage": {"completion_tokens": 1}})

    async def _state(self, request: web.Request) -> web.Response:
        draining = {} if _address(request) in self.draining else None
        return web.json_response({"in_flight": self.requests, "draining": draining})

    async def _drain(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self.draining.add(_address(request))
        else:
            self.draining.discard(_address(request))
        return web.json_response({"draining": None, "in_flight": self.requests})


def _address(request: web.Request) -> str:
    assert request.transport is not None
    return str(request.transport.get_extra_info("sockname")[0])
