"""The inventory of a live cluster: nodes from the cache; what holds their GPUs is listed when it is asked for.

Pods of other owners, ResourceSlices and ResourceClaims are not watched: most clusters have thousands, and they
matter only while a plan is made or a group finds no room.
"""

from collections.abc import Callable

from moe_operator.catalog.accelerators import Catalog
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
from moe_operator.planner.inventory import Inventory, inventory_from

#: Seconds for which a census is taken to hold: a pass over many deployments takes one.
_HOLDS = 15.0

#: Of which nodes, and by which census, an inventory was made.
_Key = tuple[float, tuple[str, ...]]


class Census:
    """Inventories, made anew only when nodes have changed or the last look at the others is too old."""

    def __init__(
        self, client: KubeClient, store: Store, catalog: Catalog, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._taken_at: float | None = None
        self._pods: list[Obj] | None = None
        self._slices: list[Obj] = []
        self._claims: list[Obj] = []
        self._made: tuple[_Key, Inventory] | None = None

    async def inventory(self) -> Inventory:
        """The cluster as it is now; nothing is said of nodes, or of what is in use, where that may not be listed."""
        if NODE in self._store.forbidden:
            return Inventory(nodes=None)
        taken_at = await self._take()
        nodes = self._store.all(NODE)
        key = (taken_at, tuple(node["metadata"].get("resourceVersion", "") for node in nodes))
        if self._made is None or self._made[0] != key:
            found = inventory_from(nodes, self._pods, self._slices, self._claims, catalog=self._catalog)
            self._made = (key, found)
        return self._made[1]

    def nodes(self) -> Inventory:
        """The cluster's nodes alone: nothing is said of what is in use."""
        if NODE in self._store.forbidden:
            return Inventory(nodes=None)
        return inventory_from(self._store.all(NODE), None, self._slices, catalog=self._catalog)

    async def _take(self) -> float:
        """List what is not watched, unless that was done just now. When it was done."""
        now = self._clock()
        if self._taken_at is None or now - self._taken_at > _HOLDS:
            self._pods = await self._list(POD)
            # Kubernetes before 1.34 serves earlier versions only: GPUs are extended resources there.
            self._slices = await self._list(RESOURCE_SLICE) or []
            self._claims = (await self._list(RESOURCE_CLAIM) or []) if self._slices else []
            self._taken_at = now
        return self._taken_at

    async def _list(self, kind: Kind) -> list[Obj] | None:
        """All of a kind; None where the kind is unknown or may not be listed."""
        try:
            return await self._client.list(kind)
        except (ForbiddenError, NotFoundError):
            return None
