"""The inventory of a live cluster: nodes from the cache; what holds their GPUs is listed when it is asked for.

Pods of other owners, ResourceSlices and ResourceClaims are not watched: most clusters have thousands, and they
matter only while a plan is made or a group finds no room.
"""

import asyncio
import math
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace

from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller.kube import (
    NODE,
    POD,
    RESOURCE_CLAIM,
    RESOURCE_SLICE,
    ForbiddenError,
    Kind,
    KubeClient,
    NotFoundError,
    Obj,
)
from moe_operator.controller.store import Store
from moe_operator.planner.inventory import Inventory, NodeReader, held_from, inventory_from
from moe_operator.planner.pod_requests import DeviceCount

#: Seconds for which a census is taken to hold: a pass over many deployments takes one.
_HOLDS = 15.0
#: Seconds for which one will do for what cannot wait, while the next is taken: nodes and the operator's own pods are
#: watched, and all pods of a large cluster take seconds to list.
_WILL_DO = 60.0


@dataclass(frozen=True)
class Holders:
    """What says which GPUs there are beside device plugins' and who holds any."""

    pods: list[Obj] | None = None
    """Of all namespaces; None where they may not be listed."""
    slices: list[Obj] = field(default_factory=list)
    claims: list[Obj] = field(default_factory=list)

    def inventory(self, nodes: list[Obj], reader: NodeReader) -> Inventory:
        """The cluster of these nodes."""
        return inventory_from(nodes, self.pods, self.slices, self.claims, reader=reader)


@dataclass(frozen=True)
class Present:
    """The cluster at this moment."""

    inventory: Inventory
    looked_at: frozenset[str]
    """Uids of the pods that had nodes when ResourceClaims were looked at: what they claim is counted."""


async def list_holders(client: KubeClient) -> Holders:
    """Look at the cluster; what may not be listed is left out."""
    # Kubernetes before 1.34 serves earlier versions of slices only: GPUs are extended resources there.
    slices = await _listed(client, RESOURCE_SLICE) or []
    # Pods first: a claim is allocated before its pod is bound, so every pod that is seen bound has its GPUs counted.
    pods = await _listed(client, POD)
    claims = (await _listed(client, RESOURCE_CLAIM) or []) if slices else []
    return Holders(pods, slices, claims)


async def _listed(client: KubeClient, kind: Kind) -> list[Obj] | None:
    """All of a kind; None where it is unknown or may not be listed."""
    try:
        return await client.list(kind)
    except (ForbiddenError, NotFoundError):
        return None


class Census:
    """Inventories; what has not changed since the last is not made anew."""

    def __init__(
        self, client: KubeClient, store: Store, config: OperatorConfig, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._store = store
        self._clock = clock
        self._reader = NodeReader.of(config)
        self._count = DeviceCount()
        self._taken_at: float | None = None
        self._holders = Holders()
        self._others: list[Obj] = []
        """Pods of the last look but for those that were in the cache when it began."""
        self._bound: frozenset[str] = frozenset()
        """Uids of those that had nodes then, whosoever they are."""
        self._known: dict[bool, tuple[object, Inventory]] = {}
        self._taking: asyncio.Task[None] | None = None

    async def inventory(self) -> Inventory:
        """The cluster as it is now; nothing is said of nodes, or of what is in use, where that may not be listed."""
        if NODE in self._store.forbidden:
            return Inventory(nodes=None)
        await self._take()
        return self._made(self._holders, in_use=True)

    async def present(self, without: Container[str] = ()) -> Present:
        """The same with our own pods as the cache has them now: what groups that were made since the last look hold.

        `without`: uids of pods that are taken as gone.
        """
        if NODE in self._store.forbidden:
            return Present(Inventory(nodes=None), frozenset())
        await self._take(_WILL_DO)
        known = self._holders
        if known.pods is None:
            return Present(self._made(known, in_use=True), frozenset())
        own = {pod["metadata"]["uid"]: pod for pod in self._store.all(POD)}
        others = [pod for pod in self._others if pod["metadata"]["uid"] not in own]
        kept = [pod for uid, pod in own.items() if uid not in without]
        facts, by_requests = self.nodes(), self._count.of([*others, *kept])
        held = held_from(facts, by_requests, known.slices, known.claims)
        return Present(replace(facts, held=held), self._bound)

    def nodes(self) -> Inventory:
        """The cluster's nodes alone: nothing is said of what is in use."""
        if NODE in self._store.forbidden:
            return Inventory(nodes=None)
        return self._made(Holders(slices=self._holders.slices), in_use=False)

    def _made(self, holders: Holders, *, in_use: bool) -> Inventory:
        """The inventory of the nodes in the cache, made anew if they or the census are others than last time."""
        nodes = self._store.all(NODE)
        versions = tuple(node["metadata"].get("resourceVersion", "") for node in nodes)
        stamp = (self._taken_at, versions)
        known = self._known.get(in_use)
        if known is None or known[0] != stamp:
            known = self._known[in_use] = (stamp, holders.inventory(nodes, self._reader))
        return known[1]

    async def _take(self, will_do: float = _HOLDS) -> None:
        """List what is not watched, unless that was done just now; nobody waits for it while the last list is not older
        than `will_do` seconds. Raises KubeError where it was waited for."""
        age = math.inf if self._taken_at is None else self._clock() - self._taken_at
        if age <= _HOLDS:
            return
        if self._taking is None or self._taking.done():
            self._taking = asyncio.create_task(self._list())
            self._taking.add_done_callback(_seen)
        if age > will_do:
            await asyncio.shield(self._taking)

    async def _list(self) -> None:
        now = self._clock()
        own = frozenset(pod["metadata"]["uid"] for pod in self._store.all(POD))
        self._holders = await list_holders(self._client)
        self._taken_at = now
        pods = self._holders.pods or []
        self._bound = frozenset(p["metadata"]["uid"] for p in pods if (p.get("spec") or {}).get("nodeName"))
        self._others = [pod for pod in pods if pod["metadata"]["uid"] not in own]

    async def close(self) -> None:
        """Stop what runs beside the reconciles."""
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.wait([self._taking])


def _seen(task: asyncio.Task[None]) -> None:
    """A failure is the next caller's: it finds the census too old."""
    if not task.cancelled():
        task.exception()
