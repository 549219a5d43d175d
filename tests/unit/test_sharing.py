"""Shares of scarce GPUs as the operator brings them about: what deployments said, and when that is enough to go by.

Lost if this fails: GPUs that were drained for one model and are given to another after a restart; models that are held
up where nothing is known, or where nodes would come.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from factories.deployments import group_plan, model_deployment, revision_of
from factories.gpu_nodes import hgx_b200
from factories.groups import group, view
from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment, parse
from moe_operator.api.reasons import WaitingReason
from moe_operator.api.scaling import ScalingStatus, WaitingStatus
from moe_operator.api.status import RecoveryStatus
from moe_operator.catalog.operator_config import OperatorConfig, default_config, read_config
from moe_operator.controller.census import Census
from moe_operator.controller.group_planner import GroupView
from moe_operator.controller.kube import LEADER_WORKER_SET, MODEL_DEPLOYMENT, NODE, POD, Kind, Obj
from moe_operator.controller.neighbours import ComputeDomains
from moe_operator.controller.pass_state import PassState
from moe_operator.controller.placing import Placing
from moe_operator.controller.scale import Scale
from moe_operator.controller.sharing import Sharing
from moe_operator.controller.store import Key, Store
from moe_operator.planner.placement import Placement
from moe_operator.resources.group import build_group
from moe_operator.resources.revision import Revision

START = 1_800_000_000.0


class _Site:
    """Nodes of eight GPUs, and deployments that are looked at one at a time."""

    def __init__(self, *nodes: Obj, config: OperatorConfig | None = None) -> None:
        self.now = START
        self.store = Store()
        self.store.replace(NODE, nodes)
        self.config = config or default_config()
        self.woken: list[Key] = []
        self.looks = 0
        self._versions = 0
        self.restart()

    def restart(self) -> None:
        census = Census(self, self.store, self.config, lambda: self.now)  # type: ignore[arg-type]
        domains = ComputeDomains(self, self.store)  # type: ignore[arg-type]
        self.placing = Placing(self.store, census, self.config.catalog, domains)
        self.sharing = Sharing(self.store, census, self.placing, self.config, self.woken.append)

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, field_selector: str = ""
    ) -> list[Obj]:
        self.looks += kind is POD
        return self.store.all(POD) if kind is POD else []

    def _cache(self, kind: Kind, obj: Obj) -> None:
        self._versions += 1
        obj["metadata"] |= {"uid": obj["metadata"]["name"], "resourceVersion": str(self._versions)}
        self.store.upsert(kind, obj)

    def apply(self, name: str, *, decided: bool = False, **scaling: Any) -> ModelDeployment:
        """`decided`: it was decided over before the operator came."""
        made = model_deployment(name, hardware={"accelerator": "B200"}, scaling=scaling)
        obj: Obj = {
            "metadata": {"name": name, "namespace": made.namespace},
            "spec": made.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        }
        if decided:
            obj["status"] = {"scaling": {"desired": 1, "reason": "Replicas", "message": ""}}
        self._cache(MODEL_DEPLOYMENT, obj)
        return made

    def group(
        self, deployment: ModelDeployment, slot: int, node: str | None = None, **annotations: str
    ) -> None:
        """A group of one pod."""
        lws = build_group(deployment, _revision(deployment), slot, placement=Placement())
        lws["metadata"]["annotations"] = {**(lws["metadata"].get("annotations") or {}), **annotations}
        self._cache(LEADER_WORKER_SET, lws)
        name = lws["metadata"]["name"]
        labels = {**deployment.labels(), names.LABEL_GROUP: name}
        limits = {"limits": {"nvidia.com/gpu": "8"}}
        pod: Obj = {
            "metadata": {"name": f"{name}-0", "namespace": deployment.namespace, "labels": labels},
            "spec": {"containers": [{"name": "engine", "resources": limits}]},
            "status": {"phase": "Running"},
        }
        if node:
            pod["spec"]["nodeName"] = node
        self._cache(POD, pod)

    def views(self, deployment: ModelDeployment) -> Sequence[GroupView]:
        revision = _revision(deployment).name
        return [
            view(group(index, 1, name=lws["metadata"]["name"], revision=revision))
            for index, lws in enumerate(self.store.children(deployment.key, LEADER_WORKER_SET))
        ]

    async def share(
        self, deployment: ModelDeployment, desired: int, status: ScalingStatus | None = None, **changes: Any
    ) -> Scale:
        """One pass over it. `status`: of its last one."""
        if status is not None:
            full = deployment.status.model_copy(update={"scaling": status})
            deployment = ModelDeployment(**{**vars(deployment), "status": full})
        state = PassState(deployment, deployment.spec, self.now, {})
        state.effective = changes.get("revision", _revision(deployment))
        state.ledger = changes.get("ledger", state.ledger)
        told = ScalingStatus(desired=desired, reason="Replicas", message="")
        scale = Scale(desired, desired, told, None, floor=min(desired, deployment.spec.scaling.min_groups))
        return await self.sharing.share(state, self.views(deployment), scale)


def _revision(deployment: ModelDeployment, accelerator: str = "B200") -> Revision:
    return revision_of(deployment, group_plan(1, 8, accelerator=accelerator))


def _waiting(scale: Scale) -> WaitingStatus:
    assert scale.status is not None
    assert scale.status.waiting is not None
    return scale.status.waiting


def _granted(scale: Scale) -> int:
    assert scale.granted is not None
    return scale.granted


async def test_with_room_nothing_is_said_and_with_all_that_is_wanted_nobody_looks() -> None:
    site = _Site(hgx_b200("n1"), hgx_b200("n2"))
    mine = site.apply("mine")
    scale = await site.share(mine, 1)
    assert (_granted(scale), scale.minimum) == (1, 1)
    assert scale.status is not None
    assert (scale.status.granted, scale.status.waiting) == (None, None)
    site.group(mine, 0, "n1")
    await site.share(mine, 1)
    looks = site.looks
    site.now += 3600
    await site.share(mine, 1)
    assert site.looks == looks, "a list of all pods of the cluster is asked for only when somebody wants more"


async def test_who_waits_is_told_for_what_and_behind_whom_and_others_are_woken() -> None:
    site = _Site(hgx_b200("n1"))
    holder, first, second = site.apply("holder"), site.apply("first"), site.apply("second", priority=-1)
    site.group(holder, 0, "n1")
    await site.share(holder, 1)
    scale = await site.share(first, 1)
    assert _granted(scale) == 1, "the head of the queue: its pods wait for a node"
    waiting = _waiting(scale)
    assert waiting.message == (
        "waits for 1 group of 8 GPUs (B200): first in the queue, and no nodes have room for a whole one; most are held"
        " by serving/holder: free or add nodes"
    )
    scale = await site.share(second, 1)
    assert (_granted(scale), scale.minimum) == (0, 1), "Ready asks for the floor"
    waiting = _waiting(scale)
    assert waiting.reason == WaitingReason.BEHIND
    assert waiting.message == "waits for 1 group of 8 GPUs (B200): behind serving/first"
    assert waiting.behind == ["serving/first"]
    assert scale.recheck_after is not None
    site.woken.clear()
    site.sharing.forget(first.key)
    assert site.woken == [second.key]
    assert _granted(await site.share(second, 1)) == 1


async def test_after_a_restart_nobody_grows_before_all_have_spoken() -> None:
    """A node was drained for `urgent`; `low` is looked at first after the restart, and would take it."""
    site = _Site(hgx_b200("n1"), hgx_b200("n2"))
    low = site.apply("low", decided=True)
    urgent = site.apply("urgent", decided=True, priority=100)
    site.apply("new")
    site.group(low, 0, "n1")
    status = ScalingStatus(desired=2, granted=1, reason="Replicas", message="")
    scale = await site.share(low, 2, status)
    assert _granted(scale) == 1
    assert scale.recheck_after == pytest.approx(1.0)
    assert site.looks == 0
    assert (
        _granted(await site.share(urgent, 1, ScalingStatus(desired=1, granted=0, reason="R", message="")))
        == 1
    )
    assert _granted(await site.share(low, 2, status)) == 1, (
        "one that was never decided over is not waited for"
    )


async def test_after_a_restart_what_was_granted_stays_granted() -> None:
    """A lost group is replaced at once, not after all have spoken."""
    site = _Site(hgx_b200("n1"))
    mine = site.apply("mine", decided=True)
    site.apply("silent", decided=True)
    status = ScalingStatus(desired=2, reason="Replicas", message="")
    assert _granted(await site.share(mine, 2, status)) == 2


async def test_who_stays_silent_holds_the_others_up_for_a_minute_and_keeps_its_gpus() -> None:
    site = _Site(hgx_b200("n1"), hgx_b200("n2"))
    mine, silent = site.apply("mine", decided=True, priority=100), site.apply("silent", decided=True)
    site.group(silent, 0, "n1")
    status = ScalingStatus(desired=1, granted=0, reason="Replicas", message="")
    assert _granted(await site.share(mine, 2, status)) == 0
    site.now += 61
    scale = await site.share(mine, 2, status)
    assert _waiting(scale).groups == 1, "one node is free"
    site.now += 61
    scale = await site.share(mine, 2, status)
    assert _waiting(scale).reason == WaitingReason.NO_ROOM, "nothing is reclaimed of what nothing is known of"


async def test_a_wait_survives_a_restart() -> None:
    site = _Site(hgx_b200("n1"), hgx_b200("n2"))
    low, urgent = site.apply("low", minGroups=0), site.apply("urgent", priority=1)
    for slot, node in enumerate(("n1", "n2")):
        site.group(low, slot, node)
    await site.share(low, 2)
    waiting = _waiting(await site.share(urgent, 1))
    assert waiting.reason == WaitingReason.RECLAIM_DUE
    site.now += 31
    site.restart()
    await site.share(low, 2)
    old = ScalingStatus(desired=1, granted=0, waiting=waiting, reason="Replicas", message="")
    again = _waiting(await site.share(urgent, 1, old))
    assert (again.reason, again.since) == (WaitingReason.RECLAIMING, waiting.since)
    assert site.woken[-1:] == [low.key]
    scale = await site.share(low, 2)
    assert (len(scale.given_up), _granted(scale)) == (1, 1)


async def test_groups_of_a_deployment_that_is_deleted_are_waited_for() -> None:
    site = _Site(hgx_b200("n1"))
    going, mine = site.apply("going", priority=2), site.apply("mine", priority=1, minGroups=0)
    site.group(going, 0, "n1")
    await site.share(going, 1)
    obj = site.store.get(MODEL_DEPLOYMENT, *going.key)
    assert obj is not None
    site._cache(
        MODEL_DEPLOYMENT,
        {**obj, "metadata": {**obj["metadata"], "deletionTimestamp": "2027-01-15T08:00:00Z"}},
    )
    assert _waiting(await site.share(mine, 1)).reason == WaitingReason.DRAINING
    for kind, name in ((POD, "going-g0-0"), (LEADER_WORKER_SET, "going-g0")):
        found = site.store.get(kind, "serving", name)
        assert found is not None
        site.store.remove(kind, found)
    site.now += 30
    scale = await site.share(mine, 1)
    assert (_granted(scale), scale.status) == (1, ScalingStatus(desired=1, reason="Replicas", message=""))


async def test_a_place_that_is_kept_is_not_chosen_for_another() -> None:
    site = _Site(hgx_b200("n1"), hgx_b200("n2"))
    low, urgent, other = site.apply("low"), site.apply("urgent", priority=1), site.apply("other")
    site.group(low, 0, "n1", **{names.ANNOTATION_DRAINING: "2027-01-15T08:00:00Z"})
    site.group(low, 1, "n2")
    await site.share(low, 1)
    assert _waiting(await site.share(urgent, 1)).reason == WaitingReason.DRAINING
    pod = site.store.get(POD, "serving", "low-g0-0")
    assert pod is not None
    site.store.remove(POD, pod)  # it is gone, and nobody has looked yet
    place = await site.placing.choose(other, _revision(other), RecoveryStatus(), site.now)
    assert place.node is None
    place = await site.placing.choose(urgent, _revision(urgent), RecoveryStatus(), site.now)
    assert place.node == "n1"


async def test_where_nodes_are_added_all_ask() -> None:
    for label, granted in (({}, 0), ({"karpenter.sh/nodepool": "gpu"}, 1)):
        site = _Site(hgx_b200("n1", **label))
        holder, first, second = site.apply("holder"), site.apply("first"), site.apply("second")
        site.group(holder, 0, "n1")
        await site.share(holder, 1)
        await site.share(first, 1)
        assert _granted(await site.share(second, 1)) == granted, label


async def test_without_nodes_of_the_kind_pods_ask_for_some() -> None:
    site = _Site()
    for name in ("first", "second"):
        assert _granted(await site.share(site.apply(name), 2)) == 2


async def test_who_cannot_make_groups_holds_no_place() -> None:
    """A parked deployment makes none for half an hour: others may have the GPUs meanwhile."""
    site = _Site(hgx_b200("n1"))
    parked, mine = site.apply("parked", priority=100), site.apply("mine")
    ledger = RecoveryStatus(parked_until="2030-01-01T00:00:00Z")
    assert _granted(await site.share(parked, 1, ledger=ledger)) == 1
    assert (await site.share(mine, 1)).status == ScalingStatus(desired=1, reason="Replicas", message="")


async def test_without_gpus_in_a_queue_and_where_nothing_may_be_read_nothing_is_held_back() -> None:
    site = _Site(hgx_b200("n1"))
    mine = site.apply("mine")
    assert _granted(await site.share(mine, 9, revision=_revision(mine, "cpu"))) == 9
    queued = parse(
        {
            "metadata": {"name": "queued", "namespace": "serving", "uid": "u", "generation": 1},
            "spec": {
                "model": {"name": "org/tiny-moe"},
                "hardware": {"accelerator": "B200"},
                "podTemplate": {"queueName": "gpus"},
            },
        }
    )
    assert _granted(await site.share(queued, 9)) == 9
    site.store.forbidden.add(NODE)
    assert _granted(await site.share(mine, 9)) == 9
    assert site.woken == []


async def test_the_site_bounds_the_priority_also_of_a_spec_that_is_refused() -> None:
    site = _Site(hgx_b200("n1"), config=read_config("policy: {rules: [{name: r, maxPriority: 0}]}"))
    low, bold = site.apply("low", minGroups=0), site.apply("bold", priority=1000)
    site.group(low, 0, "n1")
    await site.share(low, 1)
    await site.share(bold, 1)
    site.now += 3600
    assert _waiting(await site.share(bold, 1)).reason == WaitingReason.NO_ROOM
