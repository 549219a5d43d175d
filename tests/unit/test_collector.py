"""Scrapes, drains and canaries over HTTP. Without them nothing is known of a pod, and nothing reaches it."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from dataclasses import replace
from operator import attrgetter
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from factories.engine_pages import PAGE
from moe_operator.runtime.reporting import oldest, scraped
from moe_operator.telemetry import collector as collector_module
from moe_operator.telemetry.collector import Collector, Target
from moe_operator.telemetry.engine_http import RANK_HEADER, HttpEngineClient
from moe_operator.telemetry.ignored import Counts, Ignored

#: Nothing runs and nothing waits.
_IDLE = PAGE.replace(b"} 3.0", b"} 0").replace(b"} 2.0", b"} 0").replace(b"} 4.0", b"} 0")


def answered(logprob: float | None, **choice: object) -> dict[str, object]:
    """One token, as vLLM answers; without log-probability where none was asked for."""
    logprobs = None if logprob is None else {"tokens": ["x"], "token_logprobs": [logprob]}
    made = {"text": "x", "finish_reason": "length", "logprobs": logprobs, **choice}
    return {"choices": [made], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}


class Engine:
    """An HTTP server that answers as a pod does."""

    def __init__(self) -> None:
        self.page, self.in_flight, self.idle, self.asked = PAGE, 0, 0, []
        self.answer: web.Response | None = None
        self.refuses_logprobs = False
        self.draining: dict[str, float] | None = None
        self.guarded = False
        """Whether clients need a key."""
        self.endless, self.sent = False, 0
        """Whether an answer never ends, and bytes of it that were sent."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, dict(request.headers)))
        match request.path:
            case "/metrics":
                return web.Response(body=self.page)
            case "/moe/v1/state":
                state = {"in_flight": self.in_flight, "idle_connections": self.idle}
                return web.json_response({**state, "draining": self.draining})
            case "/moe/v1/drain":
                if self.guarded and "X-Moe-Agent-Token" not in request.headers:
                    return web.Response(status=401)
                self.draining = {"since": 1.0} if request.method == "POST" else None
                return web.json_response({"draining": self.draining})
            case "/moe/v1/canary" | "/v1/completions" as path:
                if self.guarded and (path != "/moe/v1/canary" or "X-Moe-Agent-Token" not in request.headers):
                    return web.Response(status=401, text="Unauthorized")
                if self.endless:
                    response = web.StreamResponse()
                    await response.prepare(request)
                    while True:
                        await response.write(b"x" * 2**16)
                        self.sent += 2**16
                if self.answer:
                    return self.answer
                body = await request.json()
                if self.refuses_logprobs and "logprobs" in body:
                    return web.Response(status=400, text="Requested sample logprobs of 1, max allowed: 0")
                return web.json_response(answered(-0.5 if "logprobs" in body else None))
        return web.Response(status=404)


@pytest.fixture
async def engine() -> AsyncIterator[tuple[Engine, int, aiohttp.ClientSession]]:
    made = Engine()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:
        yield made, port, session
    await runner.cleanup()


def hostile(pages: dict[str, dict[str, bytes]], ignored: Counts) -> Collector:
    """Of two pods, of which `hostile` answers with these pages by path."""
    calm = {"/metrics": PAGE, "/moe/v1/state": b'{"in_flight": 3}'}

    class Pages(Collector):
        async def _get(self, target: Target, path: str) -> bytes | None:
            return pages.get(target.pod_uid, calm).get(path, calm[path])

    targets = [Target(("ns", uid), uid, uid, 8000) for uid in ("hostile", "calm")]
    session = cast(aiohttp.ClientSession, None)
    return Pages(session, lambda: targets, lambda _: None, lambda: 100.0, on_ignored=ignored.update)


