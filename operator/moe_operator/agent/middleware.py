"""The agent in vLLM's API server: a raw ASGI middleware, named to vLLM by `--middleware`.

It passes every message on as it comes, so a streamed answer is not held back. Its own pages are under
/moe/v1/:

    GET    /moe/v1/alive   200 while this pod's own engine is healthy; knows nothing of peers, so two pods
    cannot wait
                           for each other
    GET    /moe/v1/ready   200 while this pod and every other pod of its group are alive; the readiness probe
    GET    /moe/v1/state   all of it as JSON, with the requests in flight
    POST   /moe/v1/drain   answer with `Connection: close` from now on, so that pooled clients move to other groups,
                           and close what they leave idle
    DELETE /moe/v1/drain   end that
    POST   /moe/v1/canary  one token from the rank that the header X-data-parallel-rank names, for the operator, which
                           has no API key

Probes need no key, drains and canaries the operator's token: see `guard`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import Any

from . import phases
from .asgi import App, Message, Receive, Scope, Send, answer, field_of, refuse, routed_path
from .compile_publisher import PublisherThread
from .drain import DrainFlag
from .guard import TOKEN_HEADER, Guard
from .keep_alive import CLOSE_AFTER, IdleConnections, protocols_of
from .settings import Settings, read_settings
from .slots import Reading, Slot, read_all
from .watch import ALIVE_PATH, PeerWatch

PREFIX = "/moe/v1/"
# Paths that make the engine work. Counting by prefix includes what later versions add below them.
_WORK = ("/v1/", "/v2/", "/inference/", "/cohere/", "/invocations", "/generative_scoring")
_BEAT_SECONDS = 1.0
# Above what a garbage collection or a long prompt's tokenization takes; a stopped process stays silent for
# good.
_SILENT_SECONDS = 15.0
_HEALTH_SECONDS = 2.0
_CANARY = {"prompt": "1", "max_tokens": 1, "temperature": 0, "ignore_eos": True, "logprobs": 1}
_HEADERS_OF_THE_BODY = (b"content-type", b"content-length", b"transfer-encoding")
_NOT_THE_OPERATOR = {"error": f"the {TOKEN_HEADER.decode()} header is missing or wrong"}

_log = logging.getLogger("vllm.moe_agent")


class AgentMiddleware:
    """The agent around vLLM's application, in each of a pod's API-server processes."""

    def __init__(self, app: App, settings: Settings | None = None) -> None:
        self._app = app
        self._settings = settings if settings is not None else read_settings()
        self._slot: Slot | None = None
        self._guard = Guard(self._settings.verifier, self._settings.api_key)
        self._drain = DrainFlag(self._settings.directory)
        self._watch = PeerWatch(self._settings)
        self._publisher = PublisherThread(self._settings.directory)
        self._idle = IdleConnections(lambda scope: routed_path(scope).startswith(_WORK))
        self._connections: Iterable[Any] = ()
        self._fault = ""
        self._peer_down = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope: the process's life, a request or a websocket."""
        kind = scope["type"]
        if kind == "lifespan":
            self._start()
            try:
                await self._app(scope, receive, send)
            finally:
                self._end()
            return
        slot = self._start()
        self._connections = protocols_of(scope)
        path = routed_path(scope)
        if kind == "http" and path.startswith(PREFIX):
            await self._own_page(path, scope, receive, send)
            return
        if not self._guard.admits(scope, path):
            await refuse(kind, send)
            return
        if kind == "http":
            send = self._closing_on_leave(send)
            if scope["method"] != "POST" or not path.startswith(_WORK):
                await self._app(scope, receive, send)
                return
        slot.enter()
        try:
            await self._app(scope, receive, send)
        finally:
            # First: a drain that sees no request in flight must see the connection that is left.
            self._look_at_connections(slot)
            slot.leave()

    def _start(self) -> Slot:
        """Begin what needs a running process: lazily, as vLLM forks between making the application and
        serving it.
        """
        if self._slot is None:
            try:
                self._slot = Slot(self._settings.directory)
            except OSError as error:
                private = Path(tempfile.mkdtemp(prefix="moe-agent-"))
                _log.error(
                    "MOE_AGENT_DIR %s cannot be used (%s): this process counts its requests alone, and a"
                    " drain reaches only the process that is told. Mount an emptyDir there.",
                    self._settings.directory,
                    error,
                )
                self._settings = replace(self._settings, directory=private)
                self._drain = DrainFlag(private)
                self._watch = PeerWatch(self._settings)
                self._publisher = PublisherThread(private)
                self._slot = Slot(private)
            self._watch.start()
            # vLLM serves once its engine is up.
            self._publisher.start()
            self._tasks.add(asyncio.get_running_loop().create_task(self._beat(self._slot)))
            logging.getLogger("uvicorn.access").addFilter(_is_not_own_page)
        return self._slot

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        self._publisher.stop()
        self._watch.stop(wait=False)  # this is the event loop, and the server is on its way out
        if self._slot is not None:
            self._slot.close()
            self._slot = None

    async def _beat(self, slot: Slot) -> None:
        while True:
            slot.beat()
            self._rows()
            self._look_at_connections(slot)
            await asyncio.sleep(_BEAT_SECONDS)

    def _look_at_connections(self, slot: Slot) -> None:
        """While the pod drains, close what clients no longer use, and note what is left. Of a broken group close all
        that is idle: what would come on it would fail, while a new connection finds another group.
        """
        if self._drain.is_set():
            slot.note_idle(self._idle.look(self._connections, CLOSE_AFTER))
            return
        slot.note_idle(0)
        if self._broken():
            self._idle.look(self._connections, 0.0)
        else:
            self._idle.forget()

    def _rows(self) -> list[dict[str, Any]]:
        """The table of peers as it is now, and what follows for clients' connections."""
        rows = self._watch.rows()
        self._peer_down = any(not row["up"] for row in rows)
        return rows

    def _broken(self) -> bool:
        """Whether this group cannot serve, as far as this process knows."""
        return self._peer_down or bool(self._fault)

    def _closing_on_leave(self, send: Send) -> Send:
        async def forward(message: Message) -> None:
            if message["type"] == "http.response.start" and (self._broken() or self._drain.is_set()):
                kept = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"connection"]
                message = {**message, "headers": [*kept, (b"connection", b"close")]}
            await send(message)

        return forward

    async def _own_page(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if path == ALIVE_PATH and method in ("GET", "HEAD"):
            await answer(send, *await self._alive(scope))
        elif path == PREFIX + "ready" and method in ("GET", "HEAD"):
            await answer(send, *await self._ready(scope))
        elif path == PREFIX + "state" and method in ("GET", "HEAD"):
            await answer(send, HTTPStatus.OK, await self._state(scope))
        elif path == PREFIX + "drain" and method in ("POST", "DELETE"):
            await answer(send, *await self._set_drain(method, scope, receive))
        elif path == PREFIX + "canary" and method == "POST":
            await self._canary(scope, receive, send)
        else:
            await answer(
                send,
                HTTPStatus.NOT_FOUND,
                {
                    "error": f"no {method} {path}: there are GET alive, ready, state; POST canary, drain; DELETE drain"
                },
            )

    async def _alive(self, scope: Scope) -> tuple[HTTPStatus, dict[str, Any]]:
        reason = await self._own_fault(scope)
        status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
        return status, {"alive": not reason, "pod": self._settings.pod, "reason": reason}

    async def _ready(self, scope: Scope) -> tuple[HTTPStatus, dict[str, Any]]:
        own = await self._own_fault(scope)
        rows = self._rows()
        reasons = [f"this pod: {own}"] if own else []
        reasons += [f"peer {row['address']} {row['reason']}" for row in rows if not row["up"]]
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return status, {
            "ready": not reasons,
            "pod": self._settings.pod,
            "reasons": reasons,
            "engine": {"healthy": not own, "reason": own},
            "peers": rows,
        }

    async def _state(self, scope: Scope) -> dict[str, Any]:
        _, ready = await self._ready(scope)
        readings = self._readings()
        return {
            **ready,
            "agent": _version(),
            "incarnation": self._settings.incarnation,
            "in_flight": sum(reading.in_flight for reading in readings),
            "served": sum(reading.served for reading in readings),
            "idle_connections": sum(reading.idle for reading in readings),
            "servers": [
                {
                    "pid": reading.pid,
                    "in_flight": reading.in_flight,
                    "served": reading.served,
                    "idle_connections": reading.idle,
                    "silent_seconds": round(reading.silent, 1),
                }
                for reading in readings
            ],
            "draining": self._drain.read(),
            "phases": phases.read(self._settings.directory),
        }

    def _readings(self) -> list[Reading]:
        return read_all(self._settings.directory, self._start())

    async def _own_fault(self, scope: Scope) -> str:
        """Why this pod's own part of the group cannot serve, or "" if nothing speaks against it."""
        self._fault = await self._look_for_fault(scope)
        return self._fault

    async def _look_for_fault(self, scope: Scope) -> str:
        for reading in self._readings()[1:]:
            if reading.silent > _SILENT_SECONDS:
                return f"its API-server process {reading.pid} gave no sign of life for {reading.silent:.0f} s"
        status = 0
        request: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            return request.pop() if request else {"type": "http.disconnect"}

        async def take(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])

        # vLLM's own page, asked within the process: it says 503 as soon as an engine of this pod has died.
        page = {
            **scope,
            "method": "GET",
            "path": "/health",
            "raw_path": b"/health",
            "root_path": "",
            "query_string": b"",
        }
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                await self._app(page, receive, take)
        except TimeoutError:
            return f"vLLM's /health did not answer within {_HEALTH_SECONDS:g} s"
        except Exception as error:
            return f"vLLM's /health failed: {type(error).__name__}: {error}"
        if status != HTTPStatus.OK:
            return f"vLLM's /health answers {status}: an engine of this pod has died"
        return ""

    async def _set_drain(
        self, method: str, scope: Scope, receive: Receive
    ) -> tuple[HTTPStatus, dict[str, Any]]:
        if not self._guard.is_operator(scope):
            return HTTPStatus.UNAUTHORIZED, _NOT_THE_OPERATOR
        try:
            if method == "POST":
                self._drain.set(await field_of(receive, "reason"))
            else:
                self._drain.clear()
        except OSError as error:
            return HTTPStatus.INSUFFICIENT_STORAGE, {"error": f"the drain cannot be recorded: {error}"}
        in_flight = sum(reading.in_flight for reading in self._readings())
        return HTTPStatus.OK, {"draining": self._drain.read(), "in_flight": in_flight}

    async def _canary(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One token as clients ask for it, with the key put in. The prompt is fixed: this is no way to the model."""
        if not self._guard.proves_operator(scope):
            await answer(send, HTTPStatus.UNAUTHORIZED, _NOT_THE_OPERATOR)
            return
        model = await field_of(receive, "model")
        body = json.dumps({**_CANARY, "model": model}).encode()
        headers = [
            pair for pair in self._guard.with_key(scope) if pair[0].lower() not in _HEADERS_OF_THE_BODY
        ]
        request: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def read() -> Message:
            return request.pop() if request else await receive()

        path = "/v1/completions"
        inner = {**scope, "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b""}
        inner["headers"] = [
            *headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        slot = self._start()
        slot.enter()
        try:
            await self._app(inner, read, send)
        finally:
            slot.leave()


def _version() -> str:
    try:
        return metadata.version("moe-agent")
    except metadata.PackageNotFoundError:
        return ""


def _is_not_own_page(record: logging.LogRecord) -> bool:
    """Keep the probes, one a second and peer, out of the access log; its records carry client, method, path,
    …
    """
    arguments = record.args
    return not (isinstance(arguments, tuple) and len(arguments) > 2 and str(arguments[2]).startswith(PREFIX))
