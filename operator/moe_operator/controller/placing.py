"""Chooses where new groups go, from the cluster as it is and from what our other groups are about to take.

Choosing and creating are two steps with other reconciles between them: what is chosen is promised until the group's
LeaderWorkerSet is in the cache, which then speaks for itself.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.status import Cause, RecoveryStatus
from moe_operator.catalog.accelerators import Catalog
from moe_operator.controller.census import Census, Present
from moe_operator.controller.half_placed import not_placed, unplaced_since
from moe_operator.controller.kube import LEADER_WORKER_SET, NODE, POD, Obj
from moe_operator.controller.ledger import avoided, avoided_nodes
from moe_operator.controller.neighbours import ComputeDomains
from moe_operator.controller.observed import GroupFacts, unhealthy_condition
from moe_operator.controller.store import Key, Store, owner_key
from moe_operator.planner.compute_domains import CLIQUE, Member
from moe_operator.planner.placement import Domain, Fleet, Holding, Need, Placement
from moe_operator.planner.pod_requests import extended_requests
from moe_operator.resources.compute_domain import domain_of, needs_compute_domain
from moe_operator.resources.place import devices_of, need_of, pod_spec, queued
from moe_operator.resources.revision import Revision

_Name = tuple[str, str]
"""Namespace and name of a group's LeaderWorkerSet."""


