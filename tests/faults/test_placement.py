"""Groups in racks: each in one NVLink clique, racks filled one after the other, and nothing held by half a group.

The scheduler of these tests places one pod after the other, by affinity, as the real one does.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fakecluster.crashes import Report, Story, explore
from fakecluster.harness import NAME, NAMESPACE, Harness, manifest, play
from moe_operator.api import names, reasons
from moe_operator.api.reasons import WaitingReason
from moe_operator.controller import revisions
from moe_operator.controller.kube import LEADER_WORKER_SET, POD, Kind, Obj
from moe_operator.planner.plan import Plan, Refusal, Transport

CLIQUE = "nvidia.com/gpu.clique"
GPU = "nvidia.com/gpu"


@pytest.fixture(autouse=True)
def _over_nvlink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every plan of several pods asks for one clique."""
    plan = revisions.make_plan

    def spanning(*arguments: Any, **named: Any) -> Plan | Refusal:
        made = plan(*arguments, **named)
        if isinstance(made, Refusal):
            return made
        return replace(made, transport=Transport("nvlink", domain=CLIQUE, domain_required=True))

    monkeypatch.setattr(revisions, "make_plan", spanning)


def _rack(h: Harness, name: str, trays: int, zone: str = "zone-a") -> None:
    for index in range(trays):
        labels = {CLIQUE: name, "topology.kubernetes.io/zone": zone}
        h.world.nodes.add(f"{name}-{index}", 4, "NVIDIA-GB200", labels)


def _wanted(groups: int = 1, name: str = NAME, **spec: Any) -> Obj:
    """Groups of two trays."""
    return manifest(
        groups,
        name,
        **{
            "hardware": {"accelerator": "GB200", "gpusPerGroup": 8},
            "scaling": {"mode": "External", "maxGroups": 12},
            **spec,
        },
    )


def _nodes(h: Harness, group: str) -> list[str]:
    pods = h.world.server.list(POD, NAMESPACE, f"{names.LABEL_GROUP}={group}")
    return [p["spec"]["nodeName"] for p in pods if p["spec"].get("nodeName")]


def _racks(h: Harness, name: str = NAME) -> dict[str, set[str]]:
    """The racks that each group has nodes in."""
    return {
        g["metadata"]["name"]: {node.rpartition("-")[0] for node in _nodes(h, g["metadata"]["name"])}
        for g in h.groups(name)
    }


def _tenant(h: Harness, node: str, amounts: dict[str, str] | None = None) -> None:
    """Somebody else's pod takes all GPUs of a node, or what is given."""
    container = {
        "name": names.ENGINE_CONTAINER,
        "image": "train",
        "resources": {"limits": amounts or {GPU: "4"}},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"training-{node}", "namespace": "research"},
        "spec": {"nodeName": node, "containers": [container]},
    }
    h.world.server.create(POD, pod, "research")


def _free(h: Harness, node: str) -> None:
    h.world.server.delete(POD, "research", f"training-{node}", "research", grace_seconds=0)


def _cause(h: Harness) -> dict[str, Any]:
    return h.status().get("recovery", {}).get("lastCause") or {}


def _capacity(h: Harness) -> dict[str, Any]:
    return h.condition(reasons.CAPACITY_AVAILABLE) or {}


def test_a_rack_is_filled_with_whole_groups_before_the_next_is_begun() -> None:
    """Lost: NVLink within a group, and the whole rack that a wide model will need tomorrow."""

    async def scenario(h: Harness) -> None:
        _rack(h, "r1", 7)
        _rack(h, "r2", 18)
        h.apply(_wanted(5))
        await h.serve(5)
        racks = sorted("".join(sorted(where)) for where in _racks(h).values())
        assert racks == ["r1", "r1", "r1", "r2", "r2"], "the seventh tray of r1 is no place for half a group"
        group = h.groups()[0]["metadata"]
        assert group["annotations"][names.ANNOTATION_DOMAIN] == f"{CLIQUE}=r1"

    play(scenario, nodes=0)


def test_two_deployments_that_start_at_once_do_not_count_on_the_same_trays() -> None:
    """Lost: minutes, in which each has half of the rack."""

    async def scenario(h: Harness) -> None:
        _rack(h, "r1", 2)
        _rack(h, "r2", 3)
        for name in (NAME, "other"):
            h.apply(_wanted(name=name))
        for name in (NAME, "other"):
            await h.serve(name=name, within=120)
        assert sorted(len(w) for w in [*_racks(h).values(), *_racks(h, "other").values()]) == [1, 1]
        assert not _cause(h)

    play(scenario, nodes=0)


