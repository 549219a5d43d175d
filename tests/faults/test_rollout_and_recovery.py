"""Rollouts that stop, pause and are changed in mid-air; losses that are too many; nodes that are to be emptied.

What a user would lose: GPUs held by what never serves, the revision that serves, or a node drain that never ends.
"""

from typing import Any

from fakecluster.engines import EngineSettings
from fakecluster.harness import NAME, NAMESPACE, Harness, Witness, manifest, play
from fakecluster.objects import labels_of
from moe_operator.api import names, reasons
from moe_operator.controller.kube import LEADER_WORKER_SET, MODEL_DEPLOYMENT, NODE, POD

BUSY = {"engine": {"args": {"max-num-seqs": "64"}}}


async def _serving(h: Harness, groups: int = 1, **spec: Any) -> None:
    h.apply(manifest(groups, **spec))
    await h.serve(groups)
    await h.settle()


def _revisions(h: Harness) -> list[str]:
    return [labels_of(g)[names.LABEL_REVISION] for g in h.groups()]


def _reason(h: Harness, type_: str) -> str | None:
    found = h.condition(type_)
    return found["reason"] if found else None


def _nodes(h: Harness, group: str) -> list[str]:
    pods = h.world.server.list(POD, NAMESPACE, f"{names.LABEL_GROUP}={group}")
    return sorted(p["spec"]["nodeName"] for p in pods if p["spec"].get("nodeName"))


class TestBudget:
    """A revision that cannot come up is given up, and taken up again by itself."""

    def test_a_first_start_that_fails_too_often_is_stalled_and_tried_once_in_a_while(self) -> None:
        async def scenario(h: Harness) -> None:
            h.world.settings.start_failure = (1, "RuntimeError: cannot open model")
            h.world.settings.start_seconds = 5.0
            h.apply(manifest(recovery={"restartBudget": 2, "retryInterval": "20m"}))
            await h.until(lambda: _reason(h, reasons.STALLED) == reasons.PARKED, 600)
            stalled = h.condition(reasons.STALLED)
            assert stalled is not None
            assert "3 groups were lost" in stalled["message"]
            assert "cannot open model" in stalled["message"]
            await h.until(lambda: not h.groups(), 60, "parked means no group")
            begun = len(_creations(h))
            await h.rest(15 * 60)
            assert len(_creations(h)) == begun
            await h.until(lambda: len(_creations(h)) == begun + 1, 10 * 60, "one is tried")
            await h.rest(15 * 60)
            assert len(_creations(h)) == begun + 1, "a retry that fails parks again"
            h.world.settings.start_failure = None
            await h.serve(within=25 * 60)
            await h.settle()
            assert h.condition(reasons.STALLED) is None
            assert "parkedUntil" not in h.status()["recovery"]

        play(scenario)

    def test_a_rollout_that_fails_too_often_stops_and_the_old_revision_serves_on(self) -> None:
        async def scenario(h: Harness) -> None:
            await _serving(h, 2, recovery={"restartBudget": 1})
            good, uids = h.status()["revision"], [g["metadata"]["uid"] for g in h.groups()]
            witness = Witness(h)
            h.world.settings.start_failure = (2, "vllm serve: error: argument --max-num-seqs: invalid")
            h.edit(**BUSY)
            await h.until(lambda: _reason(h, reasons.STALLED) == reasons.ROLLOUT_STOPPED, 900)
            assert h.condition(reasons.RECONCILING) is None, "a GitOps wait must end"
            assert _reason(h, reasons.READY) == reasons.ROLLOUT_STOPPED, "as in the table: groups do serve"
            await h.until(lambda: _revisions(h) == [good, good], 60, "its GPUs are free again")
            h.edit(engine=None)
            await h.until(lambda: h.ready() and h.condition(reasons.STALLED) is None, 30)
            await h.settle()
            assert [g["metadata"]["uid"] for g in h.groups()] == uids
            assert witness.lowest == 2
            assert not witness.lost_requests

        play(scenario, settings=EngineSettings(requests=4))

    def test_a_correction_is_tried_at_once(self) -> None:
        async def scenario(h: Harness) -> None:
            h.world.settings.start_failure = (1, "ValueError: no such quantization")
            h.apply(manifest(recovery={"restartBudget": 1}))
            await h.until(lambda: _reason(h, reasons.STALLED) == reasons.PARKED, 900)
            h.world.settings.start_failure = None
            h.edit(**BUSY)
            await h.serve(within=120)

        play(scenario)

    def test_parking_survives_the_operator(self) -> None:
        async def scenario(h: Harness) -> None:
            h.world.settings.start_failure = (1, "RuntimeError: cannot open model")
            h.apply(manifest(recovery={"restartBudget": 1}))
            await h.until(lambda: _reason(h, reasons.STALLED) == reasons.PARKED, 900)
            await h.settle()
            begun = len(_creations(h))
            h.operator.kill()
            await h.rest(20 * 60)
            assert len(_creations(h)) == begun

        play(scenario)


