"""The ConfigMaps, Secrets and Services that pods name, kept current by one watch per named object."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from localcluster.kubelet.apiclient import ApiClient, Obj

#: (kind, namespace, name)
Key = tuple[str, str, str]
_PLURAL = {"ConfigMap": "configmaps", "Secret": "secrets"}


@dataclass
class _Entry:
    task: asyncio.Task[None]
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    current: Obj | None = None
    listeners: dict[str, Callable[[], None]] = field(default_factory=dict)


class ObjectCache:
    """Watches an object while at least one pod holds it, as a kubelet does; nothing is polled."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._entries: dict[Key, _Entry] = {}

    def hold(self, holder: str, keys: Iterable[Key], on_change: Callable[[], None]) -> None:
        """Watch ``keys`` for ``holder`` (a pod's uid); ``on_change`` is called whenever one of them changes."""
        for key in keys:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = _Entry(task=asyncio.create_task(self._follow(key)))
            entry.listeners[holder] = on_change

    def drop(self, holder: str) -> None:
        """Forget what ``holder`` held."""
        for key, entry in list(self._entries.items()):
            entry.listeners.pop(holder, None)
            if not entry.listeners:
                entry.task.cancel()
                del self._entries[key]

    async def synced(self, keys: Iterable[Key]) -> None:
        """Wait until each held key has been read once."""
        for key in keys:
            await self._entries[key].synced.wait()

    def get(self, kind: str, namespace: str, name: str) -> Obj | None:
        """The held object as last seen, or None when there is none."""
        entry = self._entries.get((kind, namespace, name))
        return entry.current if entry else None

    async def _follow(self, key: Key) -> None:
        kind, namespace, name = key

        def changed(obj: Obj | None) -> None:
            entry = self._entries.get(key)
            if entry is None:
                return
            entry.current = obj
            entry.synced.set()
            for listener in list(entry.listeners.values()):
                listener()

        await self._client.follow(
            f"/api/v1/namespaces/{namespace}/{_PLURAL[kind]}",
            lambda items: changed(items[0] if items else None),
            lambda event, obj: changed(None if event == "DELETED" else obj),
            fieldSelector=f"metadata.name={name}",
        )


class ServiceTable:
    """All Services, for the environment variables that containers get at their start."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._services: dict[tuple[str, str], Obj] = {}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Follow them for ever."""

        def listed(items: list[Obj]) -> None:
            self._services = {self._key(item): item for item in items}
            self.synced.set()

        def changed(event: str, obj: Obj) -> None:
            if event == "DELETED":
                self._services.pop(self._key(obj), None)
            else:
                self._services[self._key(obj)] = obj

        await self._client.follow("/api/v1/services", listed, changed)

    @staticmethod
    def _key(obj: Obj) -> tuple[str, str]:
        return obj["metadata"]["namespace"], obj["metadata"]["name"]

    def for_pod(self, namespace: str, links: bool) -> list[Obj]:
        """The API server's Service always, the namespace's own with ``links`` (enableServiceLinks)."""
        own = [item for key, item in self._services.items() if links and key[0] == namespace]
        api = self._services.get(("default", "kubernetes"))
        return [*own, api] if api is not None and api not in own else own
