"""Watches: a stream per kind as the API server gives it, and a source that feeds an operator, with faults."""

import asyncio
from collections.abc import AsyncIterator, Callable

from fakecluster.api_server import ApiServer, Event, GoneError
from fakecluster.faults import WatchFaults
from fakecluster.objects import copied, labels_of, matches
from moe_operator.controller.kube import Kind, Obj

#: Seconds from a write to its event, as measured on an idle cluster.
EVENT_LATENCY = 0.01


async def watch(
    server: ApiServer, kind: Kind, since: int, namespace: str | None = None, selector: str = ""
) -> AsyncIterator[tuple[str, Obj]]:
    """Events of one kind after version `since`: ADDED, MODIFIED, DELETED as seen through the selector.

    Raises GoneError where the past since then is compacted.
    """
    if since < server.compacted:
        raise GoneError(since)
    wake = asyncio.Event()

    def listen(event: Event) -> None:
        wake.set()

    server.listeners.append(listen)
    try:
        position = since
        while True:
            for event in server.history[position:]:
                position = event.version
                seen = through(event, kind, namespace, selector)
                if seen:
                    yield seen, copied(event.obj)
            if position >= server.version:
                wake.clear()
                await wake.wait()
    finally:
        server.listeners.remove(listen)


def through(event: Event, kind: Kind, namespace: str | None, selector: str) -> str | None:
    """The type of an event as a watch with this scope and selector tells it; None if it does not."""
    if event.kind != kind or (namespace is not None and event.obj["metadata"].get("namespace") != namespace):
        return None
    now = event.type != "DELETED" and matches(selector, labels_of(event.obj))
    was = event.before is not None and matches(selector, labels_of(event.before))
    if now:
        return "MODIFIED" if was else "ADDED"
    return "DELETED" if was else None


class Feed:
    """Delivers the events of some kinds to a handler, in order within a kind, as an informer would.

    After a gap it lists what exists and delivers that; what was deleted meanwhile is never told. This is what kopf
    does, and the reason why the operator has a resync of its own.
    """

    def __init__(
        self,
        server: ApiServer,
        scopes: dict[Kind, str],
        handle: Callable[[Kind, str, Obj], None],
        faults: WatchFaults | None = None,
    ) -> None:
        """`scopes`: label selector by kind. `handle` gets kind, type ("" for a listed object) and object."""
        self._server = server
        self._scopes = scopes
        self._handle = handle
        self.faults = faults or WatchFaults()
        self._due: dict[Kind, float] = {}
        self._open = False
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """List everything at once, then follow."""
        self._open = True
        self._server.listeners.append(self._listen)
        self._server.back_listeners.append(self._relist_all)
        self._relist_all()

    def stop(self) -> None:
        """Deliver nothing any more."""
        if self._open:
            self._open = False
            self._server.listeners.remove(self._listen)
            self._server.back_listeners.remove(self._relist_all)

    def break_watch(self, *kinds: Kind) -> None:
        """Lose the events of these kinds from now on."""
        self.faults.gap |= set(kinds)

    def mend_watch(self) -> None:
        """Watch again, after a fresh list of what exists."""
        kinds, self.faults.gap = self.faults.gap, set()
        for kind in sorted(kinds, key=lambda k: k.plural):
            self._relist(kind)

    def _relist_all(self) -> None:
        for kind in self._scopes:
            self._relist(kind)

    def _relist(self, kind: Kind) -> None:
        if kind in self._server.absent or self._server.unreachable:
            return
        for obj in self._server.list(kind, None, self._scopes[kind]):
            self._deliver(kind, "", obj)

    def _listen(self, event: Event) -> None:
        if event.kind not in self._scopes or event.kind in self.faults.gap or self._server.unreachable:
            return
        type_ = through(event, event.kind, None, self._scopes[event.kind])
        if type_:
            self._deliver(event.kind, type_, event.obj)
            if self.faults.double and self.faults.random.random() < self.faults.double:
                self._deliver(event.kind, type_, event.obj)

    def _deliver(self, kind: Kind, type_: str, obj: Obj) -> None:
        wait = EVENT_LATENCY + self.faults.delay.get(kind, 0.0)
        if self.faults.jitter:
            wait += self.faults.random.uniform(0, self.faults.jitter)
        # Later events of a kind never overtake earlier ones: they come on one connection.
        due = max(self._loop.time() + wait, self._due.get(kind, 0.0) + 1e-6)
        self._due[kind] = due
        self._loop.call_at(due, self._arrive, kind, type_, obj)

    def _arrive(self, kind: Kind, type_: str, obj: Obj) -> None:
        if self._open:
            self._handle(kind, type_, copied(obj))
