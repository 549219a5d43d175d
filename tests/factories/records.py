"""A cluster and a Prometheus with one deployment that has lived, for tests of the record."""

import json
from typing import Any

from factories.cluster_objects import (
    NAME,
    NAMESPACE,
    NOW,
    condition,
    deployment_object,
    event_object,
    revision_object,
)
from moe_operator.api import names
from moe_operator.api.deployment import parse
from moe_operator.api.times import format_time
from moe_operator.cli.report.building import Asked
from moe_operator.cli.report.data import Scope
from moe_operator.cli.report.figures import Labels, Recorded
from moe_operator.cli.report.period import Span
from moe_operator.cli.report.reading import Collected
from moe_operator.resources.network_policy import network_policy_name
from moe_operator.resources.revision import revision_name

Obj = dict[str, Any]

DAY = 86400.0
#: Thirty days until now: 1440 windows of half an hour.
SPAN = Span(NOW - 30 * DAY, NOW)
COMMIT = "8d3f1b0c5a4e6f7089abcdef0123456789abcdef"
_SHA = "sha256:" + "ab" * 32
_OLD = {"engine": {"image": "vllm/vllm-openai:v0.31.0", "args": {"max-num-seqs": "128"}}}
_NEW = {
    "engine": {
        "image": "vllm/vllm-openai:v0.32.0",
        "args": {"max-num-seqs": "256", "trust-remote-code": ""},
        "env": [{"name": "SECRET_THING", "value": "hunter2"}],
        "apiKeySecret": {"name": "tiny-keys", "key": "api-key"},
    },
    "scaling": {"mode": "Auto", "minGroups": 1, "maxGroups": 4},
}

#: `status.plan` of groups of two pods with eight ranks.
PLAN: dict[str, Any] = {
    "accelerator": "B200",
    "width": 16,
    "podsPerGroup": 2,
    "ranksPerPod": 8,
    "tensor": 1,
    "data": 16,
    "expertParallel": 16,
    "image": "vllm/vllm-openai:v0.32.0",
}


def asked(**overrides: Any) -> Asked:
    """Thirty days of one namespace, with a Prometheus."""
    fields: Obj = {
        "span": SPAN,
        "now": NOW,
        "scope": Scope(namespace=NAMESPACE, context="prod-admin", cluster="prod-eu"),
        "program": "kubectl-moe 0.2.0",
        "prometheus": "http://prometheus.monitoring:9090",
    }
    return Asked(**fields | overrides)


def lived(**status: Any) -> Obj:
    """The ModelDeployment: 20 days old, on its second revision, with accounts, a cache and a policy."""
    obj = deployment_object(_NEW, generation=3)
    obj["metadata"] |= {
        "creationTimestamp": format_time(NOW - 20 * DAY),
        "managedFields": [
            {
                "manager": "argocd-controller",
                "operation": "Apply",
                "time": format_time(NOW - 5 * DAY),
                "fieldsV1": {"f:spec": {"f:engine": {"f:image": {}}, "f:model": {}, "f:scaling": {}}},
            },
            {
                "manager": "moe-operator-status",
                "operation": "Apply",
                "subresource": "status",
                "time": format_time(NOW - 60),
                "fieldsV1": {"f:status": {}},
            },
        ],
    }
    obj["status"] |= {
        "revision": revision_name(parse(obj)),
        "endpoint": "http://tiny.serving.svc:8000/v1",
        "engineArguments": ["org/tiny-moe", "--max-num-seqs", "256"],
        "plan": dict(PLAN),
        "provenance": {
            "model": "org/tiny-moe",
            "licence": "apache-2.0",
            "publisher": "org",
            "source": "hf://org/tiny-moe",
            "revision": "main",
            "commit": COMMIT,
            "precision": "fp8",
            "nodes": {"topology.kubernetes.io/region": ["eu-west-1"]},
            "podSecurity": "Restricted",
            "policyRule": "production",
        },
        "weights": {
            "source": "hf://org/tiny-moe",
            "revision": "main",
            "commit": COMMIT,
            "cache": "claim moe-weights-nvme",
            "entry": "org-tiny-moe-main-f8efcc72f0",
            "bytes": 64 * 2**30,
            "totalBytes": 64 * 2**30,
            "percent": 100,
            "readySince": format_time(NOW - 20 * DAY + 900),
        },
        "groups": {"desired": 2, "ready": 1, "updated": 1, "summary": "1/2"},
        "conditions": [
            condition("Ready", "True", "Serving", "at least 1 groups serve", 2 * DAY),
            condition(
                "CapacityAvailable", "False", "NoRoom", "1 group of 16 GPUs has no room | none free", 600
            ),
        ],
        "scaling": {
            "desired": 2,
            "reason": "DemandGrows",
            "message": "",
            "history": [
                {"time": format_time(NOW - 40 * DAY), "before": 1, "after": 2, "reason": "LimitsChanged"},
                {"time": format_time(NOW - 3 * DAY), "before": 2, "after": 1, "reason": "DemandFalls"},
                {"time": format_time(NOW - 2 * DAY), "before": 1, "after": 2, "reason": "DemandGrows"},
            ],
        },
        "recovery": {
            "lastGroup": "tiny-g3",
            "lastFailureTime": format_time(NOW - 7200),
            "lastCause": {"reason": "EngineExited", "message": "the engine ended with code 1: CUDA error"},
        },
        "cost": accounts(),
        **status,
    }
    return obj


