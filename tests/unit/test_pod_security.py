"""Which Pod Security Standard pods keep to: said too strict, a namespace refuses them; too loose, nobody tightens it.

tests/cluster/test_charts.py holds the same against the API server's own admission.
"""

from dataclasses import replace
from typing import Any

import pytest

from factories.deployments import group_plan, model_deployment, rendering, revision_of
from moe_operator.catalog.operator_config import default_config, read_config
from moe_operator.catalog.policy import PodSecurityLevel
from moe_operator.catalog.policy_check import Subject, policy_violations
from moe_operator.planner.plan import Transport
from moe_operator.resources.hardening import engine_context
from moe_operator.resources.pod_security import pod_security, template_security
from moe_operator.resources.pod_template import CACHE_PATH, pod_template
from moe_operator.resources.revision import engine_container, spec_hash
from moe_operator.resources.security_notes import security_notes

RESTRICTED = {"podSecurity": "Restricted"}
CONFINED: dict[str, Any] = {
    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, "runAsNonRoot": True},
    "containers": [
        {
            "name": "a",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}


def _with(container: dict[str, Any] | None = None, **pod: Any) -> dict[str, Any]:
    first = CONFINED["containers"][0]
    own = {**first["securityContext"], **(container or {})}
    return {**CONFINED, **pod, "containers": [{**first, "securityContext": own}]}


@pytest.mark.parametrize(
    ("pod", "level", "reason"),
    [
        (_with(), "Restricted", ""),
        (_with({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}), "Restricted", ""),
        (_with(volumes=[{"name": "v", "emptyDir": {}}]), "Restricted", ""),
        (_with(securityContext={}), "Baseline", "container a may run as root"),
        (_with({"runAsNonRoot": False}), "Baseline", "container a may run as root"),
        (_with({"allowPrivilegeEscalation": None}), "Baseline", "container a may gain privileges"),
        (_with({"capabilities": {}}), "Baseline", "container a keeps capabilities"),
        (_with({"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}), "Baseline", "capability CHOWN"),
        (_with({"runAsUser": 0}), "Baseline", "runAsUser 0"),
        (_with(volumes=[{"name": "v", "nfs": {}}]), "Baseline", "kind of volume v"),
        (
            _with({"capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]}}),
            "Privileged",
            "capability IPC_LOCK",
        ),
        (_with({"privileged": True}), "Privileged", "privileged container a"),
        (_with(hostNetwork=True), "Privileged", "hostNetwork"),
        (_with(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), "Privileged", "hostPath volume v (/)"),
        (_with({"seccompProfile": {"type": "Unconfined"}}), "Privileged", "seccompProfile Unconfined"),
        (_with(initContainers=[{"name": "i"}]), "Baseline", "container i may gain privileges"),
    ],
)
def test_the_level_of_a_pod(pod: dict[str, Any], level: str, reason: str) -> None:
    found = pod_security(pod)
    assert found.level == level
    assert bool(found.reasons) == bool(reason)
    assert any(reason in one for one in found.reasons) or not reason


def test_engines_are_baseline_and_restricted_when_asked() -> None:
    for engine, level in (({}, PodSecurityLevel.BASELINE), (RESTRICTED, PodSecurityLevel.RESTRICTED)):
        revision = revision_of(model_deployment(engine=engine), group_plan(2))
        assert template_security(revision.template).level is level


def test_a_restricted_engine_has_a_place_for_all_that_it_writes() -> None:
    """The file system is read-only: a cache in the image's folders ends the engine in its first seconds."""
    spec = pod_template(rendering(model_deployment(engine=RESTRICTED), group_plan()))["spec"]
    engine = spec["containers"][0]
    assert engine["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 2000,
        "runAsGroup": 0,
    }
    writable = {m["mountPath"] for m in engine["volumeMounts"] if not m.get("readOnly")}
    assert {"/tmp", "/dev/shm", CACHE_PATH} <= writable
    env = {e["name"]: e.get("value", "") for e in engine["env"]}
    for name in ("HOME", "XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "VLLM_CACHE_ROOT"):
        assert env[name].startswith(CACHE_PATH), name
    assert env["USER"]


def test_the_user_can_be_one_of_the_namespaces_own_range() -> None:
    """OpenShift gives each namespace a range of users and refuses others."""
    deployment = model_deployment(engine={**RESTRICTED, "runAsUser": 1000540000})
    spec = pod_template(rendering(deployment, group_plan()))["spec"]
    assert spec["containers"][0]["securityContext"]["runAsUser"] == 1000540000


def test_capabilities_of_a_fabric_go_only_to_engines_that_can_use_them() -> None:
    """For another user than root they have no effect, and still make the pod a privileged one."""
    given, restricted = (
        engine_context(model_deployment(engine=engine).spec.engine, ("IPC_LOCK",))
        for engine in ({}, RESTRICTED)
    )
    assert given["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
    assert restricted["capabilities"] == {"drop": ["ALL"]}


def test_a_deployment_that_says_nothing_keeps_its_revision() -> None:
    """An upgrade would otherwise move every group of every deployment."""
    assert spec_hash(model_deployment(engine={"podSecurity": "Baseline"})) == spec_hash(model_deployment())
    assert spec_hash(model_deployment(engine=RESTRICTED)) != spec_hash(model_deployment())


def test_a_policy_can_ask_for_a_standard() -> None:
    rule = read_config("policy: {rules: [{name: r, podSecurity: Restricted}]}").policy
    for engine, allowed in (({}, False), (RESTRICTED, True)):
        deployment = model_deployment(engine=engine)
        found = template_security(revision_of(deployment, group_plan()).template)
        subject = Subject(deployment, None, pod_security=found.level, pod_reasons=found.reasons)
        assert (policy_violations(rule, subject) == []) is allowed


def test_notes_say_what_nodes_and_namespaces_must_give() -> None:
    plan = replace(group_plan(2), transport=Transport(fabric="infiniband", rdma_resource="rdma/hca"))
    deployment = model_deployment(engine={**RESTRICTED, "image": "vllm/vllm-openai:latest"})
    notes = security_notes(deployment, revision_of(deployment, plan), default_config())
    assert any("LimitMEMLOCK" in note for note in notes)
    assert any("vllm/vllm-openai:latest names no version" in note for note in notes)
    mounted = {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}
    open_ = model_deployment(podTemplate=mounted)
    (note,) = security_notes(open_, revision_of(open_, group_plan()), default_config())
    assert note == "pods need a namespace of the Pod Security level privileged: hostPath volume v (/)"


@pytest.mark.parametrize(
    ("image", "noted"),
    [
        ("vllm/vllm-openai", True),
        ("vllm/vllm-openai:nightly", True),
        ("vllm/vllm-openai:latest-cu130", True),
        ("vllm/vllm-openai:v0.32.0", False),
        ("registry:5000/vllm", True),
        ("registry:5000/vllm@sha256:" + "0" * 64, False),
    ],
)
def test_an_image_that_can_move_is_noted(image: str, noted: bool) -> None:
    """Pods of one group with different versions do not find each other, or worse, do."""
    deployment = model_deployment(engine={"image": image})
    revision = revision_of(deployment, group_plan())
    assert engine_container(revision.template)["image"] == image
    assert bool(security_notes(deployment, revision, default_config())) is noted
