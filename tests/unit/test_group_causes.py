"""Why a group is given up: the cause that its owner reads, and no group is given up without one."""

from dataclasses import replace

import pytest

from factories.groups import LIMITS, NOW, admitted, change_pod, exited, group, homeless, pod, starting_pod
from moe_operator.api import names, reasons
from moe_operator.controller.causes import broken, waiting_for
from moe_operator.controller.observed import EngineFacts, Held, NodeState, Termination, pod_facts


def judge(facts, stalled=None):
    return broken(facts, LIMITS, stalled or {}, NOW)


def test_a_serving_group_is_not_broken() -> None:
    assert judge(admitted(group())) is None


def test_a_group_that_starts_is_not_broken_while_pods_are_missing() -> None:
    assert judge(group(pods=[starting_pod()])) is None


def test_the_engines_last_error_line_is_in_the_cause() -> None:
    engine = exited("INFO ready\nERROR Engine core proc EngineCore_DP0 died unexpectedly\n", code=0)
    cause = judge(change_pod(admitted(group()), 1, engine=engine))
    assert cause is not None
    assert cause.reason == reasons.ENGINE_EXITED
    assert cause.message.endswith("ERROR Engine core proc EngineCore_DP0 died unexpectedly")
    assert (cause.pod, cause.exit_code) == ("tiny-g0-0-1", 0)


def test_exit_code_0_is_a_failure_too() -> None:
    """vLLM ends with 0 when its engine dies."""
    cause = judge(change_pod(group(), 0, engine=exited("", code=0, restarts=0, running=False)))
    assert cause is not None
    assert cause.reason == reasons.ENGINE_EXITED


def test_the_first_engine_that_ended_is_the_cause_not_the_peers_that_followed() -> None:
    facts = change_pod(admitted(group()), 0, engine=exited("peer closed the connection"))
    first = exited("out of memory")
    assert first.termination is not None
    first = replace(first, termination=replace(first.termination, finished_at=NOW - 50))
    cause = judge(change_pod(facts, 1, engine=first))
    assert cause is not None
    assert "out of memory" in cause.message


def test_an_engine_that_only_lost_its_peer_is_not_the_cause_although_it_ended_first() -> None:
    facts = change_pod(
        admitted(group()), 0, engine=exited("RuntimeError: Connection closed by peer [10.0.0.2]")
    )
    later = exited("ValueError: bad weights")
    assert later.termination is not None
    later = replace(later, termination=replace(later.termination, finished_at=NOW))
    cause = judge(change_pod(facts, 1, engine=later))
    assert cause is not None
    assert "bad weights" in cause.message


def test_out_of_memory_is_named() -> None:
    engine = exited("", code=137)
    assert engine.termination is not None
    engine = replace(engine, termination=replace(engine.termination, reason="OOMKilled"))
    cause = judge(change_pod(admitted(group()), 0, engine=engine))
    assert cause is not None
    assert cause.reason == reasons.OUT_OF_MEMORY
    assert "signal 9 (OOMKilled)" in cause.message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"deleting": True}, reasons.POD_LOST),
        ({"phase": "Failed", "phase_message": "Evicted"}, reasons.POD_LOST),
        ({"uid": "another", "incarnation": None}, reasons.POD_LOST),
        ({"node_state": NodeState.GONE}, reasons.NODE_NOT_READY),
        ({"node_state": NodeState.NOT_READY, "node_since": NOW - 61, "ready": False}, reasons.NODE_NOT_READY),
        ({"ready": False, "unready_since": NOW - 61}, reasons.POD_NOT_READY),
    ],
)
def test_what_happens_to_one_pod_breaks_the_group(change, reason) -> None:
    cause = judge(change_pod(admitted(group()), 1, **change))
    assert cause is not None
    assert cause.reason == reason
    assert "tiny-g0-0-1" in cause.message


def test_a_silent_node_is_blamed_not_the_peer_that_misses_it() -> None:
    """The peer's readiness goes first: it stops hearing the silent pod before the node is marked."""
    facts = change_pod(admitted(group()), 0, ready=False, unready_since=NOW - 61)
    facts = change_pod(facts, 1, node_state=NodeState.NOT_READY, node_since=NOW - 30)
    cause = judge(facts)
    assert cause is not None
    assert (cause.reason, cause.node) == (reasons.NODE_NOT_READY, "node-1")


@pytest.mark.parametrize(
    "change",
    [
        {"node_state": NodeState.NOT_READY, "node_since": NOW - 5, "ready": False, "unready_since": NOW - 5},
        {"ready": False, "unready_since": NOW - 59},
    ],
)
def test_short_trouble_is_waited_out(change) -> None:
    assert judge(change_pod(admitted(group()), 1, **change)) is None