def accounts(since: float = 20 * DAY) -> Obj:
    """`status.cost` of accounts that began so many seconds ago."""
    figures = {
        "since": format_time(NOW - since),
        "gpuHours": {"total": "960", "starting": "10", "serving": "800", "idle": "140", "draining": "10"},
        "cost": "2016.00",
        "tokens": {"input": 9_000_000, "cachedInput": 3_000_000, "output": 1_000_000},
        "requests": {"completed": 5000, "aborted": 40, "failed": 2},
    }
    day = {**figures, "since": format_time(NOW - DAY), "cost": "100.80"}
    return {
        "time": format_time(NOW - 60),
        "since": format_time(NOW - since),
        "currency": "USD",
        "price": {"perGpuHour": "2.10", "source": "Spec", "message": "cost.pricePerGPUHour"},
        "lastHour": {**figures, "since": format_time(NOW - 3600), "cost": "4.20"},
        "lastDay": day,
        "total": figures,
    }


def pod(index: int) -> Obj:
    """A pod of its group, with what the kubelet says of its image."""
    return {
        "metadata": {
            "name": f"{NAME}-g0-0-{index}",
            "namespace": NAMESPACE,
            "labels": {
                names.LABEL_MANAGED_BY: names.MANAGED_BY,
                names.LABEL_DEPLOYMENT: NAME,
                names.LABEL_GROUP: f"{NAME}-g0",
            },
        },
        "spec": {"nodeName": f"b200-{index}"},
        "status": {
            "containerStatuses": [
                {"name": names.ENGINE_CONTAINER, "imageID": f"docker.io/vllm/vllm-openai@{_SHA}"}
            ]
        },
    }


def node(index: int, region: str = "eu-west-1") -> Obj:
    place = {"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": f"{region}a"}
    return {"metadata": {"name": f"b200-{index}", "labels": place}}


def service(name: str, type_: str) -> Obj:
    """A Service of pods that take traffic."""
    selector = {names.LABEL_DEPLOYMENT: NAME, names.LABEL_TRAFFIC: names.TRAFFIC_ON}
    return {
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"type": type_, "selector": selector},
    }


