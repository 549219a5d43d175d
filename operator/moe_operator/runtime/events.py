"""Posts Kubernetes Events (events.k8s.io/v1): one object per kind of news, counted as a series when it comes again.

An Event is named after what it says, so that the same news after a restart of the operator, or from another replica,
continues the same object. Posting happens beside the reconciles and never holds one up; an Event that cannot be
posted is counted and forgotten.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.controller.kube import EVENT, ConflictError, KubeClient, KubeError, NotFoundError, Obj

log = logging.getLogger(__name__)

CONTROLLER = f"{names.GROUP}/operator"
#: Events of one deployment: so many at once, and one more for every so many seconds.
BURST = 25
REFILL = 60.0
#: The API server's limit for a note, in bytes.
_NOTE = 1024
_QUEUE = 512
_REMEMBERED = 2048


class EventObserver(Protocol):
    """Told what became of Events."""

    def event(self, outcome: str) -> None:
        """One Event was posted, counted (in its series), dropped, or met an error."""


@dataclass
class _Bucket:
    """Tokens of one deployment."""

    tokens: float
    at: float


class EventPoster:
    """An EventSink. `run` posts what `emit` takes in."""

    def __init__(
        self,
        client: KubeClient,
        *,
        instance: str,
        observer: EventObserver,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """`instance` names this replica; `clock` is monotonic, `wall_clock` gives seconds since the epoch."""
        self._client = client
        self._instance = instance
        self._observer = observer
        self._clock = clock
        self._wall_clock = wall_clock
        self._queue: asyncio.Queue[Obj] = asyncio.Queue(_QUEUE)
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    async def emit(
        self,
        regarding: ModelDeployment,
        type_: Literal["Normal", "Warning"],
        reason: str,
        action: str,
        note: str,
    ) -> None:
        """Take in one Event."""
        if not self._allowed(regarding.uid) or self._queue.full():
            log.info("Event dropped, there are too many: %s %s", reason, note)
            self._observer.event("dropped")
            return
        self._queue.put_nowait(self._event(regarding, type_, reason, action, note))

    async def run(self) -> None:
        """Post until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                self._observer.event(await self._post(event))
            except KubeError as error:
                self._observer.event("error")
                log.warning("Event could not be posted: %s", error)

    def _allowed(self, uid: str) -> bool:
        now = self._clock()
        bucket = self._buckets.pop(uid, None) or _Bucket(BURST, now)
        self._buckets[uid] = bucket
        while len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.at) / REFILL)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    async def _post(self, event: Obj) -> str:
        meta = event["metadata"]
        at = (meta["namespace"], meta["name"])
        if at not in self._counts:
            try:
                await self._client.create(EVENT, event)
                self._remember(at, 1)
                return "posted"
            except ConflictError:
                self._remember(at, 1)
        series = {"count": self._counts[at] + 1, "lastObservedTime": event["eventTime"]}
        try:
            fresh = await self._client.patch(EVENT, at[0], at[1], {"series": series})
        except NotFoundError:
            # Events live for an hour; this one begins anew.
            del self._counts[at]
            await self._client.create(EVENT, event)
            self._remember(at, 1)
            return "posted"
        self._remember(at, (fresh.get("series") or series)["count"])
        return "counted"

    def _remember(self, at: tuple[str, str], count: int) -> None:
        self._counts.pop(at, None)
        self._counts[at] = count
        while len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    def _event(self, regarding: ModelDeployment, type_: str, reason: str, action: str, note: str) -> Obj:
        note = _fitting(note)
        said = "\0".join((regarding.uid, type_, reason, action, note))
        name = f"{regarding.name}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"namespace": regarding.namespace, "name": name},
            "eventTime": datetime.fromtimestamp(self._wall_clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance[:128],
            "type": type_,
            "reason": reason,
            "action": action,
            "note": note,
            "regarding": {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "namespace": regarding.namespace,
                "name": regarding.name,
                "uid": regarding.uid,
            },
        }


def _fitting(note: str) -> str:
    raw = note.encode()
    return note if len(raw) <= _NOTE else raw[: _NOTE - 3].decode(errors="ignore") + "..."
