"""The agent around vLLM's application: what a client, the operator and a kubelet see of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from moe_operator.agent.middleware import AgentMiddleware
from moe_operator.agent.settings import Settings, read_settings
from moe_operator.resources.agent_token import verifier_of
from unit.agent_driver import FakeEngine, ask, begin


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def agent(engine: FakeEngine, tmp_path: Path) -> AgentMiddleware:
    return AgentMiddleware(engine, Settings(directory=tmp_path, pod="tiny-g0-0", incarnation="abc"))


async def in_flight(agent: AgentMiddleware) -> int:
    return int((await ask(agent, "GET", "/moe/v1/state")).json["in_flight"])


async def test_a_streamed_answer_is_passed_on_chunk_by_chunk(
    agent: AgentMiddleware, engine: FakeEngine
) -> None:
    """A user would see the whole answer at once instead of token by token."""
    exchange = begin(agent, "POST", "/v1/completions")
    await exchange.next()
    for chunk in (b"data: a\n\n", b"data: b\n\n"):
        engine.chunks.put_nowait(chunk)
        message = await exchange.next()
        assert message["body"] == chunk
        assert engine.chunks.empty()
        assert not exchange.task.done()
    engine.chunks.put_nowait(None)
    await exchange.finish()
    assert exchange.body == b"data: a\n\ndata: b\n\n"
    assert exchange.headers["connection"] == "keep-alive"


async def test_requests_are_in_flight_until_their_stream_ends(
    agent: AgentMiddleware, engine: FakeEngine
) -> None:
    """A drain that thinks a group idle too early cuts off answers."""
    first = begin(agent, "POST", "/v1/chat/completions")
    second = begin(agent, "POST", "/v1/completions")
    await first.next()
    await second.next()
    assert await in_flight(agent) == 2
    engine.chunks.put_nowait(None)
    engine.chunks.put_nowait(None)
    await asyncio.gather(first.finish(), second.finish())
    state = (await ask(agent, "GET", "/moe/v1/state")).json
    assert (state["in_flight"], state["served"]) == (0, 2)


async def test_a_websocket_is_in_flight_while_it_is_open(agent: AgentMiddleware, engine: FakeEngine) -> None:
    """A realtime session would be cut off by a drain that does not count it."""
    session = begin(agent, "GET", "/v1/realtime", kind="websocket")
    async with asyncio.timeout(5):
        while await in_flight(agent) != 1:
            continue
    engine.chunks.put_nowait(None)
    await session.finish()
    assert await in_flight(agent) == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/metrics"), ("GET", "/v1/models"), ("POST", "/tokenize"), ("GET", "/health")],
)
async def test_probes_and_scrapes_are_not_in_flight(
    agent: AgentMiddleware, engine: FakeEngine, method: str, path: str
) -> None:
    """A group that is scraped every few seconds would never count as drained."""
    await ask(agent, method, path)
    assert (await ask(agent, "GET", "/moe/v1/state")).json["served"] == 0


async def test_failed_and_cancelled_requests_are_no_longer_in_flight(
    agent: AgentMiddleware, engine: FakeEngine
) -> None:
    """A client that hangs up, or an error, must not keep every later drain waiting to its deadline."""
    with pytest.raises(RuntimeError, match="the engine has died"):
        await begin(agent, "POST", "/v1/broken").finish()
    hung_up = begin(agent, "POST", "/v1/completions")
    await hung_up.next()
    hung_up.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await hung_up.task
    assert await in_flight(agent) == 0


async def test_a_drain_closes_connections_and_refuses_nobody(
    agent: AgentMiddleware, engine: FakeEngine
) -> None:
    """Pooled clients would stay with a group that is about to go, or would be turned away."""
    under_way = begin(agent, "POST", "/v1/completions")
    await under_way.next()
    told = (await ask(agent, "POST", "/moe/v1/drain", b'{"reason": "node-1 is cordoned"}')).json
    assert told["in_flight"] == 1
    assert told["draining"]["reason"] == "node-1 is cordoned"
    engine.chunks.put_nowait(b"x")
    engine.chunks.put_nowait(None)
    assert (await under_way.finish()).body == b"x"
    engine.chunks.put_nowait(None)
    later = await ask(agent, "POST", "/v1/completions")
    assert (later.status, later.headers["connection"]) == (200, "close")
    assert (await ask(agent, "GET", "/v1/models")).headers["connection"] == "close"
    assert (await ask(agent, "GET", "/moe/v1/ready")).status == 200


async def test_a_drain_told_twice_keeps_its_beginning_and_can_be_undone(
    agent: AgentMiddleware, engine: FakeEngine
) -> None:
    """An operator that repeats itself after a restart would push the drain's deadline away for ever."""
    first = (await ask(agent, "POST", "/moe/v1/drain", b'{"reason": "first"}')).json["draining"]
    second = (await ask(agent, "POST", "/moe/v1/drain", b"not json")).json["draining"]
    assert first == second
    assert (await ask(agent, "DELETE", "/moe/v1/drain")).json["draining"] is None
    assert (await ask(agent, "DELETE", "/moe/v1/drain")).status == 200
    assert "connection" not in (await ask(agent, "GET", "/v1/models")).headers