def test_two_deployments_that_start_at_once_share_a_rack() -> None:
    """Lost: the rack of the second, as what the first counts on is taken off twice."""

    async def scenario(h: Harness) -> None:
        _rack(h, "r1", 4)
        for name in (NAME, "other"):
            h.apply(_wanted(name=name))
        for name in (NAME, "other"):
            await h.serve(name=name, within=120)
            (group,) = h.groups(name)
            assert group["metadata"]["annotations"][names.ANNOTATION_DOMAIN] == f"{CLIQUE}=r1"

    play(scenario, nodes=0)


def test_groups_of_a_deployment_are_spread_over_zones() -> None:
    async def scenario(h: Harness) -> None:
        _rack(h, "r1", 4, "zone-a")
        _rack(h, "r2", 6, "zone-b")
        h.apply(_wanted(2))
        await h.serve(2)
        assert sorted(min(where) for where in _racks(h).values()) == ["r1", "r2"]

    play(scenario, nodes=0)


def test_a_cordoned_tray_makes_its_rack_too_small() -> None:
    async def scenario(h: Harness) -> None:
        _rack(h, "r1", 2)
        _rack(h, "r2", 2)
        h.world.nodes.cordon("r1-0")
        h.apply(_wanted())
        await h.serve()
        assert _racks(h) == {"tiny-g0": {"r2"}}

    play(scenario, nodes=0)


def test_a_lost_tray_leads_to_a_rack_that_has_both() -> None:
    """Lost: the group, waiting for a second tray in a rack that has none left."""

    async def scenario(h: Harness) -> None:
        _rack(h, "r1", 2)
        _rack(h, "r2", 3)
        h.apply(_wanted())
        await h.serve()
        assert _racks(h) == {"tiny-g0": {"r1"}}
        h.world.nodes.remove("r1-1")
        await h.until(lambda: list(_racks(h).values()) == [{"r2"}] and h.ready(), 180)
        assert _cause(h)["reason"] == reasons.NODE_NOT_READY

    play(scenario, nodes=0)


def test_a_successor_waits_for_the_trays_of_its_predecessor() -> None:
    """Lost: minutes, on a single free tray elsewhere, taken because the old group's pods took seconds to end."""

    async def scenario(h: Harness) -> None:
        _rack(h, "r0", 1)
        _rack(h, "r1", 2)
        h.apply(_wanted())
        await h.serve()
        h.world.crash_engine("tiny-g0-0-1", "RuntimeError: CUDA error")
        await h.until(lambda: _cause(h).get("reason") == reasons.ENGINE_EXITED, 30)
        took = await h.serve(within=120)
        assert took < h.world.settings.start_seconds + 30
        assert list(_racks(h).values()) == [{"r1"}]
        assert h.status()["recovery"]["failures"] == 1

    play(scenario, nodes=0)


def test_a_rollout_in_a_full_rack_takes_the_place_of_what_goes() -> None:
    async def scenario(h: Harness) -> None:
        _rack(h, "r0", 1)
        _rack(h, "r1", 4)
        rollout = {"maxSurge": 0, "maxUnavailable": 1, "drainDeadline": "10s"}
        h.apply(_wanted(2, rollout=rollout))
        await h.serve(2)
        before = {g["metadata"]["uid"] for g in h.groups()}
        h.edit(engine={"args": {"max-num-seqs": "64"}})
        await h.until(lambda: not before & {g["metadata"]["uid"] for g in h.groups()}, 400)
        await h.serve(2)
        assert list(_racks(h).values()) == [{"r1"}, {"r1"}]
        assert not _cause(h), "no group was begun where it could not end"

    play(scenario, nodes=0)


def test_without_a_rack_that_takes_a_group_it_waits_and_the_status_counts_what_is_missing() -> None:
    """Lost: the difference between "no GPUs" and "one tray short in the best rack"."""

    async def scenario(h: Harness) -> None:
        _rack(h, "r1", 3)
        _rack(h, "r2", 2)
        for node in ("r1-0", "r1-1", "r2-0", "r2-1"):
            _tenant(h, node)
        h.apply(_wanted(recovery={"placementLimit": "30s"}))
        await h.until(lambda: _capacity(h).get("reason") == reasons.WAITING_FOR_GPUS, 60)
        text = _capacity(h)["message"]
        assert "waits for 1 group of 8 GPUs (GB200): first in the queue" in text
        assert f"needs 4 free GPUs on each of 2 nodes of one {CLIQUE}" in text
        assert "the clique with most room, r1, has 1 such node among its 3" in text
        await h.rest(60)
        assert not h.groups(), "it would hold the free tray for nothing"
        _tenant(h, "r1-2")
        await h.until(lambda: _capacity(h).get("reason") == reasons.CAPACITY_SHORT, 120)
        assert "has no such node" in _capacity(h)["message"]
        group = h.groups()[0]["metadata"]
        assert names.ANNOTATION_DOMAIN not in group["annotations"], "an autoscaler may bring any rack's nodes"
        _free(h, "r1-0")
        _free(h, "r1-2")
        await h.serve(within=300)
        assert list(_racks(h).values()) == [{"r1"}]
        assert _capacity(h)["reason"] == reasons.CAPACITY_SUFFICIENT

    play(scenario, nodes=0)


