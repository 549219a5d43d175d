"""The watches by kopf against a loopback API server that does what real ones do on bad days."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from moe_operator.controller.kube import CONFIG_MAP, MODEL_DEPLOYMENT, Kind, Obj
from moe_operator.runtime.kopf_source import KopfSource, SourceEndedError
from moe_operator.runtime.source import EventType

Seen = list[tuple[str, str, str]]


def config_map(name: str, version: int) -> Obj:
    return {
        "metadata": {"namespace": "ns", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
    }


class ApiServer:
    """Discovery, LIST and WATCH of ConfigMaps. What a watch says is put in by the test."""

    def __init__(self) -> None:
        self.objects: list[Obj] = []
        self.lists = 0
        self.watches: list[asyncio.Queue[dict[str, Any] | None]] = []
        self.selectors: list[str] = []
        self.tokens: list[str] = []
        self.accepted: set[str] | None = None
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "")
        self.tokens.append(token)
        if self.accepted is not None and token not in self.accepted:
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        match request.path:
            case "/api":
                return web.json_response({"versions": ["v1"]})
            case "/apis":
                return web.json_response({"groups": []})
            case "/api/v1":
                kinds = [resource("configmaps", "ConfigMap"), resource("namespaces", "Namespace")]
                return web.json_response({"resources": kinds})
            case "/api/v1/configmaps":
                self.selectors.append(request.query.get("labelSelector", ""))
                return await (self.watch(request) if "watch" in request.query else self.list())
        return web.json_response({"kind": "Status", "code": 404}, status=404)

    async def list(self) -> web.Response:
        self.lists += 1
        return web.json_response({"items": self.objects, "metadata": {"resourceVersion": "100"}})

    async def watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.watches.append(queue)
        while (event := await queue.get()) is not None:
            await response.write(json.dumps(event).encode() + b"\n")
        return response

    def say(self, type_: str, obj: Obj) -> None:
        """On the newest watch."""
        self.watches[-1].put_nowait({"type": type_, "object": obj})


def resource(plural: str, kind: str) -> dict[str, Any]:
    verbs = ["list", "watch", "get"]
    return {"name": plural, "singularName": "", "kind": kind, "namespaced": True, "verbs": verbs}


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = site.name
    yield server
    for queue in server.watches:
        queue.put_nowait(None)
    await runner.cleanup()


@asynccontextmanager
async def watching(
    server: ApiServer, seen: Seen, token: Callable[[], str] = lambda: "Bearer first"
) -> AsyncIterator["asyncio.Task[None]"]:
    async def configure() -> Configuration:
        configuration = Configuration(host=server.url)
        configuration.api_key["BearerToken"] = token()
        return configuration

    def deliver(kind: Kind, type_: EventType, obj: Obj) -> None:
        assert threading.current_thread() is threading.main_thread()
        seen.append((type_.value, obj["metadata"]["name"], obj["metadata"]["resourceVersion"]))

    task = asyncio.create_task(KopfSource(configure).run([CONFIG_MAP], deliver))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "not in time"
        await asyncio.sleep(0.01)


async def test_events_come_in_their_order_and_say_what_they_are(server: ApiServer) -> None:
    server.objects = [config_map("a", 1)]
    seen: Seen = []
    async with watching(server, seen):
        await until(lambda: server.watches and seen)
        server.say("MODIFIED", config_map("a", 2))
        for version in range(3, 50):
            server.say("MODIFIED", config_map("a", version))
        server.say("DELETED", config_map("a", 50))
        await until(lambda: len(seen) >= 50)
    assert seen[0] == ("LISTED", "a", "1")
    assert seen[1:-1] == [("MODIFIED", "a", str(v)) for v in range(2, 50)]
    assert seen[-1] == ("DELETED", "a", "50")
    assert set(server.selectors) == {"app.kubernetes.io/managed-by=moe-operator"}


async def test_history_that_is_gone_is_listed_anew(server: ApiServer) -> None:
    server.objects = [config_map("a", 1)]
    seen: Seen = []
    async with watching(server, seen) as task:
        await until(lambda: server.watches)
        server.objects = [config_map("b", 200)]
        server.say("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})
        await until(lambda: ("LISTED", "b", "200") in seen)
        assert not task.done()
    assert ("DELETED", "a", "1") not in seen, "that `a` is gone only a resync finds"


async def test_an_error_that_ends_kopf_ends_the_run_and_nothing_else(server: ApiServer) -> None:
    """kopf cancels every task of its loop when it ends: reconciles and the health server must not be among them."""
    seen: Seen = []
    async with watching(server, seen) as task:
        await until(lambda: server.watches)
        bystander = asyncio.create_task(asyncio.Event().wait())
        server.say("ERROR", {"kind": "Status", "code": 500, "message": "etcd is unhappy"})
        with pytest.raises(SourceEndedError, match="etcd is unhappy"):
            await asyncio.wait_for(asyncio.shield(task), 20)
        assert not bystander.done()
        bystander.cancel()
    async with watching(server, seen):
        await until(lambda: len(server.watches) == 2)


async def test_a_stream_that_the_server_ends_is_continued(server: ApiServer) -> None:
    """Every watch is ended after some minutes; what was not missed is not listed again."""
    seen: Seen = []
    async with watching(server, seen):
        await until(lambda: server.watches)
        server.watches[-1].put_nowait(None)
        await until(lambda: len(server.watches) == 2)
        server.say("ADDED", config_map("a", 101))
        await until(lambda: seen)
    assert seen == [("ADDED", "a", "101")]
    assert server.lists == 1


async def test_a_token_that_was_rotated_is_used_although_the_old_one_is_refused(server: ApiServer) -> None:
    current = "Bearer first"
    seen: Seen = []
    server.accepted = {"Bearer first"}
    async with watching(server, seen, lambda: current) as task:
        await until(lambda: server.watches)
        current = "Bearer second"
        server.accepted = {"Bearer second"}
        server.watches[-1].put_nowait(None)
        await until(lambda: len(server.watches) == 2, 30)
        server.say("ADDED", config_map("a", 101))
        await until(lambda: seen)
        assert not task.done()
    assert server.tokens[-1] == "Bearer second"


async def test_a_token_that_is_refused_for_good_is_not_tried_without_pause(server: ApiServer) -> None:
    """A thousand sign-ins a second would make a misconfiguration an outage."""
    server.accepted = set()
    async with watching(server, []):
        await until(lambda: server.tokens)
        await asyncio.sleep(3)
    assert len(server.tokens) < 20


async def test_a_kind_that_is_not_served_is_left_out(server: ApiServer) -> None:
    seen: Seen = []

    async def configure() -> Configuration:
        return Configuration(host=server.url)

    def deliver(kind: Kind, type_: EventType, obj: Obj) -> None:
        seen.append((type_.value, obj["metadata"]["name"], ""))

    server.objects = [config_map("a", 1)]
    task = asyncio.create_task(KopfSource(configure).run([MODEL_DEPLOYMENT, CONFIG_MAP], deliver))
    await until(lambda: seen)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
