"""The namespace's ComputeDomain: made by the first deployment that needs it, shared, and gone with the last.

Each deployment that needs it adds its own owner reference. Every write names the version that it was decided on, as
several deployments write to the one object.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.controller.children import NameConflictError
from moe_operator.controller.kube import COMPUTE_DOMAIN, ConflictError, KubeClient, NotFoundError, Obj
from moe_operator.controller.store import Store
from moe_operator.resources.compute_domain import (
    COMPUTE_DOMAIN_NAME,
    build_compute_domain,
    owner_of,
    owners,
)


async def ensure_compute_domain(
    client: KubeClient,
    store: Store,
    deployment: ModelDeployment,
    before_create: Callable[[], Awaitable[None]],
) -> None:
    """Have the ComputeDomain, and be one of its owners.

    Raises NameConflictError while an object that is not the operator's has its name, or one is on its way out: pods
    that join that one would be left without a channel.
    """
    cached = store.get(COMPUTE_DOMAIN, deployment.namespace, COMPUTE_DOMAIN_NAME)
    if cached is not None and _shared(cached) and _owned_by(cached, deployment):
        return
    live = await client.get(COMPUTE_DOMAIN, deployment.namespace, COMPUTE_DOMAIN_NAME)
    if live is None:
        await before_create()
        # A conflict is the doing of another deployment: the next try joins it.
        store.upsert(COMPUTE_DOMAIN, await client.create(COMPUTE_DOMAIN, build_compute_domain(deployment)))
        return
    if not _shared(live):
        raise NameConflictError(COMPUTE_DOMAIN, live, deployment, shared=True)
    if _owned_by(live, deployment):
        store.upsert(COMPUTE_DOMAIN, live)
        return
    await before_create()
    await _set_owners(client, store, live, [*owners(live), owner_of(deployment)])


async def leave_compute_domain(client: KubeClient, store: Store, deployment: ModelDeployment) -> None:
    """Own it no longer: no pod of this deployment can ask for a channel any more. The last owner deletes it."""
    cached = store.get(COMPUTE_DOMAIN, deployment.namespace, COMPUTE_DOMAIN_NAME)
    if cached is None or not _shared(cached) or not _owned_by(cached, deployment):
        return
    others = [one for one in owners(cached) if one.get("uid") != deployment.uid]
    try:
        if others:
            await _set_owners(client, store, cached, others)
            return
        meta = cached["metadata"]
        await client.delete(
            COMPUTE_DOMAIN,
            deployment.namespace,
            meta["name"],
            uid=meta["uid"],
            resource_version=meta["resourceVersion"],
        )
        store.remove(COMPUTE_DOMAIN, cached)
    except (NotFoundError, ConflictError):
        return  # it has changed: the watch tells, and the next reconcile looks again


async def _set_owners(client: KubeClient, store: Store, live: Mapping[str, Any], wanted: list[Obj]) -> None:
    meta = live["metadata"]
    patch = {
        "metadata": {
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
            "ownerReferences": wanted,
        }
    }
    fresh = await client.patch(COMPUTE_DOMAIN, meta["namespace"], meta["name"], patch)
    store.upsert(COMPUTE_DOMAIN, fresh)


def _shared(domain: Mapping[str, Any]) -> bool:
    """Whether it is the operator's and stays."""
    meta = domain["metadata"]
    ours = (meta.get("labels") or {}).get(names.LABEL_MANAGED_BY) == names.MANAGED_BY
    return ours and not meta.get("deletionTimestamp")


def _owned_by(domain: Mapping[str, Any], deployment: ModelDeployment) -> bool:
    return any(one.get("uid") == deployment.uid for one in owners(domain))
