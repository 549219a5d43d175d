"""What happens to a deployment's groups when nothing is wrong with the operator itself."""

from itertools import pairwise
from typing import Any

from fakecluster.engines import EngineSettings
from fakecluster.harness import NAME, NAMESPACE, Harness, Witness, manifest, play
from moe_operator.api import names, reasons
from moe_operator.controller.kube import LEADER_WORKER_SET, MODEL_DEPLOYMENT, POD, Obj


async def _serving(h: Harness, groups: int = 1, **spec: Any) -> None:
    h.apply(manifest(groups, **spec))
    await h.serve(groups)
    await h.settle()


def _cause(h: Harness) -> dict[str, Any]:
    return h.status().get("recovery", {}).get("lastCause") or {}


def _revision(group: Obj) -> str:
    return str(group["metadata"]["labels"][names.LABEL_REVISION])


def test_a_new_deployment_serves_seconds_after_its_engines_are_up() -> None:
    """Lost: time to first request, and trust in what the status says meanwhile."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest())
        await h.until(lambda: h.condition(reasons.READY), 5, "a first status")
        ready = h.condition(reasons.READY)
        assert ready is not None
        assert (ready["status"], ready["reason"]) == ("False", reasons.STARTING)
        assert h.condition(reasons.RECONCILING) is not None
        took = await h.serve()
        assert took < h.world.settings.start_seconds + 10, took
        assert h.condition(reasons.RECONCILING) is None
        assert h.condition(reasons.STALLED) is None
        assert h.status()["groups"]["summary"] == "1/1"

    play(scenario)


def test_a_crashed_engine_means_a_new_group_and_its_last_words_in_the_status() -> None:
    """Lost: the reason of an outage, which vLLM's own exit code 0 and a pod that is gone do not tell."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        first = h.groups()[0]["metadata"]["uid"]
        h.world.crash_engine("tiny-g0-0-1", "started\ntorch.OutOfMemoryError: CUDA out of memory", code=0)
        out = await h.until(lambda: not h.serving(), 5, "the broken group is out of the Service")
        assert out < 5
        took = await h.until(
            lambda: h.ready() and h.serving() and h.groups()[0]["metadata"]["uid"] != first,
            120,
            "a new group serves",
        )
        assert took < h.world.settings.start_seconds + 15, took
        assert _cause(h)["reason"] == reasons.ACCELERATOR_OUT_OF_MEMORY
        assert "torch.OutOfMemoryError: CUDA out of memory" in _cause(h)["message"]
        assert _cause(h)["output"] == ["torch.OutOfMemoryError: CUDA out of memory"]
        lost = {(NAMESPACE, "tiny", reasons.ACCELERATOR_OUT_OF_MEMORY): 1}
        assert h.operator.counting.groups_lost == lost, "counted once, by its reason"
        assert _cause(h)["pod"] == "tiny-g0-0-1"
        assert h.status()["recovery"]["failures"] == 1
        await h.until(lambda: len(h.groups()) == 1, 60, "the broken group is gone")

    play(scenario)


def test_a_cause_that_only_the_log_tells_is_found_there() -> None:
    """Lost: every cause without the agent, and what libraries write to standard error before they end the process."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        said = (
            "terminate called after throwing\nRuntimeError: CUDA error: uncorrectable ECC error encountered\n"
        )
        h.world.print_in("tiny-g0-0-1", said)
        h.world.crash_engine("tiny-g0-0-1", "ERROR Worker proc VllmWorker-0 died unexpectedly", code=0)
        await h.until(lambda: _cause(h).get("reason") == reasons.ACCELERATOR_FAULT, 30)
        node = _cause(h)["node"]
        assert f"ended with code 0 on node {node}: RuntimeError: CUDA error" in _cause(h)["message"]
        await h.serve()

    play(scenario)


def test_an_engine_killed_by_the_kernel_is_told_as_out_of_memory() -> None:
    """Lost: the one hint that more memory, not another image, is what helps."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        h.world.crash_engine("tiny-g0-0", reason="OOMKilled")
        await h.until(lambda: _cause(h).get("reason") == reasons.OUT_OF_MEMORY, 30)
        await h.serve()

    play(scenario)


def test_a_deleted_pod_costs_its_group_and_nothing_else() -> None:
    """Lost: requests, if the remaining pods or the successor of the deleted one took traffic without their peers."""

    async def scenario(h: Harness) -> None:
        await _serving(h, 2)
        kept = h.groups()[1]["metadata"]["uid"]
        h.world.delete_pod("tiny-g0-0-1")
        await h.until(lambda: _cause(h).get("reason") == reasons.POD_LOST, 15)
        await h.serve(2)
        assert kept in {g["metadata"]["uid"] for g in h.groups()}, "the other group had no part in it"

    play(scenario)


