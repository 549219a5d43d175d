"""Telemetry: what the autoscaler, the stall watchdog and the drain rely on. Wrong figures drop or waste groups."""

from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from moe_operator.telemetry.collector import Collector, Target
from moe_operator.telemetry.engine_http import RANK_HEADER, HttpEngineClient
from moe_operator.telemetry.metrics_page import EngineMetrics, parse_metrics
from moe_operator.telemetry.window import WINDOW, PodWindow

PAGE = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_running{engine="1",model_name="tiny"} 2.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 0.0
vllm:num_requests_waiting{engine="1",model_name="tiny"} 4.0
vllm:num_requests_waiting_by_reason{engine="1",model_name="tiny",reason="capacity"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.75
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 1000.0
vllm:prompt_tokens_total{engine="1",model_name="tiny"} 1.5e+03
vllm:generation_tokens_total{engine="0",model_name="tiny"} 40.0
vllm:generation_tokens_total{engine="1",model_name="tiny"} 2.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="tiny"} 6.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="tiny"} 3.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.5",model_name="tiny"} 3.0
"""


def metrics(**overrides: float) -> EngineMetrics:
    made = EngineMetrics(
        ranks=1,
        running=0,
        waiting=0,
        kv_usage=0.0,
        prompt_tokens=0.0,
        output_tokens=0.0,
        first_token_sum=0.0,
        first_token_count=0.0,
        per_token_sum=0.0,
        per_token_count=0.0,
    )
    return replace(made, **overrides)  # type: ignore[arg-type]


class TestPage:
    def test_ranks_are_summed_and_the_worst_rank_tells_the_cache(self) -> None:
        found = parse_metrics(PAGE)
        assert found is not None
        assert (found.ranks, found.running, found.waiting) == (2, 5, 4)
        assert (found.prompt_tokens, found.output_tokens) == (2500, 42)
        assert found.kv_usage == 0.75
        assert (found.first_token_sum, found.first_token_count) == (6.0, 3.0)

    def test_a_page_without_vllm_says_nothing(self) -> None:
        assert parse_metrics(b"process_cpu_seconds_total 3.0\n") is None

    def test_nan_is_not_a_figure(self) -> None:
        found = parse_metrics(PAGE.replace(b"0.75", b"NaN"))
        assert found is not None
        assert found.kv_usage == 0.25


class TestWindow:
    def test_rates_are_over_the_window(self) -> None:
        window = PodWindow("u")
        for second in range(0, 100, 5):
            window.add(second, metrics(running=1, output_tokens=second * 10.0), None)
        seen = window.observation()
        assert seen is not None
        assert seen.output_tokens_per_second == pytest.approx(10)
        assert len(window._scrapes) <= WINDOW / 5 + 2

    def test_an_engine_that_restarted_gives_no_negative_rate(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(output_tokens=1000), None)
        window.add(5, metrics(output_tokens=10), None)
        seen = window.observation()
        assert seen is not None
        assert seen.output_tokens_per_second == 0

    def test_work_without_tokens_is_no_progress(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(running=1, output_tokens=5), None)
        window.add(60, metrics(running=1, output_tokens=5), None)
        seen = window.observation()
        assert seen is not None
        assert seen.progress_at == 0
        assert seen.busy

    def test_a_stopped_engine_that_reports_no_requests_is_betrayed_by_its_clients(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(), 0)
        window.add(60, metrics(), 2)
        window.add(120, metrics(), 2)
        seen = window.observation()
        assert seen is not None
        assert seen.busy
        assert seen.progress_at == 0

    def test_idle_is_progress(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(), 0)
        window.add(600, metrics(), 0)
        seen = window.observation()
        assert seen is not None
        assert seen.progress_at == 600
        assert not seen.busy

    def test_latency_is_the_mean_of_what_happened_in_the_window(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(first_token_sum=100, first_token_count=10), None)
        window.add(5, metrics(first_token_sum=103, first_token_count=12), None)
        seen = window.observation()
        assert seen is not None
        assert seen.time_to_first_token == pytest.approx(1.5)
        assert seen.time_per_output_token is None


class Engine:
    """An HTTP server that answers as a pod does."""

    def __init__(self) -> None:
        self.page, self.in_flight, self.idle, self.asked = PAGE, 0, 0, []
        self.answer: web.Response | None = None
        self.guarded = False
        """Whether clients need a key."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, dict(request.headers)))
        match request.path:
            case "/metrics":
                return web.Response(body=self.page)
            case "/moe/v1/state":
                return web.json_response({"in_flight": self.in_flight, "idle_connections": self.idle})
            case "/moe/v1/drain":
                return web.json_response({})
            case "/moe/v1/canary" | "/v1/completions" as path:
                if self.guarded and (path != "/moe/v1/canary" or "X-Moe-Agent-Token" not in request.headers):
                    return web.Response(status=401, text="Unauthorized")
                if self.answer:
                    return self.answer
                return web.json_response({"choices": [{"text": "x"}], "usage": {"completion_tokens": 1}})
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

    async def test_an_urgent_target_makes_the_next_round_come_soon_and_is_always_news(self, engine) -> None:
        _, port, session = engine
        news: list[tuple[str, str]] = []
        targets = [Target(("ns", "d"), "uid", "127.0.0.1", port, urgent=True)]
        collector = Collector(session, lambda: targets, news.append, lambda: 100.0)
        assert await collector.round()
        assert await collector.round()
        assert news == [("ns", "d")] * 2

    async def test_a_settled_idle_pod_is_no_news(self, engine) -> None:
        server, port, session = engine
        server.page = PAGE.replace(b"} 3.0", b"} 0").replace(b"} 2.0", b"} 0").replace(b"} 4.0", b"} 0")
        news: list[tuple[str, str]] = []
        targets = [Target(("ns", "d"), "uid", "127.0.0.1", port)]
        collector = Collector(session, lambda: targets, news.append, iter(range(1000)).__next__)
        await collector.round()
        news.clear()
        await collector.round()
        await collector.round()
        assert news == []


