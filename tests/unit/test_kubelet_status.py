"""A pod's status decides what controllers do: a wrong phase or condition restarts, deletes or routes wrongly."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kubelet_contract import row
from localcluster.kubelet import podstatus, records
from localcluster.kubelet.backoff import BackOff
from localcluster.kubelet.podstatus import Sandbox, phase
from localcluster.kubelet.records import (
    Record,
    Running,
    Terminated,
    Waiting,
    adopt,
    records_of,
    terminated_by,
)
from localcluster.kubelet.steps import next_steps

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUNNING = Running(NOW)
OK = Terminated(0, "Completed", NOW, NOW)
BAD = Terminated(1, "Error", NOW, NOW)
CREATING = Waiting("ContainerCreating")
CRASHING = Waiting("CrashLoopBackOff")
SANDBOX = Sandbox(ready=True, pod_ip="10.244.1.2", host_ip="10.244.1.1", start_time="2026-01-02T03:04:05Z")


def record(
    name: str,
    state: records.State,
    kind: records.Kind = "main",
    last: Terminated | None = None,
    started: bool = False,
) -> Record:
    ready = isinstance(state, Running) and started
    return Record(name, kind, {"name": name, "image": "i"}, state, last=last, started=started, ready=ready)


def pod(policy: str = "Always", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 3},
        "spec": {"restartPolicy": policy, **spec},
    }


@row("restart-policy", "conditions")
@pytest.mark.parametrize(
    ("policy", "states", "expected"),
    [
        ("Always", [CREATING], "Pending"),
        ("Always", [RUNNING], "Running"),
        ("Always", [RUNNING, CREATING], "Pending"),
        ("Always", [BAD], "Running"),
        ("Always", [OK], "Running"),
        ("OnFailure", [OK], "Succeeded"),
        ("OnFailure", [BAD], "Running"),
        ("OnFailure", [OK, RUNNING], "Running"),
        ("Never", [OK, OK], "Succeeded"),
        ("Never", [OK, BAD], "Failed"),
        ("Never", [BAD, RUNNING], "Running"),
    ],
)
def test_phase_of_main_containers(policy: str, states: list[records.State], expected: str) -> None:
    given = [record(f"c{number}", state) for number, state in enumerate(states)]
    assert phase(pod(policy), given, terminal=False) == expected


@row("crash-backoff")
def test_a_crashing_container_keeps_its_pod_running() -> None:
    """A pod of a StatefulSet never becomes Failed because a container exited."""
    assert phase(pod(), [record("c", CRASHING, last=BAD)], terminal=False) == "Running"


@row("init-containers")
@pytest.mark.parametrize(
    ("policy", "init", "main", "expected"),
    [
        ("Always", RUNNING, CREATING, "Pending"),
        ("Always", BAD, CREATING, "Pending"),
        ("Never", BAD, CREATING, "Failed"),
        ("Always", OK, CREATING, "Pending"),
        ("Always", OK, RUNNING, "Running"),
    ],
)
def test_phase_with_an_init_container(
    policy: str, init: records.State, main: records.State, expected: str
) -> None:
    given = [record("i", init, "init"), record("c", main)]
    assert phase(pod(policy), given, terminal=False) == expected


@row("deletion")
@pytest.mark.parametrize(
    ("states", "expected"), [([OK], "Succeeded"), ([BAD], "Failed"), ([CREATING], "Failed")]
)
def test_a_deleted_pod_ends_in_a_final_phase(states: list[records.State], expected: str) -> None:
    given = [record("c", state) for state in states]
    assert phase(pod(), given, terminal=True) == expected


@row("init-containers")
def test_init_containers_run_one_after_the_other() -> None:
    first, second, main = (
        record("i1", CREATING, "init"),
        record("i2", CREATING, "init"),
        record("c", CREATING),
    )
    every = [first, second, main]
    assert next_steps("Always", every, False).start == ("i1",)
    first.state = RUNNING
    assert next_steps("Always", every, False).start == ()
    first.state = OK
    assert next_steps("Always", every, False).start == ("i2",)
    second.state = BAD
    assert next_steps("Always", every, False).start == ("i2",)
    assert next_steps("Never", every, False).over
    second.state = OK
    steps = next_steps("Always", every, False)
    assert steps.start == ("c",)
    assert steps.initialized


@row("sidecars")
def test_a_sidecar_holds_back_what_follows_only_until_it_has_started() -> None:
    side, init, main = record("s", CREATING, "sidecar"), record("i", CREATING, "init"), record("c", CREATING)
    every = [side, init, main]
    assert next_steps("Never", every, False).start == ("s",)
    side.state = RUNNING
    assert next_steps("Never", every, False).start == ()
    side.started = True
    assert next_steps("Never", every, False).start == ("i",)
    init.state = OK
    assert next_steps("Never", every, False).start == ("c",)


@row("sidecars")
def test_a_pod_runs_until_its_last_sidecar_has_ended() -> None:
    side = record("s", RUNNING, "sidecar", started=True)
    assert phase(pod("Never"), [side, record("c", OK)], terminal=False) == "Running"
    side.state = BAD
    assert phase(pod("Never"), [side, record("c", OK)], terminal=True) == "Succeeded"


@row("sidecars")
def test_a_sidecar_is_restarted_whatever_the_policy_until_the_main_containers_end() -> None:
    side, main = record("s", BAD, "sidecar"), record("c", RUNNING)
    assert next_steps("Never", [side, main], True).start == ("s",)
    main.state = OK
    steps = next_steps("Never", [side, main], True)
    assert steps.over
    assert steps.start == ()


@row("restart-policy")
@pytest.mark.parametrize(
    ("policy", "state", "start", "over"),
    [
        ("Always", OK, True, False),
        ("OnFailure", OK, False, True),
        ("OnFailure", BAD, True, False),
        ("Never", BAD, False, True),
        ("Never", RUNNING, False, False),
    ],
)
def test_who_is_restarted(policy: str, state: records.State, start: bool, over: bool) -> None:
    steps = next_steps(policy, [record("c", state)], True)
    assert (steps.start == ("c",), steps.over) == (start, over)


@row("crash-backoff")
def test_restarts_wait_longer_each_time_up_to_a_limit() -> None:
    back_off, now, waits = BackOff(), 1000.0, []
    for _ in range(8):
        waits.append(back_off.remaining(now, now))
        now += waits[-1]
        back_off.started(now, now)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]


@row("crash-backoff")
def test_a_long_run_clears_the_back_off() -> None:
    back_off = BackOff()
    for ended in (0.0, 10.0, 30.0):
        back_off.started(ended, ended)
    assert back_off.remaining(ended=629.0, now=629.0) == 40
    assert back_off.remaining(ended=631.0, now=631.0) == 0
    back_off.started(631.0, 631.0)
    assert back_off.delay == 10


@row("conditions")
def test_a_ready_pod_has_all_conditions_and_an_unready_one_says_who_is_not() -> None:
    given = [record("a", RUNNING, started=True), record("b", RUNNING)]
    status = podstatus.status(pod(), given, SANDBOX, [], "t1", been_initialized=True)
    found = {entry["type"]: entry for entry in status["conditions"]}
    assert set(found) == set(podstatus.OWNED)
    assert found["Initialized"]["status"] == found["PodScheduled"]["status"] == "True"
    assert found["Ready"]["status"] == found["ContainersReady"]["status"] == "False"
    assert found["Ready"]["message"] == "containers with unready status: [b]"
    assert all(entry["observedGeneration"] == 3 for entry in found.values())
    given[1].ready = True
    later = podstatus.status(pod(), given, SANDBOX, status["conditions"], "t2", been_initialized=True)
    found = {entry["type"]: entry for entry in later["conditions"]}
    assert found["Ready"] == {
        "type": "Ready",
        "status": "True",
        "lastTransitionTime": "t2",
        "observedGeneration": 3,
    }
    assert found["Initialized"]["lastTransitionTime"] == "t1"


@row("conditions")
@pytest.mark.parametrize(("present", "ready"), [(None, False), ("False", False), ("True", True)])
def test_a_readiness_gate_keeps_a_pod_out_of_service(present: str | None, ready: bool) -> None:
    given = pod(readinessGates=[{"conditionType": "x/y"}])
    if present:
        given["status"] = {"conditions": [{"type": "x/y", "status": present}]}
    status = podstatus.status(
        given, [record("a", RUNNING, started=True)], SANDBOX, [], "t", been_initialized=True
    )
    found = {entry["type"]: entry for entry in status["conditions"]}
    assert found["ContainersReady"]["status"] == "True"
    assert (found["Ready"]["status"] == "True") is ready
    assert ready or found["Ready"]["reason"] == "ReadinessGatesNotReady"


@row("exit-states")
@pytest.mark.parametrize(
    ("wait_status", "oom", "code", "number", "reason"),
    [
        (0, False, 0, 0, "Completed"),
        (3 << 8, False, 3, 0, "Error"),
        (15, False, 143, 15, "Error"),
        (9, False, 137, 9, "Error"),
        (9, True, 137, 9, "OOMKilled"),
        (11 | 0x80, False, 139, 11, "Error"),
    ],
)
def test_how_a_container_ended(wait_status: int, oom: bool, code: int, number: int, reason: str) -> None:
    end = terminated_by(wait_status, NOW, NOW, "process://1", "why", oom)
    assert (end.exit_code, end.signal, end.reason, end.message) == (code, number, reason, "why")
    assert Terminated.from_state(end.as_state()["terminated"]) == end


@row("kubelet-restart")
def test_a_container_that_ran_under_an_earlier_kubelet_counts_as_killed() -> None:
    given = record("c", CREATING)
    status = {
        "restartCount": 2,
        "containerID": "process://x",
        "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}},
    }
    adopt(given, status)
    assert isinstance(given.state, Terminated)
    assert (given.state.exit_code, given.state.reason) == (137, "ContainerStatusUnknown")
    assert given.restart_count == 2
    assert next_steps("Always", [given], True).start == ("c",)
    assert next_steps("Never", [given], True).over


@row("status-writes")
def test_what_the_api_server_echoes_is_the_same_status() -> None:
    """Else every write would be followed by another, for ever."""
    given = [record("a", RUNNING, started=True), record("b", CRASHING, last=BAD)]
    status = podstatus.status(pod(), given, SANDBOX, [], "t1", been_initialized=True)
    echoed = {
        **status,
        "qosClass": "BestEffort",
        "conditions": [*status["conditions"], {"type": "x", "status": "True"}],
    }
    echoed = {key: value for key, value in echoed.items() if value is not None}
    for entry in echoed["containerStatuses"]:
        entry["lastState"] = {key: value for key, value in entry["lastState"].items() if value}
        entry["resources"] = {}
    assert podstatus.same(status, echoed)
    changed = podstatus.status(pod(), [given[0]], SANDBOX, [], "t1", been_initialized=True)
    assert not podstatus.same(changed, echoed)


def test_containers_wait_for_their_turn_in_words_that_kubectl_shows() -> None:
    spec = {"initContainers": [{"name": "i", "image": "x"}], "containers": [{"name": "c", "image": "y"}]}
    assert [entry.state for entry in records_of({"spec": spec})] == [Waiting("PodInitializing")] * 2
    assert [entry.state for entry in records_of({"spec": {"containers": spec["containers"]}})] == [CREATING]