async def test_a_drain_needs_the_token_where_one_is_set(engine: FakeEngine, tmp_path: Path) -> None:
    """Any client of the model could otherwise make its pods close connections."""
    agent = AgentMiddleware(engine, Settings(directory=tmp_path, verifier=verifier_of("secret")))
    assert (await ask(agent, "POST", "/moe/v1/drain")).status == 401
    assert (await ask(agent, "POST", "/moe/v1/drain", x_moe_agent_token="wrong")).status == 401
    assert (await ask(agent, "GET", "/moe/v1/state")).json["draining"] is None
    assert (await ask(agent, "POST", "/moe/v1/drain", x_moe_agent_token="secret")).status == 200
    assert (await ask(agent, "DELETE", "/moe/v1/drain")).status == 401


async def test_the_operators_canary_needs_no_key_and_clients_do(engine: FakeEngine, tmp_path: Path) -> None:
    """A deployment with a key would never pass its canary; or the canary would be a way in without the key."""
    settings = Settings(directory=tmp_path, verifier=verifier_of("secret"), api_key="key")
    agent = AgentMiddleware(engine, settings)
    for sent in ({}, {"x_moe_agent_token": "wrong"}, {"authorization": "Bearer key"}):
        assert (await ask(agent, "POST", "/moe/v1/canary", b'{"model": "m"}', **sent)).status == 401
    assert engine.seen == []
    engine.chunks.put_nowait(b"token")
    engine.chunks.put_nowait(None)
    body = b'{"model": "m", "prompt": "all of it", "max_tokens": 9}'
    answer = await ask(
        agent, "POST", "/moe/v1/canary", body, x_moe_agent_token="secret", x_data_parallel_rank="1"
    )
    assert (answer.status, answer.body) == (200, b"token")
    assert engine.seen == ["http /v1/completions"]
    scope, asked = engine.asked[-1]
    headers = dict(scope["headers"])
    assert headers[b"authorization"] == b"Bearer key"
    assert headers[b"x-data-parallel-rank"] == b"1"
    assert b"x-moe-agent-token" not in headers
    assert int(headers[b"content-length"]) == len(asked)
    sent_on = json.loads(asked)
    assert (sent_on["model"], sent_on["prompt"], sent_on["max_tokens"]) == ("m", "1", 1)


async def test_a_canary_is_closed_where_the_operator_cannot_be_told_from_others(
    engine: FakeEngine, tmp_path: Path
) -> None:
    agent = AgentMiddleware(engine, Settings(directory=tmp_path, api_key="key"))
    assert (await ask(agent, "POST", "/moe/v1/canary", b"{}")).status == 401


@pytest.mark.parametrize(
    "path", ["/invocations", "/tokenize", "/generative_scoring", "/collective_rpc", "/docs"]
)
async def test_with_a_key_what_vllm_leaves_open_is_closed(
    engine: FakeEngine, tmp_path: Path, path: str
) -> None:
    """vLLM answers prompts on /invocations without the key: whoever knows would need none."""
    agent = AgentMiddleware(engine, Settings(directory=tmp_path, api_key="key"))
    assert (await ask(agent, "POST", path)).status == 401
    assert (await ask(agent, "POST", path, authorization="Bearer wrong")).status == 401
    assert (await ask(agent, "POST", path, authorization="Basic key")).status == 401
    assert engine.seen == []
    assert (await ask(agent, "POST", path, authorization="bearer key")).status == 200