class Placing:
    """Places for the groups of all deployments."""

    def __init__(
        self,
        store: Store,
        census: Census,
        catalog: Catalog,
        domains: ComputeDomains,
        unhealthy: Collection[str] = (),
    ) -> None:
        """`unhealthy`: types of conditions that say, while True, that nothing is to go to a node."""
        self._unhealthy = unhealthy
        self._store = store
        self._census = census
        self._catalog = catalog
        self._domains = domains
        self._joining: dict[_Name, Member] = {}
        """ComputeDomains of groups that are being created."""
        self._promised: dict[_Name, Holding] = {}
        """To groups that are being created: never of the deployment that asks, which creates one at a time."""
        self.kept: dict[Key, Mapping[str, int]] = {}
        """GPUs by node that are kept for groups that wait; see `sharing`."""
        self.moving_in: dict[Key, Mapping[str, int]] = {}
        """The same for groups that were granted, and have no place yet."""

    def _suspects(self, ledger: RecoveryStatus, now: float) -> tuple[str, ...]:
        """Nodes that cost groups, and those that say of themselves that they are not well."""
        blamed = avoided_nodes(ledger, now)
        unwell = (n for n in self._store.all(NODE) if unhealthy_condition(n, self._unhealthy) is not None)
        return tuple(dict.fromkeys((*blamed, *(node["metadata"]["name"] for node in unwell))))

    async def choose(
        self, deployment: ModelDeployment, revision: Revision, ledger: RecoveryStatus, now: float
    ) -> Placement:
        """The place of a new group; an empty one where it should find its own: on the CPU, where nodes or pods may not
        be read, where nothing has room, and behind a queue, which may let it in much later."""
        need, suspects = need_of(revision, self._catalog), self._suspects(ledger, now)
        if need is None:
            return await self._anywhere_but(deployment, revision, suspects)
        avoid = _values(avoided(ledger, now), need.domain)
        # After the last look nothing is awaited up to the promise: two groups never count on the same nodes.
        place = self._place(deployment, revision, need, await self._census.present(), avoid, suspects)
        leaving = self._on_their_way_out()
        if place == Placement() and leaving:
            # A predecessor's pods are ending: without a domain the group would begin on whatever tray is free.
            present = await self._census.present(leaving)
            place = self._place(deployment, revision, need, present, avoid, suspects)
        return place

    async def _anywhere_but(
        self, deployment: ModelDeployment, revision: Revision, suspects: tuple[str, ...]
    ) -> Placement:
        """For a group that finds its own place: not on suspect nodes, where others have room for all of it."""
        need = self._need(revision)
        if suspects and need is not None and not queued(revision):
            present = await self._census.present()
            if self._fleet(deployment, revision, need, present, shunned=suspects).across_domains():
                return Placement(shunned=suspects)
        return Placement(disliked=suspects)

    def _place(
        self,
        deployment: ModelDeployment,
        revision: Revision,
        need: Need,
        present: Present,
        avoid: Sequence[str],
        suspects: tuple[str, ...],
    ) -> Placement:
        """A place without the suspect nodes where there is one, else with them: a group on a doubtful node is better
        than none."""
        if suspects:
            place = self._fleet(deployment, revision, need, present, shunned=suspects).place(avoid)
            if place != Placement():
                return replace(place, shunned=suspects)
        return self._fleet(deployment, revision, need, present).place(avoid)

    @contextmanager
    def promise(
        self, deployment: ModelDeployment, revision: Revision, name: str, placement: Placement
    ) -> Iterator[None]:
        """Keep the place while the group is being created. To be entered without an await after `choose`."""
        need = self._need(revision)
        at = (deployment.namespace, name)
        self.moving_in.pop(deployment.key, None)
        if need is not None and (placement.domain or placement.node):
            self._promised[at] = Holding(
                own=False,
                waiting=need.pods,
                devices=need.devices,
                domain=placement.domain,
                node=placement.node,
            )
            if needs_compute_domain(revision.plan):
                key, value = placement.domain or ("", "")
                self._joining[at] = Member(
                    domain_of(deployment.namespace),
                    (placement.node,) if placement.node else (),
                    value if key == CLIQUE else None,
                )
        try:
            yield
        finally:
            self._promised.pop(at, None)
            self._joining.pop(at, None)

    async def displaced(
        self,
        deployment: ModelDeployment,
        groups: Sequence[GroupFacts],
        revisions: Mapping[str, Revision],
        ledger: RecoveryStatus,
        limit: float,
        now: float,
    ) -> dict[str, Cause]:
        """Groups by name that wait in vain for a domain that others have filled, while another one has room."""
        found: dict[str, Cause] = {}
        for group in groups:
            since, revision = unplaced_since(group), revisions.get(group.revision)
            if since is None or now - since < limit or revision is None:
                continue
            need = self._need(revision)
            if need is None:
                continue
            present = await self._census.present()
            fleet = self._fleet(deployment, revision, need, present, without=(group.name,))
            values = _values([*avoided(ledger, now), group.domain or ""], need.domain)
            place = fleet.place(values).domain
            if place is not None and "=".join(place) != group.domain:
                found[group.name] = not_placed(group, "=".join(place), now)
            elif place is None and not _bound_to_domain(revision) and fleet.across_domains():
                found[group.name] = not_placed(group, f"more than one {need.domain} together", now)
        return found

    async def shortage(
        self, deployment: ModelDeployment, revision: Revision
    ) -> tuple[int, str | None] | None:
        """Groups that find a domain, and what is missing where none does; None where there are no domains or nothing is
        known. What the deployment's unfinished groups hold counts as free: it is they for whom room is looked for."""
        need = self._need(revision)
        if need is None or need.domain is None or need.pods == 1:
            return None
        own = [lws["metadata"]["name"] for lws in self._store.children(deployment.key, LEADER_WORKER_SET)]
        present = await self._census.present(self._of_unfinished(deployment.key))
        fleet = self._fleet(deployment, revision, need, present, without=own)
        groups = fleet.groups()
        return None if groups is None else (groups, fleet.shortage())

    def _on_their_way_out(self) -> set[str]:
        """Uids of our pods that end within seconds: they, or the groups that they are of, are being deleted."""
        staying = {
            (lws["metadata"]["namespace"], lws["metadata"]["name"])
            for lws in self._store.all(LEADER_WORKER_SET)
            if not lws["metadata"].get("deletionTimestamp")
        }
        pods = (pod["metadata"] for pod in self._store.all(POD))
        return {
            meta["uid"]
            for meta in pods
            if meta.get("deletionTimestamp")
            or (meta["namespace"], (meta.get("labels") or {}).get(names.LABEL_GROUP)) not in staying
        }

    def _of_unfinished(self, key: Key) -> set[str]:
        """Uids of the pods of groups that lack nodes for others of theirs."""
        groups: dict[str, list[Obj]] = {}
        for pod in self._store.children(key, POD):
            groups.setdefault(pod["metadata"]["labels"].get(names.LABEL_GROUP, ""), []).append(pod)
        return {
            pod["metadata"]["uid"]
            for pods in groups.values()
            if not all((pod.get("spec") or {}).get("nodeName") for pod in pods)
            for pod in pods
        }

    def _need(self, revision: Revision) -> Need | None:
        return devices_of(revision, self._catalog)

    def _fleet(
        self,
        deployment: ModelDeployment,
        revision: Revision,
        need: Need,
        present: Present,
        without: Sequence[str] = (),
        shunned: Sequence[str] = (),
    ) -> Fleet:
        left_out = {(deployment.namespace, name) for name in without}
        holdings = self._holdings(deployment.key, need.resource, present, left_out)
        others = (
            self._domains.others(deployment.namespace, self._joining.values())
            if needs_compute_domain(revision.plan)
            else None
        )
        return Fleet(need, pod_spec(revision), present.inventory, holdings, others, shunned)

    def _holdings(self, key: Key, resource: str, present: Present, without: set[_Name]) -> list[Holding]:
        """What our groups hold and are about to hold. Of those `without`, only what they hold."""
        pods: dict[_Name, list[Obj]] = {}
        for pod in self._store.all(POD):
            meta = pod["metadata"]
            group = (meta.get("labels") or {}).get(names.LABEL_GROUP)
            if group:
                pods.setdefault((meta["namespace"], group), []).append(pod)
        found: list[Holding] = []
        seen: set[_Name] = set()
        for lws in self._store.all(LEADER_WORKER_SET):
            at = (lws["metadata"]["namespace"], lws["metadata"]["name"])
            own = owner_key(lws)
            if own is None:
                continue
            seen.add(at)
            found += _of_group(lws, pods.get(at, []), resource, present, own == key, at in without)
        for at, promise in self._promised.items():
            if at not in seen and at not in without:
                found.append(promise)
        for other, nodes in (*self.kept.items(), *self.moving_in.items()):
            if other != key:
                found += [
                    Holding(own=False, waiting=1, devices={resource: gpus}, node=node)
                    for node, gpus in nodes.items()
                ]
        return found


