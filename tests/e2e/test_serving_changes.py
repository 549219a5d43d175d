"""What people and processes do to a deployment that serves: one rank, so that every step is one real vLLM.

A user would lose requests, or the revision that works, to a node's maintenance, a wrong flag or a deletion."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import EAGER, NAMESPACE, Maker
from harness.deployments import CHILDREN, condition, deployment, engine_pods, group_of, wait_ready
from harness.engines import worker
from harness.history import watched
from harness.kubectl import JsonObject, items, kubectl
from harness.kubelet import signal_container
from harness.requests import Stream, complete
from harness.wait import wait_for
from moe_operator.api import names, reasons
from moe_operator.api.times import parse_time

pytestmark = pytest.mark.timeout(900)

NAME = "changing"
URL = f"http://{NAME}.{NAMESPACE}.svc.cluster.local:{names.HTTP_PORT}/v1"
SELECTOR = f"{names.LABEL_DEPLOYMENT}={NAME}"
#: From an event to its name in the status, in seconds.
TOLD_WITHIN = 30.0
#: A start of one rank while other tests run, in seconds.
START = 300.0


@pytest.fixture(scope="module", autouse=True)
def served(make: Maker) -> None:
    make(
        NAME,
        hardware={"accelerator": "cpu", "gpusPerGroup": 1},
        recovery={"idleCanary": "10s"},
    )


@pytest.fixture(autouse=True)
def healthy(served: None) -> None:
    """Every test begins with a Ready deployment."""
    wait_ready(NAME, NAMESPACE, seconds=START)


def patch(**spec: Any) -> None:
    kubectl("patch", names.PLURAL, NAME, "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": spec}))


def the_pod() -> JsonObject:
    (pod,) = engine_pods(NAME, NAMESPACE)
    return pod


def wait_condition(type_: str, reason: str, seconds: float = START) -> JsonObject:
    """The condition once it is True for this reason, of the present generation."""

    def holds() -> JsonObject | None:
        obj = deployment(NAME, NAMESPACE)
        found = condition(obj, type_)
        current = obj["status"].get("observedGeneration") == obj["metadata"]["generation"]
        return found if current and found and (found["status"], found["reason"]) == ("True", reason) else None

    return wait_for(f"{type_} {reason}", holds, seconds=seconds, every=0.5)


@contextmanager
def clients() -> Iterator[list[str]]:
    """Requests one after the other while the block runs; what went wrong with them."""
    stop, errors, answered = threading.Event(), list[str](), 0

    def ask() -> None:
        nonlocal answered
        while not stop.is_set():
            try:
                complete(URL, "tiny-moe", "hello", 16, timeout=60)
                answered += 1
            except OSError as error:
                errors.append(str(error))
            stop.wait(0.25)  # leaves the processor to what is being tested

    worker = threading.Thread(target=ask, daemon=True)
    worker.start()
    try:
        yield errors
    finally:
        stop.set()
        worker.join(timeout=90)
        print(f"{answered} requests answered, {len(errors)} failed")
    assert answered


def lost_by(event: Callable[[JsonObject], None]) -> tuple[dict[str, Any], JsonObject]:
    """The cause in the status after an event to the group's engine, and how its container ended."""
    pod = the_pod()
    group = group_of(pod)
    before = deployment(NAME, NAMESPACE)["status"]["recovery"].get("counted") or []
    with watched("pods", NAMESPACE, "-l", SELECTOR) as pods:
        event(pod)
        recovery = wait_for(
            f"the loss of {group}",
            lambda: (now := deployment(NAME, NAMESPACE)["status"]["recovery"])["counted"] != before and now,
            seconds=120,
        )
    cause: dict[str, Any] = recovery["lastCause"]
    seconds = _seconds_to_tell(pods.terminations(), recovery)
    print(f"{cause['reason']} {seconds:.0f} s after the end: {cause['message']}")
    assert recovery["lastGroup"] == group
    assert seconds <= TOLD_WITHIN
    return cause, next(end for name, end in pods.terminations() if name == pod["metadata"]["name"])


def _refused() -> JsonObject | None:
    recovery: JsonObject = deployment(NAME, NAMESPACE)["status"]["recovery"]
    cause = recovery.get("lastCause") or {}
    return recovery if cause.get("reason") == reasons.ARGUMENT_REFUSED else None


def _seconds_to_tell(ends: list[tuple[str, JsonObject]], recovery: JsonObject) -> float:
    """From the first end of a container of the group that was lost last, until the status named it."""
    end = next(end for name, end in ends if name.startswith(f"{recovery['lastGroup']}-"))
    finished, told = parse_time(end["finishedAt"]), parse_time(recovery["lastFailureTime"])
    assert finished is not None
    assert told is not None
    return told - finished


def test_a_server_that_ends_with_code_0_has_not_done_well() -> None:
    """vLLM exits with 0 after SIGTERM, and when its engine dies: no code says that a group is lost."""
    cause, end = lost_by(lambda pod: signal_container(pod, names.ENGINE_CONTAINER, "TERM"))
    assert end["exitCode"] == 0
    assert cause["reason"] == reasons.ENGINE_EXITED
    assert cause["exitCode"] == 0


def test_a_killed_worker_is_told_as_that() -> None:
    """The engine beside it ends in good order, and its server with code 0."""
    cause, _ = lost_by(lambda pod: worker(pod["metadata"]["name"]).send(signal.SIGKILL))
    assert cause["reason"] == reasons.ENGINE_EXITED
    assert "died unexpectedly" in cause["message"], cause