def _creations(h: Harness) -> list[float]:
    return [w.at for w in h.world.server.writes if w.verb == "create" and w.kind == LEADER_WORKER_SET]


class TestProgressDeadline:
    """A rollout that only hangs does not hang for ever."""

    def test_groups_that_hold_nodes_in_vain_give_them_back(self) -> None:
        async def scenario(h: Harness) -> None:
            await _serving(h, rollout={"progressDeadline": "10m"}, recovery={"startDeadline": "2h"})
            good = h.status()["revision"]
            h.world.settings.start_seconds = 100_000
            h.edit(**BUSY)
            await h.until(lambda: len(h.groups()) == 2, 30)
            await h.rest(9 * 60)
            assert _reason(h, reasons.RECONCILING) == reasons.ROLLING_OUT
            await h.until(lambda: _reason(h, reasons.STALLED) == reasons.ROLLOUT_STOPPED, 120)
            await h.until(lambda: _revisions(h) == [good], 60)
            assert h.status()["recovery"]["lastCause"]["reason"] == reasons.PROGRESS_DEADLINE
            h.world.settings.start_seconds = 40
            await h.until(lambda: h.ready() and len(h.groups()) == 1, 40 * 60, "it is tried again by itself")
            assert _revisions(h) != [good]

        play(scenario)

    def test_groups_that_wait_for_nodes_wait_on_and_it_is_told(self) -> None:
        """Pods without nodes are what makes a node autoscaler add some."""

        async def scenario(h: Harness) -> None:
            await _serving(h, rollout={"progressDeadline": "10m"})
            h.edit(**BUSY)
            await h.until(lambda: _reason(h, reasons.STALLED) == reasons.PROGRESS_DEADLINE, 700)
            stalled = h.condition(reasons.STALLED)
            assert stalled is not None
            assert "finds no node" in stalled["message"]
            assert len(h.groups()) == 2
            for index in range(2):
                h.world.nodes.add(f"late-{index}")
            await h.until(lambda: h.ready() and len(h.groups()) == 1, 300)
            await h.settle()
            assert h.condition(reasons.STALLED) is None

        play(scenario, nodes=2)


class TestPause:
    """A paused rollout moves nothing, and leaves nothing broken."""

    def test_keeps_groups_as_they_are_replaces_losses_and_goes_on(self) -> None:
        async def scenario(h: Harness) -> None:
            await _serving(h, 2)
            good = h.status()["revision"]
            h.edit(rollout={"paused": True}, **BUSY)
            await h.until(lambda: _reason(h, reasons.RECONCILING) == reasons.ROLLOUT_PAUSED, 10)
            await h.settle()
            assert _revisions(h) == [good, good]
            h.world.crash_engine("tiny-g0-0-1", "RuntimeError: boom")
            await h.until(lambda: len(h.serving()) == 2, 300, "the loss is replaced by what runs")
            assert _revisions(h) == [good, good]
            h.edit(replicas=3)
            await h.until(lambda: len(h.serving()) == 3, 300)
            assert _revisions(h) == [good] * 3
            h.edit(replicas=1)
            await h.until(lambda: len(h.groups()) == 1, 300)
            h.edit(rollout={"paused": False})
            await h.serve(within=600)
            assert good not in _revisions(h)

        play(scenario, settings=EngineSettings(requests=4))

    def test_in_mid_rollout_stops_where_it_is(self) -> None:
        async def scenario(h: Harness) -> None:
            await _serving(h, 2)
            good = h.status()["revision"]
            h.edit(**BUSY)
            await h.until(lambda: len(h.serving()) == 3, 300, "the first new one serves")
            h.edit(rollout={"paused": True})
            await h.settle()
            mixed = sorted(_revisions(h))
            assert len(mixed) == 2
            assert good in mixed, "one of each: the rollout stands"
            h.edit(rollout={"paused": False})
            await h.serve(2, within=600)
            assert good not in _revisions(h)

        play(scenario)