def _of_group(
    lws: Obj, pods: Sequence[Obj], resource: str, present: Present, own: bool, placed_only: bool
) -> Iterator[Holding]:
    """What one group holds, and what it is promised if it stays."""
    meta, workers = lws["metadata"], lws["spec"].get("leaderWorkerTemplate") or {}
    annotations = meta.get("annotations") or {}
    spec = (workers.get("workerTemplate") or {}).get("spec") or {}
    devices = extended_requests(spec)
    gpus = annotations.get(names.ANNOTATION_GPUS_PER_POD, "")
    claimed = resource not in devices and gpus.isdigit()
    if claimed:
        devices = devices | {resource: int(gpus)}
    bound = [pod for pod in pods if (pod.get("spec") or {}).get("nodeName")]
    if claimed:
        for pod in bound:
            if pod["metadata"]["uid"] not in present.looked_at:
                # Its claim is newer than the last look at claims.
                yield Holding(False, waiting=1, devices=devices, node=pod["spec"]["nodeName"])
    leaving = bool(meta.get("deletionTimestamp")) or names.ANNOTATION_DRAINING in annotations
    waiting = max(0, int(workers.get("size") or 1) - len(bound))
    if leaving or placed_only:
        waiting = 0
    yield Holding(
        own=own and not leaving,
        nodes=tuple(pod["spec"]["nodeName"] for pod in bound),
        waiting=waiting,
        devices=devices,
        domain=_domain(annotations.get(names.ANNOTATION_DOMAIN)),
        node=annotations.get(names.ANNOTATION_NODE),
    )


def _bound_to_domain(revision: Revision) -> bool:
    transport = revision.plan.transport
    return transport is not None and transport.domain_required


def _domain(text: str | None) -> Domain | None:
    key, equals, value = (text or "").partition("=")
    return (key, value) if equals else None


def _values(domains: Sequence[str], key: str | None) -> list[str]:
    """Values of those domains that are told by this label."""
    known = (_domain(one) for one in domains)
    return [one[1] for one in known if one is not None and one[0] == key]
