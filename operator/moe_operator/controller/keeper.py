"""Keeps what a deployment's groups need, and forgets what nothing needs any more."""

from collections.abc import Awaitable, Callable

from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller import revisions
from moe_operator.controller.children import ensure, prune
from moe_operator.controller.compute_domain import ensure_compute_domain, leave_compute_domain
from moe_operator.controller.kube import (
    APPLIED,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    NETWORK_POLICY,
    OPTIONAL_KINDS,
    RESOURCE_CLAIM_TEMPLATE,
    KubeClient,
)
from moe_operator.controller.store import Store
from moe_operator.controller.weights import WeightsKeeper
from moe_operator.controller.weights_state import WeightsView
from moe_operator.resources.agent_config import agent_config_name, agent_configs_of
from moe_operator.resources.children import build_children
from moe_operator.resources.compute_domain import needs_compute_domain
from moe_operator.resources.network_policy import build_network_policy
from moe_operator.resources.revision import Revision, build_revision


class ChildKeeper:
    """Children other than groups."""

    def __init__(
        self, client: KubeClient, store: Store, config: OperatorConfig, weights: WeightsKeeper
    ) -> None:
        self._client = client
        self._store = store
        self._config = config
        self._weights = weights

    async def ensure(
        self,
        deployment: ModelDeployment,
        revision: Revision,
        kept: dict[str, Revision],
        written: ModelDeploymentSpec,
        weights: WeightsView | None,
        troubled: bool,
        before_create: Callable[[], Awaitable[None]],
    ) -> None:
        """What groups of this revision need is there before they are; `kept` learns the revision. `written`: the spec
        as the user wrote it. `weights`: where they stand. `troubled`: the spec cannot be carried out, perhaps as a kind
        that few clusters serve is missing."""
        client, store = self._client, self._store
        for child in build_children(deployment, revision, self._config):
            kind = APPLIED[child["kind"]]
            if not troubled or kind not in OPTIONAL_KINDS:
                await ensure(client, store, deployment, kind, [child], before_create)
        if not troubled and needs_compute_domain(revision.plan):
            await ensure_compute_domain(client, store, deployment, before_create)
        if revision.name not in kept:
            number = revisions.next_number(store, deployment)
            wanted = [build_revision(deployment, revision, number, written)]
            await ensure(client, store, deployment, CONTROLLER_REVISION, wanted, before_create)
            kept[revision.name] = revision
        await self._weights.ensure(deployment, revision, weights, before_create)

    async def clean_up(
        self, deployment: ModelDeployment, revision: Revision, kept: dict[str, Revision]
    ) -> None:
        """Forget revisions past the history limit, agents that no kept revision mounts, and what only revisions that
        nothing runs ask for by claims."""
        client, store = self._client, self._store
        keep = revisions.to_keep(store, deployment, revision.name)
        await prune(client, store, deployment, CONTROLLER_REVISION, keep)
        mounted = {agent_config_name(deployment.name)}
        for name, one in kept.items():
            if name in keep:
                mounted |= agent_configs_of(one.template)
        await prune(client, store, deployment, CONFIG_MAP, mounted)
        if build_network_policy(deployment, revision, self._config) is None:
            await prune(client, store, deployment, NETWORK_POLICY, set())
        used = revisions.in_use(store, deployment, revision.name)
        running = [r for name, r in kept.items() if name in used]
        templates = {one["metadata"]["name"] for r in running for one in r.companions}
        await prune(client, store, deployment, RESOURCE_CLAIM_TEMPLATE, templates)
        if not any(needs_compute_domain(r.plan) for r in running):
            await leave_compute_domain(client, store, deployment)