def test_a_silent_node_is_left_within_its_monitors_grace_and_the_unready_limit() -> None:
    """Lost: every request that a Service still sends to pods of a machine without power."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        h.world.nodes.silence(h.world.pod("tiny-g0-0-1")["spec"]["nodeName"])
        out = await h.until(lambda: not h.serving(), 6, "half a group is out of the Service")
        assert out < 6
        took = await h.until(lambda: h.serving() == ["tiny-g1"], 240, "a group elsewhere serves")
        assert took < 40 + 60 + h.world.settings.start_seconds + 20, took
        assert _cause(h)["reason"] in (reasons.NODE_NOT_READY, reasons.POD_NOT_READY), _cause(h)
        stuck = h.world.server.get(LEADER_WORKER_SET, NAMESPACE, "tiny-g0")
        assert stuck is not None, "its pods cannot end while their node is silent"
        h.world.nodes.bring_back(h.world.pod("tiny-g0-0-1")["spec"]["nodeName"])
        await h.until(lambda: len(h.groups()) == 1, 60, "the former group is gone once the node is back")

    play(scenario)


def test_a_pod_that_outlives_its_group_on_a_silent_node_keeps_its_name() -> None:
    """Lost: every successor, made over the old pod's name, counted as broken by it, and paced by a growing back-off.

    The garbage collector may take the LeaderWorkerSet and its StatefulSets before the silent kubelet lets the pod go.
    """

    async def scenario(h: Harness) -> None:
        await _serving(h)
        pod = h.world.pod("tiny-g0-0-1")
        h.world.nodes.silence(pod["spec"]["nodeName"])
        await h.until(lambda: h.serving() == ["tiny-g1"], 240, "a group elsewhere serves")
        stuck = h.world.server.get(LEADER_WORKER_SET, NAMESPACE, "tiny-g0")
        assert stuck is not None
        h.world.server.patch(
            LEADER_WORKER_SET, NAMESPACE, "tiny-g0", {"metadata": {"finalizers": None}}, "gc"
        )
        assert h.world.server.get(LEADER_WORKER_SET, NAMESPACE, "tiny-g0") is None
        assert h.world.pod("tiny-g0-0-1")["metadata"]["uid"] == pod["metadata"]["uid"]
        failures = h.status()["recovery"]["failures"]
        h.edit(replicas=2)
        await h.serve(2)
        assert sorted(h.serving()) == ["tiny-g1", "tiny-g2"]
        assert h.status()["recovery"]["failures"] == failures

    play(scenario)


def test_a_node_that_is_silent_for_a_moment_costs_no_group() -> None:
    """Lost: minutes of loading a model again for a hiccup of the network."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        uid = h.groups()[0]["metadata"]["uid"]
        node = h.world.pod("tiny-g0-0-1")["spec"]["nodeName"]
        h.world.nodes.silence(node)
        await h.until(lambda: not h.serving(), 6)
        h.world.nodes.bring_back(node)
        await h.until(h.serving, 15, "the same group serves again")
        assert [g["metadata"]["uid"] for g in h.groups()] == [uid]
        assert h.status()["recovery"]["failures"] == 0

    play(scenario)


def test_a_node_that_is_gone_is_replaced_at_once() -> None:
    """Lost: the minutes until a Node object that no longer exists is believed to be gone."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        h.world.nodes.remove(h.world.pod("tiny-g0-0-1")["spec"]["nodeName"])
        took = await h.until(lambda: h.serving() == ["tiny-g1"], 120)
        assert took < h.world.settings.start_seconds + 15, took
        assert _cause(h)["reason"] == reasons.NODE_NOT_READY
        await h.until(lambda: len(h.groups()) == 1, 120, "the orphans are collected")

    play(scenario)


def test_a_hung_engine_is_noticed_by_its_missing_progress_and_gone_in_seconds() -> None:
    """Lost: all capacity of a group that says it is healthy, for as long as nobody looks."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        h.world.hang_engine("tiny-g0-0")
        at = h.world.clock.elapsed
        await h.until(lambda: _cause(h).get("reason") == reasons.ENGINE_STALLED, 140)
        assert 119 < h.world.clock.elapsed - at < 130, "the stall limit of 120 s"
        deleted = h.world.clock.elapsed
        await h.until(
            lambda: h.world.server.get(POD, NAMESPACE, "tiny-g0-0") is None,
            20,
            "a process that hears no SIGTERM ends",
        )
        assert h.world.clock.elapsed - deleted < 15
        await h.serve()

    play(scenario, settings=EngineSettings(requests=4))


