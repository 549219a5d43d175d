"""Run inside a cluster of its own, by test_platforms.py; by itself not collected.

Nodes are as the inventories describe them, without anything that would run pods. For NVLink over several nodes there is
what NVIDIA's driver publishes; its CRDs are real.
"""

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

from factories.dra import channel_class, channel_slice, channel_template
from factories.platforms import ROOT, Platform, platforms
from harness.crds import established
from harness.kubectl import JsonObject, apply, get, items, kubectl
from harness.wait import wait_for
from localcluster import dra
from moe_operator.api import names
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.planner.synthetic_nodes import synthetic_nodes
from moe_operator.resources.compute_domain import COMPUTE_DOMAIN_NAME

pytestmark = [
    pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="needs an API server"),
    pytest.mark.timeout(120),
]
PLATFORMS = platforms()


@pytest.fixture(scope="module", autouse=True)
def _driver() -> None:
    """The CRDs of NVIDIA's driver, and its class of channels."""
    for path in dra.crds():
        kubectl("apply", "--server-side", "-f", str(path))
    established()
    apply(channel_class())


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"platforms-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def _rendered(platform: Platform, namespace: str, *options: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "moe_operator.cli.kubectl_moe", *platform.arguments, "-n", namespace]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


_OUTPUTS = [(one, ["--explain"]) for one in PLATFORMS] + [(PLATFORMS[0], ["-o", "json"])]


@pytest.mark.parametrize(
    ("platform", "options"), _OUTPUTS, ids=[f"{one.name}-{options[-1]}" for one, options in _OUTPUTS]
)
def test_every_object_is_accepted(platform: Platform, options: list[str], namespace: str) -> None:
    """With unknown fields refused, through LeaderWorkerSet's own validation, and as server-side apply."""
    text = _rendered(platform, namespace, "--revision", "--groups", "2", *options)
    dry_run = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-")
    said = kubectl(*dry_run, stdin=text).split()
    expected = [obj["metadata"]["name"] for obj in platform.objects()]
    assert [line.partition("/")[2] for line in said][: len(expected)] == expected
    assert len(said) == len(expected) + 1


@pytest.fixture
def nodes(platform: Platform) -> Iterator[list[JsonObject]]:
    """The nodes of the platform's inventory, and their channels where they have NVLink beyond themselves."""
    described = yaml.safe_load(platform.inventory.read_text(encoding="utf-8"))
    made = synthetic_nodes(described, "", load_catalog())
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for node in made:
        node["status"]["conditions"] = [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}
        ]
    linked = [node for node in made if "nvidia.com/gpu.clique" in node["metadata"]["labels"]]
    every = [*made, *(channel_slice(node["metadata"]["name"]) for node in linked)]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": every})
    kubectl("create", "-f", "-", stdin=text)
    wait_for(f"{len(made)} nodes to be open", lambda: not _closed(), seconds=30)
    yield made
    kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text)


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda one: one.name)
def test_the_pods_of_a_group_find_nodes(platform: Platform, namespace: str, nodes: list[JsonObject]) -> None:
    """Labels, taints and resources that the platform's own plugins write must be those that pods ask for: else a group
    waits for ever beside empty nodes."""
    objects = platform.objects()
    for claim in objects:
        if claim["kind"] == "PersistentVolumeClaim":
            apply(_volume(namespace, claim))
    kubectl("apply", "--server-side", "-f", "-", stdin=_rendered(platform, namespace, "--revision"))
    domain = (
        get("computedomains.resource.nvidia.com", COMPUTE_DOMAIN_NAME, namespace) if _linked(nodes) else None
    )
    if domain is not None:
        apply(channel_template(domain))
    group = objects[-1]
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

        def gone() -> bool:
            # No kubelet ends them; and a StatefulSet makes them again for as long as it is there.
            kubectl(
                "delete",
                "pods",
                "-l",
                selector,
                "-n",
                namespace,
                "--grace-period=0",
                "--force",
                "--wait=false",
            )
            return not items("pods", namespace, selector) and not items("statefulsets", namespace)

        # The next example's groups may want the same nodes.
        wait_for(f"{name} has left its nodes", gone, seconds=40)
    places = {pod["spec"]["nodeName"] for pod in pods}
    assert places <= {node["metadata"]["name"] for node in nodes}
    assert len(places) == size, "one pod a node"
    wanted = (group["metadata"].get("annotations") or {}).get(names.ANNOTATION_NODE)
    assert wanted is None or places == {wanted}, "the node that the operator would wish for has room"


def _volume(namespace: str, claim: JsonObject) -> JsonObject:
    """Shared storage that satisfies the claim, as a class with a provisioner would have made it."""
    name, spec = claim["metadata"]["name"], claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{name}"},
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": spec["resources"]["requests"],
            "storageClassName": spec["storageClassName"],
            "claimRef": {"namespace": namespace, "name": name},
            "nfs": {"server": "storage.example", "path": "/weights"},
        },
    }


def _closed() -> list[str]:
    """Nodes that the control plane has not yet seen to be ready: it taints each as it comes."""
    return [
        node["metadata"]["name"]
        for node in items("nodes")
        for taint in node["spec"].get("taints", ())
        if taint["key"].startswith("node.kubernetes.io/")
    ]


def _linked(nodes: list[JsonObject]) -> bool:
    return any("nvidia.com/gpu.clique" in node["metadata"]["labels"] for node in nodes)
