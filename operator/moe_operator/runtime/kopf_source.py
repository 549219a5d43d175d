"""Events from a real API server by kopf, used for its watches alone: no finalizers, no annotations, no writes.

kopf runs in a thread with a loop of its own. When it ends it cancels every task that was started after it, whoever
started it, and it takes over the process's signals: neither must happen to the operator around it. Events cross
over in batches.
"""

import asyncio
import logging
import ssl
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import aiohttp
import kopf
from kubernetes.aio.client import Configuration

from moe_operator.api import names
from moe_operator.controller.kube import Kind, Obj
from moe_operator.runtime.kopf_storage import NoDiffs, NoProgress
from moe_operator.runtime.source import Deliver, EventType, selector

log = logging.getLogger(__name__)

_TYPES: dict[str | None, EventType] = {
    None: EventType.LISTED,
    "ADDED": EventType.ADDED,
    "MODIFIED": EventType.MODIFIED,
    "DELETED": EventType.DELETED,
}

#: Seconds that a sign-in that follows another waits: a token that is refused for good must not become a storm.
_SIGN_IN_PAUSE = 5.0
#: Seconds that kopf gets to end before its thread is left behind.
_STOP_TIMEOUT = 5.0


class SourceEndedError(Exception):
    """Watching has come to an end; the cause says why."""