def _waiting(h: Harness, name: str = NAME) -> dict[str, Any]:
    return (h.status(name).get("scaling") or {}).get("waiting") or {}


@pytest.mark.parametrize("trays", [2, 3])
def test_of_two_groups_of_one_deployment_with_room_for_one_the_other_is_not_made(trays: int) -> None:
    """Lost: both, as each had half of the nodes."""

    async def scenario(h: Harness) -> None:
        _rack(h, "r1", trays)
        h.apply(_wanted(2, recovery={"placementLimit": "20s"}))
        await h.until(lambda: len(h.serving()) == 1, 120)
        await h.rest(120)
        assert len(_nodes(h, "tiny-g0")) == 2
        assert _waiting(h)["reason"] == WaitingReason.NO_ROOM
        if trays == 3:
            assert [g["metadata"]["name"] for g in h.groups()] == ["tiny-g0"], (
                "the third tray is half a place"
            )
            assert "has 1 such node among its 3" in _capacity(h)["message"]
        else:
            assert not _nodes(h, "tiny-g1"), "its pods hold nothing: they are for node autoscalers to see"
        assert not _cause(h)
        _rack(h, "r2", 2)
        await h.serve(2, 180)
        assert not _cause(h)
        assert not _waiting(h)

    play(scenario, nodes=0)


@pytest.mark.parametrize("trays", [2, 3])
def test_of_two_deployments_with_room_for_one_group_the_other_waits_behind_it(trays: int) -> None:
    async def scenario(h: Harness) -> None:
        _rack(h, "r1", trays)
        for name in (NAME, "other"):
            h.apply(_wanted(name=name, recovery={"placementLimit": "20s"}))
        waits: list[str] = []
        await h.until(
            lambda: (
                waits.extend(filter(None, [_waiting(h, "other").get("reason"), _waiting(h).get("reason")]))
                or len(h.serving()) + len(h.serving("other")) == 1
            ),
            120,
        )
        assert waits[0] == WaitingReason.BEHIND, "its pods would take what the first counts on"
        await h.rest(120)
        late = "other" if h.serving() else NAME
        assert _waiting(h, late)["reason"] == WaitingReason.NO_ROOM
        assert not any(_nodes(h, g["metadata"]["name"]) for g in h.groups(late))
        _rack(h, "r2", 2)
        await h.serve(1, 180, late)
        assert not any((h.status(name).get("recovery") or {}).get("lastCause") for name in (NAME, "other"))

    play(scenario, nodes=0)


def _others_are_quicker(h: Harness, *nodes: str) -> list[str]:
    """Somebody else's pods take these nodes as soon as the first group is made; the nodes, once they are taken."""
    taken: list[str] = []

    def quick(created: Obj) -> None:
        if not taken:
            taken.extend(nodes)
            for node in nodes:
                _tenant(h, node)

    _on_group(h, quick)
    return taken


@pytest.mark.parametrize("deployments", [1, 2])
def test_of_two_halves_one_yields_and_the_other_becomes_whole(deployments: int) -> None:
    """Somebody else's pods take half of the place of each, and keep it. Lost: both groups, for as long as they do."""

    async def scenario(h: Harness) -> None:
        _rack(h, "r1", 4)
        _others_are_quicker(h, "r1-0", "r1-1")
        every = [NAME, "other"][:deployments]
        for name in every:
            h.apply(_wanted(3 - len(every), name, recovery={"placementLimit": "10m"}))
        await h.until(lambda: sum(len(h.serving(name)) for name in every) == 1, 120)
        assert h.world.clock.elapsed < 120, "not only once recovery.placementLimit is over"
        await h.rest(60)
        held = sorted(len(_nodes(h, g["metadata"]["name"])) for name in every for g in h.groups(name))
        assert [count for count in held if count] == [2]
        assert not any((h.status(name).get("recovery") or {}).get("lastCause") for name in every)

    play(scenario, nodes=0)