class TestCollector:
    async def test_a_pod_is_scraped_and_forgotten_when_it_is_gone(self, engine) -> None:
        server, port, session = engine
        server.in_flight, server.idle = 7, 2
        targets = [Target(("ns", "d"), "uid", "127.0.0.1", port, request_slots=8)]
        news: list[tuple[str, str]] = []
        collector = Collector(session, lambda: targets, news.append, lambda: 100.0)
        await collector.round()
        seen = collector.snapshot().pods["uid"]
        assert (seen.running, seen.in_flight, seen.request_slots) == (5, 7, 8)
        assert seen.idle_connections == 2
        assert news == [("ns", "d")]
        targets.clear()
        await collector.round()
        assert collector.snapshot().pods == {}

    async def test_a_pod_that_does_not_answer_keeps_its_last_figures_and_counts_failures(
        self, engine
    ) -> None:
        _, port, session = engine
        targets = [Target(("ns", "d"), "uid", "127.0.0.1", port)]
        collector = Collector(session, lambda: targets, lambda _: None, lambda: 100.0)
        await collector.round()
        targets[0] = replace(targets[0], port=1)
        await collector.round()
        seen = collector.snapshot().pods["uid"]
        assert (seen.running, seen.failures) == (5, 1)

    async def test_a_pod_that_serves_and_never_answered_is_missed(self, engine) -> None:
        """Lost: the word that a network policy keeps the operator from all engines, after it has started anew."""
        _, port, session = engine
        shut, starts = Target(("ns", "d"), "shut", "127.0.0.1", 1), Target(("ns", "d"), "new", "127.0.0.1", 1)
        targets, now = [shut, replace(starts, serves=False), replace(shut, pod_uid="ok", port=port)], [100.0]
        collector = Collector(session, lambda: targets, lambda _: None, lambda: now[0])
        for now[0] in (100.0, 105.0, 110.0):
            await collector.round()
        assert collector.snapshot().unheard == {"shut": 100.0}
        assert dict(scraped(collector.snapshot())) == {("ok",): 1.0, ("failing",): 1.0}
        assert oldest(collector.snapshot()) == 10.0
        targets[0] = replace(shut, port=port)
        await collector.round()
        assert oldest(collector.snapshot()) == 0.0
        assert dict(scraped(collector.snapshot())) == {("ok",): 2.0, ("failing",): 0.0}
        targets[1] = starts
        await collector.round()
        assert collector.snapshot().unheard == {"new": 110.0}
        targets.clear()
        await collector.round()
        assert oldest(collector.snapshot()) == 0.0
        assert collector.snapshot().unheard == {}

    async def test_what_is_not_used_of_a_page_is_counted(self, engine) -> None:
        server, port, session = engine
        server.page = PAGE.replace(b"0.75", b"NaN")
        targets, ignored = [Target(("ns", "d"), "uid", "127.0.0.1", port)], Counts()
        collector = Collector(
            session, lambda: targets, lambda _: None, lambda: 100.0, on_ignored=ignored.update
        )
        await collector.round()
        assert dict(ignored) == {Ignored.NOT_A_NUMBER: 1}

    @pytest.mark.parametrize(
        "page",
        [
            b'{"in_flight": 1e999}',
            b'{"in_flight": -1}',
            b'{"in_flight": 1' + b"0" * 400 + b"}",
            b'{"in_flight": 1, "idle_connections": 1e400}',
            b'{"in_flight": 1, "phases": {"load": 1' + b"0" * 400 + b"}}",
            b'{"in_flight": 1, "phases": {"load": 1e999}}',
            b'{"in_flight": 1, "phases": {"load": NaN}}',
            b"[" * 60_000,
            b'{"in_flight":' * 4_000,
        ],
        ids=["infinite", "negative", "long", "idle", "phase", "endless phase", "no phase", "deep", "deeper"],
    )
    async def test_an_agents_page_that_means_harm_costs_that_page(self, engine, page) -> None:
        """Lost: the telemetry of all deployments, and with it the process, to what one container answers."""
        ignored = Counts()
        collector = hostile({"hostile": {"/moe/v1/state": page}}, ignored)
        await collector.round()
        pods = collector.snapshot().pods
        assert (pods["hostile"].running, pods["hostile"].in_flight, pods["hostile"].phases) == (5, None, {})
        assert (pods["calm"].running, pods["calm"].in_flight) == (5, 3)
        assert dict(ignored) == {Ignored.NOT_A_SERIES: 1}

    @pytest.mark.parametrize("name", ["parse_metrics", "read_agent_state", "PodWindow.add"])
    async def test_what_nobody_foresaw_costs_one_pod_its_scrape(self, name, monkeypatch, caplog) -> None:
        """Lost: as above, to whatever comes to somebody's mind next."""
        ignored = Counts()
        collector = hostile({}, ignored)
        whole, raised = attrgetter(name)(collector_module), []

        def raises(*arguments: Any) -> Any:
            if not raised:
                raised.append(1)
                raise AssertionError("unforeseen")
            return whole(*arguments)

        monkeypatch.setattr(f"{collector_module.__name__}.{name}", raises)
        await collector.round()
        pods = collector.snapshot().pods
        assert pods["calm"].in_flight == 3
        assert ("hostile" not in pods) == (name != "read_agent_state")
        assert dict(ignored) == {Ignored.UNFORESEEN: 1}
        raised.clear()
        await collector.round()
        assert ignored[Ignored.UNFORESEEN] == 2
        assert caplog.text.count("AssertionError: unforeseen") == 1, "said once"
        await collector.round()
        assert collector.snapshot().pods["hostile"].in_flight == 3

    async def test_an_urgent_target_is_looked_at_between_rounds_and_always_news(self, engine) -> None:
        _, port, session = engine
        news: list[tuple[str, str]] = []
        calm, urgent = (Target(("ns", name), name, "127.0.0.1", port) for name in ("calm", "urgent"))
        targets = [calm, replace(urgent, urgent=True)]
        collector = Collector(session, lambda: targets, news.append, lambda: 100.0)
        await collector.urgent_round()
        await collector.urgent_round()
        assert news == [urgent.key] * 2
        assert list(collector.snapshot().pods) == ["urgent"]

    async def test_pods_of_a_deployment_are_one_piece_of_news(self, engine) -> None:
        """Lost: reconciles, of which busy deployments would have one for each of their pods in every round."""
        _, port, session = engine
        news: list[tuple[str, str]] = []
        targets = [Target(("ns", "d"), f"uid-{i}", "127.0.0.1", port) for i in range(3)]
        collector = Collector(session, lambda: targets, news.append, lambda: 100.0)
        await collector.round()
        assert news == [("ns", "d")]
        assert len(collector.snapshot().pods) == 3

    async def test_a_rounds_deployments_are_spread_over_it(self) -> None:
        """Lost: seconds in which a lost group waits until the pages of all others were read."""
        asked: list[tuple[str, float]] = []
        clock = asyncio.get_running_loop().time

        class Recorded(Collector):
            async def _get(self, target: Target, path: str) -> bytes | None:
                asked.append((target.pod_uid, clock()))
                return None

        targets = [Target(("ns", f"d{i}"), f"uid-{i}", "10.0.0.1", 1) for i in range(4)]
        collector = Recorded(None, lambda: targets, lambda _: None, clock)
        began = clock()
        await collector.round(0.2)
        assert [uid for uid, _ in asked] == [t.pod_uid for t in targets]
        assert [at - began >= 0.05 * place for place, (_, at) in enumerate(asked)] == [True] * 4

    async def test_a_settled_idle_pod_is_no_news(self, engine) -> None:
        server, port, session = engine
        server.page = _IDLE
        news: list[tuple[str, str]] = []
        targets = [Target(("ns", "d"), "uid", "127.0.0.1", port)]
        collector = Collector(session, lambda: targets, news.append, iter(range(1000)).__next__)
        await collector.round()
        news.clear()
        await collector.round()
        await collector.round()
        assert news == []

    async def test_a_drain_that_begins_or_ends_is_news(self, engine) -> None:
        """Lost: agents that were not told of a drain's end, until something else happens to their group."""
        server, port, session = engine
        server.page = _IDLE
        news: list[tuple[str, str]] = []
        targets = [Target(("ns", "d"), "uid", "127.0.0.1", port)]
        collector = Collector(session, lambda: targets, news.append, iter(range(1000)).__next__)
        await collector.round()
        await collector.round()
        for draining in ({"since": 1.0}, None):
            server.draining = draining
            news.clear()
            await collector.round()
            assert news == [("ns", "d")]
            assert collector.snapshot().pods["uid"].draining is (draining is not None)