def test_an_idle_group_never_counts_as_hung() -> None:
    """Lost: a healthy group, every two minutes of silence."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        uid = h.groups()[0]["metadata"]["uid"]
        await h.settle(quiet=1800, within=4000)
        assert [g["metadata"]["uid"] for g in h.groups()] == [uid]

    play(scenario)


def test_scaling_adds_and_drains_groups_without_losing_a_request() -> None:
    """Lost: requests in flight, and with HPA at every change of load."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        witness = Witness(h)
        h.edit(replicas=3)
        await h.serve(3)
        first = h.groups()[0]["metadata"]["uid"]
        h.edit(replicas=1)
        await h.serve(1)
        assert [g["metadata"]["uid"] for g in h.groups()] == [first], "the newest groups go first"
        assert h.world.engine_client.drained, "the agents were told to close connections"
        assert not witness.lost_requests

    play(scenario, settings=EngineSettings(requests=4))


def test_a_rollout_surges_and_never_leaves_fewer_groups_than_wanted() -> None:
    """Lost: capacity during every change of an engine argument."""

    async def scenario(h: Harness) -> None:
        await _serving(h, 2)
        old = h.status()["revision"]
        witness = Witness(h)
        h.edit(engine={"args": {"max-num-seqs": "64"}})
        await h.until(lambda: h.condition(reasons.RECONCILING), 5, "a rollout is told")
        await h.until(
            lambda: len(h.groups()) == 2 and all(_revision(g) != old for g in h.groups()),
            600,
            "both groups are new",
        )
        await h.serve(2)
        assert witness.lowest == 2
        assert not witness.lost_requests
        assert h.condition(reasons.RECONCILING) is None

    play(scenario, settings=EngineSettings(requests=4))


def test_a_revision_that_does_not_start_leaves_the_old_one_serving_and_going_back_finds_it() -> None:
    """Lost: everything that serves, to one wrong argument."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        uid, good = h.groups()[0]["metadata"]["uid"], h.status()["revision"]
        h.world.settings.start_failure = (1, "ValueError: unsupported quantization: fp3")
        h.edit(engine={"args": {"quantization": "fp3"}})
        await h.until(lambda: h.status()["recovery"]["failures"] >= 2, 600, "the new revision fails twice")
        assert "unsupported quantization: fp3" in _cause(h)["message"]
        assert h.serving() == ["tiny-g0"]
        ready = h.condition(reasons.READY)
        assert ready is not None
        assert ready["status"] == "False"
        h.world.settings.start_failure = None
        h.edit(engine={"args": None})
        await h.until(lambda: h.status()["revision"] == good and h.ready(), 30, "going back is at once")
        await h.until(lambda: len(h.groups()) == 1, 60)
        assert [g["metadata"]["uid"] for g in h.groups()] == [uid], (
            "the group that served all along serves on"
        )

    play(scenario, settings=EngineSettings(requests=4))


def test_attempts_that_fail_again_and_again_are_paced() -> None:
    """Lost: the API server and the image registry, to a crash loop of whole groups."""

    async def scenario(h: Harness) -> None:
        h.world.settings.start_failure = (1, "RuntimeError: cannot open model")
        h.world.settings.start_seconds = 5.0
        h.apply(manifest(recovery={"restartBudget": 20}))
        await h.until(lambda: h.status().get("recovery", {}).get("failures", 0) >= 6, 1200)
        begun = [w.at for w in h.world.server.writes if w.verb == "create" and w.kind == LEADER_WORKER_SET]
        gaps = [b - a for a, b in pairwise(begun)]
        assert gaps[-1] > 80, gaps
        assert gaps == sorted(gaps), "each wait is longer than the one before"
        h.world.settings.start_failure = None
        await h.serve(within=600)

    play(scenario)


def test_an_image_that_cannot_be_pulled_is_told_and_corrected() -> None:
    """Lost: an hour of looking for what the kubelet knows."""

    async def scenario(h: Harness) -> None:
        h.world.kubelets.bad_images.add("example.com/none:1")
        h.apply(manifest(engine={"image": "example.com/none:1"}))

        def told() -> bool:
            unhealthy = h.status().get("groups", {}).get("unhealthy") or [{}]
            return bool(unhealthy[0].get("reason") == reasons.IMAGE_ERROR)

        await h.until(told, 30, "the image is named as the cause")
        h.edit(engine={"image": None})
        await h.serve()

    play(scenario)


def test_too_few_gpus_are_told_and_used_when_they_come() -> None:
    """Lost: what is missing, and the groups that fit meanwhile."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(2))
        await h.until(
            lambda: (h.condition(reasons.CAPACITY_AVAILABLE) or {}).get("reason") == reasons.WAITING_FOR_GPUS,
            30,
        )
        missing = h.condition(reasons.CAPACITY_AVAILABLE)
        assert missing is not None
        assert "no nodes have room for a whole one" in missing["message"]
        await h.until(lambda: len(h.serving()) == 1, 120, "the group that fits serves")
        h.world.nodes.add("node-late")
        await h.serve(2)
        capacity = h.condition(reasons.CAPACITY_AVAILABLE)
        assert capacity is not None
        assert capacity["status"] == "True"

    play(scenario, nodes=3)


