"""The life of one served model, with a real expert-parallel vLLM group. Each test is a way to lose requests."""

import json
import re
import signal
import threading
import time
from typing import Any

import pytest
import yaml

from e2e.conftest import NAMESPACE, Maker, manifest
from harness.deployments import (
    condition,
    deployment,
    engine_pods,
    group_of,
    ready_endpoints,
    wait_ready,
)
from harness.engines import engine_core
from harness.kubectl import apply, get, items, kubectl
from harness.kubelet import control
from harness.requests import complete
from harness.wait import wait_for
from moe_operator.api import names, reasons
from moe_operator.api.times import parse_time

pytestmark = pytest.mark.timeout(600)

NAME = "life"
URL = f"http://{NAME}.{NAMESPACE}.svc.cluster.local:{names.HTTP_PORT}/v1"
#: Both limits (s) are above the time after which a silent node is marked (20 s), so that the node is named.
STALL = UNREADY = 30
SPEC: dict[str, Any] = {
    "recovery": {"stallLimit": f"{STALL}s", "unreadyLimit": f"{UNREADY}s"},
    # Every test loses all there is.
    "scaling": {"minGroups": 1, "maxGroups": 1},
}


@pytest.fixture(scope="module", autouse=True)
def served(make: Maker) -> None:
    make(NAME, **SPEC)


@pytest.fixture(autouse=True)
def healthy() -> None:
    """Every test begins with a Ready deployment."""
    wait_ready(NAME, NAMESPACE, seconds=300)


def names_of_pods() -> set[str]:
    return {p["metadata"]["name"] for p in engine_pods(NAME, NAMESPACE)}


def wait_out_of_service(pods: set[str], since: float, limit: float = 5.0) -> float:
    """Seconds from `since` until none of the pods is a ready endpoint."""
    wait_for(
        f"{sorted(pods)} out of the Service",
        lambda: not pods & set(ready_endpoints(NAME, NAMESPACE).values()),
        seconds=limit + 30,
        every=0.05,
    )
    return time.monotonic() - since


def wait_replaced(group: str, reason: str) -> dict[str, Any]:
    """The status' cause once another group serves in place of `group`."""
    wait_for(
        f"a successor of {group}",
        lambda: (pods := engine_pods(NAME, NAMESPACE)) and all(group_of(p) != group for p in pods),
        seconds=120,
        every=0.5,
    )
    status = wait_ready(NAME, NAMESPACE, seconds=300)["status"]
    cause: dict[str, Any] = status["recovery"]["lastCause"]
    assert cause["reason"] == reasons.__dict__[reason], cause
    return cause


def test_a_ready_deployment_answers_by_its_services_name_and_is_reported() -> None:
    answer = complete(URL, "tiny-moe", "hello", 8)
    assert answer["usage"]["completion_tokens"] == 8
    table = kubectl("get", "mdep", "-n", NAMESPACE)
    row = next(line for line in table.splitlines() if line.startswith(NAME))
    assert "tiny-moe" in row
    assert "1/1" in row
    assert "Serving" in row


def test_every_pod_of_the_group_serves() -> None:
    for pod in engine_pods(NAME, NAMESPACE):
        base = f"http://{pod['status']['podIP']}:{names.HTTP_PORT}/v1"
        assert complete(base, "tiny-moe", "hello", 4)["usage"]["completion_tokens"] == 4
        assert pod["metadata"]["labels"][names.LABEL_TRAFFIC] == names.TRAFFIC_ON


def test_applying_the_manifest_again_from_gitops_changes_nothing() -> None:
    before = items("leaderworkersets", NAMESPACE)
    generation = deployment(NAME, NAMESPACE)["metadata"]["generation"]
    apply(manifest(NAME, **SPEC), manager="gitops")
    assert deployment(NAME, NAMESPACE)["metadata"]["generation"] == generation
    text = yaml.safe_dump(manifest(NAME, **SPEC))
    kubectl(
        "diff", "--server-side", "--field-manager=gitops", "-f", "-", stdin=text
    )  # exit 1 if there is a difference
    after = items("leaderworkersets", NAMESPACE)
    assert [o["metadata"]["uid"] for o in after] == [o["metadata"]["uid"] for o in before]


def test_a_killed_engine_takes_its_group_out_at_once_and_is_replaced() -> None:
    pods = engine_pods(NAME, NAMESPACE)
    group, victim = group_of(pods[0]), pods[-1]["metadata"]["name"]
    engine_core(victim).send(signal.SIGKILL)
    seconds = wait_out_of_service(names_of_pods(), time.monotonic())
    print(f"out of the Service after {seconds:.1f} s")
    assert seconds <= 5.0
    cause = wait_replaced(group, "ENGINE_EXITED")
    assert "exited unexpectedly" in cause["message"] or "died" in cause["message"], cause
    assert cause["output"], "the lines beside it"


