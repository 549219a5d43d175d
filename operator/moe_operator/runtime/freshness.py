"""Notices a watch that has gone deaf: connected, silent, and missing changes.

A quiet cluster sends nothing either, so silence proves nothing. What proves deafness is a change that a LIST shows
and the watch does not deliver. The resync's LISTs are compared, and, more often, LISTs of metadata only, which the
API server answers from its own cache; kinds whose watch was heard lately are not asked for.
Lost deletions prove nothing either: a watch that begins anew after a gap never tells of them.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moe_operator.controller.kube import Kind, KubeError, Obj
from moe_operator.controller.store import Store, version_of
from moe_operator.runtime.source import selector

log = logging.getLogger(__name__)

At = tuple[str, str]

#: Seconds between two checks of all kinds.
INTERVAL = 60.0
#: A kind whose watch delivered something within this time hears: it is not asked for.
HEARD_LATELY = 45.0


@dataclass(frozen=True)
class _Owed:
    """A version that the watch has to deliver, and since when."""

    version: int
    since: float


class MetadataLister(Protocol):
    """What a check needs of the API server."""

    async def list_metadata(
        self, kind: Kind, namespace: str | None = None, label_selector: str = ""
    ) -> list[Obj]: ...


class Freshness:
    """What LISTs have shown and watches still owe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._owed: dict[Kind, dict[At, _Owed]] = {}
        self._heard: dict[Kind, float] = {}

    def heard(self, kind: Kind, obj: Mapping[str, Any]) -> None:
        """The watch delivered an event."""
        self._heard[kind] = self._clock()
        owed = self._owed.get(kind)
        if not owed:
            return
        at = (obj["metadata"].get("namespace") or "", obj["metadata"]["name"])
        debt = owed.get(at)
        version = version_of(obj)
        if debt and (version is None or version >= debt.version):
            del owed[at]

    def listed(
        self, kind: Kind, objects: Iterable[Mapping[str, Any]], store: Store, namespaces: Sequence[str] | None
    ) -> None:
        """A LIST came in; to be called before the store takes it up."""
        now = self._clock()
        owed = self._owed.setdefault(kind, {})
        seen: dict[At, int] = {}
        for obj in objects:
            meta = obj["metadata"]
            at = (meta.get("namespace") or "", meta["name"])
            version = version_of(obj)
            if version is None:
                continue
            seen[at] = version
            known = store.get(kind, *at)
            known_version = version_of(known) if known else None
            if (known is None or (known_version is not None and version > known_version)) and at not in owed:
                owed[at] = _Owed(version, now)
        for at, debt in list(owed.items()):
            listed_here = namespaces is None or at[0] in namespaces
            # Gone, or turned back by a restored database: nobody will deliver that version any more.
            if listed_here and seen.get(at, -1) < debt.version:
                del owed[at]

    def forget(self, kinds: Iterable[Kind]) -> None:
        """These kinds are not watched (any more)."""
        for kind in kinds:
            self._owed.pop(kind, None)

    def overdue(self, kind: Kind) -> float:
        """Seconds that the oldest change of a kind has been owed; 0 when none is."""
        owed = self._owed.get(kind)
        return self._clock() - min(d.since for d in owed.values()) if owed else 0.0

    def heard_lately(self, kind: Kind) -> bool:
        heard = self._heard.get(kind)
        return heard is not None and self._clock() - heard < HEARD_LATELY


class FreshnessCheck:
    """Asks the API server now and then what the watches should have delivered."""

    def __init__(
        self,
        client: MetadataLister,
        store: Store,
        freshness: Freshness,
        *,
        kinds: Callable[[], Iterable[Kind]],
        namespaces: Sequence[str],
        jitter: Callable[[], float],
    ) -> None:
        """`kinds`: those watched at the moment; `namespaces`: empty for all; `jitter`: numbers in [0, 1)."""
        self._client = client
        self._store = store
        self._freshness = freshness
        self._kinds = kinds
        self._namespaces = list(namespaces)
        self._jitter = jitter

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL * (0.9 + 0.2 * self._jitter()))
            await self.once()

    async def once(self) -> None:
        """Check every kind whose watch has been silent. An API server that cannot be asked is no finding."""
        for kind in list(self._kinds()):
            if self._freshness.heard_lately(kind):
                continue
            scoped: Sequence[str] | None = self._namespaces if kind.namespaced and self._namespaces else None
            try:
                found: list[Obj] = []
                for namespace in scoped or (None,):
                    found += await self._client.list_metadata(kind, namespace, selector(kind))
            except KubeError as error:
                log.debug("could not check the watch of %s: %s", kind.kind, error)
                continue
            self._freshness.listed(kind, found, self._store, scoped)