def test_of_several_edits_in_a_row_the_last_one_wins_and_half_built_groups_go_first() -> None:
    """Lost: GPUs and an hour, to a revision that nobody wants any more."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        witness = Witness(h)
        for number in (16, 32, 64):
            h.edit(engine={"args": {"max-num-seqs": str(number)}})
            await h.rest(10)
        await h.serve(within=300)
        assert any("64" in argument for argument in h.status()["engineArguments"])
        assert witness.lowest == 1
        assert witness.most <= 3, "one that serves, one that starts, one on its way out"
        assert not witness.lost_requests

    play(scenario, settings=EngineSettings(requests=4))


class TestNodeMaintenance:
    """`kubectl drain` ends, and no request ends with it."""

    def test_a_cordoned_node_is_emptied_by_a_new_group_that_serves_first(self) -> None:
        async def scenario(h: Harness) -> None:
            await _serving(h)
            witness = Witness(h)
            (node, _) = _nodes(h, "tiny-g0")
            h.world.nodes.cordon(node)
            await h.until(lambda: _reason(h, reasons.GROUPS_READY) == reasons.LEAVING_NODES, 10)
            await h.until(lambda: not _pods_on(h, node), 300, "the node is empty")
            await h.serve()
            assert witness.lowest == 1
            assert not witness.lost_requests
            await h.settle()
            assert _reason(h, reasons.GROUPS_READY) == reasons.ALL_GROUPS_READY

        play(scenario, settings=EngineSettings(requests=4))

    def test_a_node_that_comes_back_meanwhile_costs_nothing(self) -> None:
        async def scenario(h: Harness) -> None:
            await _serving(h)
            uid = h.groups()[0]["metadata"]["uid"]
            (node, _) = _nodes(h, "tiny-g0")
            h.world.nodes.cordon(node)
            await h.until(lambda: len(h.groups()) == 2, 30)
            h.world.nodes.cordon(node, on=False)
            await h.until(lambda: len(h.groups()) == 1, 60)
            await h.settle()
            assert [g["metadata"]["uid"] for g in h.groups()] == [uid]

        play(scenario)

    def test_without_room_it_waits_and_says_what_lets_it_go(self) -> None:
        async def scenario(h: Harness) -> None:
            await _serving(h)
            (node, _) = _nodes(h, "tiny-g0")
            h.world.nodes.cordon(node)
            await h.until(
                lambda: "maxUnavailable: 1" in (h.condition(reasons.GROUPS_READY) or {}).get("message", ""),
                60,
            )
            assert h.serving() == ["tiny-g0"]
            h.edit(rollout={"maxUnavailable": 1})
            await h.until(lambda: not _pods_on(h, node), 120)
            h.world.nodes.cordon(node, on=False)
            await h.serve(within=300)

        play(scenario, nodes=2)

    def test_a_node_that_is_taken_back_is_left_at_once(self) -> None:
        """It goes in two minutes, whether its requests are done or not."""

        async def scenario(h: Harness) -> None:
            await _serving(h)
            witness = Witness(h)
            (node, _) = _nodes(h, "tiny-g0")
            taint = {"key": "aws-node-termination-handler/spot-itn", "effect": "NoSchedule", "value": "x"}
            h.world.server.patch(NODE, None, node, {"spec": {"taints": [taint]}}, "handler")
            await h.until(lambda: not _pods_on(h, node), 60)
            await h.serve()
            assert not witness.lost_requests

        play(scenario, settings=EngineSettings(requests=4))

    def test_while_a_rollout_is_paused_nodes_are_emptied_all_the_same(self) -> None:
        async def scenario(h: Harness) -> None:
            await _serving(h)
            good = h.status()["revision"]
            h.edit(rollout={"paused": True}, **BUSY)
            await h.settle()
            (node, _) = _nodes(h, "tiny-g0")
            h.world.nodes.cordon(node)
            await h.until(lambda: not _pods_on(h, node), 300)
            await h.until(lambda: len(h.serving()) == len(h.groups()) == 1, 60)
            assert _revisions(h) == [good]

        play(scenario)


def test_a_node_on_which_groups_are_lost_again_and_again_is_left_alone_while_there_are_others() -> None:
    """Lost: one answer after the other, to a GPU that dies under load."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        bad = "node-0"
        for number in range(2):
            (group,) = h.serving()
            assert _nodes(h, group) == ["node-0", "node-1"], "there are no others yet"
            if number:
                h.world.nodes.add("node-2")
            (pod,) = _pods_on(h, bad)
            h.world.crash_engine(pod, f"RuntimeError: it broke {number}")
            await h.until(lambda lost=group: lost not in h.serving(), 30)
            await h.serve(within=300)
        suspects = {n["name"]: n["losses"] for n in h.status()["recovery"]["suspectNodes"]}
        assert suspects == {bad: 2}
        (group,) = h.serving()
        assert _nodes(h, group) == ["node-1", "node-2"]
        h.world.nodes.add("node-3")
        h.edit(replicas=2)
        await h.serve(2, within=300)
        assert _pods_on(h, bad), "a group on a doubtful node is better than none"

    play(scenario, nodes=2)


def _pods_on(h: Harness, node: str) -> list[str]:
    return [p["metadata"]["name"] for p in h.world.server.list(POD) if p["spec"].get("nodeName") == node]