def test_a_stopped_engine_under_load_is_found_within_the_stall_limit() -> None:
    pods = engine_pods(NAME, NAMESPACE)
    group, victim = group_of(pods[0]), pods[-1]["metadata"]["name"]
    stop, answered = threading.Event(), threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                complete(URL, "tiny-moe", "hello", 200, timeout=120)
                answered.set()
            except OSError:
                stop.wait(0.5)  # the group is on its way out; a client would try again

    workers = [threading.Thread(target=load, daemon=True) for _ in range(4)]
    for worker in workers:
        worker.start()
    try:
        assert answered.wait(90), "nothing was answered"
        engine_core(victim).send(signal.SIGSTOP)
        seconds = wait_out_of_service(names_of_pods(), time.monotonic(), limit=STALL + 15)
        print(f"out of the Service after {seconds:.1f} s, stall limit {STALL} s")
        assert seconds <= STALL + 15
        cause = wait_replaced(group, "ENGINE_STALLED")
        silent = re.search(r"has given no token for (\d+) s", cause["message"])
        assert silent is not None, cause
        assert int(silent[1]) <= STALL + 10
    finally:
        stop.set()
        for worker in workers:
            worker.join(timeout=130)


def test_a_silent_node_gets_no_traffic_and_its_group_moves() -> None:
    pods = engine_pods(NAME, NAMESPACE)
    group, node = group_of(pods[0]), pods[-1]["spec"]["nodeName"]
    ours = names_of_pods()
    control("node-fail", node)
    try:

        def marked() -> bool:
            found = get("node", node)
            assert found is not None
            ready = condition(found, "Ready")
            return ready is not None and ready["status"] != "True"

        wait_for(f"node {node} marked", marked, seconds=90, every=0.05)
        seconds = wait_out_of_service(ours, time.monotonic())
        print(f"out of the Service {seconds:.1f} s after the node was marked")
        assert seconds <= 5.0
        since = parse_time((condition(get("node", node) or {}, "Ready") or {})["lastTransitionTime"])
        wait_replaced(group, "NODE_NOT_READY")
        told = parse_time(deployment(NAME, NAMESPACE)["status"]["recovery"]["lastFailureTime"])
        assert since is not None
        assert told is not None
        print(f"given up {told - since:.0f} s after the node was marked, unready limit {UNREADY} s")
        assert told - since <= UNREADY
    finally:
        control("node-recover", node)
        wait_for(
            f"node {node} back",
            lambda: (
                (found := get("node", node)) and (c := condition(found, "Ready")) and c["status"] == "True"
            ),
            seconds=60,
        )


def test_a_pod_that_dies_while_the_operator_is_away_is_replaced_when_it_returns() -> None:
    kubectl("scale", "deployment/moe-operator", "-n", "moe-system", "--replicas=0")
    wait_for(
        "the operator gone",
        lambda: not items("pods", "moe-system", "app.kubernetes.io/name=moe-operator"),
        seconds=60,
    )
    pods = engine_pods(NAME, NAMESPACE)
    group, victim = group_of(pods[0]), pods[0]["metadata"]["name"]
    try:
        engine_core(victim).send(signal.SIGKILL)
        seconds = wait_out_of_service(names_of_pods(), time.monotonic())
        print(f"out of the Service after {seconds:.1f} s without an operator")
    finally:
        kubectl("scale", "deployment/moe-operator", "-n", "moe-system", "--replicas=2")
    wait_replaced(group, "ENGINE_EXITED")


def test_deleting_it_leaves_nothing_behind() -> None:
    kubectl("delete", names.PLURAL, NAME, "-n", NAMESPACE, "--wait=false")
    kinds = ["leaderworkersets", "statefulsets", "pods", "services", "endpointslices", "configmaps",
             "serviceaccounts", "poddisruptionbudgets", "controllerrevisions"]  # fmt: skip

    def left() -> list[str]:
        return [
            f"{kind}/{obj['metadata']['name']}"
            for kind in kinds
            for obj in items(kind, NAMESPACE)
            if obj["metadata"]["name"].startswith(NAME)
        ]

    try:
        wait_for("nothing left", lambda: not left(), seconds=90, every=0.5)
    finally:
        print(json.dumps(left()))
