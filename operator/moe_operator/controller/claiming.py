"""What deployments claim of scarce GPUs: their wishes, with what they hold of the nodes as the cache has it now."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from moe_operator.api import names
from moe_operator.autoscaler.claims import Claim, Held, Phase, Pool, Shape
from moe_operator.controller.census import Present
from moe_operator.controller.kube import LEADER_WORKER_SET, MODEL_DEPLOYMENT, NODE, POD, Obj
from moe_operator.controller.store import Key, Store
from moe_operator.controller.wishes import Wish, domain_label
from moe_operator.planner.facts import NodeFacts
from moe_operator.planner.node_selection import admits, selects
from moe_operator.planner.pod_requests import extended_requests
from moe_operator.resources.place import pod_spec

#: Labels of nodes that come from a pool of a cloud's or of a node autoscaler's, which may add some: of Karpenter, EKS,
#: GKE and AKS.
_ADDED = (
    "karpenter.sh/nodepool",
    "eks.amazonaws.com/nodegroup",
    "cloud.google.com/gke-nodepool",
    "kubernetes.azure.com/agentpool",
)


class Claims:
    """Makes claims of wishes; keeps what is the same for many of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pools: dict[str, Pool] = {}
        self._pools_of: object = None
        self._gpus: dict[tuple[Key, str], int] = {}
        """Of each pod, by deployment and revision."""

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._gpus = {at: count for at, count in self._gpus.items() if at[0] != key}

    def of(
        self, wishes: Mapping[Key, Wish], since: Mapping[Key, float], present: Present
    ) -> tuple[list[Claim], dict[str, int]]:
        """The claims of all, and GPUs by node that nobody holds. `since`: when those that wait began to (s)."""
        inventory = present.inventory
        nodes, held = inventory.nodes or (), inventory.held or {}
        stamp = tuple(
            (n["metadata"]["name"], n["metadata"].get("resourceVersion")) for n in self._store.all(NODE)
        )
        if stamp != self._pools_of:
            self._pools, self._pools_of = {}, stamp
        free: dict[str, int] = {}
        claims: list[Claim] = []
        counted: set[Pool] = set()
        for key, wish in sorted(wishes.items()):
            pool, resource = self._pool(wish, nodes), wish.need.resource
            claims.append(self._claim(key, wish, pool, since.get(key, wish.since)))
            for node in nodes if pool not in counted else ():
                if node.name in pool.nodes and node.name not in free:
                    used = held.get(node.name, {}).get(resource, 0)
                    free[node.name] = node.allocatable.get(resource, 0) - used
            counted.add(pool)
            if wish.revision.plan.claims:
                for pod in self._store.children(key, POD):
                    node_name = (pod.get("spec") or {}).get("nodeName")
                    if node_name in free and pod["metadata"]["uid"] not in present.looked_at:
                        free[node_name] -= wish.need.gpus  # its claim is newer than the last look at claims
        return claims, free

    def _claim(self, key: Key, wish: Wish, pool: Pool, since: float) -> Claim:
        obj = self._store.get(MODEL_DEPLOYMENT, *key)
        going = obj is None or bool(obj["metadata"].get("deletionTimestamp"))
        groups = tuple(self.held(key, wish))
        if going:
            groups = tuple(
                replace(group, phase=Phase.DRAINING) if group.phase is not Phase.ENDING else group
                for group in groups
            )
        return Claim(
            key=key,
            pool=pool,
            shape=Shape(wish.need.pods, wish.need.gpus),
            floor=0 if going else wish.floor,
            wanted=0 if going else wish.wanted,
            granted=0 if going else wish.granted,
            groups=groups,
            priority=wish.priority,
            losses=wish.losses() if wish.losses is not None else None,
            since=since,
            moving=wish.moving,
        )

    def held(self, key: Key, wish: Wish) -> list[Held]:
        """Its groups, as the cache has them now."""
        nodes: dict[str, list[str]] = {}
        for pod in self._store.children(key, POD):
            at = (pod.get("spec") or {}).get("nodeName")
            if at and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                group = (pod["metadata"].get("labels") or {}).get(names.LABEL_GROUP, "")
                nodes.setdefault(group, []).append(at)
        found: list[tuple[str, Held]] = []
        for lws in self._store.children(key, LEADER_WORKER_SET):
            meta = lws["metadata"]
            annotations = meta.get("annotations") or {}
            phase = wish.phases.get(meta["name"], Phase.STARTING)
            if meta.get("deletionTimestamp"):
                phase = Phase.ENDING
            elif names.ANNOTATION_DRAINING in annotations and phase is not Phase.ENDING:
                phase = Phase.DRAINING
            domain = annotations.get(names.ANNOTATION_DOMAIN, "").partition("=")[2]
            hint = annotations.get(names.ANNOTATION_NODE) or domain or None
            at_nodes, work = tuple(nodes.get(meta["name"], ())), wish.work.get(meta["name"], 0)
            size = int((lws["spec"].get("leaderWorkerTemplate") or {}).get("size") or 1)
            held = Held(meta["name"], phase, at_nodes, self._gpus_of(key, lws, wish), work, hint, size)
            found.append((annotations.get(names.ANNOTATION_DRAINING, ""), held))
        found.sort(key=lambda one: one[0], reverse=True)
        return [held for _, held in found]

    def _gpus_of(self, key: Key, lws: Obj, wish: Wish) -> int:
        """GPUs of each of a group's pods."""
        at = (key, (lws["metadata"].get("labels") or {}).get(names.LABEL_REVISION, ""))
        if at not in self._gpus:
            workers = lws["spec"].get("leaderWorkerTemplate") or {}
            asked = extended_requests((workers.get("workerTemplate") or {}).get("spec") or {})
            said = (lws["metadata"].get("annotations") or {}).get(names.ANNOTATION_GPUS_PER_POD, "")
            self._gpus[at] = asked.get(wish.need.resource, int(said) if said.isdigit() else wish.need.gpus)
        return self._gpus[at]

    def _pool(self, wish: Wish, nodes: Sequence[NodeFacts]) -> Pool:
        if wish.nodes not in self._pools:
            pod, need, domain = pod_spec(wish.revision), wish.need, domain_label(wish.revision, wish.need)
            stands = [
                node
                for node in nodes
                if not node.divided
                and need.resource in node.gpus
                and selects(pod, node)
                and admits(node, pod)
            ]
            grows = not stands or any(label in node.labels for node in stands for label in _ADDED)
            where = {node.name: node.labels.get(domain, "") if domain else "" for node in stands}
            if domain:
                where = {name: value for name, value in where.items() if value}
            self._pools[wish.nodes] = Pool(wish.revision.plan.accelerator, where, grows)
        return self._pools[wish.nodes]