def test_a_worker_that_hangs_is_found_though_nobody_asks_it_anything() -> None:
    """By three canaries of 30 s each, 5 s apart. Else the first request would find it, and wait for the stall limit."""
    pod = the_pod()
    wait_for(
        "the load of earlier tests out of the figures",
        lambda: deployment(NAME, NAMESPACE)["status"]["throughput"]["outputTokensPerSecond"] == 0,
        seconds=120,
        every=1,
    )
    stopped = time.time()
    worker(pod["metadata"]["name"]).send(signal.SIGSTOP)
    recovery = wait_for(
        f"the loss of {group_of(pod)}",
        lambda: (
            (now := deployment(NAME, NAMESPACE)["status"]["recovery"])["lastGroup"] == group_of(pod)
            and now["lastCause"]["reason"] == reasons.IDLE_CANARY_FAILED
            and now
        ),
        seconds=240,
        every=1,
    )
    told = parse_time(recovery["lastFailureTime"])
    assert told is not None
    print(f"{told - stopped:.0f} s after the stop: {recovery['lastCause']['message']}")
    assert told - stopped <= 10 + 3 * 30 + 2 * 5 + TOLD_WITHIN


def test_a_drain_of_its_node_ends_and_no_request_is_lost() -> None:
    pod = the_pod()
    node = pod["spec"]["nodeName"]
    try:
        with (
            clients() as errors,
            watched(names.PLURAL, NAMESPACE, "--field-selector", f"metadata.name={NAME}") as seen,
        ):
            kubectl(
                "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force",
                f"--timeout={START:.0f}s", timeout=START + 30,
            )  # fmt: skip
    finally:
        kubectl("uncordon", node)
    assert errors == []
    assert the_pod()["spec"]["nodeName"] != node
    said = [condition(version, "GroupsReady") or {} for version in seen.seen]
    leaving = [one["message"] for one in said if one.get("reason") == reasons.LEAVING_NODES]
    print(leaving[0])
    assert node in leaving[0]
    ready = [condition(version, "Ready") or {} for version in seen.seen]
    assert {one["status"] for one in ready} == {"True"}, "a node's maintenance is no outage"


def test_a_revision_that_cannot_start_is_stopped_and_taken_back_without_a_restart() -> None:
    before = the_pod()
    revision = deployment(NAME, NAMESPACE)["status"]["revision"]
    with clients() as errors, watched("pods", NAMESPACE, "-l", SELECTOR) as pods:
        patch(recovery={"restartBudget": 1}, engine={"args": {"max-batch-tokens": "7"}})
        recovery = wait_for("the loss of its first group", _refused, seconds=START)
        assert "max-batch-tokens" in recovery["lastCause"]["message"]
        assert _seconds_to_tell(pods.terminations(), recovery) <= TOLD_WITHIN
        stalled = wait_condition("Stalled", reasons.ROLLOUT_STOPPED)
        print(stalled["message"])
        assert "max-batch-tokens" in stalled["message"]
        status = deployment(NAME, NAMESPACE)["status"]
        assert status["groups"]["ready"] == 1
        kubectl_moe = str(Path(sys.executable).with_name("kubectl-moe"))
        undo = [kubectl_moe, "rollout", "undo", NAME, "-n", NAMESPACE, "--apply"]
        done = subprocess.run(undo, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        wait_ready(NAME, NAMESPACE, seconds=60)
    assert errors == [], "the old revision serves all along"
    after = deployment(NAME, NAMESPACE)
    assert condition(after, "Stalled") is None
    assert after["status"]["revision"] == revision
    assert after["spec"]["engine"]["args"] == EAGER
    assert the_pod()["metadata"]["uid"] == before["metadata"]["uid"]
    assert the_pod()["status"]["containerStatuses"] == before["status"]["containerStatuses"]


def test_a_paused_rollout_makes_nothing_and_going_back_restarts_nothing() -> None:
    def groups() -> list[str]:
        return [group["metadata"]["uid"] for group in items("leaderworkersets", NAMESPACE, SELECTOR)]

    wait_for("the revision before gone", lambda: len(groups()) == 1, seconds=60)
    before = groups()
    patch(rollout={"paused": True}, engine={"args": {"seed": "5"}})
    held = wait_condition("Reconciling", reasons.ROLLOUT_PAUSED, seconds=60)
    print(held["message"])
    assert groups() == before
    patch(rollout={"paused": False}, engine={"args": {"seed": "0"}})
    wait_ready(NAME, NAMESPACE, seconds=60)
    assert groups() == before


def test_a_stream_outlives_the_deletion_and_then_everything_goes() -> None:
    stream = Stream(URL, "tiny-moe", 1800)
    wait_for("tokens", lambda: stream.received > 10, seconds=60)
    kubectl("delete", names.PLURAL, NAME, "-n", NAMESPACE, "--wait=false")
    obj = deployment(NAME, NAMESPACE)
    assert obj["metadata"]["finalizers"] == [names.FINALIZER]
    wait_for(
        "Ready says Deleting",
        lambda: (found := condition(deployment(NAME, NAMESPACE), "Ready")) and found["reason"] == "Deleting",
        seconds=30,
    )
    assert stream.ended is None, "too short to show anything"
    stream.join(300)
    wait_for(
        "nothing left",
        lambda: (
            not items(CHILDREN, NAMESPACE, SELECTOR)
            and NAME not in kubectl("get", names.PLURAL, "-n", NAMESPACE, "-o", "name")
        ),
        seconds=120,
        every=0.5,
    )