def test_a_missing_pod_of_an_admitted_group_breaks_it() -> None:
    facts = admitted(group())
    cause = judge(replace(facts, pods=facts.pods[:1]))
    assert cause is not None
    assert cause.reason == reasons.POD_LOST


def test_work_without_tokens_for_the_stall_limit_breaks_the_group() -> None:
    facts = admitted(group())
    uid = facts.pods[0].uid
    assert judge(facts, {uid: 119.0}) is None
    cause = judge(facts, {uid: 120.0})
    assert cause is not None
    assert cause.reason == reasons.ENGINE_STALLED


@pytest.mark.parametrize("stalled", [0, 1])
def test_a_stall_beside_a_silent_node_is_the_nodes(stalled: int) -> None:
    """A team would look for a hang in the engine while a machine is down."""
    facts = change_pod(admitted(group()), 1, node_state=NodeState.NOT_READY, node_since=NOW - 5)
    cause = judge(facts, {facts.pods[stalled].uid: 120.0})
    assert cause is not None
    assert (cause.reason, cause.node) == (reasons.NODE_NOT_READY, "node-1")
    assert "no token for 120 s" in cause.message


def test_the_start_deadline_counts_from_running_engines_not_from_waiting_for_nodes() -> None:
    long_ago = EngineFacts(running_since=NOW - 1801)
    late = group(pods=[pod(engine=long_ago), pod(index=1, engine=long_ago, ready=False)])
    cause = judge(late)
    assert cause is not None
    assert cause.reason == reasons.START_DEADLINE
    waiting = group(created_at=NOW - 10_000, pods=[homeless()])
    assert judge(waiting) is None


def test_what_a_group_waits_for_is_said() -> None:
    nowhere = group(pods=[homeless(unschedulable="0/3 nodes are available")])
    assert waiting_for(nowhere) == (
        reasons.UNSCHEDULABLE,
        "pod tiny-g0-0 finds no node: 0/3 nodes are available",
    )


def test_a_lost_peer_is_not_the_cause_while_a_pod_or_node_is_gone() -> None:
    """gloo tells of a node's end half a minute before the control plane does, in words that blame the network."""
    follower = exited("RuntimeError: Connection closed by peer [10.0.0.2]:4711")
    for change, reason in (
        ({"node_state": NodeState.NOT_READY, "node_since": NOW - 1}, reasons.NODE_NOT_READY),
        ({"node_state": NodeState.GONE}, reasons.NODE_NOT_READY),
        ({"phase": "Failed", "phase_message": "Evicted"}, reasons.POD_LOST),
        ({"deleting": True}, reasons.POD_LOST),
        ({"uid": "another", "incarnation": None}, reasons.POD_LOST),
    ):
        cause = judge(change_pod(change_pod(admitted(group()), 0, engine=follower), 1, **change))
        assert cause is not None
        assert (cause.reason, cause.pod) == (reason, "tiny-g0-0-1")
    bereft = change_pod(admitted(group()), 0, engine=follower)
    cause = judge(replace(bereft, pods=bereft.pods[:1]))
    assert cause is not None
    assert (cause.reason, cause.message) == (reasons.POD_LOST, "1 of 2 pods of group tiny-g0 are gone")
    alone = judge(change_pod(admitted(group()), 0, engine=follower))
    assert alone is not None
    assert (alone.reason, alone.pod) == (reasons.ENGINE_EXITED, "tiny-g0-0")


def test_a_pod_that_was_killed_without_a_word_comes_before_those_that_lost_it() -> None:
    facts = change_pod(admitted(group()), 0, engine=exited("RuntimeError: Connection reset by peer", code=1))
    cause = judge(change_pod(facts, 1, engine=exited("", code=137)))
    assert cause is not None
    assert (cause.pod, cause.message) == ("tiny-g0-0-1", "the engine in pod tiny-g0-0-1 ended with signal 9")


def test_a_network_that_fails_after_memory_ran_out_on_a_peer_is_not_the_cause() -> None:
    """Though it ended first: a process with a full GPU takes longer to say so."""
    network = exited("RuntimeError: NCCL error: unhandled system error")
    assert network.termination is not None
    network = replace(network, termination=replace(network.termination, finished_at=NOW - 60))
    facts = change_pod(admitted(group()), 0, engine=network)
    cause = judge(change_pod(facts, 1, engine=exited("RuntimeError: CUDA error: out of memory")))
    assert cause is not None
    assert cause.reason == reasons.ACCELERATOR_OUT_OF_MEMORY


