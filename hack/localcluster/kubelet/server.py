"""A node's HTTPS server: container logs, resource metrics and plain command execution."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from localcluster.kubelet import containerlog, execstream, metrics, records
from localcluster.kubelet.authz import Authorizer, DeniedError
from localcluster.kubelet.container import Container
from localcluster.kubelet.node import NodeAgent
from localcluster.kubelet.nodespec import KUBELET_PORT
from localcluster.kubelet.pod import PodWorker
from localcluster.kubelet.records import Running, Waiting

_NOT_SUPPORTED = (
    "{what} is not supported by the local cluster's kubelet. `kubectl exec` works where kubectl and the API server "
    "use WebSockets (1.36 or newer); to reach a port, run a client inside the cluster's network namespace."
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def tls_context(certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """Serves with ``certificate``; client certificates are optional and must come from ``authority``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority))
    context.load_cert_chain(str(certificate), str(key))
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


class NodeServer:
    """Serves one node at its own address."""

    def __init__(self, agent: NodeAgent, authorizer: Authorizer, tls: ssl.SSLContext) -> None:
        self._agent, self._authorizer, self._tls = agent, authorizer, tls
        self._meter = metrics.Meter()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Raises OSError when the node's address cannot be bound (outside of the cluster's namespaces)."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics/resource", self._metrics)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_post("/run/{namespace}/{pod}/{container}", self._run)
        app.router.add_get("/exec/{namespace}/{pod}/{container}", self._exec)
        for verb in ("exec", "attach", "portForward"):
            app.router.add_route("*", f"/{verb}/{{rest:.*}}", self._unsupported)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(
            self._runner, self._agent.network.host_ip, KUBELET_PORT, ssl_context=self._tls
        ).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        if self._agent.failed:
            # A dead node answers nothing; the caller's own deadline must end the wait, ours only bounds it.
            await asyncio.sleep(60)
            if transport is not None:
                transport.abort()
            raise web.HTTPServiceUnavailable
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        authorization = request.headers.get("Authorization", "")
        try:
            await self._authorizer.check(
                self._agent.spec.name, request.path, request.method, certificate, authorization
            )
        except DeniedError as error:
            return web.Response(status=error.status, text=f"{error}\n")
        return await handler(request)

    async def _healthz(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    async def _unsupported(self, request: web.Request) -> web.StreamResponse:
        what = request.path.strip("/").split("/")[0]
        return web.Response(status=501, text=_NOT_SUPPORTED.format(what=what) + "\n")

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        targets = [
            metrics.Target(
                worker.pod["metadata"]["namespace"],
                worker.pod["metadata"]["name"],
                container.name,
                container.process.pid,
                container.record.state.started_at.timestamp(),
            )
            for worker in self._agent.workers.values()
            for container in worker.containers.values()
            if container.process is not None and isinstance(container.record.state, Running)
        ]
        page = await self._meter.page(targets)
        return web.Response(body=page.encode(), headers={"Content-Type": metrics.CONTENT_TYPE})

    def _find(self, request: web.Request) -> tuple[PodWorker, Container]:
        """Raises an HTTP error that says what is missing."""
        wanted = request.match_info
        for worker in self._agent.workers.values():
            metadata = worker.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (wanted["namespace"], wanted["pod"]):
                container = worker.containers.get(wanted["container"])
                if container is not None:
                    return worker, container
                text = f'container "{wanted["container"]}" not found in pod "{wanted["pod"]}"\n'
                raise web.HTTPNotFound(text=text)
        raise web.HTTPNotFound(text=f'pod "{wanted["namespace"]}/{wanted["pod"]}" not found on this node\n')

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        _, container = self._find(request)
        query = request.query
        previous = query.get("previous") == "true"
        where = f'container "{container.name}" in pod "{request.match_info["pod"]}"'
        state = container.record.state
        if previous and container.record.last is None:
            return web.Response(status=400, text=f"previous terminated {where} not found\n")
        if isinstance(state, Waiting) and container.record.last is None:
            return web.Response(
                status=400, text=f"{where} is waiting to start: {state.message or state.reason}\n"
            )
        try:
            options = log_options(dict(query))
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        path = container.log_path(previous)
        live = container.log if container.log is not None and not previous else None
        response = web.StreamResponse(headers={"Content-Type": "text/plain", "Transfer-Encoding": "chunked"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            if path is not None:
                async for chunk in containerlog.stream(path, live, options):
                    await response.write(chunk)
            await response.write_eof()
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        _, container = self._find(request)
        query = request.query
        command = query.getall("command", [])
        if not command:
            return web.Response(status=400, text="give the command as ?command=<word>&command=<word>\n")
        stream = web.WebSocketResponse(protocols=execstream.PROTOCOLS, heartbeat=30.0)
        if not stream.can_prepare(request).ok:
            return await self._unsupported(request)
        await stream.prepare(request)
        terminal = query.get("tty") in ("1", "true")
        await execstream.ExecStream(stream, container, terminal).run(list(command))
        await stream.close()
        return stream

    async def _run(self, request: web.Request) -> web.StreamResponse:
        _, container = self._find(request)
        command = request.query.getall("cmd", [])
        if not command:
            return web.Response(status=400, text="give the command as ?cmd=<word>&cmd=<word>\n")
        try:
            code, output = await container.execute(list(command), 60.0)
        except TimeoutError:
            return web.Response(status=504, text=f"{command[0]} did not end within 60 s\n")
        return web.Response(status=200 if code == 0 else 500, text=output, headers={"X-Exit-Code": str(code)})


def log_options(query: dict[str, str]) -> containerlog.LogOptions:
    """From the query of a log request. Raises ValueError with a message for the caller."""

    def number(name: str) -> int | None:
        if query.get(name) is None:
            return None
        try:
            value = int(query[name])
        except ValueError:
            raise ValueError(f"{name} must be a whole number, not {query[name]!r}") from None
        if value < 0:
            raise ValueError(f"{name} must not be negative: {value}")
        return value

    since: float | None = None
    seconds, moment = number("sinceSeconds"), records.parse_time(query.get("sinceTime"))
    if seconds is not None:
        since = time.time() - seconds
    elif moment is not None:
        since = moment.timestamp()
    chosen = query.get("stream", "All").lower()
    return containerlog.LogOptions(
        follow=query.get("follow") == "true",
        tail=number("tailLines"),
        since=since,
        timestamps=query.get("timestamps") == "true",
        limit=number("limitBytes"),
        streams=(chosen,) if chosen in ("stdout", "stderr") else ("stdout", "stderr"),
    )
