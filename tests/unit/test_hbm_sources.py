"""Reading exporters, engines, kubelets and Prometheus over HTTP, also those that mean harm.

Lost if a bound does not hold: the operator's memory or its round, and with them every deployment's figures, to one pod
that sends gigabytes; or the operator's token, to whoever stands where a kubelet was."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from factories.exporter_pages import amd_page, b200, dcgm_page, kubelet_page, of_pod, series_of
from fakecluster.clock import run_virtual
from moe_operator.telemetry import accelerators
from moe_operator.telemetry.accelerator_memory import DCGM_NAMES, dcgm_memory
from moe_operator.telemetry.accelerators import NAMES, AcceleratorWatch
from moe_operator.telemetry.collector import Collector, Target
from moe_operator.telemetry.ignored import Counts, Ignored
from moe_operator.telemetry.memory_book import INTERVAL, MemoryBook
from moe_operator.telemetry.memory_sources import AmdExporters, KubeletAccess, exporter_page
from moe_operator.telemetry.page_reader import PageError, Wanted, _lines, address, read_page
from moe_operator.telemetry.pod_memory import NodePod
from moe_operator.telemetry.prometheus_pages import PrometheusPages

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
POD = NodePod("serving", "tiny-g0-0", "uid-a", "node-0", devices=2, deployment=("serving", "tiny"))
PAGE = dcgm_page([b200(0, pod=of_pod("tiny-g0-0")), b200(1, pod=of_pod("tiny-g0-0")), b200(2)])


class Server:
    """Answers as `handler` says, on a port of its own."""

    def __init__(self) -> None:
        self.handler: Handler | None = None
        self.asked: list[web.Request] = []
        self.port = 0
        self.sent = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        assert self.handler is not None
        return await self.handler(request)

    def says(self, body: bytes, **more: Any) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            return web.Response(body=body, **more)

        self.handler = handle

    def streams(self, chunk: bytes, pause: float = 0.0) -> None:
        """For ever, until nobody listens."""

        async def handle(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(chunk)
                self.sent += len(chunk)
                await asyncio.sleep(pause)

        self.handler = handle


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_get("/{rest:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


WANTED = Wanted((b"DCGM_FI_DEV_FB_USED",), 2**20)


async def read(server: Server, session: aiohttp.ClientSession, seconds: float = 5.0) -> list[bytes]:
    return await read_page(session, address("127.0.0.1", server.port, "/metrics"), WANTED, seconds)


class TestPage:
    async def test_only_what_is_wanted_is_kept_however_it_is_cut(self, server, session) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for at in range(0, len(PAGE), 7):
                await response.write(PAGE[at : at + 7])
            return response

        server.handler = handle
        lines = await read(server, session)
        assert lines == [line for line in PAGE.split(b"\n") if line.startswith(b"DCGM_FI_DEV_FB_USED")]
        assert len(lines) == 3
        assert server.asked[0].headers["Accept-Encoding"] == "identity"

    async def test_a_last_line_without_its_end_counts(self, server, session) -> None:
        server.says(b"a\nDCGM_FI_DEV_FB_USED 5")
        assert await read(server, session) == [b"DCGM_FI_DEV_FB_USED 5"]

    @pytest.mark.parametrize(
        ("chunk", "pause", "reason"),
        [
            (b"# nothing that matters\n" * 4096, 0.0, Ignored.PAGE_TOO_LONG),
            (b"x" * 65536, 0.0, Ignored.LINE_TOO_LONG),
            (b"DCGM_FI_DEV_FB_USED{" + b'a="b",' * 10_000, 0.0, Ignored.LINE_TOO_LONG),
            (b"#\n", 0.02, Ignored.TOO_SLOW),
        ],
        ids=["gigabytes", "one line", "one series", "a drop at a time"],
    )
    async def test_what_never_ends_is_given_up(self, server, session, chunk, pause, reason) -> None:
        server.streams(chunk, pause)
        with pytest.raises(PageError) as error:
            await read(server, session, 0.5 if pause else 20.0)
        assert error.value.ignored is reason
        assert server.sent < 64 * 2**20, "the connection is closed, not read to its end"

    async def test_what_was_packed_unasked_is_not_unpacked(self, server, session) -> None:
        server.says(gzip.compress(b"#\n" * 10_000_000), headers={"Content-Encoding": "gzip"})
        with pytest.raises(PageError) as error:
            await read(server, session)
        assert error.value.ignored is Ignored.ENCODED

    async def test_nobody_there_refusals_and_redirections_are_no_pages(self, server, session) -> None:
        server.says(b"", status=302, headers={"Location": "/metrics"})
        with pytest.raises(PageError, match="HTTP 302"):
            await read(server, session)
        assert len(server.asked) == 1
        server.port = 1
        with pytest.raises(PageError) as error:
            await read(server, session)
        assert error.value.ignored is None


class TestEngines:
    async def test_an_engine_that_sends_gigabytes_costs_its_own_figures_alone(self, server, session) -> None:
        server.streams(b"vllm:num_requests_running 1\n" * 1000)
        ignored = Counts()
        target = Target(("ns", "d"), "uid", "127.0.0.1", server.port)
        collector = Collector(
            session, lambda: [target], lambda _: None, lambda: 100.0, on_ignored=ignored.update
        )
        await collector.round()
        assert collector.snapshot().pods == {}
        assert sum(ignored.values()) == 1
        assert set(ignored) <= {Ignored.PAGE_TOO_LONG, Ignored.TOO_SLOW}


def book_of(*pods: NodePod, ignored: Counts | None = None) -> MemoryBook:
    counts = ignored if ignored is not None else Counts()
    return MemoryBook(lambda: pods, lambda _: 8, "engine", lambda _: None, lambda: 1000.0, counts.update)


class TestWatch:
    async def test_memory_and_faults_come_of_one_page(self, server, session) -> None:
        server.says(PAGE)
        book = book_of(POD)

        async def exporters() -> dict[str, str]:
            return {"node-0": "127.0.0.1"}

        watch = AcceleratorWatch(session, exporters, lambda _: None, lambda: 1000.0, server.port, book)
        await watch.round()
        assert [gpu.index for gpu in book.snapshot()["uid-a"].gpus] == ["0", "1"]
        assert len(server.asked) == 1

    async def test_amds_exporter(self, server, session) -> None:
        server.says(amd_page({0: (1, 10), 1: (2, 10), 2: (3, 10)}, {0: "tiny-g0-0", 2: "tiny-g0-0"}))
        book = book_of(POD)
        book.begin()

        async def exporters() -> dict[str, str]:
            return {"node-0": "127.0.0.1"}

        await AmdExporters(session, exporters, server.port, "", Counts().update).read(book)
        assert [gpu.index for gpu in book.snapshot()["uid-a"].gpus] == ["0", "2"]

    def test_rounds_begin_at_a_fixed_rate_so_that_slow_ones_keep_their_figures(self) -> None:
        """Lost: measured figures, which stand 27 s: rounds of 13 s that came 15 s after each other's end let them
        lapse in every one."""
        book_holds, begun = [], []

        def now() -> float:
            return asyncio.get_running_loop().time()

        async def exporters() -> dict[str, str]:
            begun.append(now())
            for _ in range(13):
                await asyncio.sleep(1)
                book_holds.append("uid-a" in book.snapshot())
            watch.take("node-0", series_of(PAGE, NAMES).series)
            return {}

        async def look() -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(watch.run(), 100)

        book = MemoryBook(lambda: [POD], lambda _: 8, "engine", lambda _: None, now)
        watch = AcceleratorWatch(cast(aiohttp.ClientSession, None), exporters, lambda _: None, now, 1, book)
        run_virtual(look)
        assert [later - earlier for earlier, later in pairwise(begun)] == pytest.approx(
            [INTERVAL] * 6, abs=0.1
        )
        assert all(book_holds[13:])

    async def test_a_round_that_raises_is_followed_by_the_next(self, session, monkeypatch, caplog) -> None:
        """Lost: faults and memory of all GPUs until somebody restarts the operator, as nothing said so."""
        monkeypatch.setattr(accelerators, "INTERVAL", 0.0)
        again, ignored, rounds = asyncio.Event(), Counts(), []

        class Source:
            async def read(self, book: MemoryBook) -> None:
                if len(rounds) > 2:
                    again.set()
                else:
                    raise AssertionError("unforeseen")

        async def exporters() -> dict[str, str]:
            rounds.append(watch.last_round)
            if len(rounds) == 1:
                raise AssertionError("unforeseen too")
            return {}

        watch = AcceleratorWatch(
            session, exporters, lambda _: None, lambda: 1.0, 1, book_of(POD), [Source()], ignored.update
        )
        running = asyncio.create_task(watch.run())
        await asyncio.wait_for(again.wait(), 20)
        assert not running.done()
        running.cancel()
        assert rounds == sorted(set(rounds)), (
            "a round that raised has ended too: a restart would meet the same"
        )
        assert dict(ignored) == {Ignored.UNFORESEEN: 2}
        assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"], "each said once"

    async def test_what_nobody_foresaw_of_one_node_costs_that_node(
        self, server, session, monkeypatch
    ) -> None:
        server.says(PAGE)
        ignored, asked = Counts(), []
        book = book_of(POD, ignored=ignored)

        def memory(series: Any) -> Any:
            asked.append(series)
            if len(asked) == 1:
                raise AssertionError("unforeseen")
            return dcgm_memory(series)

        monkeypatch.setattr(accelerators, "dcgm_memory", memory)
        hosts = {"node-9": "127.0.0.1", "node-0": "127.0.0.1"}

        async def exporters() -> dict[str, str]:
            return hosts

        watch = AcceleratorWatch(
            session, exporters, lambda _: None, lambda: 1.0, server.port, book, on_ignored=ignored.update
        )
        await watch._read("node-9", "127.0.0.1")
        hosts.pop("node-9")
        await watch.round()
        assert len(asked) == 2
        assert len(book.snapshot()["uid-a"].gpus) == 2
        assert dict(ignored) == {Ignored.UNFORESEEN: 1}

    async def test_a_kubelet_is_asked_with_the_operators_token(self, server, session) -> None:
        server.says(kubelet_page({("serving", "tiny-g0-0", "engine"): 12_288}))
        access = KubeletAccess(True, {"Authorization": "Bearer t"})
        url = address("127.0.0.1", server.port, "/metrics/resource")
        page = await exporter_page(
            session, url, frozenset({"container_memory_working_set_bytes"}), Counts().update, access.headers
        )
        assert page is not None
        assert [one.value for one in page.series] == [12_288]
        assert server.asked[0].headers["Authorization"] == "Bearer t"


class _Pieces:
    """A body that comes in pieces of a size."""

    def __init__(self, body: bytes, size: int) -> None:
        self._body, self._size = body, size

    async def iter_any(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._body), self._size):
            yield self._body[at : at + self._size]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10**6])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
async def test_lines_are_found_however_a_page_comes(size: int, end: bytes) -> None:
    page = b'vllm:b 1\nvllm:ab 2\n\n# vllm:a 3\nvllm:a 4\nxvllm:a 5\nvllm:c 6\nvllm:a{x="y"} 7' + end
    for beginnings in ((b"vllm:a", b"vllm:c"), (b"vllm:a",), (b"vllm:", b"#"), ()):
        found = await _lines(cast(aiohttp.StreamReader, _Pieces(page, size)), Wanted(beginnings))
        assert found == [line for line in page.split(b"\n") if line.startswith(beginnings)]


def prometheus_answer(page: bytes, name: str, rename: bool = False) -> dict[str, Any]:
    """A scraped page as an instant query returns it; `rename`: without honorLabels."""
    result = []
    for one in series_of(page, DCGM_NAMES).series:
        if one.name != name:
            continue
        labels = dict(one.labels)
        if rename:
            labels = {
                f"exported_{k}" if k in ("pod", "namespace", "container") else k: v for k, v in labels.items()
            }
            labels |= {"pod": "exporter-x", "namespace": "gpu-operator", "container": "exporter"}
        metric = {"__name__": name, "job": "dcgm", "instance": "10.0.0.1:9400", **labels}
        result.append({"metric": metric, "value": [1764514822.1, f"{one.value:g}"]})
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


class TestPrometheus:
    @pytest.mark.parametrize("rename", [False, True])
    async def test_the_same_is_known_as_from_the_exporters(self, server, session, rename) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            name = request.query["query"]
            return web.json_response(prometheus_answer(PAGE, name, rename))

        server.handler = handle
        book = book_of(POD)
        ignored = Counts()
        url = f"http://127.0.0.1:{server.port}"
        pages = PrometheusPages(session, url, lambda: "t", ignored.update)

        async def nobody() -> dict[str, str]:
            raise AssertionError("exporters are not asked")

        watch = AcceleratorWatch(session, nobody, lambda _: None, lambda: 1000.0, 1, book, prometheus=pages)
        await watch.round()
        (first, _) = book.snapshot()["uid-a"].gpus
        assert (first.used, first.usable) == (163_840 * 2**20, 182_642 * 2**20)
        assert first.watts == pytest.approx(702.437)
        assert not ignored
        assert {request.path for request in server.asked} == {"/api/v1/query"}
        assert server.asked[0].headers["Authorization"] == "Bearer t"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"[]",
            b"{}",
            b'{"data": {"resultType": "matrix", "result": []}}',
            b'{"data": {"resultType": "vector", "result": 5}}',
            b'{"data": {"resultType": "vector", "result": [5, {}, {"metric": 1, "value": []}]}}',
            b"[" * 100_000,
            b'{"data": {"resultType": "vector", "result": [{"metric": {"node": "node-0"}, "value": [0, 1'
            + b"0" * 400
            + b"]}]}}",
            json.dumps(
                {
                    "data": {
                        "resultType": "vector",
                        "result": [{"metric": {"node": "node-0"}, "value": [0, "NaN"]}],
                    }
                }
            ).encode(),
        ],
    )
    async def test_answers_that_are_none_are_counted(self, server, session, body) -> None:
        server.says(body)
        ignored = Counts()
        pages = PrometheusPages(session, f"http://127.0.0.1:{server.port}", lambda: None, ignored.update)
        assert await pages.read(["a"], frozenset({"node-0"})) == {}
        assert sum(ignored.values()) >= 1

    async def test_a_few_figures_are_asked_for_at_once(self, server, session) -> None:
        """Lost: measured figures, to a Prometheus of which twenty answers take longer than a round may."""
        open_now, most, names, together = 0, 0, [f"f{at}" for at in range(9)], asyncio.Event()

        async def handle(request: web.Request) -> web.StreamResponse:
            nonlocal open_now, most
            open_now, name = open_now + 1, request.query["query"]
            most = max(most, open_now)
            if open_now == 4:
                together.set()
            await asyncio.wait_for(together.wait(), 20)
            for _ in range(0 if name == "f3" else 20):
                await asyncio.sleep(0)
            open_now -= 1
            found = [{"metric": {"node": "node-0"}, "value": [0, name[1:]]}]
            return web.json_response({"data": {"resultType": "vector", "result": found}})

        server.handler = handle
        pages = PrometheusPages(session, f"http://127.0.0.1:{server.port}", lambda: None, Counts().update)
        found = await pages.read(names, frozenset({"node-0"}))
        assert [(one.name, one.value) for one in found["node-0"]] == [(name, int(name[1:])) for name in names]
        assert most == 4

    async def test_nodes_without_pods_of_ours_are_left_out(self, server, session) -> None:
        server.says(json.dumps(prometheus_answer(PAGE, "DCGM_FI_DEV_FB_USED")).encode())
        pages = PrometheusPages(session, f"http://127.0.0.1:{server.port}", lambda: None, Counts().update)
        assert await pages.read(["DCGM_FI_DEV_FB_USED"], frozenset({"node-9"})) == {}