def test_a_broken_gpu_is_blamed_on_its_node() -> None:
    engine = exited("torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered")
    cause = judge(change_pod(admitted(group()), 1, engine=engine))
    assert cause is not None
    assert (cause.reason, cause.node) == (reasons.ACCELERATOR_FAULT, "node-1")
    assert " on node node-1: " in cause.message


def test_the_engines_lines_are_kept_beside_the_message() -> None:
    engine = exited("ERROR first\nINFO 11-30 00:00:00 [x.py:1] chatter\nERROR second")
    cause = judge(change_pod(admitted(group()), 1, engine=engine))
    assert cause is not None
    assert cause.output == ["ERROR first", "ERROR second"]


HELD = [
    (
        Held("engine", False, "ImagePullBackOff", "Back-off pulling image"),
        reasons.IMAGE_ERROR,
        "container engine: ImagePullBackOff: Back-off pulling image",
    ),
    (Held("engine", False, "ErrImagePull", "401 Unauthorized"), reasons.IMAGE_ERROR, "401 Unauthorized"),
    (
        Held("engine", False, "InvalidImageName", 'couldn\'t parse image name "A B"'),
        reasons.INVALID_IMAGE_NAME,
        "couldn't parse",
    ),
    (
        Held("engine", False, "CreateContainerConfigError", 'secret "hub" not found'),
        reasons.CONTAINER_CONFIG_ERROR,
        'secret "hub" not found',
    ),
    (
        Held("engine", False, "CreateContainerError", "failed to mount /dev/infiniband"),
        reasons.CONTAINER_CREATE_ERROR,
        "/dev/infiniband",
    ),
    (
        Held(
            "proxy",
            False,
            "CrashLoopBackOff",
            "back-off 10s",
            Termination(3, "Error", "ERROR no config", NOW),
        ),
        reasons.CRASH_LOOP,
        "container proxy ended with code 3: ERROR no config",
    ),
    (
        Held("prepare", True, None, "", Termination(137, "OOMKilled", "", NOW)),
        reasons.INIT_CONTAINER_FAILED,
        "init container prepare ended with signal 9 (OOMKilled) on node node-0",
    ),
    (
        Held(
            "prepare", True, "CrashLoopBackOff", "back-off", Termination(2, "Error", "tar: no such file", NOW)
        ),
        reasons.INIT_CONTAINER_FAILED,
        "init container prepare ended with code 2 on node node-0: tar: no such file",
    ),
    (
        Held(
            names.FETCH_CONTAINER,
            True,
            "CrashLoopBackOff",
            "back-off",
            Termination(1, "Error", '{"reason": "DiskFull", "message": "needs 412 GiB"}', NOW),
        ),
        reasons.WEIGHTS_DISK_FULL,
        "needs 412 GiB",
    ),
    (Held("engine", False, "SomethingNew", "words"), reasons.CONTAINER_WAITING, "SomethingNew: words"),
]


@pytest.mark.parametrize(("held", "reason", "part"), HELD)
def test_each_way_of_not_starting_has_its_reason_and_the_kubelets_words(held, reason, part) -> None:
    """Under one word, a missing Secret, a bad image and a full disk send the user to look in the wrong place."""
    found, message = waiting_for(group(pods=[starting_pod(held=(held,), engine=EngineFacts())]))
    assert found == reason
    assert part in message
    assert reasons.describe(found) is not None


def test_what_keeps_a_pod_from_coming_up_is_read_from_its_status() -> None:
    """Init containers come first: the others wait for them."""
    ended = {"exitCode": 3, "reason": "Error", "message": "no room"}
    status = {
        "initContainerStatuses": [
            {"name": "done", "state": {"terminated": {"exitCode": 0}}},
            {"name": "prepare", "state": {"terminated": ended}},
        ],
        "containerStatuses": [
            {"name": "engine", "state": {"waiting": {"reason": "PodInitializing"}}},
            {"name": "proxy", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}},
            {"name": "well", "state": {"running": {}}, "lastState": {"terminated": ended}},
        ],
    }
    facts = pod_facts({"metadata": {"name": "p", "uid": "u"}, "status": status}, None)
    assert [(h.container, h.init, h.waiting_reason) for h in facts.held] == [
        ("prepare", True, None),
        ("proxy", False, "ErrImagePull"),
    ]
    assert facts.held[0].termination is not None
    assert facts.held[0].termination.exit_code == 3


def test_the_kubelets_words_are_bounded() -> None:
    held = Held("engine", False, "ErrImagePull", "x" * 5000)
    assert len(waiting_for(group(pods=[starting_pod(held=(held,))]))[1]) <= 900
