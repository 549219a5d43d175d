"""Connections that clients keep: a request that comes on one just as the server closes it fails."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moe_operator.agent import keep_alive
from moe_operator.agent.keep_alive import CLOSE_AFTER, IdleConnections
from moe_operator.agent.middleware import AgentMiddleware
from moe_operator.agent.settings import Settings
from unit.agent_driver import FakeEngine, ask


@dataclass(eq=False)
class FakeConnection:
    """What the agent uses of uvicorn's protocols; the engine layer has the real ones."""

    path: str = "/v1/completions"
    done: bool = True
    closed: bool = False
    cycle: Any = None
    transport: Any = field(default_factory=lambda: SimpleNamespace(is_closing=lambda: False))

    def __post_init__(self) -> None:
        self.another_request()

    def another_request(self) -> None:
        self.cycle = SimpleNamespace(scope={"path": self.path}, response_complete=self.done)

    def shutdown(self) -> None:
        self.closed = True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def is_work(scope: MutableMapping[str, Any]) -> bool:
    return str(scope["path"]).startswith("/v1/")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def idle(clock: Clock) -> IdleConnections:
    return IdleConnections(is_work, clock)


def test_the_server_keeps_connections_for_longer_than_clients_unless_the_user_says_otherwise() -> None:
    environment: dict[str, str] = {}
    keep_alive.install(environment)
    assert environment == {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "120"}
    environment["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = "7"
    keep_alive.install(environment)
    assert environment == {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "7"}


def test_a_connection_is_closed_once_short_lived_pools_have_given_it_up(
    idle: IdleConnections, clock: Clock
) -> None:
    connection = FakeConnection()
    assert idle.look([connection], CLOSE_AFTER) == 1
    clock.now += CLOSE_AFTER - 0.1
    assert idle.look([connection], CLOSE_AFTER) == 1
    assert not connection.closed
    clock.now += 0.2
    assert idle.look([connection], CLOSE_AFTER) == 0
    assert connection.closed


def test_another_request_makes_a_connection_young_again(idle: IdleConnections, clock: Clock) -> None:
    connection = FakeConnection()
    idle.look([connection], CLOSE_AFTER)
    clock.now += CLOSE_AFTER - 1
    connection.another_request()
    idle.look([connection], CLOSE_AFTER)
    clock.now += 2
    assert idle.look([connection], CLOSE_AFTER) == 1
    assert not connection.closed


def test_connections_under_way_or_of_probes_or_closing_are_let_be(idle: IdleConnections) -> None:
    """A scrape every second would keep a drain from ending; an answer would be cut."""
    closing = FakeConnection()
    closing.transport = SimpleNamespace(is_closing=lambda: True)
    new = FakeConnection()
    new.cycle = None
    others = [FakeConnection(done=False), FakeConnection(path="/metrics"), closing, new]
    assert idle.look(others, 0.0) == 0
    assert not any(c.closed for c in others)


async def test_a_drain_tells_of_connections_that_clients_keep(tmp_path: Path) -> None:
    """The group would be deleted under a client that sends its next request on one."""
    engine = FakeEngine()
    agent = AgentMiddleware(engine, Settings(directory=tmp_path))
    connection = FakeConnection()
    server = SimpleNamespace(server_state=SimpleNamespace(connections={connection}))
    app = SimpleNamespace(state=SimpleNamespace(server=server))

    async def of_vllm(scope: Any, receive: Any, send: Any) -> None:
        await agent({**scope, "app": app}, receive, send)

    async def kept() -> int:
        engine.chunks.put_nowait(None)
        await ask(of_vllm, "POST", "/v1/completions")
        return int((await ask(of_vllm, "GET", "/moe/v1/state")).json["idle_connections"])

    assert await kept() == 0
    await ask(of_vllm, "POST", "/moe/v1/drain")
    assert await kept() == 1
    connection.closed = True
    server.server_state.connections.clear()
    assert await kept() == 0


async def test_after_a_drain_that_was_called_off_connections_are_kept_and_the_next_one_begins_anew(
    tmp_path: Path,
) -> None:
    """A connection that is closed by what a former drain saw of it may be one that its client is just about to use."""
    engine, clock = FakeEngine(), Clock()
    agent = AgentMiddleware(engine, Settings(directory=tmp_path))
    agent._idle = IdleConnections(is_work, clock)
    connection = FakeConnection()
    server = SimpleNamespace(server_state=SimpleNamespace(connections={connection}))
    app = SimpleNamespace(state=SimpleNamespace(server=server))

    async def of_vllm(scope: Any, receive: Any, send: Any) -> None:
        await agent({**scope, "app": app}, receive, send)

    async def request() -> dict[str, str]:
        engine.chunks.put_nowait(None)
        return (await ask(of_vllm, "POST", "/v1/completions")).headers

    for _ in range(2):
        await ask(of_vllm, "POST", "/moe/v1/drain")
        assert (await request())["connection"] == "close"
        clock.now += CLOSE_AFTER - 1
        await request()
        assert not connection.closed
        for _ in range(2):  # told again after a crash of the operator
            assert (await ask(of_vllm, "DELETE", "/moe/v1/drain")).json["draining"] is None
        assert (await request())["connection"] == "keep-alive"
        clock.now += CLOSE_AFTER
        await request()
        assert not connection.closed
        assert (await ask(of_vllm, "GET", "/moe/v1/state")).json["idle_connections"] == 0
    await ask(of_vllm, "POST", "/moe/v1/drain")
    await request()
    assert not connection.closed, "six seconds of this drain, not of the ones before"
    clock.now += CLOSE_AFTER + 1
    await request()
    assert connection.closed


async def test_a_broken_groups_connections_are_closed_at_once(tmp_path: Path) -> None:
    """Pooled clients would go on asking the living half of a dead group, which cannot answer."""
    engine = FakeEngine()
    agent = AgentMiddleware(engine, Settings(directory=tmp_path))
    connection = FakeConnection()
    server = SimpleNamespace(server_state=SimpleNamespace(connections={connection}))
    app = SimpleNamespace(state=SimpleNamespace(server=server))

    async def of_vllm(scope: Any, receive: Any, send: Any) -> None:
        await agent({**scope, "app": app}, receive, send)

    engine.healthy = False
    await ask(of_vllm, "GET", "/moe/v1/ready")
    engine.chunks.put_nowait(None)
    last = await ask(of_vllm, "POST", "/v1/completions")
    assert last.headers["connection"] == "close"
    assert connection.closed