class TestDrain:
    """The word to drain, and that it is over."""

    async def test_both_reach_the_agent_with_the_operators_token(self, engine) -> None:
        server, port, session = engine
        server.guarded = True
        client = HttpEngineClient(session)
        assert await client.drain("127.0.0.1", port, "t")
        assert server.draining is not None
        assert not await client.undrain("127.0.0.1", port)
        assert server.draining is not None
        for _ in range(2):
            assert await client.undrain("127.0.0.1", port, "t")
            assert server.draining is None

    async def test_nobody_there_is_no_exception(self, engine) -> None:
        _, _, session = engine
        client = HttpEngineClient(session)
        assert not await client.drain("127.0.0.1", 1)
        assert not await client.undrain("127.0.0.1", 1)


class TestCanary:
    async def test_every_rank_is_asked_for_a_token(self, engine) -> None:
        server, port, session = engine
        result = await HttpEngineClient(session).canary("127.0.0.1", port, "tiny", 2, 4, deadline=5)
        assert result.passed
        assert (result.prompt_tokens, result.output_tokens) == (4, 2)
        assert {headers["Connection"] for _, headers in server.asked} == {"close"}, (
            "a drain waits for what is kept"
        )
        assert sorted(headers[RANK_HEADER] for _, headers in server.asked) == ["0", "1"]

    @pytest.mark.parametrize(
        ("answer", "fragment"),
        [
            (web.Response(status=500, text="EngineDeadError"), "HTTP 500: EngineDeadError"),
            (web.json_response({"choices": [], "usage": {"completion_tokens": 0}}), "without a token"),
            (web.json_response({"error": "x"}), "another shape"),
            (web.json_response(answered(float("nan"))), "log-probabilities that are no numbers: [nan]"),
            (web.json_response(answered(0.0, logprobs={"token_logprobs": [None]})), "no numbers: [None]"),
            (web.json_response(answered(0.0, logprobs={"token_logprobs": []})), "no numbers: []"),
            (web.json_response(answered(None)), "without a log-probability"),
            (web.json_response(answered(0.0, finish_reason="abort")), "ended by abort"),
            (web.json_response(answered(0.0, finish_reason=None)), "ended by None"),
            (web.Response(text="garbage"), "JSONDecodeError"),
            (web.Response(text='{"choices": [], "usage": {"completion_tokens": 1e999}}'), "another shape"),
            (web.json_response({**answered(0.0), "usage": {"completion_tokens": 10**400}}), "another shape"),
            (web.json_response({**answered(0.0), "usage": {"completion_tokens": 10**7}}), "and 1e+07 tokens"),
            (web.json_response(answered(10**400)), "another shape"),
            (web.Response(text="[" * 60_000), "RecursionError"),
            (web.Response(text='{"usage":' * 6_000), "RecursionError"),
            (web.Response(status=307, headers={"Location": "/v1/completions"}), "HTTP 307"),
            (web.Response(text=" " * 70_000), "more than 65536 bytes"),
            (web.Response(status=500, text="x" * 70_000), "HTTP 500: more than 65536 bytes"),
            (
                web.Response(body=gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}),
                "the answer is compressed",
            ),
        ],
    )
    async def test_what_is_wrong_with_a_rank_is_said(self, engine, answer, fragment) -> None:
        server, port, session = engine
        server.answer = answer
        result = await HttpEngineClient(session).canary("127.0.0.1", port, "tiny", 1, 3, deadline=5)
        assert not result.passed
        assert fragment in result.message
        assert "rank 3" in result.message

    async def test_an_answer_that_never_ends_is_left(self, engine) -> None:
        """Lost: the operator's memory, to one container; 840 MiB were read of an answer of 300 MiB."""
        server, port, session = engine
        server.endless = True
        result = await HttpEngineClient(session).canary("127.0.0.1", port, "tiny", 1, 0, deadline=20)
        assert (result.passed, "more than 65536 bytes" in result.message) == (False, True)
        assert server.sent < 64 * 2**20
        assert {headers["Accept-Encoding"] for _, headers in server.asked} == {"identity"}

    async def test_where_clients_need_a_key_the_agent_asks_in_the_operators_place(self, engine) -> None:
        """A deployment with a key would never be admitted, or the operator would have to read users' Secrets."""
        server, port, session = engine
        server.guarded = True
        client = HttpEngineClient(session)
        result = await client.canary("127.0.0.1", port, "tiny", 1, 0, deadline=5, token="t")
        assert result.passed, result.message
        path, headers = server.asked[-1]
        assert (path, headers["X-Moe-Agent-Token"], headers[RANK_HEADER]) == ("/moe/v1/canary", "t", "0")
        refused = await client.canary("127.0.0.1", port, "tiny", 1, 0, deadline=5)
        assert "HTTP 401" in refused.message

    async def test_an_engine_that_gives_no_log_probabilities_is_asked_without(self, engine) -> None:
        """Lost: every deployment with `max-logprobs: 0`, never admitted."""
        server, port, session = engine
        server.refuses_logprobs = True
        result = await HttpEngineClient(session).canary("127.0.0.1", port, "tiny", 1, 0, deadline=5)
        assert result.passed, result.message

    @pytest.mark.parametrize(("status", "refused"), [(404, True), (422, True), (500, False), (503, False)])
    async def test_a_request_that_is_not_taken_is_told_from_one_that_fails(
        self, engine, status, refused
    ) -> None:
        """Lost: healthy groups, replaced because the operator asks for a model by a name that they do not know."""
        server, port, session = engine
        server.answer = web.Response(status=status, text="no")
        result = await HttpEngineClient(session).canary("127.0.0.1", port, "tiny", 1, 0, deadline=5)
        assert (result.passed, result.refused) == (False, refused)

    async def test_the_token_is_sent_only_where_a_key_is_asked_for(self, engine) -> None:
        """Whoever got the address of a pod that is gone would collect tokens."""
        server, port, session = engine
        await HttpEngineClient(session).canary("127.0.0.1", port, "tiny", 1, 0, deadline=5, token="t")
        assert all("X-Moe-Agent-Token" not in headers for _, headers in server.asked)

    async def test_nobody_there_is_a_failure_not_an_exception(self, engine) -> None:
        _, _, session = engine
        client = HttpEngineClient(session)
        assert not (await client.canary("127.0.0.1", 1, "tiny", 1, 0, deadline=2)).passed
