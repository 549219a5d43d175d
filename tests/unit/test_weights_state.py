"""What a download's Job, pods and words mean to its owner: read wrongly, groups start on nothing or never."""

import json
from typing import Any

import pytest

from moe_operator.api import names, reasons
from moe_operator.controller.weights_state import (
    Phase,
    Progress,
    download,
    download_on_nodes,
    read_outcome,
    read_progress,
)

NOW = "2026-11-21T22:00:00Z"


def job(*conditions: str, **annotations: str) -> dict[str, Any]:
    status = [{"type": t, "status": "True", "lastTransitionTime": NOW, "message": "said"} for t in conditions]
    return {
        "metadata": {"name": "j", "uid": "1", "annotations": annotations},
        "status": {"conditions": status},
    }


def pod(
    phase: str = "Pending",
    state: dict[str, Any] | None = None,
    at: str = NOW,
    name: str = "j-1",
    **status: Any,
) -> dict[str, Any]:
    container = {"name": names.FETCH_CONTAINER, "state": state or {}}
    return {
        "metadata": {"name": name, "creationTimestamp": at},
        "spec": {"nodeName": "node-a"},
        "status": {"phase": phase, "containerStatuses": [container], **status},
    }


def ended(code: int, **message: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": json.dumps(message) if message else "Killed"}}


def test_a_job_that_completed_is_done_even_without_its_pod() -> None:
    found = download(job("SuccessCriteriaMet", "Complete"), [])
    assert (found.phase, found.reason) == (Phase.DONE, reasons.WEIGHTS_CACHED)
    assert found.finished_at is not None


def test_what_was_recorded_on_the_job_outlives_the_pod() -> None:
    noted = {names.ANNOTATION_OUTCOME: '{"reason":"Complete","commit":"abc","bytes":7}'}
    outcome = download(job("Complete", **noted), []).outcome
    assert outcome is not None
    assert (outcome.commit, outcome.bytes) == ("abc", 7)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Unauthorized", reasons.WEIGHTS_UNAUTHORIZED),
        ("NotFound", reasons.WEIGHTS_NOT_FOUND),
        ("BadSource", reasons.WEIGHTS_BAD_SOURCE),
        ("BadCache", reasons.WEIGHTS_BAD_CACHE),
        ("DiskFull", reasons.WEIGHTS_DISK_FULL),
        ("Corrupt", reasons.WEIGHTS_CORRUPT),
        ("Unreachable", reasons.WEIGHTS_UNREACHABLE),
    ],
)
def test_every_failure_has_its_reason_and_keeps_its_words(said: str, reason: str) -> None:
    failed = pod("Failed", ended(3, reason=said, message="model-7.safetensors: 3 of 5 bytes"))
    found = download(job("Failed"), [failed])
    assert (found.phase, found.reason) == (Phase.FAILED, reason)
    assert found.message == "model-7.safetensors: 3 of 5 bytes"
    between = download(job(), [failed])
    assert (between.phase, between.reason) == (Phase.WAITING, reason), "said while Kubernetes waits, too"


def test_the_newest_pod_tells() -> None:
    old = pod("Failed", ended(6, reason="Unreachable", message="no answer"), at="2026-11-21T21:00:00Z")
    found = download(job(), [pod("Running", {"running": {}}, name="j-2"), old])
    assert (found.phase, found.pod) == (Phase.RUNNING, "j-2")


def test_a_kill_without_words_leads_to_the_log() -> None:
    found = download(job("Failed"), [pod("Failed", ended(137))])
    assert found.reason == reasons.WEIGHTS_FAILED
    assert "kubectl logs j-1 -c moe-weights" in found.message


def test_a_pod_that_was_told_to_stop_is_no_failure() -> None:
    found = download(job(), [pod("Failed", ended(143, reason="Interrupted", message="stopped"))])
    assert (found.phase, found.reason) == (Phase.WAITING, reasons.WEIGHTS_WAITING)


@pytest.mark.parametrize(
    ("waiting", "words"),
    [
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "unbound claim"}]),
            "unbound claim",
        ),
        (pod(state={"waiting": {"reason": "ErrImagePull", "message": "no such image"}}), "no such image"),
        (pod(state={"waiting": {"reason": "ContainerCreating"}}), "about to begin"),
    ],
)
def test_a_pod_that_does_not_start_says_why(waiting: dict[str, Any], words: str) -> None:
    found = download(job(), [waiting])
    assert (found.phase, found.reason) == (Phase.WAITING, reasons.WEIGHTS_WAITING)
    assert words in found.message


def on_node(state: dict[str, Any], last: dict[str, Any] | None = None) -> dict[str, Any]:
    first = {"name": names.FETCH_CONTAINER, "state": state, "lastState": last or {}}
    return {
        "metadata": {"name": "g0-0"},
        "spec": {"nodeName": "node-a"},
        "status": {"initContainerStatuses": [first]},
    }


def test_nodes_that_download_tell_by_their_pods() -> None:
    done = on_node(ended(0, reason="Complete", commit="abc", bytes=9))
    running = on_node({"running": {}})
    failed = on_node(
        {"waiting": {"reason": "CrashLoopBackOff"}}, ended(4, reason="DiskFull", message="no room")
    )
    assert download_on_nodes([]).reason == reasons.NODES_DOWNLOAD
    assert download_on_nodes([done, running]).phase is Phase.RUNNING
    assert download_on_nodes([done, done]).phase is Phase.DONE
    found = download_on_nodes([done, running, failed])
    assert (found.reason, found.message) == (reasons.WEIGHTS_DISK_FULL, "on node node-a: no room")


@pytest.mark.parametrize(
    "text", ["", "Killed", "{}", '{"reason": 3}', '{"reason": "Else"}', '["Complete"]', '{"reason": "Com']
)
def test_what_is_no_outcome_is_none(text: str) -> None:
    assert read_outcome(text) is None


def test_progress_is_the_last_line_and_percents_are_whole() -> None:
    log = '{"bytes": 1, "totalBytes": 300}\n{"bytes": 299, "totalBytes": 300, "commit": "abc"}\n'
    assert read_progress(log) == Progress(299, 300, "abc")
    assert Progress(299, 300).percent == 99
    assert Progress(0, 0).percent == 0
    assert read_progress('{"message": "looks up the commit"}') is None
