"""Other namespaces' ComputeDomains in the NVLink partitions of ours: from the cache, told by nodes and by groups.

A group is in its partition before the driver has labelled its nodes, and somebody else's domain has no groups of ours:
both are looked at.
"""

from collections.abc import Iterable, Iterator

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.controller.kube import (
    COMPUTE_DOMAIN,
    LEADER_WORKER_SET,
    NODE,
    POD,
    KubeClient,
    KubeError,
    Obj,
)
from moe_operator.controller.store import Store, owner_key
from moe_operator.planner.compute_domains import CLIQUE, NODE_LABEL, Member, by_partition, shared_note
from moe_operator.resources.compute_domain import CHANNEL_TEMPLATE, domain_of


class ComputeDomains:
    """Who is where."""

    def __init__(self, client: KubeClient, store: Store) -> None:
        self._client = client
        self._store = store
        self._strangers: dict[str, str] = {}
        """Names by uid of domains that are not the operator's, and so not in the cache."""

    def others(self, namespace: str, promised: Iterable[Member] = ()) -> dict[str, tuple[str, ...]]:
        """Domains of other namespaces by partition. `promised`: groups that are being created."""
        own = domain_of(namespace)
        members = (*self._nodes(), *self._groups(), *promised)
        return by_partition(self._cliques(), (m for m in members if m.domain != own))

    async def note(self, deployment: ModelDeployment) -> str | None:
        """What to say of this deployment's groups; None where nobody else is in their partitions."""
        own = by_partition(self._cliques(), self._groups(deployment))
        if not own:
            return None
        await self._learn()
        return shared_note(own, self.others(deployment.namespace))

    def _cliques(self) -> dict[str, str]:
        labels = ((n["metadata"]["name"], n["metadata"].get("labels") or {}) for n in self._store.all(NODE))
        return {name: found[CLIQUE] for name, found in labels if found.get(CLIQUE)}

    def _nodes(self) -> Iterator[Member]:
        """What the driver says of nodes."""
        known = self._known()
        for node, uid in self._labelled():
            yield Member(known.get(uid) or self._strangers.get(uid) or f"of uid {uid}", (node,))

    def _labelled(self) -> Iterator[tuple[str, str]]:
        for node in self._store.all(NODE):
            if uid := (node["metadata"].get("labels") or {}).get(NODE_LABEL):
                yield node["metadata"]["name"], uid

    def _known(self) -> dict[str, str]:
        """The operator's domains by uid."""
        return {one["metadata"]["uid"]: _name(one) for one in self._store.all(COMPUTE_DOMAIN)}

    def _groups(self, only: ModelDeployment | None = None) -> Iterator[Member]:
        """Groups whose pods claim a channel. One that is being deleted counts by the pods that it still has."""
        pods: dict[tuple[str, str], list[str]] = {}
        groups = [
            lws
            for lws in self._store.all(LEADER_WORKER_SET)
            if _claims_channel(lws) and (only is None or owner_key(lws) == only.key)
        ]
        if groups:
            for pod in self._store.all(POD):
                group = (pod["metadata"].get("labels") or {}).get(names.LABEL_GROUP)
                node = (pod.get("spec") or {}).get("nodeName")
                if group and node:
                    pods.setdefault((pod["metadata"]["namespace"], group), []).append(node)
        for lws in groups:
            meta = lws["metadata"]
            key, _, value = (meta.get("annotations") or {}).get(names.ANNOTATION_DOMAIN, "").partition("=")
            stays = key == CLIQUE and not meta.get("deletionTimestamp")
            nodes = tuple(pods.get((meta["namespace"], meta["name"]), ()))
            yield Member(domain_of(meta["namespace"]), nodes, value if stays else None)

    async def _learn(self) -> None:
        """Names of domains that nodes are in and that are not the operator's: asked for once each."""
        known = self._known()
        unknown = {uid for _, uid in self._labelled()} - known.keys() - self._strangers.keys()
        if not unknown:
            return
        try:
            found = {one["metadata"]["uid"]: _name(one) for one in await self._client.list(COMPUTE_DOMAIN)}
        except KubeError:
            found = {}
        self._strangers |= {uid: found.get(uid, f"of uid {uid}") for uid in unknown}


def _name(domain: Obj) -> str:
    return f"{domain['metadata']['namespace']}/{domain['metadata']['name']}"


def _claims_channel(lws: Obj) -> bool:
    workers = (lws["spec"].get("leaderWorkerTemplate") or {}).get("workerTemplate") or {}
    claims = (workers.get("spec") or {}).get("resourceClaims") or []
    return any(claim.get("resourceClaimTemplateName") == CHANNEL_TEMPLATE for claim in claims)