def test_half_a_group_gives_its_tray_back_and_goes_where_there_is_room() -> None:
    """Lost: GPUs that nobody uses, held until a person looks."""

    async def scenario(h: Harness) -> None:
        _rack(h, "r1", 3)
        _rack(h, "r2", 4)
        # Their GPUs are free, and they take no pod: the operator counts GPUs, the scheduler memory too.
        for node in ("r1-1", "r1-2"):
            _tenant(h, node, {"memory": "2Ti"})
        h.apply(_wanted(recovery={"placementLimit": "20s"}))
        await h.until(lambda: _cause(h).get("reason") == reasons.PLACED_IN_PART, 60)
        assert h.world.clock.elapsed < 20 + 10
        assert "only 1 of 2 pods had nodes" in _cause(h)["message"]
        assert "Insufficient memory" in _cause(h)["message"]
        assert _cause(h)["domain"] == f"{CLIQUE}=r1"
        await h.until(lambda: list(_racks(h).values()) == [{"r2"}], 60)
        await h.serve()
        assert h.status()["recovery"]["avoidedDomains"] == [f"{CLIQUE}=r1"]

    play(scenario, nodes=0)


def test_a_group_whose_rack_was_taken_by_others_moves_on() -> None:
    """Lost: a group that waits for ever in a full rack, beside an empty one."""

    async def scenario(h: Harness) -> None:
        _rack(h, "r1", 2)
        # Quicker than the group's pods, and known to nobody when the rack was chosen.
        taken = _others_are_quicker(h, "r1-0", "r1-1")
        h.apply(_wanted(recovery={"placementLimit": "20s"}))
        await h.until(lambda: taken and _capacity(h).get("status") == "False", 30)
        assert list(_racks(h).values()) == [set()]
        _rack(h, "r2", 2)
        await h.serve(within=120)
        assert list(_racks(h).values()) == [{"r2"}]
        assert _cause(h)["reason"] == reasons.NOT_PLACED
        assert f"{CLIQUE}=r2 has room" in _cause(h)["message"]

    play(scenario, nodes=0)


def _on_group(h: Harness, do: Callable[[Obj], None]) -> None:
    def listen(write: Any) -> None:
        if write.kind == LEADER_WORKER_SET and write.verb == "create":
            do(write.body)

    h.world.server.write_listeners.append(listen)


def test_a_group_behind_a_queue_waits_for_it_and_is_placed_by_it() -> None:
    """Lost: groups given up because their quota was full, or bound to a rack an hour before they may start."""

    async def scenario(h: Harness) -> None:
        _rack(h, "r1", 2)
        gate = "kueue.x-k8s.io/admission"

        def suspend(kind: Kind, obj: Obj) -> None:
            """What Kueue's webhook does."""
            if kind == POD:
                obj["spec"]["schedulingGates"] = [{"name": gate}]

        h.world.server.admission.append(suspend)
        h.apply(_wanted(podTemplate={"queueName": "team-a"}, recovery={"placementLimit": "10s"}))
        await h.until(lambda: _capacity(h).get("reason") == reasons.SCHEDULING_GATED, 30)
        assert gate in _capacity(h)["message"]
        group = h.groups()[0]["metadata"]
        assert group["labels"][names.KUEUE_QUEUE_LABEL] == "team-a"
        assert names.ANNOTATION_DOMAIN not in group["annotations"]
        await h.rest(120)
        assert h.groups()[0]["metadata"]["uid"] == group["uid"]
        for pod in h.world.server.list(POD, NAMESPACE):
            ungated = {"spec": {"schedulingGates": None}}
            h.world.server.patch(POD, NAMESPACE, pod["metadata"]["name"], ungated, "kueue")
        await h.serve()

    play(scenario, nodes=0)


def test_a_narrow_group_takes_a_node_that_is_begun() -> None:
    """Lost: whole nodes, one after another, for groups of a fraction of one."""

    async def scenario(h: Harness) -> None:
        for name in ("a", "b", "c"):
            h.world.nodes.add(name, 8)
        narrow = {"hardware": {"accelerator": "B200", "gpusPerGroup": 2}}
        h.apply(_wanted(4, **narrow))
        await h.serve(4)
        used = {node for g in h.groups() for node in _nodes(h, g["metadata"]["name"])}
        assert len(used) == 1

    play(scenario, nodes=0)


async def _in_racks(h: Harness) -> None:
    _rack(h, "r1", 2)
    _rack(h, "r2", 3)
    h.apply(_wanted(recovery={"placementLimit": "20s"}))
    await h.serve()
    await h.settle()


async def _lose_a_tray(h: Harness) -> None:
    h.world.nodes.remove("r1-1")


async def _elsewhere(h: Harness) -> None:
    await h.until(lambda: list(_racks(h).values()) == [{"r2"}] and h.ready(), 300)


@pytest.mark.timeout(900)
def test_a_crash_at_any_write_leads_to_the_same_rack(reports: list[Report]) -> None:
    """Lost: a group in two racks, or two groups for one, because what was promised was known to a dead process only."""
    story = Story("lost tray", _in_racks, _lose_a_tray, _elsewhere)
    report = explore(story, ("a crash before each write", "a crash after each write"))
    reports.append(report)
    assert not report.failures, "\n\n".join(report.failures)
    assert report.writes
