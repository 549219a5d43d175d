"""What a new plan needs of the cluster: nodes from the cache, and, live, pods that hold GPUs and a config.json.

Pods of other owners are not watched: most clusters have thousands, and they matter only while a plan is made or a group
finds no room.
"""

from collections.abc import Callable
from dataclasses import dataclass

from moe_operator.api import reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.accelerators import Catalog
from moe_operator.catalog.models.catalog import Model, load_models
from moe_operator.catalog.models.config_reader import ConfigError
from moe_operator.controller import revisions
from moe_operator.controller.kube import CONFIG_MAP, NODE, POD, ForbiddenError, KubeClient, Obj
from moe_operator.controller.revisions import Choice
from moe_operator.controller.store import Store
from moe_operator.planner.inventory import Inventory, inventory_from
from moe_operator.planner.nodes import hardware_options
from moe_operator.planner.plan import Refusal
from moe_operator.planner.room import groups_with_room
from moe_operator.planner.shape import GroupShape
from moe_operator.resources.revision import Revision

#: Seconds for which a census of pods is taken to hold: a pass over many deployments lists pods once.
_CENSUS_HOLDS = 15.0


@dataclass(frozen=True)
class Room:
    """Free GPUs for groups of one revision."""

    groups: int
    """Whole groups that would find room now."""
    free: int
    """Free GPUs on nodes of the accelerator that take these pods."""
    nodes: int
    """Such nodes."""


class Planning:
    """Plans new revisions, and says whether there is room for their groups."""

    def __init__(
        self, client: KubeClient, store: Store, catalog: Catalog, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._pods: list[Obj] | None = None
        self._counted_at: float | None = None

    async def choose(self, deployment: ModelDeployment, kept: dict[str, Revision]) -> Choice | Refusal:
        """The revision that this spec wants: a kept one, else a new plan."""
        if found := revisions.find_kept(deployment, kept):
            return found
        config = await self._config(deployment)
        if isinstance(config, Refusal):
            return config
        return revisions.make(deployment, await self._inventory(), self._catalog, config)

    async def room(self, deployment: ModelDeployment, revision: Revision) -> Room | None:
        """Room for groups of this revision; None where it cannot be told."""
        inventory, plan = await self._inventory(), revision.plan
        options = hardware_options(deployment.spec, inventory, self._catalog)
        if isinstance(options, Refusal) or inventory.held is None:
            return None
        hardware = next((o for o in options if o.profile.name == plan.accelerator), None)
        resource = hardware.profile.resource_name if hardware else None
        if hardware is None or resource is None:
            return None
        shape = GroupShape(plan.tensor, plan.data, plan.gpus_per_pod)
        groups = groups_with_room(deployment.spec, hardware, inventory, shape)
        if groups is None:
            return None
        free = sum(inventory.free(node).get(resource, 0) for node in hardware.nodes)
        return Room(groups, free, len(hardware.nodes))

    async def _inventory(self) -> Inventory:
        if NODE in self._store.forbidden:
            return Inventory(nodes=None)
        return inventory_from(self._store.all(NODE), await self._census(), catalog=self._catalog)

    async def _census(self) -> list[Obj] | None:
        """Pods of all namespaces; None where the operator may not list them."""
        now = self._clock()
        if self._counted_at is None or now - self._counted_at > _CENSUS_HOLDS:
            try:
                self._pods = await self._client.list(POD)
            except ForbiddenError:
                self._pods = None
            self._counted_at = now
        return self._pods

    async def _config(self, deployment: ModelDeployment) -> Model | Refusal | None:
        """The model of `model.configFrom`; None where the spec has none."""
        source = deployment.spec.model.config_from
        if source is None:
            return None
        where = f"model.configFrom: ConfigMap {source.name}"
        found = await self._client.get(CONFIG_MAP, deployment.namespace, source.name)
        if found is None:
            message = f"{where} does not exist in namespace {deployment.namespace}: create it"
            return Refusal(reasons.INVALID_SPEC, message, retry=True)
        text = (found.get("data") or {}).get(source.key)
        if text is None:
            keys = ", ".join(sorted(found.get("data") or {})) or "none"
            message = f"{where} has no key {source.key!r} (it has {keys}): set model.configFrom.key"
            return Refusal(reasons.INVALID_SPEC, message, retry=True)
        try:
            return load_models().from_config(deployment.spec.model.name, text)
        except ConfigError as error:
            return Refusal(reasons.INVALID_SPEC, f"{where}, {source.key}: {error}", retry=True)
