"""Places as the operator chooses them: from its cache, from a look at the cluster, and from what it just promised."""

from dataclasses import replace
from typing import Any

import pytest

from factories.deployments import group_plan, model_deployment, revision_of
from factories.gpu_nodes import claim, dra_only, gb200_tray, resource_slice
from factories.groups import NOW, group, homeless
from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.status import RecoveryStatus
from moe_operator.catalog.operator_config import default_config
from moe_operator.controller.census import Census
from moe_operator.controller.kube import (
    COMPUTE_DOMAIN,
    LEADER_WORKER_SET,
    NODE,
    POD,
    RESOURCE_CLAIM,
    RESOURCE_SLICE,
    ForbiddenError,
    Kind,
    Obj,
)
from moe_operator.controller.neighbours import ComputeDomains
from moe_operator.controller.placing import Placing
from moe_operator.controller.store import Store
from moe_operator.planner.placement import Placement
from moe_operator.planner.plan import Transport
from moe_operator.resources.group import build_group
from moe_operator.resources.revision import Revision

CLIQUE = "nvidia.com/gpu.clique"


class _Cluster:
    """What a look at the cluster shows, and how often somebody looked."""

    def __init__(self, *nodes: Obj) -> None:
        self.store = Store()
        self.store.replace(NODE, nodes)
        self.listed: dict[Kind, list[Obj]] = {POD: [], RESOURCE_SLICE: [], RESOURCE_CLAIM: []}
        self.forbidden: set[Kind] = set()
        self.looks = 0
        self.now = 0.0
        census = Census(self, self.store, default_config(), lambda: self.now)  # type: ignore[arg-type]
        self.domains = ComputeDomains(self, self.store)  # type: ignore[arg-type]
        self.placing = Placing(self.store, census, default_config().catalog, self.domains)
        self._versions = 0

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, field_selector: str = ""
    ) -> list[Obj]:
        self.looks += kind is POD
        if kind in self.forbidden:
            raise ForbiddenError(403, "Forbidden", f"{kind.plural} is forbidden")
        return list(self.listed[kind])

    def cache(self, kind: Kind, obj: Obj) -> Obj:
        self._versions += 1
        obj["metadata"] |= {"uid": obj["metadata"]["name"], "resourceVersion": str(self._versions)}
        self.store.upsert(kind, obj)
        return obj

    def bind(self, deployment: ModelDeployment, slot: int, index: int, node: str, gpus: int = 4) -> Obj:
        """A pod of a group, with its node."""
        group = f"{deployment.name}-g{slot}"
        limits = {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {}
        return self.cache(
            POD,
            {
                "metadata": {
                    "name": f"{group}-0-{index}",
                    "namespace": deployment.namespace,
                    "labels": {**deployment.labels(), names.LABEL_GROUP: group},
                },
                "spec": {"nodeName": node, "containers": [{"name": "engine", "resources": limits}]},
                "status": {"phase": "Running"},
            },
        )


def _racks() -> list[Obj]:
    return [gb200_tray(f"{rack}-{i}", rack) for rack, trays in (("r1", 2), ("r2", 4)) for i in range(trays)]


def _revision(deployment: ModelDeployment, pods: int = 2, *, required: bool = True, **plan: Any) -> Revision:
    transport = Transport("mnnvl", domain=CLIQUE, domain_required=required)
    made = replace(group_plan(pods, 4, accelerator="GB200"), transport=transport, **plan)
    return revision_of(deployment, made)


def _deployment(name: str = "tiny", **spec: Any) -> ModelDeployment:
    return model_deployment(name, hardware={"accelerator": "GB200"}, **spec)


async def _rack(cluster: _Cluster, deployment: ModelDeployment, revision: Revision) -> str | None:
    place = await cluster.placing.choose(deployment, revision, RecoveryStatus(), cluster.now)
    return place.domain[1] if place.domain else None


async def test_a_place_is_kept_from_the_moment_it_is_chosen() -> None:
    """Lost: one of two groups, that two deployments create in the same instant for the same two trays."""
    cluster = _Cluster(*_racks())
    mine, other = _deployment(), _deployment("other")
    revision = _revision(mine)
    place = await cluster.placing.choose(mine, revision, RecoveryStatus(), 0)
    with cluster.placing.promise(mine, revision, "tiny-g0", place):
        assert await _rack(cluster, other, _revision(other)) == "r2"
        # Its LeaderWorkerSet comes into the cache: it counts once, not twice.
        cluster.cache(LEADER_WORKER_SET, build_group(mine, revision, 0, placement=place))
        assert await _rack(cluster, other, _revision(other)) == "r2"
    assert await _rack(cluster, other, _revision(other)) == "r2"


async def test_a_place_that_was_not_taken_in_the_end_is_free_again() -> None:
    """Lost: a rack, to a group that the API server refused."""
    cluster = _Cluster(*_racks())
    mine = _deployment()
    revision = _revision(mine)
    place = await cluster.placing.choose(mine, revision, RecoveryStatus(), 0)
    with (
        pytest.raises(ForbiddenError),
        cluster.placing.promise(mine, revision, "tiny-g0", place),
    ):
        raise ForbiddenError(403, "Forbidden", "exceeded quota")
    assert await _rack(cluster, mine, revision) == "r1"


async def test_pods_that_got_their_nodes_since_the_last_look_are_counted_from_the_cache() -> None:
    """Lost: fifteen seconds, in which every group goes to the rack that was free at the last look."""
    cluster = _Cluster(*_racks())
    mine = _deployment()
    revision = _revision(mine)
    assert await _rack(cluster, mine, revision) == "r1"
    cluster.cache(LEADER_WORKER_SET, build_group(mine, revision, 0, placement=Placement((CLIQUE, "r1"))))
    pods = [cluster.bind(mine, 0, index, f"r1-{index}") for index in range(2)]
    assert await _rack(cluster, mine, revision) == "r2"
    cluster.store.remove(LEADER_WORKER_SET, cluster.store.all(LEADER_WORKER_SET)[0])
    for pod in pods:
        cluster.store.remove(POD, pod)
    assert await _rack(cluster, mine, revision) == "r1", "what is gone from the cache is free"
    assert cluster.looks == 1


async def test_own_pods_that_were_seen_and_are_gone_are_free_before_the_next_look() -> None:
    cluster = _Cluster(*_racks())
    mine = _deployment()
    pods = [cluster.bind(mine, 0, index, f"r1-{index}") for index in range(2)]
    cluster.listed[POD] = [dict(pod) for pod in pods]
    assert await _rack(cluster, mine, _revision(mine)) == "r2"
    for pod in pods:
        cluster.store.remove(POD, pod)
    assert await _rack(cluster, mine, _revision(mine)) == "r1"


async def test_gpus_that_pods_claim_count_before_their_claims_are_looked_at() -> None:
    """Lost: nodes without a device plugin, where a pod's spec does not say how many GPUs it has."""
    nodes = []
    cluster_slices = []
    for name, rack in (("r1-0", "r1"), ("r1-1", "r1"), ("r2-0", "r2"), ("r2-1", "r2"), ("r2-2", "r2")):
        node = dra_only(name)
        node["metadata"]["labels"] |= {"nvidia.com/gpu.product": "NVIDIA-GB200", CLIQUE: rack}
        nodes.append(node)
        cluster_slices.append(resource_slice(name, gpus=4, product="NVIDIA GB200", memory="189471Mi"))
    cluster = _Cluster(*nodes)
    cluster.listed[RESOURCE_SLICE] = cluster_slices
    mine = _deployment()
    revision = _revision(mine, claims=True)
    template = revision.template["leaderWorkerTemplate"]
    for kind in ("leaderTemplate", "workerTemplate"):
        for container in template[kind]["spec"]["containers"]:
            container["resources"] = {"claims": [{"name": "gpus"}]}
    assert await _rack(cluster, mine, revision) == "r1"
    cluster.cache(LEADER_WORKER_SET, build_group(mine, revision, 0, placement=Placement((CLIQUE, "r1"))))
    for index in range(2):
        cluster.bind(mine, 0, index, f"r1-{index}", gpus=0)
    assert await _rack(cluster, mine, revision) == "r2"
    # The next look sees pods and claims: they are counted once.
    cluster.now = 60
    cluster.listed[POD] = [dict(pod) for pod in cluster.store.all(POD)]
    cluster.listed[RESOURCE_CLAIM] = [
        claim(f"r1-{index}", "gpu-0", "gpu-1", "gpu-2", "gpu-3") for index in range(2)
    ]
    assert await _rack(cluster, mine, revision) == "r2"
    assert (await cluster.placing.shortage(mine, revision)) == (1, None)


async def test_groups_on_their_way_out_promise_nothing_and_count_for_no_zone() -> None:
    cluster = _Cluster(*_racks())
    mine = _deployment()
    revision = _revision(mine)
    leaving = build_group(mine, revision, 0, placement=Placement((CLIQUE, "r1")))
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cluster.cache(LEADER_WORKER_SET, leaving)
    assert await _rack(cluster, mine, revision) == "r1"


@pytest.mark.parametrize("hidden", [NODE, POD])
async def test_where_nodes_or_pods_may_not_be_read_no_place_is_chosen(hidden: Kind) -> None:
    """Lost: groups bound to racks that are full, on clusters where the operator sees its own namespace only."""
    cluster = _Cluster(*_racks())
    cluster.forbidden.add(hidden)
    if hidden is NODE:
        cluster.store.forbidden.add(NODE)
    mine = _deployment()
    assert await cluster.placing.choose(mine, _revision(mine), RecoveryStatus(), 0) == Placement()


async def test_what_waits_in_a_queue_is_not_given_a_place() -> None:
    cluster = _Cluster(*_racks())
    queued = _deployment(podTemplate={"queueName": "team-a"})
    assert await cluster.placing.choose(queued, _revision(queued), RecoveryStatus(), 0) == Placement()
    assert cluster.looks == 0


async def test_ranks_on_the_cpu_and_plans_without_a_domain_cost_no_look_at_the_cluster() -> None:
    """Lost: milliseconds of every group on a laptop, and seconds on clusters with many pods."""
    cluster = _Cluster(*_racks())
    laptop = model_deployment()
    assert await cluster.placing.choose(laptop, revision_of(laptop, group_plan(2)), RecoveryStatus(), 0) == (
        Placement()
    )
    mine = _deployment()
    anywhere = revision_of(mine, group_plan(2, 4, accelerator="GB200"))
    assert await cluster.placing.choose(mine, anywhere, RecoveryStatus(), 0) == Placement()
    assert cluster.looks == 0


async def _displaced(cluster: _Cluster, revision: Revision, waited: float = 301) -> str | None:
    """Why a group that waits in vain for r1 is made anew."""
    mine = _deployment()
    pods = [homeless(index=i, scheduling_since=NOW - waited) for i in range(2)]
    waits = replace(group(pods=pods), revision=revision.name, domain=f"{CLIQUE}=r1")
    known = {revision.name: revision}
    found = await cluster.placing.displaced(mine, [waits], known, RecoveryStatus(), 300, NOW)
    return found[waits.name].message if found else None


async def test_a_group_leaves_a_full_rack_only_after_the_limit_and_only_for_another() -> None:
    cluster = _Cluster(*_racks())
    mine = _deployment()
    assert f"{CLIQUE}=r2 has room" in (await _displaced(cluster, _revision(mine)) or "")
    assert await _displaced(cluster, _revision(mine), waited=299) is None
    alone = _Cluster(*_racks()[:2])
    assert await _displaced(alone, _revision(mine)) is None, "elsewhere it would wait as well"


async def test_a_group_that_only_would_rather_be_in_one_rack_takes_trays_of_several() -> None:
    """Lost: a group that could serve over the network, and waits for a rack that others use."""
    cluster = _Cluster(gb200_tray("r2-0", "r2"), gb200_tray("r3-0", "r3"))
    mine = _deployment()
    assert await _displaced(cluster, _revision(mine)) is None
    found = await _displaced(cluster, _revision(mine, required=False))
    assert f"more than one {CLIQUE} together has room" in (found or "")


# --- ComputeDomains of other namespaces ----------------------------------------------------------

OTHER = "research/moe-operator-nvlink"


def _roomy() -> list[Obj]:
    """Two racks that take several groups, r1 being the smaller."""
    return [gb200_tray(f"{rack}-{i}", rack) for rack, trays in (("r1", 4), ("r2", 6)) for i in range(trays)]


def _channel(deployment: ModelDeployment) -> Revision:
    """Of groups that claim a channel."""
    transport = Transport("mnnvl", domain=CLIQUE, domain_required=True, compute_domain=True)
    return revision_of(deployment, replace(group_plan(2, 4, accelerator="GB200"), transport=transport))


def _in_domain(cluster: _Cluster, uid: str, *nodes: str) -> None:
    """As the driver's plugin labels nodes."""
    for node in cluster.store.all(NODE):
        if node["metadata"]["name"] in nodes:
            labels = {**node["metadata"]["labels"], "resource.nvidia.com/computeDomain": uid}
            cluster.cache(NODE, {**node, "metadata": {**node["metadata"], "labels": labels}})


def _compute_domain(namespace: str, name: str = "moe-operator-nvlink", **metadata: Any) -> Obj:
    return {"metadata": {"name": name, "namespace": namespace, "uid": f"uid-{namespace}", **metadata}}


def _elsewhere(cluster: _Cluster, rack: str, namespace: str = "research") -> Obj:
    """A group of another namespace's deployment in a rack, as yet without pods."""
    other = model_deployment("other", namespace=namespace, hardware={"accelerator": "GB200"})
    made = build_group(other, _channel(other), 0, placement=Placement((CLIQUE, rack)))
    return cluster.cache(LEADER_WORKER_SET, made)


async def test_a_rack_that_another_namespaces_group_is_about_to_use_is_left_to_it() -> None:
    """Lost: both groups' requests, now and then: the driver labels nodes only when pods run."""
    cluster = _Cluster(*_roomy())
    mine = _deployment()
    assert await _rack(cluster, mine, _channel(mine)) == "r1"
    _elsewhere(cluster, "r1")
    assert await _rack(cluster, mine, _channel(mine)) == "r2"
    assert await _rack(cluster, mine, _revision(mine)) == "r1", "groups without a channel disturb nobody"


async def test_a_group_of_the_same_namespace_shares_its_domain_and_its_rack() -> None:
    """Lost: a rack for each deployment of a team."""
    cluster = _Cluster(*_roomy())
    mine = _deployment()
    _elsewhere(cluster, "r1", mine.namespace)
    assert await _rack(cluster, mine, _channel(mine)) == "r1"


async def test_a_rack_promised_to_another_namespace_counts_before_its_group_is_there() -> None:
    cluster = _Cluster(*_roomy())
    theirs = model_deployment("other", namespace="research", hardware={"accelerator": "GB200"})
    revision = _channel(theirs)
    place = await cluster.placing.choose(theirs, revision, RecoveryStatus(), 0)
    mine = _deployment()
    with cluster.placing.promise(theirs, revision, "other-g0", place):
        assert await _rack(cluster, mine, _channel(mine)) == "r2"
    assert await _rack(cluster, mine, _channel(mine)) == "r1"


async def test_a_rack_with_somebody_elses_compute_domain_is_known_by_its_nodes() -> None:
    """Lost: every domain that the operator did not make itself."""
    cluster = _Cluster(*_roomy())
    mine = _deployment()
    _in_domain(cluster, "uid-hpc", "r1-0")
    assert await _rack(cluster, mine, _channel(mine)) == "r2"
    own = _Cluster(*_roomy())
    own.store.upsert(COMPUTE_DOMAIN, _compute_domain(mine.namespace, resourceVersion="1"))
    _in_domain(own, f"uid-{mine.namespace}", "r1-0")
    assert await _rack(own, mine, _channel(mine)) == "r1"


async def test_sharing_a_partition_is_told_with_the_other_domains_name_and_asked_for_once() -> None:
    """Lost: days, on errors that come now and then and that nothing in the cluster explains."""
    cluster = _Cluster(*_roomy())
    mine = _deployment()
    cluster.cache(
        LEADER_WORKER_SET, build_group(mine, _channel(mine), 0, placement=Placement((CLIQUE, "r1")))
    )
    assert await cluster.domains.note(mine) is None
    _in_domain(cluster, "uid-hpc", "r1-0")
    cluster.listed[COMPUTE_DOMAIN] = [_compute_domain("hpc", "job-7")]
    note = await cluster.domains.note(mine) or ""
    assert note.startswith("NVLink partition r1 is also used by ComputeDomain hpc/job-7: ")
    assert "podTemplate.nodeSelector" in note
    cluster.listed.pop(COMPUTE_DOMAIN)
    assert await cluster.domains.note(mine) == note, "and asked for no more"


async def test_a_domain_whose_name_may_not_be_read_is_told_by_its_uid() -> None:
    cluster = _Cluster(*_roomy())
    mine = _deployment()
    cluster.cache(
        LEADER_WORKER_SET, build_group(mine, _channel(mine), 0, placement=Placement((CLIQUE, "r1")))
    )
    _in_domain(cluster, "uid-hpc", "r1-0")
    cluster.forbidden.add(COMPUTE_DOMAIN)
    assert "ComputeDomain of uid uid-hpc" in (await cluster.domains.note(mine) or "")


async def test_groups_of_others_in_other_racks_are_nothing_to_tell() -> None:
    """Lost: the note's worth, if every cluster with two tenants had it."""
    cluster = _Cluster(*_roomy())
    mine = _deployment()
    cluster.cache(
        LEADER_WORKER_SET, build_group(mine, _channel(mine), 0, placement=Placement((CLIQUE, "r1")))
    )
    _elsewhere(cluster, "r2")
    assert await cluster.domains.note(mine) is None
    _elsewhere(cluster, "r1")
    assert f"ComputeDomain {OTHER}:" in (await cluster.domains.note(mine) or "")
