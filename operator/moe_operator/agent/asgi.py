"""Small pieces of ASGI that the agent's pages are made of."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_BODY_LIMIT = 4096


def routed_path(scope: Scope) -> str:
    """The path as routed: below --root-path, whether or not the server put that in front."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if root and path.startswith(root + "/") else path


async def field_of(receive: Receive, name: str) -> str:
    """A field of a body, {"reason": "…"}; a body that is none is no error."""
    body = b""
    while True:
        message = await receive()
        body = (body + message.get("body", b""))[: _BODY_LIMIT + 1]
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(body).get(name, ""))[:_BODY_LIMIT]
    return ""


async def refuse(kind: str, send: Send) -> None:
    """A client without the key."""
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    else:
        await answer(send, HTTPStatus.UNAUTHORIZED, {"error": "Unauthorized"})


async def answer(send: Send, status: HTTPStatus, content: dict[str, Any]) -> None:
    """Answer with JSON."""
    body = json.dumps(content).encode() + b"\n"
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