class TestCanary:
    async def test_every_rank_is_asked_for_a_token(self, engine) -> None:
        server, port, session = engine
        result = await HttpEngineClient(session).canary("127.0.0.1", port, "tiny", 2, 4, deadline=5)
        assert result.passed
        assert sorted(headers[RANK_HEADER] for _, headers in server.asked) == ["0", "1"]

    @pytest.mark.parametrize(
        ("answer", "fragment"),
        [
            (web.Response(status=500, text="EngineDeadError"), "HTTP 500: EngineDeadError"),
            (web.json_response({"choices": [], "usage": {"completion_tokens": 0}}), "without a token"),
            (web.json_response({"error": "x"}), "another shape"),
            (web.Response(text="garbage"), "JSONDecodeError"),
        ],
    )
    async def test_what_is_wrong_with_a_rank_is_said(self, engine, answer, fragment) -> None:
        server, port, session = engine
        server.answer = answer
        result = await HttpEngineClient(session).canary("127.0.0.1", port, "tiny", 1, 3, deadline=5)
        assert not result.passed
        assert fragment in result.message
        assert "rank 3" in result.message

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

    async def test_the_token_is_sent_only_where_a_key_is_asked_for(self, engine) -> None:
        """Whoever got the address of a pod that is gone would collect tokens."""
        server, port, session = engine
        await HttpEngineClient(session).canary("127.0.0.1", port, "tiny", 1, 0, deadline=5, token="t")
        assert all("X-Moe-Agent-Token" not in headers for _, headers in server.asked)

    async def test_nobody_there_is_a_failure_not_an_exception(self, engine) -> None:
        _, _, session = engine
        client = HttpEngineClient(session)
        assert not (await client.canary("127.0.0.1", 1, "tiny", 1, 0, deadline=2)).passed
        assert not await client.drain("127.0.0.1", 1)