def policy(*, egress: bool = True) -> Obj:
    """The operator's NetworkPolicy, with clients of the site and egress denied."""
    spec: Obj = {
        "podSelector": {
            "matchLabels": {names.LABEL_DEPLOYMENT: NAME},
            "matchExpressions": [{"key": names.LABEL_GROUP, "operator": "Exists"}],
        },
        "policyTypes": ["Ingress", "Egress"] if egress else ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {names.LABEL_DEPLOYMENT: NAME}}}]},
            {
                "from": [
                    {"podSelector": {}},
                    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}},
                ],
                "ports": [{"protocol": "TCP", "port": 8000}],
            },
        ],
    }
    if egress:
        spec["egress"] = [
            {"to": [{"podSelector": {"matchLabels": {names.LABEL_DEPLOYMENT: NAME}}}]},
            {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
        ]
    return {"metadata": {"name": network_policy_name(NAME), "namespace": NAMESPACE}, "spec": spec}


def binding(
    name: str, role: tuple[str, str], *subjects: tuple[str, str], namespace: str | None = NAMESPACE
) -> Obj:
    """A RoleBinding, or without a namespace a ClusterRoleBinding; subjects by kind and name."""
    made = [
        {"kind": kind, "name": who, **({"namespace": "ci"} if kind == "ServiceAccount" else {})}
        for kind, who in subjects
    ]
    place = {"namespace": namespace} if namespace else {}
    return {
        "metadata": {"name": name, **place},
        "roleRef": {"kind": role[0], "name": role[1]},
        "subjects": made,
    }


def role(name: str, *rules: tuple[str, str, str], namespace: str | None = None) -> Obj:
    """Rules as (group, resource, verbs with commas)."""
    place = {"namespace": namespace} if namespace else {}
    made = [
        {"apiGroups": [group], "resources": [resource], "verbs": verbs.split(",")}
        for group, resource, verbs in rules
    ]
    return {"metadata": {"name": name, **place}, "rules": made}


def collected(**overrides: Any) -> Collected:
    """The cluster around it."""
    new = overrides.pop("deployment", None) or lived()
    old = deployment_object(_OLD)
    fields: Obj = {
        "deployments": [new],
        "pods": [pod(0), pod(1)],
        "revisions": [revision_object(old, 1, 20 * DAY), revision_object(lived(), 2, 5 * DAY)],
        "events": [
            event_object("group tiny-g3 is lost: CUDA error", "EngineExited", "Replace", 7200),
            event_object("2 groups wanted, 1 before", "DemandGrows", "Scale", 1800, again=(3, 600)),
            event_object("of a former deployment", "Serving", "Admit", 50, uid="another"),
        ],
        "services": [service(NAME, "ClusterIP"), service("tiny-public", "LoadBalancer")],
        "policies": [policy()],
        "ingresses": [],
        "routes": [
            {
                "metadata": {"name": "models", "namespace": NAMESPACE},
                "spec": {
                    "hostnames": ["models.example"],
                    "rules": [{"backendRefs": [{"name": NAME, "port": 8000}]}],
                },
            }
        ],
        "nodes": [node(0), node(1)],
        "roles": [role("keys", ("", "secrets", "get"), namespace=NAMESPACE)],
        "role_bindings": [
            binding("team", ("ClusterRole", "edit"), ("Group", "ml-team")),
            binding("keys", ("Role", "keys"), ("ServiceAccount", "deployer")),
            binding("elsewhere", ("ClusterRole", "edit"), ("User", "eve"), namespace="other"),
        ],
        "cluster_roles": [
            role(
                "edit",
                (names.GROUP, names.PLURAL, "create,update,patch,delete,deletecollection"),
                (names.GROUP, names.PLURAL, "get,list,watch"),
                ("", "pods/exec", "create"),
            ),
            role("cluster-admin", ("*", "*", "*")),
        ],
        "cluster_role_bindings": [
            binding("admins", ("ClusterRole", "cluster-admin"), ("Group", "platform"), namespace=None)
        ],
        "secrets": {(NAMESPACE, "tiny-keys"): True},
        "cluster_id": "0f2d6c1e-1111-4222-8333-444455556666",
    }
    return Collected(**fields | overrides)


def labels(name: str, **others: str) -> Labels:
    return tuple(sorted({"__name__": f"moe_operator_{name}_total", **others}.items()))


def recorded(**overrides: Any) -> Recorded:
    """Twenty days of figures in half hours: Ready but for a quarter of an hour three days ago."""
    step = 1800.0
    begin = NOW - 20 * DAY
    edges = [begin + at * step for at in range(961)]
    windows = edges[1:]
    down = NOW - 3 * DAY
    ready = [(at, 60.0 if at != down else 30.0) for at in windows]

    def even(total: float) -> list[tuple[float, float]]:
        return [(at, total * (at - begin) / (NOW - begin)) for at in edges]

    fields: Obj = {
        "step": step,
        "ready_sum": ready,
        "ready_count": [(at, 60.0) for at in windows],
        "accounts": {
            labels("tokens", kind="input"): even(9_000_000),
            labels("tokens", kind="cached_input"): even(3_000_000),
            labels("tokens", kind="output"): even(1_000_000),
            labels("requests", outcome="completed"): even(5000),
            labels("requests", outcome="failed"): even(2),
            labels("gpu_seconds", state="serving"): even(3600.0 * 800),
            labels("gpu_seconds", state="idle"): even(3600.0 * 160),
            labels("cost", currency="USD", state="serving"): even(1680.0),
            labels("cost", currency="USD", state="idle"): even(336.0),
        },
        "losses": {
            (("instance", "10.0.0.7:9090"), ("reason", "EngineExited")): [
                (NOW - 7200 + at * step, 1.0) for at in range(5)
            ],
        },
        "scalings": 7.0,
    }
    return Recorded(**fields | overrides)


def matrix(*series: tuple[dict[str, str], list[tuple[float, float]]]) -> str:
    """A Prometheus' answer to a range query."""
    result = [
        {"metric": metric, "values": [[at, str(value)] for at, value in values]} for metric, values in series
    ]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})


def vector(*series: tuple[dict[str, str], float]) -> str:
    """... to an instant query."""
    result = [{"metric": metric, "value": [NOW, str(value)]} for metric, value in series]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})
