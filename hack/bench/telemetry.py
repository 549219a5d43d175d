"""`python -m bench.telemetry`: what a round of telemetry takes, by the number of pods.

A second process plays engines and exporters on loopback addresses of their own, with pages as long as real ones: 50 KB
for each of eight ranks, with all buckets of vLLM's histograms, and all figures of DCGM exporter's chart for eight GPUs;
counters grow with every look. The first one runs the operator's own loops over HTTP: every engine, every exporter, the
figures of every deployment (five pods in two groups), the page of metrics and the page of figures that come of them.
Windows are full: as many rounds are read as five minutes have, by a clock of its own. Processor seconds are those of
that process in the last round.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
from prometheus_client import generate_latest

from factories.deployments import group_plan
from factories.engine_pages import FIRST_TOKEN_BOUNDS, PER_TOKEN_BOUNDS, counters, entered
from factories.engine_pages import page as engine_page
from factories.exporter_pages import b200, dcgm_page, of_pod
from factories.groups import group, pod
from moe_operator.controller.delivered import KnownGroup
from moe_operator.controller.delivered_keeper import DeliveredKeeper, _Kept
from moe_operator.controller.group_planner import GroupState
from moe_operator.controller.hbm import hbm_figures
from moe_operator.controller.objective_counts import Objective
from moe_operator.runtime.figures_page import deployment_data
from moe_operator.runtime.metrics import Metrics, WatchedValues
from moe_operator.runtime.reporting import delivered as delivered_reported
from moe_operator.runtime.reporting import hbm as reported
from moe_operator.telemetry.accelerators import AcceleratorWatch
from moe_operator.telemetry.collector import Collector, Target
from moe_operator.telemetry.memory_book import MemoryBook
from moe_operator.telemetry.pod_memory import NodePod

_RANKS, _PODS_OF_A_DEPLOYMENT = 8, 5
#: Bytes of an engine's page for each rank.
_PAGE_PER_RANK = 50_000
_POD = b"POD-OF-THIS-NODE"
#: Figures that DCGM exporter has and the operator does not read, in its chart's configuration.
_UNREAD = 12
#: Of the columns that are printed.
_WIDTHS = (6, 7, 11, 13, 9, 8, 9, 11, 12, 8)
#: Pages of an engine, one after the other, and seconds between two of them by the collector's clock.
_LOOKS, _APART = 12, 30.0
#: What is asked of it: 5 s and 400 MB for a round, 5 MB for the page of metrics.
_MOST = {"round": 5.0, "MB resident": 400.0, "MB page": 5.0}


def _engine_page(look: int = 0) -> bytes:
    """Of eight ranks, with as many lines between as vLLM has. More of everything with each look."""
    times = {0.15 + 0.1 * n: 7 * look * (n + 1) for n in range(20)}
    seen = counters(
        running=20,
        waiting=3,
        kv_sum=0.5,
        kv_worst=0.5,
        prompt_tokens=1e6 * look,
        output_tokens=2e5 * look,
        prefix_queries=1e6 * look,
        prefix_hits=3e5 * look,
        draft_tokens=1.0 + 3e5 * look,
        accepted_tokens=2e5 * look,
        finished=1000.0 * look,
        inter_token_count=2e5 * look,
        first_token=entered(FIRST_TOKEN_BOUNDS, times),
        per_token=entered(PER_TOKEN_BOUNDS, {time / 10: n for time, n in times.items()}),
    )
    told = engine_page(dict.fromkeys(range(_RANKS), seen), "Qwen/Qwen3.5-397B-A17B")
    lines = [told.decode()]
    size, at = len(told), 0
    while size < _PAGE_PER_RANK * _RANKS:
        lines.append(
            f'vllm:e2e_request_latency_seconds_bucket{{engine="{at % _RANKS}",le="{at // _RANKS}.0",'
            f'model_name="Qwen/Qwen3.5-397B-A17B"}} {at}.0'
        )
        size, at = size + len(lines[-1]) + 1, at + 1
    return "\n".join(lines).encode() + b"\n"


def _exporter_page() -> bytes:
    """Of eight GPUs of one pod."""
    gpus = [b200(gpu, pod=of_pod(_POD.decode())) for gpu in range(_RANKS)]
    more = dcgm_page([b200(gpu, pod=of_pod(_POD.decode())) for gpu in range(_RANKS)])
    unread = b"".join(
        more.replace(b"DCGM_FI_DEV_SM_CLOCK", b"DCGM_FI_DEV_OTHER_%d" % n).split(b"# HELP DCGM_FI_DEV_POWER")[
            0
        ]
        for n in range(_UNREAD)
    )
    return dcgm_page(gpus) + unread


def _play(ready: Connection) -> None:
    """Answers GET at every loopback address: 127.1.x.y as an exporter, 127.2.x.y as an engine."""
    exporter, engines = _exporter_page(), [_engine_page(look) for look in range(_LOOKS)]
    looks: Counter[int] = Counter()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("sockname")[0].split(".")
        number = int(host[2]) * 250 + int(host[3]) - 1
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                if host[1] == "1":
                    body = exporter.replace(_POD, b"pod-%d" % number)
                else:
                    body = engines[looks[number] % _LOOKS]
                    looks[number] += 1
                writer.write(head % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "0.0.0.0", 0, backlog=1024)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def _host(kind: int, number: int) -> str:
    return f"127.{kind}.{number // 250}.{number % 250 + 1}"


def _groups_of(first: int) -> tuple[KnownGroup, ...]:
    """A group of two pods and one of three."""
    found = []
    for slot, numbers in enumerate((range(first, first + 2), range(first + 2, first + 5))):
        name = f"d-{first // _PODS_OF_A_DEPLOYMENT}-g{slot}"
        pods = [
            pod(name, at, name=f"pod-{n}", uid=f"uid-{n}", node=f"node-{n}") for at, n in enumerate(numbers)
        ]
        facts = group(slot, size=len(pods), pods=pods, name=name, ranks_per_pod=_RANKS)
        plan = group_plan(len(pods), _RANKS, accelerator="B200")
        found.append(KnownGroup(facts, GroupState.SERVING, plan))
    return tuple(found)


async def _measure(pods: int, port: int, rounds: int) -> Iterator[tuple[str, float]]:
    keys = [("serving", f"d-{number // _PODS_OF_A_DEPLOYMENT}") for number in range(pods)]
    known = [
        NodePod(
            "serving", f"pod-{number}", f"uid-{number}", f"node-{number}", _RANKS, deployment=keys[number]
        )
        for number in range(pods)
    ]
    targets = [
        Target(keys[number], f"uid-{number}", _host(2, number), port, agent=False) for number in range(pods)
    ]
    exporters = {f"node-{number}": _host(1, number) for number in range(pods)}

    async def addresses() -> dict[str, str]:
        return exporters

    book = MemoryBook(lambda: known, lambda _: _RANKS, "engine", lambda _: None, time.time)
    plan = group_plan(1, _RANKS, accelerator="B200")
    groups = {
        f"uid-{number}": group(
            pods=[pod(f"g-{number}", 0, name=f"pod-{number}", uid=f"uid-{number}")],
            size=1,
            ranks_per_pod=_RANKS,
        )
        for number in range(pods)
    }
    now = [0.0]
    spent: dict[str, float] = {}
    metrics = Metrics()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        collector = Collector(session, lambda: targets, lambda _: None, lambda: now[0])
        watch = AcceleratorWatch(session, addresses, lambda _: None, time.time, port, book)

        def figures() -> Iterator[tuple[tuple[str, str], Any]]:
            memory, engines = book.snapshot(), collector.snapshot().pods
            for number in range(0, pods, _PODS_OF_A_DEPLOYMENT):
                mine = [(groups[f"uid-{n}"], plan) for n in range(number, number + _PODS_OF_A_DEPLOYMENT)]
                if (found := hbm_figures(mine, memory, engines)) is not None:
                    yield keys[number], found

        delivered = DeliveredKeeper(collector.snapshot, book.snapshot)
        for number in range(0, pods, _PODS_OF_A_DEPLOYMENT):
            delivered._kept[keys[number]] = _Kept(_groups_of(number), Objective(2.0, 0.05))

        metrics.watch_values(
            WatchedValues(
                hbm=lambda: reported(figures()),
                delivered=lambda: delivered_reported(delivered.all()),
            )
        )
        for number in range(rounds):
            now[0] += _APART
            exporters_too = [("exporters", watch.round)] if number >= rounds - 2 else []
            for name, work in [("engines", collector.round), *exporters_too]:
                before = time.process_time()
                await work()
                spent[name] = time.process_time() - before
        assert len(collector.snapshot().pods) == pods, "every engine was read"
        assert sum(len(seen.gpus) for seen in book.snapshot().values()) == pods * _RANKS
        before = time.process_time()
        page = generate_latest(metrics.registry)
        spent["metrics page"] = time.process_time() - before
        spent["MB page"] = len(page) / 1e6
        assert page.count(b"moe_operator_time_to_first_token_seconds{") == 3 * len(delivered.deployments())
        before, size = time.process_time(), 0
        for key in delivered.deployments():
            detail = delivered.detail(key)
            assert detail is not None
            size += len(json.dumps(deployment_data(*detail)))
        spent["figures page"] = time.process_time() - before
        spent["MB figures"] = size / 1e6
    return iter(spent.items())


def _child(pods: int, port: int, rounds: int, result: Connection) -> None:
    spent = dict(asyncio.run(_measure(pods, port, rounds)))
    spent["MB resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result.send(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, nargs="*", default=[250, 500, 1000])
    parser.add_argument("--rounds", type=int, default=_LOOKS, help="the last one counts")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    ready, port_of = spawn.Pipe()
    player = spawn.Process(target=_play, args=(port_of,), daemon=True)
    player.start()
    port = ready.recv()
    print(f"pages: engine {len(_engine_page()) / 1e3:.0f} KB, exporter {len(_exporter_page()) / 1e3:.0f} KB")
    titles = (
        "PODS", "GPUS", "ENGINES s", "EXPORTERS s", "ROUND s", "PAGE s", "PAGE MB", "FIGURES s", "FIGURES MB", "RSS MB",
    )  # fmt: skip
    beyond = []
    print("".join(f"{title:>{width}}" for title, width in zip(titles, _WIDTHS, strict=True)))
    for pods in options.pods:
        mine, theirs = spawn.Pipe()
        child = spawn.Process(target=_child, args=(pods, port, options.rounds, theirs))
        child.start()
        spent = mine.recv()
        child.join()
        told = (
            str(pods),
            str(pods * _RANKS),
            f"{spent['engines']:.2f}",
            f"{spent['exporters']:.2f}",
            f"{spent['engines'] + spent['exporters']:.2f}",
            f"{spent['metrics page']:.2f}",
            f"{spent['MB page']:.2f}",
            f"{spent['figures page']:.2f}",
            f"{spent['MB figures']:.2f}",
            f"{spent['MB resident']:.0f}",
        )
        print("".join(f"{text:>{width}}" for text, width in zip(told, _WIDTHS, strict=True)))
        spent["round"] = spent["engines"] + spent["exporters"]
        beyond += [
            f"{pods} pods: {name} {spent[name]:.2f}" for name, most in _MOST.items() if spent[name] > most
        ]
    player.terminate()
    if beyond:
        raise SystemExit(f"more than is asked for ({_MOST}): {'; '.join(beyond)}")


if __name__ == "__main__":
    main()
