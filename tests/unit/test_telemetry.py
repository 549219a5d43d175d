"""Telemetry: what the autoscaler, the stall watchdog and the drain rely on. Wrong figures drop or waste groups."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from factories.engine_pages import BOUNDS, histogram, metrics, page
from moe_operator.telemetry.collector import Collector, Target
from moe_operator.telemetry.engine_counters import EngineCounters, Histogram, merged
from moe_operator.telemetry.engine_http import RANK_HEADER, HttpEngineClient
from moe_operator.telemetry.ignored import Counts, Ignored
from moe_operator.telemetry.metrics_page import parse_metrics
from moe_operator.telemetry.observation import PodObservation, Snapshot
from moe_operator.telemetry.own_requests import Own, OwnRequests
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


def answered(logprob: float | None, **choice: object) -> dict[str, object]:
    """One token, as vLLM answers; without log-probability where none was asked for."""
    logprobs = None if logprob is None else {"tokens": ["x"], "token_logprobs": [logprob]}
    made = {"text": "x", "finish_reason": "length", "logprobs": logprobs, **choice}
    return {"choices": [made], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}


class TestPage:
    def test_ranks_are_summed_and_the_worst_rank_tells_the_cache(self) -> None:
        found = parse_metrics(PAGE)
        assert found is not None
        seen = found.counters
        assert (seen.ranks, seen.running, seen.running_worst, seen.waiting) == (2, 5, 3, 4)
        assert (seen.prompt_tokens, seen.output_tokens) == (2500, 42)
        assert seen.kv_worst == 0.75
        assert (seen.first_token.total, seen.first_token.count) == (6.0, 3.0)

    def test_all_that_scaling_goes_by_is_read(self) -> None:
        told = EngineCounters(
            ranks=1, running=3, waiting=2, running_worst=3, kv_worst=0.5, kv_sum=0.5, prompt_tokens=1e6,
            cached_prompt_tokens=4e5, output_tokens=3e5, finished=800.0, aborted=7.0, preemptions=2.0,
            inter_token_sum=12.5, inter_token_count=500.0,
            first_token=histogram(0.05, 0.5, 3.0), per_token=histogram(0.02, 0.02),
        )  # fmt: skip
        found = parse_metrics(page({11: told}))
        assert found is not None
        assert (found.ranks, found.counters) == ({b"11"}, told)

    def test_requests_that_an_engine_failed_are_not_finished(self) -> None:
        """Lost: the mean length of an answer, by which load is foreseen."""
        lines = [
            f'vllm:request_success_total{{engine="0",finished_reason="{reason}",model_name="x"}} {count}.0'
            for reason, count in (("stop", 1), ("length", 2), ("abort", 4), ("error", 8), ("repetition", 16))
        ]
        found = parse_metrics(PAGE + "\n".join(lines).encode())
        assert found is not None
        assert (found.counters.finished, found.counters.aborted) == (19, 12)

    def test_a_page_without_buckets_has_the_count(self) -> None:
        found = parse_metrics(b"\n".join(line for line in PAGE.splitlines() if b"_bucket" not in line))
        assert found is not None
        assert found.counters.first_token == Histogram((float("inf"),), (3.0,), 6.0)
        assert found.counters.per_token == Histogram()

    def test_a_page_without_vllm_says_nothing(self) -> None:
        assert parse_metrics(b"process_cpu_seconds_total 3.0\n") is None

    def test_nan_is_not_a_figure_and_its_rank_is_not_covered(self) -> None:
        found = parse_metrics(PAGE.replace(b"0.75", b"NaN"))
        assert found is not None
        assert (found.counters.kv_worst, found.ranks) == (0.25, {b"0"})


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

    def test_a_rank_that_is_missing_from_a_page_is_told_and_its_return_is_no_load(self) -> None:
        """Lost: a group more for every page that was cut short, as all that a rank ever did seems new."""
        window = PodWindow("u")
        window.add(0, metrics((0, 1), output_tokens=3000.0), None)
        window.add(5, metrics((0,), output_tokens=1000.0), None)
        seen = window.observation()
        assert seen is not None
        assert (seen.counters.ranks, seen.counters.ranks_lost, seen.counters.since) == (1, 1, 5)
        window.add(10, metrics((0, 1), output_tokens=3100.0), None)
        seen = window.observation()
        assert seen is not None
        assert (seen.counters.ranks, seen.counters.ranks_lost, seen.counters.since) == (2, 0, 10)
        assert seen.output_tokens_per_second == 0

    @pytest.mark.parametrize("name", ["finished", "aborted", "preemptions", "cached_prompt_tokens"])
    def test_any_counter_that_falls_tells_that_the_engine_began_anew(self, name) -> None:
        window = PodWindow("u")
        window.add(0, metrics(**{name: 5.0}), None)
        window.add(5, metrics(**{name: 4.0}), None)
        seen = window.observation()
        assert seen is not None
        assert seen.counters.since == 5

    def test_sums_of_seconds_that_are_added_up_in_another_order_are_no_restart(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(inter_token_sum=0.1 + 0.2 + 0.3, inter_token_count=3.0), None)
        window.add(5, metrics(inter_token_sum=0.3 + 0.2 + 0.1, inter_token_count=3.0), None)
        seen = window.observation()
        assert seen is not None
        assert seen.counters.since == 0

    def test_latency_is_the_mean_of_what_happened_in_the_window(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(first_token=histogram(*[10.0] * 10)), None)
        window.add(5, metrics(first_token=histogram(*[10.0] * 10, 1.0, 2.0), prompt_tokens=60), None)
        seen = window.observation()
        assert seen is not None
        assert seen.time_to_first_token == pytest.approx(1.5)
        assert seen.time_per_output_token is None


class TestOwnRequests:
    """What the operator asks for is no load."""

    @staticmethod
    def _seen(window: PodWindow) -> PodObservation:
        seen = window.observation()
        assert seen is not None
        return seen

    def test_a_canary_is_neither_work_nor_progress_nor_use_whenever_the_scrape_comes(self) -> None:
        own, window = OwnRequests(), PodWindow("u")
        window.add(0, metrics(prompt_tokens=100, output_tokens=50), 0, own=own.of("u"))
        with own.asking("u", 2) as asked:
            window.add(
                5, metrics(prompt_tokens=100, output_tokens=50, running=1, waiting=1), 2, own=own.of("u")
            )
            assert not self._seen(window).busy
            # Counted by the engine, and not yet answered.
            window.add(
                10,
                metrics(prompt_tokens=106, output_tokens=52, first_token=histogram(0.1, 0.1)),
                0,
                own=own.of("u"),
            )
            asked.prompt_tokens, asked.output_tokens = 6, 2
        window.add(
            15,
            metrics(prompt_tokens=106, output_tokens=52, first_token=histogram(0.1, 0.1)),
            0,
            own=own.of("u"),
        )
        seen = self._seen(window)
        assert (seen.prompt_tokens_per_second, seen.output_tokens_per_second) == (0, 0)
        assert seen.time_to_first_token is None
        assert (seen.used_at, seen.progress_at, seen.requests) == (0, 15, 0)

    def test_requests_of_others_beside_it_count(self) -> None:
        own, window = OwnRequests(), PodWindow("u")
        window.add(0, metrics(), 0, own=own.of("u"))
        with own.asking("u", 1):
            window.add(5, metrics(running=3, waiting=1), 4, own=own.of("u"))
        seen = self._seen(window)
        assert (seen.running, seen.waiting, seen.in_flight, seen.used_at) == (2, 1, 3, 5)

    def test_a_request_between_two_scrapes_is_use(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(output_tokens=50), 0)
        window.add(5, metrics(output_tokens=51), 0)
        window.add(10, metrics(output_tokens=51), 0)
        assert self._seen(window).used_at == 5

    def test_a_canary_that_never_answers_takes_nothing_off_for_good(self) -> None:
        own, window = OwnRequests(), PodWindow("u")
        window.add(0, metrics(output_tokens=50), 0, own=own.of("u"))
        with own.asking("u", 4):
            window.add(5, metrics(output_tokens=50), 4, own=own.of("u"))
        window.add(10, metrics(output_tokens=60), 0, own=own.of("u"))
        assert self._seen(window).output_tokens_per_second == 1

    def test_a_canary_is_in_no_figure_that_it_can_be_told_apart_in(self) -> None:
        own, window = OwnRequests(), PodWindow("u")
        before = metrics((0, 1), running=3, running_worst=2, finished=9.0, per_token=histogram(0.5, 0.5))
        window.add(0, before, 3, own=own.of("u"))
        with own.asking("u", 2) as asked:
            busy = metrics((0, 1), running=5, running_worst=3, finished=9.0, per_token=histogram(0.5, 0.5))
            window.add(5, busy, 5, own=own.of("u"))
            seen = self._seen(window).counters
            assert (seen.running, seen.running_worst, seen.finished) == (3, 2, 9)
            asked.output_tokens = 2
        after = histogram(0.5, 0.5, 0.0, 0.0)
        told = metrics((0, 1), running=3, running_worst=2, output_tokens=2.0, finished=11.0, per_token=after)
        window.add(10, told, 3, own=own.of("u"))
        seen = self._seen(window).counters
        assert (seen.running_worst, seen.output_tokens, seen.finished) == (2, 0, 9)
        assert seen.per_token == histogram(0.5, 0.5)

    def test_a_canary_does_not_shorten_the_time_per_output_token(self) -> None:
        own, window = OwnRequests(), PodWindow("u")
        window.add(0, metrics(), 0, own=own.of("u"))
        with own.asking("u", 1) as asked:
            asked.output_tokens = 1
        told = metrics(output_tokens=11.0, per_token=histogram(0.5, 0.0))
        window.add(5, told, 0, own=own.of("u"))
        assert self._seen(window).time_per_output_token == 0.5

    def test_the_canary_that_let_an_engine_in_is_nobodys(self) -> None:
        """It is asked before there is a scrape. Lost: a request and its tokens per engine, in every account."""
        own, window = OwnRequests(), PodWindow("u")
        with own.asking("u", 4) as asked:
            asked.prompt_tokens, asked.output_tokens = 8, 4
        window.add(0, metrics(prompt_tokens=8, output_tokens=4, finished=4), 0, own=own.of("u"))
        counted = self._seen(window).counters
        assert (counted.prompt_tokens, counted.output_tokens, counted.finished) == (0, 0, 0)
        other = PodWindow("u")
        other.add(0, metrics(prompt_tokens=1, output_tokens=1, finished=1), 0, own=own.of("u"))
        counted = self._seen(other).counters
        assert (counted.prompt_tokens, counted.output_tokens) == (1, 1), (
            "an engine that began after it was asked"
        )

    def test_what_a_canary_took_is_no_latency(self) -> None:
        """Lost: a time to first token of a model that nobody asks, and two passes for each canary."""
        own, window = OwnRequests(), PodWindow("u")
        window.add(0, metrics(first_token=histogram()), 0, own=own.of("u"))
        with own.asking("u", 1) as asked:
            asked.prompt_tokens = asked.output_tokens = 1
        told = metrics(prompt_tokens=1, output_tokens=1, finished=1, first_token=histogram(0.2))
        window.add(5, told, 0, own=own.of("u"))
        assert not self._seen(window).timed
        used = metrics(prompt_tokens=9, output_tokens=9, finished=2, first_token=histogram(0.2, 0.2))
        window.add(10, used, 0, own=own.of("u"))
        assert self._seen(window).timed

    def test_after_a_restart_of_the_engine_earlier_canaries_do_not_count(self) -> None:
        own, window = OwnRequests(), PodWindow("u")
        with own.asking("u", 100) as asked:
            asked.output_tokens = 100
        window.add(0, metrics(output_tokens=150), 0, own=own.of("u"))
        window.add(5, metrics(output_tokens=0), 0, own=own.of("u"))
        window.add(10, metrics(output_tokens=50), 0, own=own.of("u"))
        assert self._seen(window).output_tokens_per_second == 10

    def test_pods_that_are_gone_are_forgotten(self) -> None:
        own = OwnRequests()
        with own.asking("u", 1) as asked:
            asked.output_tokens = 1
            own.forget([])
            assert own.of("u").in_flight == 1
        own.forget([])
        assert own.of("u") == Own()


class TestGroup:
    """The reading of a group is that of all its pods, or none."""

    @staticmethod
    def _pod(uid: str, at: float, failures: int = 0, **figures: float) -> PodObservation:
        window = PodWindow(uid)
        window.add(at, metrics(**figures), 0)
        for _ in range(failures):
            window.failed()
        seen = window.observation()
        assert seen is not None
        return seen

    def test_sums_and_the_worst(self) -> None:
        first = self._pod("a", 7, running=3, running_worst=3, kv_worst=0.5, per_token=histogram(0.05))
        second = self._pod("b", 9, running=4, running_worst=4, kv_worst=0.2, per_token=histogram(3.0))
        found = Snapshot({"a": first, "b": second}, 10).counters(["a", "b"])
        assert found is not None
        assert (found.ranks, found.running, found.running_worst, found.kv_worst) == (2, 7, 4, 0.5)
        assert (found.at, found.since) == (7, 9)
        assert found.per_token == Histogram(BOUNDS, (0, 1, 1, 2), 3.05)

    def test_a_pod_of_which_nothing_is_known_leaves_nothing_to_say(self) -> None:
        """Lost: half a group's load for the whole of it, and a group too few."""
        snapshot = Snapshot({"a": self._pod("a", 7), "b": self._pod("b", 7, failures=2)}, 10)
        assert snapshot.counters(["a", "gone"]) is None
        assert snapshot.counters([]) is None
        assert snapshot.counters(["a", "b"], tolerated_failures=1) is None
        assert snapshot.counters(["a", "b"], tolerated_failures=2) is not None

    def test_no_pods_are_no_group(self) -> None:
        with pytest.raises(ValueError, match="no readings"):
            merged([])


class Engine:
    """An HTTP server that answers as a pod does."""

    def __init__(self) -> None:
        self.page, self.in_flight, self.idle, self.asked = PAGE, 0, 0, []
        self.answer: web.Response | None = None
        self.refuses_logprobs = False
        self.draining: dict[str, float] | None = None
        self.guarded = False
        """Whether clients need a key."""

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

    async def test_what_is_not_used_of_a_page_is_counted(self, engine) -> None:
        server, port, session = engine
        server.page = PAGE.replace(b"0.75", b"NaN")
        targets, ignored = [Target(("ns", "d"), "uid", "127.0.0.1", port)], Counts()
        collector = Collector(
            session, lambda: targets, lambda _: None, lambda: 100.0, on_ignored=ignored.update
        )
        await collector.round()
        assert dict(ignored) == {Ignored.NOT_A_NUMBER: 1}

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
        server.page = PAGE.replace(b"} 3.0", b"} 0").replace(b"} 2.0", b"} 0").replace(b"} 4.0", b"} 0")
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
        server.page = PAGE.replace(b"} 3.0", b"} 0").replace(b"} 2.0", b"} 0").replace(b"} 4.0", b"} 0")
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
