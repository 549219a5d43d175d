"""Probes against real sockets: a wrong verdict restarts a healthy engine or routes to a dead one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubelet_contract import row
from localcluster.kubelet import handlers
from localcluster.kubelet.grace import Grace
from localcluster.kubelet.handlers import Target
from localcluster.kubelet.probes import ProbeCallbacks, Prober, ProbeSettings, Threshold


async def no_exec(argv: list[str], seconds: float) -> tuple[int, str]:
    return (0, "") if argv == ["true"] else (1, "said no\n")


def target(**container: Any) -> Target:
    return Target(container, "127.0.0.1", no_exec)


async def serve(answer: bytes) -> tuple[asyncio.Server, int, list[bytes]]:
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        if answer:
            writer.write(answer)
            await writer.drain()
            writer.close()
        else:
            await reader.read()
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1], seen


@row("probes")
@pytest.mark.parametrize(
    ("answer", "ok", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True, ""),
        (b"HTTP/1.0 302 Found\r\n\r\n", True, ""),
        (b"HTTP/1.1 503 No\r\n\r\nbusy", False, "statuscode: 503"),
        (b"SSH-2.0\r\n", False, "not HTTP"),
        (b"", False, "timed out after 0.2 s"),
    ],
)
async def test_an_http_probe_judges_by_the_status(answer: bytes, ok: bool, words: str) -> None:
    server, port, seen = await serve(answer)
    async with server:
        action = {
            "httpGet": {"port": "web", "path": "health", "httpHeaders": [{"name": "X-A", "value": "b"}]}
        }
        outcome = await handlers.run(action, target(ports=[{"name": "web", "containerPort": port}]), 0.2)
    assert outcome.ok is ok
    assert words in outcome.output
    assert seen[0].startswith(b"GET /health HTTP/1.1\r\n")
    assert b"X-A: b\r\n" in seen[0]
    assert b"User-Agent: kube-probe/" in seen[0]


@row("probes")
async def test_a_tcp_probe_needs_only_a_listener() -> None:
    server, port, _ = await serve(b"")
    async with server:
        assert (await handlers.run({"tcpSocket": {"port": port}}, target(), 1)).ok
        server.close()
        await server.wait_closed()
    refused = await handlers.run({"tcpSocket": {"port": port}}, target(), 1)
    assert "connection refused" in refused.output


@row("probes")
async def test_an_exec_probe_tells_what_the_command_said() -> None:
    assert (await handlers.run({"exec": {"command": ["true"]}}, target(), 1)).ok
    assert (await handlers.run({"exec": {"command": ["no"]}}, target(), 1)).output == "said no"


@row("probe-grpc")
async def test_a_grpc_probe_fails_with_a_reason() -> None:
    outcome = await handlers.run({"grpc": {"port": 1}}, target(), 1)
    assert not outcome.ok
    assert "use httpGet, tcpSocket or exec" in outcome.output


@row("probes")
def test_a_verdict_needs_its_number_of_equal_outcomes_in_a_row() -> None:
    threshold = Threshold(ProbeSettings(0, 1, 1, failures=3, successes=2))
    assert [threshold.observe(ok) for ok in (True, True, False, False, True, False, False, False)] == [
        False,
        True,
        False,
        False,
        False,
        False,
        False,
        True,
    ]
    assert threshold.verdict is False


@row("probes")
async def test_nothing_but_the_startup_probe_runs_until_it_passes() -> None:
    """Else a slow model load is killed by its liveness probe."""
    calls: list[str] = []
    done = asyncio.Event()

    async def execute(argv: list[str], seconds: float) -> tuple[int, str]:
        calls.append(argv[0])
        return (0 if argv[0] != "startup" or calls.count("startup") >= 3 else 1), ""

    quick = {"periodSeconds": 0.01, "failureThreshold": 100}
    container = {
        kind + "Probe": {"exec": {"command": [kind]}, **quick}
        for kind in ("startup", "liveness", "readiness")
    }
    events: list[str] = []
    callbacks = ProbeCallbacks(
        unhealthy=lambda kind, _output, fatal: events.append(f"{kind} {fatal}"),
        ready=lambda ok: (events.append(f"ready {ok}"), done.set())[0],
        started=lambda: events.append("started"),
    )
    prober = Prober(Target(container, "127.0.0.1", execute), callbacks, lambda: False)
    prober.start()
    await asyncio.wait_for(done.wait(), 5)
    prober.stop()
    assert calls[:3] == ["startup"] * 3
    assert events[:4] == ["startup False", "startup False", "started", "ready True"]


@row("probes")
async def test_a_container_that_never_starts_is_given_up() -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def unhealthy(kind: str, _output: str, fatal: bool) -> None:
        if fatal:
            ended.set_result(kind)

    container = {"startupProbe": {"exec": {"command": ["no"]}, "periodSeconds": 0.01, "failureThreshold": 2}}
    started: list[bool] = []
    callbacks = ProbeCallbacks(unhealthy, ready=lambda _: None, started=lambda: started.append(True))
    prober = Prober(target(**container), callbacks, lambda: False)
    prober.start()
    assert await asyncio.wait_for(ended, 5) == "startup"
    await asyncio.sleep(0)
    prober.stop()
    assert not started


@row("deletion")
async def test_a_grace_period_can_be_shortened_but_not_stretched() -> None:
    loop = asyncio.get_running_loop()
    grace, never = Grace(60), asyncio.Event()
    began = loop.time()
    loop.call_later(0.02, grace.shorten, 0.05)
    loop.call_later(0.03, grace.shorten, 30)
    assert not await grace.until(never.wait())
    assert 0.05 < loop.time() - began < 2
    never.set()
    assert await Grace(0).until(never.wait(), at_least=1)
