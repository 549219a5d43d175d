"""Plans for the cluster as it is: the revision that a spec wants, and whether its groups find room."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from moe_operator.api import reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import ObjectiveSpec
from moe_operator.autoscaler.width_units import with_chosen_width
from moe_operator.catalog.models.catalog import Model, load_models
from moe_operator.catalog.models.config_reader import ConfigError
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller import revisions
from moe_operator.controller.census import Census
from moe_operator.controller.kube import CONFIG_MAP, KubeClient, KubeError
from moe_operator.controller.outlook import differences
from moe_operator.controller.placing import Placing
from moe_operator.controller.revisions import Choice
from moe_operator.controller.store import Key
from moe_operator.planner.allocation import offered_by_slices
from moe_operator.planner.facts import Inventory
from moe_operator.planner.governance import constrained, narrowed, provenance, refused, with_policy_nodes
from moe_operator.planner.nodes import hardware_options
from moe_operator.planner.plan import Refusal
from moe_operator.planner.planning import plan
from moe_operator.planner.room import groups_with_room
from moe_operator.planner.shape import GroupShape
from moe_operator.planner.widths import Width, widths
from moe_operator.resources.fabric import fabric_additions
from moe_operator.resources.pod_security import template_security
from moe_operator.resources.revision import Revision
from moe_operator.resources.security_notes import security_notes

#: Seconds for which a comparison of a kept plan with a new one is taken to hold.
_OUTLOOK_HOLDS = 300.0


@dataclass(frozen=True)
class Room:
    """Free GPUs for groups of one revision."""

    groups: int
    """Whole groups that would find room now."""
    free: int
    """Free GPUs on nodes of the accelerator that take these pods."""
    nodes: int
    """Such nodes."""
    shortage: str | None = None
    """What is missing for a group whose nodes must be of one domain, in numbers."""
    offered: str | None = None
    """What ResourceSlices offer, where the plan asks for GPUs by claims."""


@dataclass(frozen=True)
class _Outlook:
    """What was found about a kept plan, and when (s)."""

    about: tuple[str, ObjectiveSpec]
    at: float
    note: str | None


class Planning:
    """Plans new revisions, and says whether there is room for their groups."""

    def __init__(
        self,
        client: KubeClient,
        config: OperatorConfig,
        census: Census,
        placing: Placing,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._site = config
        self._clock = clock
        self._census = census
        self._placing = placing
        self._outlooks: dict[Key, _Outlook] = {}

    def forget(self, key: Key) -> None:
        """A deployment is gone."""
        self._outlooks.pop(key, None)

    def constrained(self, deployment: ModelDeployment) -> ModelDeployment:
        """The deployment as the site's policy lets it be placed."""
        return constrained(deployment, self._site.policy)

    async def choose(self, deployment: ModelDeployment, kept: dict[str, Revision]) -> Choice | Refusal:
        """The revision that this spec wants: a kept one, with a note where a new plan would differ, else a new plan.

        A kept one is held to the policy too: that may have changed since.
        """
        wide = with_chosen_width(deployment)
        choice = await self._choose(wide, kept)
        if wide is deployment or not isinstance(choice, Refusal):
            return choice
        # Nobody asked for this width: rather the plan's own than none.
        planned = await self._choose(deployment, kept)
        if isinstance(planned, Refusal):
            return planned
        gpus = wide.spec.hardware.gpus_per_group
        note = f"groups of {gpus} GPUs, as chosen before, do not do any more: {choice.message}"
        return replace(planned, notes=(*planned.notes, note))

    async def _choose(self, deployment: ModelDeployment, kept: dict[str, Revision]) -> Choice | Refusal:
        policy, model = self._site.policy, load_models().find(deployment.spec.model.name)
        if forbidden := refused(policy, deployment, model):
            return forbidden
        choice = await self._found_or_made(deployment, kept)
        if isinstance(choice, Refusal):
            return with_policy_nodes(choice, policy, deployment.namespace)
        revision = choice.revision
        pods = template_security(revision.template)
        forbidden = refused(
            policy,
            deployment,
            model,
            revision.plan,
            image=revision.image,
            pods=(pods.level, pods.reasons),
            fabric=fabric_additions(revision.template),
        )
        if forbidden:
            return forbidden
        notes = (*choice.notes, *security_notes(deployment, revision, self._site))
        runs = provenance(policy, deployment, model, revision.plan, pods.level)
        return replace(choice, notes=notes, provenance=runs)

    async def _found_or_made(
        self, deployment: ModelDeployment, kept: dict[str, Revision]
    ) -> Choice | Refusal:
        if found := revisions.find_kept(deployment, kept):
            note = await self._outlook(deployment, found.revision)
            return replace(found, notes=(*found.notes, note)) if note else found
        config = await self._config(deployment)
        if isinstance(config, Refusal):
            return config
        return revisions.make(deployment, await self._inventory(deployment), self._site, config)

    async def _inventory(self, deployment: ModelDeployment) -> Inventory:
        return narrowed(await self._census.inventory(), self._site.policy, deployment.namespace)

    async def _outlook(self, deployment: ModelDeployment, revision: Revision) -> str | None:
        """How a plan made now would differ from the kept one, looked at now and then."""
        about = (revision.name, deployment.spec.objective)
        known = self._outlooks.get(deployment.key)
        if known is None or known.about != about or self._clock() - known.at > _OUTLOOK_HOLDS:
            try:
                note = await self._compare(deployment, revision)
            except KubeError:
                note = None  # what is only said must not keep a group from being replaced
            known = _Outlook(about, self._clock(), note)
            self._outlooks[deployment.key] = known
        return known.note

    async def _compare(self, deployment: ModelDeployment, revision: Revision) -> str | None:
        config = await self._config(deployment)
        if isinstance(config, Refusal):
            return None
        # On the same accelerator: another one further up or down the list depends on what was free then.
        hardware = deployment.spec.hardware.model_copy(
            update={"accelerator": revision.plan.accelerator, "accelerators": None}
        )
        spec = deployment.spec.model_copy(update={"hardware": hardware})
        same = replace(deployment, spec=spec)
        nodes = narrowed(self._census.nodes(), self._site.policy, deployment.namespace)
        today = plan(same, nodes, self._site.catalog, config=config)
        return None if isinstance(today, Refusal) else differences(revision.plan, today)

    async def widths(
        self, deployment: ModelDeployment, revision: Revision, *, room: bool = False
    ) -> tuple[Width, ...]:
        """The revision's width and those that groups could have instead; with `room`, and how many of each find free
        GPUs now. None of them where that cannot be told."""
        config = await self._config(deployment)
        if isinstance(config, Refusal):
            return ()
        if room:
            inventory = await self._inventory(deployment)
        else:
            inventory = narrowed(self._census.nodes(), self._site.policy, deployment.namespace)
        return widths(deployment, revision.plan, inventory, self._site.catalog, config=config)

    async def room(self, deployment: ModelDeployment, revision: Revision) -> Room | None:
        """Room for groups of this revision; None where it cannot be told."""
        inventory, kept = await self._inventory(deployment), revision.plan
        options = hardware_options(deployment.spec, inventory, self._site.catalog)
        if isinstance(options, Refusal) or inventory.held is None:
            return None
        hardware = next((o for o in options if o.profile.name == kept.accelerator), None)
        resource = hardware.profile.resource_name if hardware else None
        if hardware is None or resource is None:
            return None
        shape = GroupShape(kept.tensor, kept.data, kept.gpus_per_pod)
        groups = groups_with_room(deployment.spec, hardware, inventory, shape, kept.transport)
        if groups is None:
            return None
        free = sum(inventory.free(node).get(resource, 0) for node in hardware.nodes)
        shortage = None
        if kept.transport is not None and kept.transport.domain_required:
            within = await self._placing.shortage(deployment, revision)
            groups, shortage = within or (groups, None)
        offered = offered_by_slices(inventory) if kept.claims else None
        return Room(groups, free, len(hardware.nodes), shortage, offered)

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