async def test_probes_and_scrapes_need_no_key(engine: FakeEngine, tmp_path: Path) -> None:
    """Kubelet and Prometheus have none: the pods would never be ready, and the autoscaler blind."""
    agent = AgentMiddleware(engine, Settings(directory=tmp_path, api_key="key", verifier=verifier_of("t")))
    for path in ("/health", "/metrics", "/metrics/", "/ping", "/version", "/moe/v1/ready", "/moe/v1/state"):
        assert (await ask(agent, "GET", path)).status == 200
    assert (await ask(agent, "OPTIONS", "/v1/completions")).status == 200


async def test_a_websocket_without_the_key_is_closed(engine: FakeEngine, tmp_path: Path) -> None:
    agent = AgentMiddleware(engine, Settings(directory=tmp_path, api_key="key"))
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await agent({"type": "websocket", "path": "/v1/realtime", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert engine.seen == []


def test_the_key_is_not_shown_with_the_settings(tmp_path: Path) -> None:
    """A log of the settings would give it to everyone who reads logs."""
    environ = {"MOE_AGENT_DIR": str(tmp_path), "VLLM_API_KEY": "s3cret"}
    assert "s3cret" not in repr(read_settings(environ))


async def test_a_dead_engine_is_neither_alive_nor_ready(agent: AgentMiddleware, engine: FakeEngine) -> None:
    """Requests would go to a server whose engine is gone."""
    assert (await ask(agent, "GET", "/moe/v1/alive")).json == {
        "alive": True,
        "pod": "tiny-g0-0",
        "reason": "",
    }
    assert (await ask(agent, "GET", "/moe/v1/ready")).status == 200
    engine.healthy = False
    alive = await ask(agent, "GET", "/moe/v1/alive")
    assert (alive.status, alive.json["alive"]) == (503, False)
    ready = await ask(agent, "GET", "/moe/v1/ready")
    assert ready.status == 503
    assert ready.json["reasons"] == ["this pod: vLLM's /health answers 503: an engine of this pod has died"]


async def test_a_health_page_that_hangs_is_not_alive(
    agent: AgentMiddleware, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe that waits for ever says nothing to whoever reads its cause."""
    monkeypatch.setattr("moe_operator.agent.middleware._HEALTH_SECONDS", 0.05)
    engine.hung = True
    alive = await ask(agent, "GET", "/moe/v1/alive")
    assert (alive.status, alive.json["reason"]) == (503, "vLLM's /health did not answer within 0.05 s")


async def test_the_application_starts_and_stops_as_without_the_agent(
    engine: FakeEngine, tmp_path: Path
) -> None:
    """vLLM's own start and stop hooks must run, and nothing of the agent may outlive them."""
    agent = AgentMiddleware(engine, Settings(directory=tmp_path))
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []
    slots: list[Path] = []
    before = asyncio.all_tasks()

    def found() -> list[Path]:
        return list(tmp_path.glob("*.slot"))

    async def receive() -> dict[str, str]:
        if len(events) == 1:
            slots.extend(found())
        return events.pop(0)

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message["type"])

    await agent({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert (len(slots), found()) == (1, [])
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_serving_goes_on_where_the_shared_folder_cannot_be_used(
    engine: FakeEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A forgotten volume must cost the count over processes, not the service."""
    blocked = tmp_path / "file"
    blocked.touch()
    agent = AgentMiddleware(engine, Settings(directory=blocked))
    assert (await ask(agent, "GET", "/v1/models")).status == 200
    exchange = begin(agent, "POST", "/v1/completions")
    await exchange.next()
    assert await in_flight(agent) == 1
    assert (await ask(agent, "POST", "/moe/v1/drain")).status == 200
    assert "Mount an emptyDir there" in caplog.text
    engine.chunks.put_nowait(None)
    assert (await exchange.finish()).status == 200


async def test_pages_are_found_below_a_root_path(agent: AgentMiddleware, engine: FakeEngine) -> None:
    """With --root-path the agent's pages would be vLLM's 404, and the pod never ready."""

    async def below(scope: object, receive: object, send: object) -> None:
        assert isinstance(scope, dict)
        await agent({**scope, "root_path": "/models"}, receive, send)  # type: ignore[arg-type]

    assert (await ask(below, "GET", "/models/moe/v1/alive")).status == 200
    assert (await ask(below, "GET", "/moe/v1/alive")).status == 200


async def test_unknown_pages_say_which_there_are(agent: AgentMiddleware) -> None:
    """A version mismatch between operator and agent would show as a riddle."""
    answer = await ask(agent, "POST", "/moe/v1/ready")
    assert answer.status == 404
    assert "GET alive, ready, state" in answer.json["error"]
