"""What the examples are rendered to, given to a real API server, LeaderWorkerSet and scheduler: a manifest that only
looks right in a review is found out here, and not on nodes that cost a hundred dollars an hour."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from factories.platforms import ROOT, Platform, platforms
from harness.kubectl import items, kubectl
from harness.wait import wait_for
from moe_operator.api import names
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.planner.synthetic_nodes import synthetic_nodes

pytestmark = pytest.mark.skipif(
    not os.environ.get("KUBECONFIG"), reason="needs an API server: run it in a cluster (`make test-cluster`)"
)
PLATFORMS = platforms()


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"platforms-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def _rendered(platform: Platform, namespace: str, *options: str) -> str:
    """What the command prints."""
    command = [
        sys.executable,
        "-m",
        "moe_operator.cli.kubectl_moe",
        *platform.arguments,
        "-n",
        namespace,
        *options,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


_OUTPUTS = [(one, ["--explain"]) for one in PLATFORMS] + [(PLATFORMS[0], ["-o", "json"])]


@pytest.mark.parametrize(
    ("platform", "options"), _OUTPUTS, ids=[f"{one.name}-{options[-1]}" for one, options in _OUTPUTS]
)
def test_every_object_is_accepted(platform: Platform, options: list[str], namespace: str) -> None:
    """With unknown fields refused, through LeaderWorkerSet's own validation, and as server-side apply."""
    text = _rendered(platform, namespace, "--revision", "--groups", "2", *options)
    apply = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-")
    said = kubectl(*apply, stdin=text).split()
    expected = [obj["metadata"]["name"] for obj in platform.objects()]
    assert [line.partition("/")[2] for line in said][: len(expected)] == expected
    assert len(said) == len(expected) + 1


@pytest.fixture
def nodes(platform: Platform) -> Iterator[set[str]]:
    """The nodes of the platform's inventory, without anything that would run pods on them."""
    described = yaml.safe_load(platform.inventory.read_text(encoding="utf-8"))
    made = synthetic_nodes(described, "", load_catalog())
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for node in made:
        node["status"]["conditions"] = [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}
        ]
    names_ = {node["metadata"]["name"] for node in made}
    kubectl("delete", "nodes", "--ignore-not-found", *names_)
    kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))
    yield names_
    kubectl("delete", "nodes", "--ignore-not-found", *names_)


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda one: one.name)
def test_the_pods_of_a_group_find_nodes(platform: Platform, namespace: str, nodes: set[str]) -> None:
    """Labels, taints and resources that the platform's own plugins write must be those that pods ask for: else a group
    waits for ever beside empty nodes."""
    kubectl("apply", "--server-side", "-f", "-", stdin=_rendered(platform, namespace, "--revision"))
    group = platform.objects()[-1]
    name, size = group["metadata"]["name"], group["spec"]["leaderWorkerTemplate"]["size"]
    selector = f"{names.LABEL_GROUP}={name}"

    def placed() -> list[dict[str, Any]] | None:
        found = items("pods", namespace, selector)
        return found if len(found) == size and all(p["spec"].get("nodeName") for p in found) else None

    try:
        pods = wait_for(f"{size} pods of {name} to be placed", placed, seconds=40)
    except AssertionError as error:
        found = items("pods", namespace, selector)
        why = [c.get("message") for p in found for c in p["status"].get("conditions", ())]
        raise AssertionError(f"{error}; {len(found)} pods: {why}") from error
    finally:
        kubectl("delete", "leaderworkerset", name, "-n", namespace, "--wait=false")
        # No kubelet ends them.
        kubectl(
            "delete", "pods", "-l", selector, "-n", namespace, "--grace-period=0", "--force", "--wait=false"
        )
    places = [pod["spec"]["nodeName"] for pod in pods]
    assert set(places) <= nodes
    assert len(set(places)) == size, "one pod a node"
