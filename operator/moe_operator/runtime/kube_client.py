"""`controller.kube.KubeClient` on the official asyncio client, over plain dicts.

The client library's typed models are not used: they drop fields that they do not know.
"""

from typing import Literal

from moe_operator.api import names
from moe_operator.controller.kube import (
    POD,
    ConflictError,
    InvalidError,
    Kind,
    KubeError,
    NotFoundError,
    Obj,
)
from moe_operator.runtime.transport import Query, Transport, loads

#: The verb `list` hides the built-in type inside the class.
Objects = list[Obj]

_MERGE_PATCH = "application/merge-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
#: Without the object itself as an alternative: what is not to be read never comes.
_ONE_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

#: Objects per page of a LIST: about 5 MB of pods, which parses in some 50 ms.
PAGE = 500
#: Times that a paged LIST begins anew because the server's history moved on, before it is asked for whole.
_PAGED_TRIES = 2


class AioKubeClient:
    """The verbs of `KubeClient`, and a few more that only the runtime needs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def close(self) -> None:
        await self._transport.close()

    # --- reads: repeated a few times where a moment may help ------------------------------------------

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        try:
            return loads(await self._transport.read("get", kind.kind, kind.path(namespace, name)))
        except NotFoundError:
            return None

    async def get_metadata(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        """Like `get`, but only the metadata leaves the API server: a Secret's content does not."""
        path = kind.path(namespace, name)
        try:
            return loads(
                await self._transport.read("get_metadata", kind.kind, path, accept=_ONE_METADATA_ONLY)
            )
        except NotFoundError:
            return None

    async def get_path(self, path: str) -> Obj:
        """GET of any path that answers a JSON object, such as `/openapi/v3/apis/...`. Raises KubeError."""
        return loads(await self._transport.read("get", "Path", path))

    async def pod_logs(
        self, namespace: str, pod: str, container: str, *, previous: bool = False, tail_lines: int = 20
    ) -> str:
        query = [("container", container), ("tailLines", str(tail_lines))]
        if previous:
            query.append(("previous", "true"))
        path = POD.path(namespace, pod, "log")
        # Tried once: what a log tells is a help, and who reads it must not wait for a kubelet that is gone.
        raw = await self._transport.send("GET", "get", "PodLog", path, query, accept="*/*")
        return raw.decode(errors="replace")

    async def proxied(
        self, kind: Kind, namespace: str, name: str, path: str, query: Query, most: int
    ) -> bytes:
        """GET of what a pod or Service answers, through the API server: at most so many bytes. `name`: as
        `http:NAME:PORT`. Tried once: who asks knows whom else to ask. Raises KubeError."""
        whole = kind.path(namespace, name, f"proxy{path}")
        return await self._transport.send("GET", "get", "Proxy", whole, query, accept="*/*", most=most)

    # --- writes: tried once ---------------------------------------------------------------------------

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        path = kind.path(obj["metadata"].get("namespace"))
        query = [("fieldManager", names.FIELD_MANAGER)]
        return loads(await self._transport.send("POST", "create", kind.kind, path, query, obj))

    async def apply(self, kind: Kind, obj: Obj) -> Obj:
        return await self._apply(kind, obj, names.FIELD_MANAGER, None)

    async def apply_status(self, kind: Kind, obj: Obj) -> Obj:
        return await self._apply(kind, obj, names.STATUS_FIELD_MANAGER, "status")

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Obj,
        *,
        manager: str = names.FIELD_MANAGER,
    ) -> Obj:
        query = [("fieldManager", manager)]
        return await self._patch("patch", kind, kind.path(namespace, name), query, patch, _MERGE_PATCH)

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
        preconditions = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        body: Obj = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": preconditions,
            "propagationPolicy": propagation,
        }
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        path = kind.path(namespace, name)
        try:
            await self._transport.send("DELETE", "delete", kind.kind, path, (), body)
        except NotFoundError:
            return
        except ConflictError as error:
            # Another object of that name. Other conflicts (a race in the storage) are worth another try.
            if "uid" not in error.message.lower():
                raise

    async def _apply(self, kind: Kind, obj: Obj, manager: str, subresource: str | None) -> Obj:
        meta = obj["metadata"]
        body = {"apiVersion": kind.api_version, "kind": kind.kind, **obj}
        path = kind.path(meta.get("namespace"), meta["name"], subresource)
        query = [("fieldManager", manager), ("force", "true")]
        verb = "apply" if subresource is None else f"apply_{subresource}"
        return await self._patch(verb, kind, path, query, body, _APPLY_PATCH)

    async def _patch(
        self, verb: str, kind: Kind, path: str, query: Query, body: Obj, content_type: str
    ) -> Obj:
        try:
            raw = await self._transport.send(
                "PATCH", verb, kind.kind, path, query, body, content_type=content_type
            )
        except InvalidError as error:
            # The API server words a uid that is another's as the change of an immutable field.
            if "uid" in (body.get("metadata") or {}) and "metadata.uid" in error.message:
                raise ConflictError(409, "Conflict", error.message) from error
            raise
        return loads(raw)

    # --- lists ----------------------------------------------------------------------------------------

    async def list_metadata(
        self, kind: Kind, namespace: str | None = None, label_selector: str = ""
    ) -> Objects:
        """Like `list`, but only the metadata, and from the API server's cache: cheap, seconds old at most."""
        query = [("resourceVersion", "0")]
        if label_selector:
            query.append(("labelSelector", label_selector))
        path = kind.path(namespace)
        answer = loads(
            await self._transport.read("list_metadata", kind.kind, path, query, accept=_METADATA_ONLY)
        )
        return answer.get("items") or []

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, field_selector: str = ""
    ) -> Objects:
        given = (("labelSelector", label_selector), ("fieldSelector", field_selector))
        query = [(key, value) for key, value in given if value]
        for _ in range(_PAGED_TRIES):
            try:
                return await self._pages(kind, namespace, query, PAGE)
            except KubeError as error:
                if error.status != 410:
                    raise
                # The continue token outlived the server's history; pages of two moments do not fit together.
        return await self._pages(kind, namespace, query, None)

    async def _pages(self, kind: Kind, namespace: str | None, selected: Query, page: int | None) -> Objects:
        items = []
        query = [*selected]
        if page:
            query.append(("limit", str(page)))
        token = ""
        while True:
            more = [*query, ("continue", token)] if token else query
            answer = loads(await self._transport.read("list", kind.kind, kind.path(namespace), more))
            for item in answer.get("items") or []:
                # Lists of the built-in kinds leave these out of each item.
                item.setdefault("apiVersion", kind.api_version)
                item.setdefault("kind", kind.kind)
                items.append(item)
            token = (answer.get("metadata") or {}).get("continue") or ""
            if not token:
                return items
