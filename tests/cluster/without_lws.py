"""Run inside a cluster that lacks LeaderWorkerSet, by test_operator_without_lws.py; by itself it is not collected."""

import pytest

from harness.deployments import CHILDREN, condition, deployment
from harness.install import install_operator, namespace
from harness.kubectl import apply, items, kubectl
from harness.wait import wait_for
from moe_operator.api import names, reasons

NAMESPACE = "without-lws"
LWS_CRD = "leaderworkersets.leaderworkerset.x-k8s.io"

pytestmark = pytest.mark.timeout(300)


def manifest() -> dict[str, object]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "early", "namespace": NAMESPACE},
        "spec": {
            "model": {"name": "tiny-moe", "source": "pvc://tiny-moe"},
            "hardware": {"accelerator": "cpu"},
        },
    }


def lws_crd(policies: list[str]) -> dict[str, object]:
    """A CRD of LeaderWorkerSet's name whose restart policies are these: enough to tell old from new."""
    template = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {"restartPolicy": {"type": "string", "enum": policies}},
    }
    spec = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {"leaderWorkerTemplate": template, "startupPolicy": {"type": "string"}},
    }
    schema = {"type": "object", "properties": {"spec": spec}, "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": LWS_CRD,
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": "leaderworkerset.x-k8s.io",
            "names": {"kind": "LeaderWorkerSet", "plural": "leaderworkersets", "singular": "leaderworkerset"},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def stalled_for(reason: str, seconds: float) -> str:
    def found() -> str | None:
        one = condition(deployment("early", NAMESPACE), reasons.STALLED)
        return one["message"] if one and one["reason"] == reason else None

    return wait_for(f"Stalled/{reason}", found, seconds=seconds, every=0.5)


def restarts() -> int:
    pods = items("pods", "moe-system", "app.kubernetes.io/name=moe-operator")
    return sum(s["restartCount"] for p in pods for s in p["status"].get("containerStatuses", []))


def test_a_missing_or_old_leader_worker_set_is_told_and_taken_up_once_it_is_installed() -> None:
    install_operator(replicas=1)
    namespace(NAMESPACE)
    apply(manifest())
    assert "install" in stalled_for(reasons.LEADER_WORKER_SET_MISSING, 60)
    kinds = ",".join(kind for kind in CHILDREN.split(",") if kind != "leaderworkersets")
    assert items(kinds, NAMESPACE, f"{names.LABEL_DEPLOYMENT}=early") == [], "nothing may be half-created"

    apply(lws_crd(["Default", "RecreateGroupOnPodRestart"]))
    assert "0.9" in stalled_for(reasons.LEADER_WORKER_SET_TOO_OLD, 90)

    apply(lws_crd(["Default", "RecreateGroupOnPodRestart", "None"]))
    wait_for(
        "a group, once LeaderWorkerSet can make one",
        lambda: items("leaderworkersets", NAMESPACE, f"{names.LABEL_DEPLOYMENT}=early"),
        seconds=90,
        every=0.5,
    )
    assert restarts() == 0, "the operator crashed over it"
    kubectl("delete", names.PLURAL, "early", "-n", NAMESPACE, "--timeout=30s")
