"""Drives an ASGI application in-process, as a server would, one message at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[
    [Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class FakeEngine:
    """Stands in for vLLM's application: /health, and generation paths that stream what the test feeds in."""

    def __init__(self) -> None:
        self.healthy = True
        self.hung = False
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.seen: list[str] = []
        self.asked: list[tuple[Scope, bytes]] = []
        """Scopes and bodies of generating requests."""

    async def __call__(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.seen.append(f"{scope['type']} {scope['path']}")
        if scope["type"] == "websocket":
            await self.chunks.get()
            return
        if scope["path"] == "/health":
            if self.hung:
                await asyncio.Event().wait()
            await _respond(send, 200 if self.healthy else 503, b"")
        elif scope["path"] == "/v1/broken":
            raise RuntimeError("the engine has died")
        elif scope["path"].startswith("/v1/") and scope["method"] == "POST":
            self.asked.append((scope, (await receive()).get("body", b"")))
            headers = [(b"content-type", b"text/event-stream"), (b"connection", b"keep-alive")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while (chunk := await self.chunks.get()) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        else:
            await _respond(send, 200, b"{}")


async def _respond(send: Callable[[Message], Awaitable[None]], status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Exchange:
    """One request under way, or ended."""

    task: asyncio.Task[None]
    messages: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    async def next(self) -> Message:
        """The next message that the application sends."""
        message = await asyncio.wait_for(self.messages.get(), 5)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
        return message

    async def finish(self) -> Exchange:
        """Wait for the end of the answer."""
        await asyncio.wait_for(asyncio.shield(self.task), 10)
        while not self.messages.empty():
            await self.next()
        return self

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def begin(
    app: App, method: str, path: str, body: bytes = b"", kind: str = "http", **headers: str
) -> Exchange:
    """Start a request and let it run."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    messages: asyncio.Queue[Message] = asyncio.Queue()

    async def receive() -> Message:
        if pending:
            return pending.pop()
        await asyncio.Event().wait()
        raise AssertionError

    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    task = asyncio.get_running_loop().create_task(_run(app, scope, receive, messages))
    return Exchange(task, messages)


async def _run(
    app: App, scope: Scope, receive: Callable[[], Awaitable[Message]], messages: asyncio.Queue[Message]
) -> None:
    await app(scope, receive, messages.put)


async def ask(app: App, method: str, path: str, body: bytes = b"", **headers: str) -> Exchange:
    """One whole request and its answer."""
    return await begin(app, method, path, body, **headers).finish()
