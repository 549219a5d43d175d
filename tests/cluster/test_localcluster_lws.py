"""LeaderWorkerSet in a local cluster: without its webhooks, pods would not know which rank of which group they are."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from localcluster.namespace import INSIDE

pytestmark = pytest.mark.skipif(
    INSIDE not in os.environ, reason="tests of the local cluster itself; another cluster is in use"
)


def kubectl(*arguments: str, body: Any = None) -> subprocess.CompletedProcess[str]:
    text = json.dumps(body) if body is not None else None
    return subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False)


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"lws-{uuid.uuid4().hex[:8]}"
    assert kubectl("create", "namespace", name).returncode == 0
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def leader_worker_set(namespace: str, size: int) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "c", "image": "busybox", "command": ["sleep", "600"]}]}}
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "group", "namespace": namespace},
        "spec": {"replicas": 1, "leaderWorkerTemplate": {"size": size, "workerTemplate": template}},
    }


def pods(namespace: str) -> dict[str, Any]:
    items = json.loads(kubectl("get", "pods", "-n", namespace, "-o", "json").stdout)["items"]
    return {pod["metadata"]["name"]: pod for pod in items}


def test_pods_of_a_group_learn_their_rank_and_their_leader(namespace: str) -> None:
    made = kubectl("apply", "-f", "-", body=leader_worker_set(namespace, 2))
    assert made.returncode == 0, made.stderr
    deadline = time.monotonic() + 30
    while set(pods(namespace)) != {"group-0", "group-0-1"}:
        assert time.monotonic() < deadline, sorted(pods(namespace))
        time.sleep(0.1)
    for index, (name, pod) in enumerate(sorted(pods(namespace).items())):
        assert pod["metadata"]["labels"]["leaderworkerset.sigs.k8s.io/worker-index"] == str(index), name
        environment = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
        assert environment["LWS_LEADER_ADDRESS"] == f"group-0.group.{namespace}"
        assert environment["LWS_GROUP_SIZE"] == "2"


def test_a_group_that_cannot_be_is_refused_with_a_reason(namespace: str) -> None:
    """The validating webhook is called: a mistake shows at once, not as a group that never comes."""
    refused = kubectl("apply", "-f", "-", body=leader_worker_set(namespace, 0))
    assert refused.returncode != 0
    assert "size" in refused.stderr


def test_other_pods_do_not_depend_on_leaderworkerset() -> None:
    for kind in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"):
        items = json.loads(kubectl("get", kind, "-o", "json").stdout)["items"]
        for_pods = [
            webhook
            for item in items
            for webhook in item["webhooks"]
            if any("pods" in rule["resources"] for rule in webhook["rules"])
        ]
        assert for_pods
        assert all("objectSelector" in webhook and webhook["objectSelector"] for webhook in for_pods)
