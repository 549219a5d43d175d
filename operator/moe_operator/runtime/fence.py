"""Lets writes through only while the lease is held."""

from collections.abc import Callable
from typing import Literal

from moe_operator.controller.kube import Kind, KubeClient, KubeError, Obj

Objects = list[Obj]


class NotLeadingError(KubeError):
    """A write after the lease was lost; it was not sent."""

    def __init__(self) -> None:
        super().__init__(0, "NotLeading", "this replica no longer holds the lease; nothing was sent")


class FencedClient:
    """A KubeClient whose writes ask first. It narrows the moment in which two replicas write, to one request."""

    def __init__(self, client: KubeClient, holds: Callable[[], bool]) -> None:
        self._client = client
        self._holds = holds

    def _check(self) -> None:
        if not self._holds():
            raise NotLeadingError

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        return await self._client.get(kind, namespace, name)

    async def pod_logs(
        self, namespace: str, pod: str, container: str, *, previous: bool = False, tail_lines: int = 20
    ) -> str:
        return await self._client.pod_logs(
            namespace, pod, container, previous=previous, tail_lines=tail_lines
        )

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        self._check()
        return await self._client.create(kind, obj)

    async def apply(self, kind: Kind, obj: Obj) -> Obj:
        self._check()
        return await self._client.apply(kind, obj)

    async def apply_status(self, kind: Kind, obj: Obj) -> Obj:
        self._check()
        return await self._client.apply_status(kind, obj)

    async def patch(self, kind: Kind, namespace: str | None, name: str, patch: Obj) -> Obj:
        self._check()
        return await self._client.patch(kind, namespace, name, patch)

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str,
        propagation: Literal["Foreground", "Background"] = "Background",
        grace_seconds: int | None = None,
        resource_version: str | None = None,
    ) -> None:
        self._check()
        await self._client.delete(
            kind,
            namespace,
            name,
            uid=uid,
            propagation=propagation,
            grace_seconds=grace_seconds,
            resource_version=resource_version,
        )

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, field_selector: str = ""
    ) -> Objects:
        return await self._client.list(kind, namespace, label_selector, field_selector=field_selector)