class KopfSource:
    """Watches by kopf. Each `run` is an operator of its own."""

    def __init__(
        self, configure: Callable[[], Awaitable[Configuration]], namespaces: Sequence[str] = ()
    ) -> None:
        """`configure` gives a fresh client configuration; `namespaces`: empty for all."""
        self._configure = configure
        self._namespaces = list(namespaces)

    async def run(self, kinds: Iterable[Kind], deliver: Deliver) -> None:
        """Watch these kinds until cancelled. Raises SourceEndedError."""
        kinds = list(kinds)
        bridge = _Bridge(asyncio.get_running_loop(), deliver)
        host = _Thread(lambda: self._operate(kinds, bridge), bridge)
        host.start()
        try:
            await asyncio.wait([host.ended])  # waits without handing our own cancellation on to it
            host.ended.result()
        except Exception as error:
            raise SourceEndedError(f"{type(error).__name__}: {error}") from error
        else:
            raise SourceEndedError("kopf stopped without a reason")
        finally:
            bridge.close()
            await host.stop()

    async def _operate(self, kinds: Sequence[Kind], bridge: "_Bridge") -> None:
        """The operator, in kopf's own loop."""
        registry = kopf.OperatorRegistry()
        settings = _settings(kinds)
        sessions: list[aiohttp.ClientSession] = []
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        last_sign_in: float | None = None

        async def sign_in(**_: Any) -> kopf.AiohttpSession:
            nonlocal last_sign_in
            now = asyncio.get_running_loop().time()
            if last_sign_in is not None and now - last_sign_in < _SIGN_IN_PAUSE:
                await asyncio.sleep(_SIGN_IN_PAUSE)
            last_sign_in = asyncio.get_running_loop().time()
            try:
                configuration = await self._configure()
                session = _session(configuration)
            except Exception as error:
                # kopf itself would go on without credentials, and tell nobody.
                if not refused.done():
                    refused.set_exception(error)
                raise kopf.PermanentError(f"could not sign in: {error}") from error
            sessions.append(session)
            return kopf.AiohttpSession(server=configuration.host, aiohttp_session=session)

        kopf.on.login(registry=registry)(sign_in)
        for kind in kinds:
            kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(bridge.handler(kind))
        operator = asyncio.ensure_future(
            kopf.operator(
                registry=registry,
                settings=settings,
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
            )
        )
        try:
            done, _ = await asyncio.wait([operator, refused], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            operator.cancel()
            await asyncio.wait([operator])
            for session in sessions:
                await session.close()


def _settings(kinds: Iterable[Kind]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    # No watch of CRDs and namespaces, nor the rights for it; the resync notices kinds that come and go.
    settings.scanning.disabled = True
    settings.persistence.finalizer = f"{names.GROUP}/unused"
    settings.persistence.diffbase_storage = NoDiffs()
    settings.persistence.progress_storage = NoProgress()
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.watching.server_timeout = 300
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = 500
    # A limit would hold a slot for each object until the idle timeout: a few objects per second.
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 1.0
    settings.queueing.exit_timeout = 0.5
    # The last resort against a hung exit is to kill the process; here only a thread ends.
    settings.process.ultimate_exiting_timeout = None
    for kind in kinds:
        if text := selector(kind):
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = text
    return settings


def _session(configuration: Configuration) -> aiohttp.ClientSession:
    """A session that signs every request anew, so that a token that was rotated is used at once."""
    tls = ssl.create_default_context(
        cafile=configuration.ssl_ca_cert,
        cadata=configuration.ca_cert_data,
    )
    if configuration.cert_file:
        tls.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE

    async def sign(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if configuration.tls_server_name:
            request.server_hostname = configuration.tls_server_name
        header = await configuration.get_api_key_with_prefix("BearerToken")
        if header:
            request.headers["Authorization"] = header
        return await handler(request)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=tls),
        headers={"User-Agent": "moe-operator"},
        middlewares=(sign,),
        proxy=configuration.proxy,
        trust_env=True,
    )


class _Bridge:
    """Carries events from kopf's thread to the main loop, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Deliver) -> None:
        self._loop = loop
        self._deliver = deliver
        self._pending: deque[tuple[Kind, EventType, Obj]] = deque()
        self._lock = threading.Lock()
        self._scheduled = False
        self._closed = False

    def handler(self, kind: Kind) -> Callable[..., Awaitable[None]]:
        """The handler of a kind's events, for kopf's thread."""

        async def on_event(event: Any, **_: Any) -> None:
            type_ = _TYPES.get(event["type"])
            if type_ is not None:
                # A copy as deep as the receiver changes it: kopf goes on with the original.
                obj = event["object"]
                self._put(kind, type_, {**obj, "metadata": dict(obj["metadata"])})

        on_event.__name__ = f"on_{kind.plural}"
        return on_event

    def close(self) -> None:
        """Deliver nothing more: what comes now is of a watch that was given up."""
        self._closed = True

    def call(self, what: Callable[[], None]) -> None:
        """Call in the main loop, unless that is gone."""
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:
            log.debug("the main loop is closed")

    def _put(self, kind: Kind, type_: EventType, obj: Obj) -> None:
        with self._lock:
            self._pending.append((kind, type_, obj))
            if self._scheduled:
                return
            self._scheduled = True
        self.call(self._drain)

    def _drain(self) -> None:
        with self._lock:
            batch, self._pending = self._pending, deque()
            self._scheduled = False
        for kind, type_, obj in batch:
            if self._closed:
                return
            try:
                self._deliver(kind, type_, obj)
            except Exception:
                log.exception("could not take up an event of %s", kind.kind)


class _Thread:
    """A thread with a loop of its own for one coroutine."""

    def __init__(self, main: Callable[[], Awaitable[None]], bridge: _Bridge) -> None:
        self._main = main
        self._bridge = bridge
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Cancel and wait a little; a thread that does not end is left behind, and heard no more."""
        self._cancelled = True
        if self._loop and self._task and self._thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(self._task.cancel)
            except RuntimeError:
                return
        if not self.ended.done():
            await asyncio.wait([self.ended], timeout=_STOP_TIMEOUT)
            if not self.ended.done():
                log.warning("kopf did not end within %.0f s and is left behind", _STOP_TIMEOUT)
        if self.ended.done() and not self.ended.cancelled():
            self.ended.exception()  # looked at, so that nobody complains

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            asyncio.run(self._guarded())
        except BaseException as error:
            failure = error
        self._bridge.call(lambda: self._finish(failure))

    async def _guarded(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.ensure_future(self._main())
        if self._cancelled:
            self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    def _finish(self, failure: BaseException | None) -> None:
        if self.ended.done():
            return
        if isinstance(failure, Exception):
            self.ended.set_exception(failure)
        elif failure is not None:
            self.ended.set_exception(RuntimeError(f"kopf's thread died: {failure!r}"))
        else:
            self.ended.set_result(None)
