"""Children that are applied as a whole: written only when they differ, and only when they are ours."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.controller.kube import ConflictError, Kind, KubeClient, Obj
from moe_operator.controller.store import Store


class NameConflictError(Exception):
    """An object that is not ours has the name of a child; it is left alone."""

    def __init__(
        self, kind: Kind, obj: Mapping[str, Any], deployment: ModelDeployment, *, shared: bool = False
    ) -> None:
        """`shared`: the name is the same for all deployments of the namespace."""
        meta = obj["metadata"]
        self.passing = bool(meta.get("deletionTimestamp")) or _of_predecessor(obj, deployment)
        """Whether it is on its way out: then there is nothing to do but wait."""
        what = f"{kind.kind} {meta['name']}"
        super().__init__(
            f"waiting until {what}{'' if shared else ' of an earlier ModelDeployment of this name'} is gone"
            if self.passing
            else f"{what} exists and was not made by the operator: delete it, or use another namespace"
            if shared
            else f"{what} exists and does not belong to this ModelDeployment: "
            f"delete or rename it, or give the ModelDeployment another name"
        )


def _of_predecessor(obj: Mapping[str, Any], deployment: ModelDeployment) -> bool:
    """Whether a deleted ModelDeployment of the same name controls it: the garbage collector is about to take it."""
    references = obj["metadata"].get("ownerReferences") or []
    return any(
        r.get("controller")
        and (r.get("kind"), r.get("name")) == (names.KIND, deployment.name)
        and r.get("uid") != deployment.uid
        for r in references
    )


def is_ours(obj: Mapping[str, Any], deployment: ModelDeployment) -> bool:
    """Whether this very ModelDeployment controls the object."""
    references = obj["metadata"].get("ownerReferences") or []
    return any(r.get("controller") and r.get("uid") == deployment.uid for r in references)


def covers(live: Any, wanted: Any) -> bool:
    """Whether everything wanted is there as wanted; what the API server or others added does not count.

    Lists are compared by position and must be as long: the children applied here have no lists that others extend,
    but for the owner references, where ours must be among them.
    """
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(k in live and covers(live[k], v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(covers(a, b) for a, b in zip(live, wanted, strict=True))
        )
    return bool(live == wanted)


async def ensure(
    client: KubeClient,
    store: Store,
    deployment: ModelDeployment,
    kind: Kind,
    wanted: Sequence[Obj],
    before_create: Callable[[], Awaitable[None]],
) -> int:
    """Make the objects of one kind as wanted; returns the number of writes.

    Whatever `before_create` raises keeps an object from being made. Raises NameConflictError, without having
    written to it, when another's object has the name.
    """
    writes = 0
    cached = {o["metadata"]["name"]: o for o in store.children(deployment.key, kind)}
    for obj in wanted:
        name = obj["metadata"]["name"]
        live = cached.get(name)
        if live is not None and is_ours(live, deployment) and covers(live, obj):
            continue
        live = await client.get(kind, deployment.namespace, name)
        if live is None:
            await before_create()
            try:
                fresh = await client.create(kind, obj)
            except ConflictError:
                found = await client.get(kind, deployment.namespace, name)
                if found is None:
                    raise
                if not is_ours(found, deployment):
                    raise NameConflictError(kind, found, deployment) from None
                fresh = found
        elif not is_ours(live, deployment):
            raise NameConflictError(kind, live, deployment)
        elif live["metadata"].get("deletionTimestamp"):
            continue
        elif covers(live, obj):
            store.upsert(kind, live)
            continue
        else:
            pinned = {**obj, "metadata": {**obj["metadata"], "uid": live["metadata"]["uid"]}}
            fresh = await client.apply(kind, pinned)
        store.upsert(kind, fresh)
        writes += 1
    return writes


async def prune(
    client: KubeClient, store: Store, deployment: ModelDeployment, kind: Kind, keep: set[str]
) -> int:
    """Delete children of one kind that are no longer wanted; returns the number of deletes."""
    writes = 0
    for obj in store.children(deployment.key, kind):
        meta = obj["metadata"]
        if meta["name"] in keep or meta.get("deletionTimestamp") or not is_ours(obj, deployment):
            continue
        if (meta.get("labels") or {}).get(names.LABEL_MANAGED_BY) != names.MANAGED_BY:
            continue
        await client.delete(kind, deployment.namespace, meta["name"], uid=meta["uid"])
        store.remove(kind, obj)
        writes += 1
    return writes
