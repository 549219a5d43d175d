"""Bad input on a real API server, with the operator in the cluster: said clearly, nothing half-done, correctable."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from harness.deployments import CHILDREN, condition, deployment
from harness.install import install_operator, namespace, uninstall_operator
from harness.kubectl import apply, get, items, kubectl
from harness.wait import wait_for
from moe_operator.api import names, reasons

NAMESPACE = "bad-input"

pytestmark = [
    pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="needs a cluster: make test-cluster"),
    pytest.mark.timeout(240),
]


@pytest.fixture(scope="module", autouse=True)
def operator() -> Iterator[None]:
    install_operator(replicas=1)
    namespace(NAMESPACE)
    yield
    kubectl("delete", names.PLURAL, "--all", "-n", NAMESPACE, "--timeout=60s")
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    uninstall_operator()  # other tests run operators of their own, or want none


def manifest(name: str, hardware: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"name": "tiny-moe", "source": "pvc://tiny-moe"},
            # Pinned, so that the plan does not need the node that the pods wait for.
            "hardware": {"gpusPerNode": 1, **hardware},
            # Pods need not run here: no node has this label.
            "podTemplate": {"nodeSelector": {"nowhere": "true"}},
            **spec,
        },
    }


def stalled(name: str, reason: str) -> str:
    """The message of `Stalled` once it is there for this reason."""

    def found() -> str | None:
        one = condition(deployment(name, NAMESPACE), reasons.STALLED)
        return one["message"] if one and one["status"] == "True" and one["reason"] == reason else None

    return wait_for(f"{name} Stalled/{reason}", found, seconds=30)


def children(name: str) -> list[str]:
    found = items(CHILDREN, NAMESPACE, f"{names.LABEL_DEPLOYMENT}={name}")
    return [f"{o['kind']}/{o['metadata']['name']}" for o in found]


def wait_group(name: str) -> dict[str, Any]:
    return wait_for(
        f"a group of {name}", lambda: get("leaderworkersets", f"{name}-g0", NAMESPACE), seconds=30
    )


@pytest.mark.parametrize(
    ("name", "hardware", "reason", "fragments"),
    [
        ("unknown", {"accelerator": "B2000"}, reasons.UNKNOWN_ACCELERATOR, ["B2000", "B200"]),
        ("uneven", {"accelerator": "B200", "gpusPerGroup": 12, "gpusPerNode": 8}, "", []),
        ("uneven-cpu", {"accelerator": "cpu", "gpusPerGroup": 3, "gpusPerNode": 2}, "", []),
        ("odd", {"accelerators": ["nonsense", "cpu"]}, reasons.UNKNOWN_ACCELERATOR, ["nonsense"]),
    ],
)
def test_what_cannot_be_planned_is_refused_or_stalled_and_nothing_is_created(
    name: str, hardware: dict[str, Any], reason: str, fragments: list[str]
) -> None:
    if not reason:  # a rule over two fields of the spec: the API server itself refuses
        with pytest.raises(RuntimeError, match="gpusPerGroup must be a multiple"):
            apply(manifest(name, hardware))
        return
    apply(manifest(name, hardware))
    message = stalled(name, reason)
    for fragment in fragments:
        assert fragment in message
    assert children(name) == []


def test_a_width_that_does_not_fit_the_nodes_says_which_do_and_a_correction_is_taken_up() -> None:
    apply(manifest("wide", {"accelerator": "cpu"}, parallelism={"tensor": 2}), manager="user")
    assert "tensor" in stalled("wide", reasons.INVALID_LAYOUT)
    assert children("wide") == []
    apply(manifest("wide", {"accelerator": "cpu"}), manager="user")
    wait_group("wide")
    wait_for(
        "no longer Stalled",
        lambda: condition(deployment("wide", NAMESPACE), reasons.STALLED) is None,
        seconds=15,
    )


def test_a_foreign_service_of_the_same_name_is_never_written_to() -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "taken", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "somebody-elses"}, "ports": [{"port": 1234}]},
    }
    apply(foreign, manager="somebody")
    before = get("service", "taken", NAMESPACE)
    apply(manifest("taken", {"accelerator": "cpu"}))
    assert "taken" in stalled("taken", reasons.NAME_CONFLICT)
    assert get("service", "taken", NAMESPACE) == before
    assert get("leaderworkersets", "taken-g0", NAMESPACE) is None
    kubectl("delete", "service", "taken", "-n", NAMESPACE)
    wait_group("taken")


def test_a_foreign_group_of_the_same_name_is_never_written_to() -> None:
    pod = {"spec": {"containers": [{"name": "c", "image": "x"}], "nodeSelector": {"nowhere": "true"}}}
    foreign = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "squat-g0", "namespace": NAMESPACE},
        "spec": {"replicas": 1, "leaderWorkerTemplate": {"size": 1, "workerTemplate": pod}},
    }
    apply(foreign, manager="somebody")
    apply(manifest("squat", {"accelerator": "cpu"}))
    assert "squat-g0" in stalled("squat", reasons.NAME_CONFLICT)
    found = get("leaderworkersets", "squat-g0", NAMESPACE)
    assert found is not None
    assert "ownerReferences" not in found["metadata"]


def test_an_object_that_the_api_server_refuses_is_stalled_with_its_words() -> None:
    bad = manifest("refused", {"accelerator": "cpu"})
    bad["spec"]["podTemplate"]["tolerations"] = [{"key": {"not": "a string"}}]
    apply(bad)
    assert "tolerations" in stalled("refused", reasons.REFUSED)


@pytest.fixture
def two_nodes() -> Iterator[tuple[str, str]]:
    """Two HGX H100 whose network nobody offers as a device."""
    found = ("no-fabric-0", "no-fabric-1")
    for name in found:
        kubectl("create", "-f", "-", stdin=json.dumps(_hgx(name)))
        kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps(_offers()))
    yield found
    kubectl("delete", "node", *found)


def _hgx(name: str) -> dict[str, Any]:
    labels = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def _offers(**more: str) -> dict[str, Any]:
    devices = {"cpu": "192", "memory": "2Ti", "pods": "110", "nvidia.com/gpu": "8", **more}
    return {"status": {"capacity": devices, "allocatable": devices}}


def test_a_network_that_no_node_offers_is_named_with_what_they_do_offer(two_nodes: tuple[str, str]) -> None:
    """An hour of NCCL timeouts says less. It goes on by itself once the device plugin runs, and with a correction."""

    def planned() -> tuple[str, str]:
        one = condition(deployment("fabric", NAMESPACE), reasons.PLANNED) or {}
        return one.get("reason", ""), one.get("message", "")

    obj = manifest(
        "fabric", {"accelerator": "H100", "gpusPerNode": 8, "gpusPerGroup": 16, "fabric": "infiniband"}
    )
    obj["spec"]["model"] = {"name": "Qwen/Qwen3-30B-A3B"}
    del obj["spec"]["podTemplate"]
    apply(obj, manager="user")
    wait_for("the lack is said", lambda: planned()[0] == reasons.FABRIC_MISSING, seconds=60)
    assert "infiniband" in planned()[1]
    assert "rdma/" in planned()[1], "how such a device is usually called"
    assert children("fabric") == []
    for name in two_nodes:
        offers = json.dumps(_offers(**{"rdma/ib": "1k"}))
        kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", offers)
    wait_for("it is planned", lambda: planned()[0] == reasons.PLANNED_REASON, seconds=60)
    wait_group("fabric")
    kubectl("delete", names.PLURAL, "fabric", "-n", NAMESPACE)
