"""Events about pods, as ``kubectl describe pod`` shows them: repeated ones are counted, floods are dropped."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from localcluster.kubelet.apiclient import ApiClient, ApiError, Obj
from localcluster.kubelet.records import timestamp

#: A kubelet's spam filter: this many at once for each object, then one in so many seconds.
_BURST = 25.0
_REFILL_SECONDS = 300.0
_LONGEST_MESSAGE = 1024


class EventRecorder:
    """Writes Events beside whatever else happens; an Event that cannot be written is dropped."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._queue: asyncio.Queue[tuple[Obj, str, str, str, str]] = asyncio.Queue(maxsize=1000)
        self._known: dict[tuple[str, ...], tuple[str, int]] = {}
        self._budget: dict[str, tuple[float, float]] = {}

    def pod(self, pod: Obj, kind: str, reason: str, message: str, field: str = "") -> None:
        """``kind``: Normal or Warning; ``field``: the part of the pod, such as ``spec.containers{main}``."""
        metadata: Mapping[str, str] = pod["metadata"]
        uid, now = metadata["uid"], time.monotonic()
        left, at = self._budget.get(uid, (_BURST, now))
        left = min(_BURST, left + (now - at) / _REFILL_SECONDS)
        if left < 1:
            return
        self._budget[uid] = (left - 1, now)
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait((pod, kind, reason, message[:_LONGEST_MESSAGE], field))

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._budget.pop(uid, None)
        for key in [key for key in self._known if key[0] == uid]:
            del self._known[key]

    async def run(self) -> None:
        """Write them, one after the other, for ever."""
        while True:
            pod, kind, reason, message, field = await self._queue.get()
            with contextlib.suppress(ApiError):
                await self._write(pod, kind, reason, message, field)

    async def _write(self, pod: Obj, kind: str, reason: str, message: str, field: str) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/events"
        now = timestamp(datetime.now(UTC))
        key = (metadata["uid"], kind, reason, message, field)
        if key in self._known:
            name, count = self._known[key]
            self._known[key] = (name, count + 1)
            await self._client.patch(f"{path}/{name}", {"count": count + 1, "lastTimestamp": now})
            return
        name = f"{metadata['name'][:200]}.{uuid.uuid4().hex[:16]}"
        node = pod["spec"].get("nodeName", "")
        await self._client.post(
            path,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": metadata["namespace"]},
                "involvedObject": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": metadata["name"],
                    "namespace": metadata["namespace"],
                    "uid": metadata["uid"],
                    **({"fieldPath": field} if field else {}),
                },
                "type": kind,
                "reason": reason,
                "message": message,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
                "source": {"component": "kubelet", "host": node},
                "reportingComponent": "kubelet",
                "reportingInstance": node,
            },
        )
        self._known[key] = (name, 1)
