"""Writes one pod's status: only when it says something new, one write at a time, the newest text first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from localcluster.kubelet import podstatus
from localcluster.kubelet.apiclient import ApiClient, ApiError, Obj


class StatusWriter:
    """``wanted`` is what the kubelet knows, ``shown`` what the API server showed last."""

    def __init__(self, client: ApiClient, pod: Obj) -> None:
        self._client = client
        metadata = pod["metadata"]
        self._uid = metadata["uid"]
        self._path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        self._wanted: Obj | None = None
        self._shown: Obj | None = pod.get("status")
        self._version = int(metadata.get("resourceVersion") or 0)
        self._gone = False
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def conditions(self) -> Sequence[Obj]:
        """The owned conditions as they now stand, whose transition times live on."""
        source = self._wanted or self._shown or {}
        return [entry for entry in source.get("conditions") or [] if entry["type"] in podstatus.OWNED]

    def observe(self, pod: Obj) -> None:
        """The pod as a watch shows it: somebody else may have changed what the kubelet owns."""
        version = int(pod["metadata"]["resourceVersion"])
        if version >= self._version:
            self._version = version
            self._shown = pod.get("status")
            self._poke()

    def want(self, status: Obj) -> None:
        """Make the API server show ``status``."""
        self._wanted = status
        self._poke()

    def _poke(self) -> None:
        if not self._gone and self._wanted is not None and not podstatus.same(self._wanted, self._shown):
            self._idle.clear()
            self._wake.set()

    async def flushed(self) -> None:
        """Wait until all is written, or the pod no longer exists."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write for ever; an unreachable API server is tried again."""
        pause = 0.2
        while True:
            await self._wake.wait()
            self._wake.clear()
            wanted = self._wanted
            if wanted is None or self._gone or podstatus.same(wanted, self._shown):
                self._idle.set()
                continue
            try:
                answer = await self._client.patch(self._path, _patch(self._uid, wanted))
            except ApiError as error:
                if error.status in (404, 409):
                    self._gone = True  # deleted, or another pod has its name by now
                    self._idle.set()
                    continue
                await asyncio.sleep(pause)
                pause = min(2 * pause, 5.0)
                self._wake.set()
                continue
            version = int(answer["metadata"]["resourceVersion"])
            if version >= self._version:
                self._version, self._shown = version, answer.get("status")
            if podstatus.same(wanted, answer.get("status")):
                pause = 0.2
            else:
                # The API server keeps something that we would write otherwise: writing at once would never end.
                await asyncio.sleep(pause)
                pause = min(2 * pause, 30.0)
            self._wake.set()


def _patch(uid: str, status: Obj) -> Obj:
    """Conditions are merged by type: what a condition no longer says must be taken back by name."""
    conditions = [{"reason": None, "message": None, **entry} for entry in status["conditions"]]
    return {"metadata": {"uid": uid}, "status": {**status, "conditions": conditions}}