def test_a_canary_that_fails_keeps_a_group_out_of_traffic() -> None:
    """Lost: users' requests, answered by an engine that answers nothing."""

    async def scenario(h: Harness) -> None:
        h.world.settings.canary_failure = "rank 3 answered 500: CUDA error"
        h.apply(manifest())
        await h.until(lambda: _cause(h).get("reason") == reasons.CANARY_FAILED, 120)
        assert "rank 3 answered 500" in _cause(h)["message"]
        assert not h.serving()
        h.world.settings.canary_failure = None
        await h.serve(within=400)

    play(scenario)


def test_a_spec_that_cannot_be_carried_out_is_told_and_its_correction_taken_up() -> None:
    """Lost: what serves, and a way to see what was wrong."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        uid = h.groups()[0]["metadata"]["uid"]
        h.edit(engine={"args": {"data-parallel-size": "3"}})
        await h.until(lambda: h.condition(reasons.STALLED), 10, "Stalled")
        stalled = h.condition(reasons.STALLED)
        assert stalled is not None
        assert stalled["reason"] == reasons.RESERVED_ARGUMENT
        await h.settle()
        assert h.serving() == ["tiny-g0"], "the last good revision serves on"
        h.edit(engine={"args": None})
        await h.until(h.ready, 10)
        assert h.condition(reasons.STALLED) is None
        assert [g["metadata"]["uid"] for g in h.groups()] == [uid]

    play(scenario)


def test_a_group_lost_while_the_spec_is_wrong_is_replaced_from_the_last_good_revision() -> None:
    """Lost: the service, because of a typing error and a crash on the same day."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        h.edit(engine={"args": {"data-parallel-size": "3"}})
        await h.until(lambda: h.condition(reasons.STALLED), 10)
        h.world.crash_engine("tiny-g0-0", "boom")
        await h.until(lambda: h.serving() == ["tiny-g1"], 120, "a successor serves")
        assert h.condition(reasons.STALLED) is not None

    play(scenario)


def test_deleting_a_deployment_takes_everything_even_from_hung_engines() -> None:
    """Lost: GPUs, to pods that nobody owns any more."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(2, deletion={"groups": "Immediate"}))
        await h.serve(2)
        await h.settle()
        h.world.hang_engine("tiny-g0-0")
        h.delete()
        # The garbage collector takes the leaders first and the workers after them: twice the grace of 30 s.
        took = await h.until(lambda: not h.end_state(), 90, "everything is gone")
        assert took < 65, took

    play(scenario, settings=EngineSettings(requests=4))


def test_a_deployment_made_again_at_once_gets_its_names_back() -> None:
    """Lost: a redeploy with `kubectl replace --force`, stuck on the names of what is still on its way out."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(deletion={"groups": "Immediate"}))
        await h.serve()
        await h.settle()
        h.delete()
        h.apply(manifest())
        await h.serve(within=400)

    play(scenario)


def test_a_deployment_made_again_at_once_is_a_new_one() -> None:
    """Lost: GPUs, to demand that was the former one's: in a gap of the watch nobody sees that it was gone."""

    async def scenario(h: Harness) -> None:
        spec = {"scaling": {"mode": "Auto", "minGroups": 1, "maxGroups": 3}}
        h.apply(manifest(deletion={"groups": "Immediate"}, **spec))
        await h.serve(3, within=1200)
        scaler = h.operator.reconciler._scaler
        before = scaler._kept[NAMESPACE, NAME]
        h.operator.feed.break_watch(MODEL_DEPLOYMENT)
        h.delete()
        h.apply(manifest(**spec))
        h.operator.feed.mend_watch()
        await h.until(lambda: "scaling" in h.status(), 15, "the first decision")
        assert h.status()["scaling"]["desired"] == 1, h.status()["scaling"]
        assert scaler._kept[NAMESPACE, NAME] is not before

    play(scenario, settings=EngineSettings(requests=85))
