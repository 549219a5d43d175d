"""Groups that cannot come up, each for a cause that is made for real. Who has to guess why nothing serves, or hears of
it minutes later, loses the evening: the cause has a name of its own, within 30 seconds by the times in the objects."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import NAMESPACE, Maker, delete, manifest
from engine.tiny_model import tiny_model
from harness.deployments import condition, deployment
from harness.history import History, status_written_at, watched
from harness.install import namespace, provide_model
from harness.kubectl import JsonObject, apply, items, kubectl
from harness.kubelet import signal_container
from harness.wait import wait_for
from moe_operator.api import names, reasons
from moe_operator.api.times import parse_time

pytestmark = pytest.mark.timeout(600)

#: From a cause to its name in the status, in seconds.
TOLD_WITHIN = 30.0
#: Processes start slowly while other tests run.
PATIENCE = 300.0
ONE_RANK = {"accelerator": "cpu", "gpusPerGroup": 1}
_POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
_TAKE_PORT = f"""
import os, signal, socket
taken = socket.create_server((os.environ["POD_IP"], {names.HTTP_PORT}))
signal.pause()
"""


def lost(
    name: str, make: Maker, event: Callable[[JsonObject], None] | None = None, **spec: Any
) -> dict[str, Any]:
    """The cause of the first group's loss. It must be in the status 30 s after the engine's end at the latest.

    `event`: what happens to the first pod as soon as its engine runs.
    """
    with watched("pods", NAMESPACE, "-l", f"{names.LABEL_DEPLOYMENT}={name}") as pods:
        make(name, ready=False, hardware=ONE_RANK, **spec)
        try:
            if event is not None:
                event(wait_for(f"a pod of {name}", lambda: _running(pods), seconds=PATIENCE))
            recovery = wait_for(f"a loss of {name}", lambda: _loss(name), seconds=PATIENCE, every=0.5)
        finally:
            delete(name)
    cause: dict[str, Any] = recovery["lastCause"]
    pod, end = next(one for one in pods.terminations() if one[0].startswith(recovery["lastGroup"]))
    seconds = _span(end["finishedAt"], recovery["lastFailureTime"])
    print(f"{cause['reason']} {seconds:.0f} s after the end of {pod}: {cause['message']}")
    assert cause["pod"] == pod
    assert seconds <= TOLD_WITHIN
    return cause


def _running(pods: History) -> JsonObject | None:
    for pod in list(pods.seen):
        statuses = (pod.get("status") or {}).get("containerStatuses") or []
        if any("running" in (one.get("state") or {}) for one in statuses):
            return pod
    return None


def _loss(name: str) -> JsonObject | None:
    recovery: JsonObject = deployment(name, NAMESPACE).get("status", {}).get("recovery") or {}
    return recovery if recovery.get("lastCause") else None


def held_up(name: str, reason: str, waiting: str, make: Maker, **spec: Any) -> dict[str, Any]:
    """What the status says of a group whose container does not start for `waiting`, the kubelet's word."""
    select = ("--field-selector", f"metadata.name={name}")
    with (
        watched("pods", NAMESPACE, "-l", f"{names.LABEL_DEPLOYMENT}={name}") as pods,
        watched(names.PLURAL, NAMESPACE, *select) as deployments,
    ):
        make(name, ready=False, hardware=ONE_RANK, **spec)
        try:
            told = wait_for(
                f"{reason} of {name}", lambda: _first(deployments, reason), seconds=PATIENCE, every=0.5
            )
        finally:
            delete(name)
    pod = next(pod for pod in pods.seen if _waits(pod, waiting))
    seconds = status_written_at(told) - status_written_at(pod)
    (group,) = told["status"]["groups"]["unhealthy"]
    print(f"{reason} {seconds:.0f} s after {waiting}: {group['message']}")
    assert seconds <= TOLD_WITHIN
    ready = condition(told, "GroupsReady")
    assert ready is not None
    assert group["message"] in ready["message"], "kubectl describe says it too"
    return dict(group)