class TestDeletion:
    """A deployment that goes takes nobody's answer along, and stays in nobody's way."""

    def test_requests_are_finished_first(self) -> None:
        async def scenario(h: Harness) -> None:
            await _serving(h, 2)
            assert h.deployment()["metadata"]["finalizers"] == [names.FINALIZER]
            witness = Witness(h)
            h.delete()
            await h.until(lambda: _reason(h, reasons.READY) == reasons.DELETING, 5)
            await h.until(lambda: not h.end_state(), 120, "everything is gone")
            assert not witness.lost_requests
            assert not h.serving()

        play(scenario, settings=EngineSettings(requests=4))

    def test_a_finalizer_is_there_only_while_it_has_work(self) -> None:
        async def scenario(h: Harness) -> None:
            h.world.settings.start_seconds = 60
            h.apply(manifest(scaling={"mode": "External", "minGroups": 0, "maxGroups": 4}))
            await h.until(lambda: h.groups(), 30)
            await h.rest(20)
            assert "finalizers" not in h.deployment()["metadata"], "nothing serves yet"
            await h.serve()
            assert names.FINALIZER in h.deployment()["metadata"]["finalizers"]
            h.edit(replicas=0)
            await h.until(lambda: not h.groups(), 120)
            await h.settle()
            assert "finalizers" not in h.deployment()["metadata"]

        play(scenario)

    def test_groups_that_served_before_get_it_too(self) -> None:
        """Made by an operator without finalizers, or while deletion was Immediate: their requests count as much."""

        async def scenario(h: Harness) -> None:
            await _serving(h, deletion={"groups": "Immediate"})
            assert "finalizers" not in h.deployment()["metadata"]
            (group,) = h.groups()
            h.edit(deletion={"groups": "Drain"})
            await h.until(lambda: h.deployment()["metadata"].get("finalizers") == [names.FINALIZER], 30)
            assert [g["metadata"]["uid"] for g in h.groups()] == [group["metadata"]["uid"]]
            h.kill_operators()
            h.world.server.patch(
                MODEL_DEPLOYMENT, NAMESPACE, NAME, {"metadata": {"finalizers": None}}, "kubectl"
            )
            h.supervised = True
            h.start_operator()
            await h.until(lambda: h.deployment()["metadata"].get("finalizers") == [names.FINALIZER], 60)

        play(scenario)

    def test_of_others_finalizers_none_is_lost(self) -> None:
        async def scenario(h: Harness) -> None:
            theirs = {"metadata": {"finalizers": ["example.com/theirs"]}}
            h.apply(manifest() | {"metadata": manifest()["metadata"] | theirs["metadata"]})
            await h.serve()
            assert set(h.deployment()["metadata"]["finalizers"]) == {"example.com/theirs", names.FINALIZER}
            h.delete()
            await h.until(
                lambda: h.deployment()["metadata"]["finalizers"] == ["example.com/theirs"], 120, "ours goes"
            )
            assert not h.groups()

        play(scenario)

    def test_while_it_starts_it_goes_at_once(self) -> None:
        async def scenario(h: Harness) -> None:
            h.apply(manifest())
            await h.until(lambda: h.groups(), 30)
            h.delete()
            await h.until(lambda: not h.end_state(), 90)

        play(scenario)

    def test_requests_that_never_end_hold_it_until_the_deadline(self) -> None:
        async def scenario(h: Harness) -> None:
            await _serving(h, rollout={"drainDeadline": "1m"}, recovery={"stallLimit": "1h"})
            h.world.hang_engine("tiny-g0-0")
            h.delete()
            took = await h.until(lambda: not h.end_state(), 400)
            assert 60 <= took <= 200, took

        play(scenario, settings=EngineSettings(requests=4))

    def test_a_group_that_cannot_go_holds_it_for_a_while_only(self) -> None:
        """Its node is silent: its pod ends when the node does, and no user waits for that."""

        async def scenario(h: Harness) -> None:
            await _serving(h, rollout={"drainDeadline": "1m"})
            (node, _) = _nodes(h, "tiny-g0")
            h.world.nodes.silence(node)
            h.delete()
            await h.until(lambda: _gone(h), 400)

        play(scenario)

    def test_policy_can_change_while_it_goes(self) -> None:
        """The documented way out for somebody in a hurry."""

        async def scenario(h: Harness) -> None:
            await _serving(h, rollout={"drainDeadline": "1h"}, recovery={"stallLimit": "2h"})
            h.world.hang_engine("tiny-g0-0")
            h.delete()
            await h.rest(60)
            assert not _gone(h)
            h.edit(deletion={"groups": "Immediate"})
            await h.until(lambda: not h.end_state(), 120)

        play(scenario, settings=EngineSettings(requests=4))


def _gone(h: Harness) -> bool:
    try:
        h.deployment()
    except KeyError:
        return True
    return False
