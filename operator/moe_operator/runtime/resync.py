"""LISTs everything at the start and every few minutes: what makes lost events harmless.

A watch that begins anew after a gap never tells what was deleted meanwhile; only a LIST does. Workers start once
the first resync has an answer for every kind.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from moe_operator.controller.kube import (
    MODEL_DEPLOYMENT,
    NODE,
    OPTIONAL_KINDS,
    ForbiddenError,
    Kind,
    KubeClient,
    KubeError,
    NotFoundError,
    Obj,
)
from moe_operator.controller.store import Key, Store
from moe_operator.runtime.freshness import Freshness
from moe_operator.runtime.source import WATCHED_KINDS, selector

log = logging.getLogger(__name__)

#: Seconds until the next resync, drawn between the two.
INTERVAL = (300.0, 600.0)
#: Kinds that the operator can do without: it then assumes what it cannot read, or does not use them.
OPTIONAL = frozenset({NODE}) | OPTIONAL_KINDS
#: Seconds until the next look at kinds that were absent or forbidden, and after a LIST that failed.
RECHECK = 15.0
#: The same for kinds that many clusters never serve. Only their watch waits for it: a deployment that needs one asks
#: for itself.
RECHECK_OPTIONAL = 60.0


class ResyncObserver(Protocol):
    """Told what resyncs find."""

    def resynced(self, outcome: str, seconds: float) -> None:
        """One resync ended; outcome: success or error."""

    def lost_deletions(self, kind: str, count: int) -> None:
        """Objects of a kind were gone without the watch having said so."""


class Resync:
    """Keeps the store equal to the cluster, and everything looked at again now and then."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        freshness: Freshness,
        enqueue: Callable[[Key], None],
        *,
        namespaces: Sequence[str],
        observer: ResyncObserver,
        draw: Callable[[], float],
        interval: tuple[float, float] = INTERVAL,
        kinds: Sequence[Kind] = WATCHED_KINDS,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`draw` gives numbers in [0, 1); `namespaces`: empty for all; `changed` is called when the set of kinds
        that can be watched has changed."""
        self._client = client
        self._store = store
        self._freshness = freshness
        self._enqueue = enqueue
        self._namespaces = list(namespaces)
        self._observer = observer
        self._draw = draw
        self._interval = interval
        self._kinds = kinds
        self._changed = changed
        self._missed: set[Kind] = set()
        """Absent in the last LIST, although the store has objects: believed at the second time only."""
        self._looked_at = float("-inf")
        """When optional kinds were looked for last."""
        self._wanted = asyncio.Event()
        self._wanted_at: float | None = None
        self.ready = asyncio.Event()
        """Set once every kind has an answer: listed, absent, or (nodes only) forbidden."""

    def watchable(self) -> list[Kind]:
        """The kinds that exist and may be read."""
        return [k for k in self._kinds if k in self._store.synced and not self._barred(k)]

    def lacking(self) -> list[Kind]:
        """Kinds that may not be listed although nothing can be judged without them."""
        return [k for k in self._kinds if k in self._store.forbidden and k not in OPTIONAL]

    def request(self, delay: float = 0.0) -> None:
        """Have a resync in `delay` seconds at the latest."""
        due = asyncio.get_running_loop().time() + delay
        if self._wanted_at is None or due < self._wanted_at:
            self._wanted_at = due
            self._wanted.set()

    async def run(self) -> None:
        """Resync until cancelled."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            complete = await self.once()
            failures = 0 if complete else failures + 1
            low, high = self._interval
            wait = low + (high - low) * self._draw()
            if not complete:
                wait = min(RECHECK, 2.0**failures) * (0.75 + 0.5 * self._draw())
            regular = loop.time() + wait
            while (due := self._due(regular)) > loop.time():
                recheck = loop.time() + RECHECK * (0.75 + 0.5 * self._draw())
                self._wanted.clear()
                try:
                    async with asyncio.timeout_at(min(due, recheck)):
                        await self._wanted.wait()
                except TimeoutError:
                    if recheck < due:
                        await self._look_again()

    def _due(self, regular: float) -> float:
        return regular if self._wanted_at is None else min(regular, self._wanted_at)

    async def once(self) -> bool:
        """LIST every kind, take the answers as the truth, and have everything looked at. False if a LIST failed."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._wanted_at = None
        before = set(self.watchable())
        complete = True
        for kind in self._kinds:
            complete &= await self._list(kind)
        self._enqueue_all()
        self._observer.resynced("success" if complete else "error", loop.time() - started)
        self._answered()
        if set(self.watchable()) != before:
            self._changed()
        return complete

    async def _look_again(self) -> None:
        """Look whether kinds that were absent or forbidden can be listed by now."""
        barred = [k for k in self._kinds if self._barred(k)]
        now = asyncio.get_running_loop().time()
        if now - self._looked_at < RECHECK_OPTIONAL:
            barred = [k for k in barred if k not in OPTIONAL_KINDS]
        else:
            self._looked_at = now
        for kind in barred:
            await self._list(kind)
        if any(not self._barred(k) for k in barred):
            self._enqueue_all()
            self._changed()
            self._answered()

    def _enqueue_all(self) -> None:
        keys = self._store.keys()
        for key in keys:
            self._enqueue(key)

    def _answered(self) -> None:
        if not self.lacking() and all(k in self._store.synced or self._barred(k) for k in self._kinds):
            self.ready.set()

    def _barred(self, kind: Kind) -> bool:
        return kind in self._store.absent or kind in self._store.forbidden

    async def _list(self, kind: Kind) -> bool:
        """LIST one kind into the store. False if the API server could not say."""
        scoped: Sequence[str] | None = self._namespaces if kind.namespaced and self._namespaces else None
        mark = self._store.mark()
        try:
            found: list[Obj] = []
            for namespace in scoped or (None,):
                found += await self._client.list(kind, namespace, selector(kind))
        except NotFoundError:
            return self._absent(kind)
        except ForbiddenError as error:
            if kind not in self._store.forbidden:
                what = "going on without" if kind in OPTIONAL else "nothing is done until it is granted"
                log.warning("%s may not be listed, %s: %s", kind.kind, what, error.message)
            self._store.forbidden.add(kind)
            self._store.absent.discard(kind)
            return True
        except KubeError as error:
            log.warning("could not list %s: %s", kind.kind, error)
            return False
        if self._barred(kind):
            log.info("%s can be listed now", kind.kind)
        self._store.absent.discard(kind)
        self._store.forbidden.discard(kind)
        self._missed.discard(kind)
        self._take(kind, found, scoped, mark)
        return True

    def _absent(self, kind: Kind) -> bool:
        if kind not in self._store.absent:
            hint = ": install the chart moe-operator-crds" if kind is MODEL_DEPLOYMENT else ""
            level = logging.INFO if kind in OPTIONAL_KINDS else logging.WARNING
            log.log(level, "the API server does not serve %s (%s)%s", kind.kind, kind.api_version, hint)
        self._store.absent.add(kind)
        self._store.forbidden.discard(kind)
        if kind in self._missed or not self._store.all(kind):
            # Said twice, or nothing to lose: a server that has just started may say so by mistake.
            self._take(kind, [], None, self._store.mark())
        self._missed.add(kind)
        return True

    def _take(self, kind: Kind, found: list[Obj], scoped: Sequence[str] | None, mark: int) -> None:
        first = kind not in self._store.synced
        if not first:
            self._freshness.listed(kind, found, self._store, scoped)
        known = {o["metadata"].get("uid") for o in self._store.all(kind)}
        for key in sorted(self._store.replace(kind, found, scoped, since=mark)):
            self._enqueue(key)
        gone = known - {o["metadata"].get("uid") for o in self._store.all(kind)}
        if gone and not first:
            self._observer.lost_deletions(kind.kind, len(gone))