def _first(deployments: History, reason: str) -> JsonObject | None:
    """The first version whose status has an unhealthy group for this reason."""
    for version in list(deployments.seen):
        unhealthy = version.get("status", {}).get("groups", {}).get("unhealthy") or []
        if any(group["reason"] == reason for group in unhealthy):
            return version
    return None


def _waits(pod: JsonObject, reason: str) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return any((one.get("state") or {}).get("waiting", {}).get("reason") == reason for one in statuses)


def _span(begin: str, end: str) -> float:
    first, last = parse_time(begin), parse_time(end)
    assert first is not None
    assert last is not None
    return last - first


def test_an_image_that_nobody_has(make: Maker) -> None:
    image = "registry.example/no/such-image:v0"
    group = held_up("no-image", reasons.IMAGE_ERROR, "ErrImagePull", make, engine={"image": image})
    assert image in group["message"]


def test_a_secret_that_is_not_there(make: Maker) -> None:
    key = {"name": "LICENCE", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "licence"}}}
    group = held_up(
        "no-secret",
        reasons.CONTAINER_CONFIG_ERROR,
        "CreateContainerConfigError",
        make,
        engine={"env": [key]},
    )
    assert "absent" in group["message"]


def test_weights_that_were_cut_short(make: Maker, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model(), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    provide_model(folder, NAMESPACE, "cut-short")
    model = {"name": "tiny-moe", "source": "pvc://cut-short", "contextLength": 2048, "precision": "fp32"}
    cause = lost("bad-weights", make, model=model)
    assert cause["reason"] == reasons.WEIGHTS_UNREADABLE
    assert cause["output"]


def test_a_port_that_another_container_has(make: Maker) -> None:
    squatter = {
        "name": "squatter",
        "image": "python:3",
        "command": ["python", "-c", _TAKE_PORT],
        "env": [_POD_IP],
    }
    cause = lost("port-taken", make, podTemplate={"containers": [squatter]})
    assert cause["reason"] == reasons.PORT_TAKEN
    assert "in use" in cause["message"]


def test_more_memory_than_the_container_may_have(make: Maker) -> None:
    few = {"requests": {"memory": "256Mi"}, "limits": {"memory": "512Mi"}}
    cause = lost("little-memory", make, engine={"resources": few})
    assert cause["reason"] == reasons.OUT_OF_MEMORY
    assert cause["exitCode"] == 137


def test_a_kill_is_not_taken_for_a_want_of_memory(make: Maker) -> None:
    """The exit code is that of an OOM kill; more memory would not help."""
    cause = lost("killed", make, event=lambda pod: signal_container(pod, names.ENGINE_CONTAINER, "KILL"))
    assert cause["reason"] == reasons.ENGINE_EXITED
    assert cause["exitCode"] == 137
    assert "signal 9" in cause["message"]


def test_a_quota_that_allows_no_pods() -> None:
    """No pod ever says so: the words are in an Event of a StatefulSet that nobody looks at."""
    where, name = "quota", "refused"
    namespace(where)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": where}}
    apply({**quota, "spec": {"hard": {"pods": "0"}}})
    wanted = manifest(name, hardware=ONE_RANK)
    wanted["metadata"]["namespace"] = where
    with watched(names.PLURAL, where, "--field-selector", f"metadata.name={name}") as deployments:
        apply(wanted)
        try:
            told = wait_for(
                "refused pods", lambda: _first(deployments, reasons.PODS_REFUSED), seconds=PATIENCE, every=0.5
            )
            refusals = [e for e in items("events", where) if e["reason"] == "FailedCreate"]
        finally:
            kubectl("delete", names.PLURAL, name, "-n", where)
    first = min(refusals, key=lambda event: str(event["firstTimestamp"]))
    since = parse_time(first["firstTimestamp"])
    assert since is not None
    seconds = status_written_at(told) - since
    (group,) = told["status"]["groups"]["unhealthy"]
    print(f"{group['reason']} {seconds:.0f} s after the first refusal: {group['message']}")
    assert "exceeded quota: none" in group["message"]
    assert seconds <= TOLD_WITHIN
