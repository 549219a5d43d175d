"""`kubectl moe report`: who may change, read, reach and call, by a cluster's own objects.

Lost otherwise: somebody who may, and whom the record does not name.
"""

from typing import Any

import pytest

from factories.cluster_objects import NAME, NAMESPACE
from factories.records import binding, collected, policy, role, service
from moe_operator.api import names
from moe_operator.cli.report.access import access
from moe_operator.cli.report.data import EgressState, Grant
from moe_operator.cli.report.network import egress, engine_labels, ingress, published, selecting, services_of
from moe_operator.cli.report.reading import Missing

LABELS = engine_labels(NAME)
FORBIDDEN = Missing("list x", "not readable: needs list x")


def who(grants: list[Grant] | None) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(one.kind, one.name, tuple(one.verbs)) for one in grants or ()]


def test_bindings_of_the_namespace_and_of_the_cluster_count_and_those_of_others_do_not() -> None:
    found = access(collected(), NAMESPACE)
    assert {(kind, name) for kind, name, _ in who(found.change)} == {
        ("Group", "ml-team"),
        ("Group", "platform"),
    }
    assert who(found.secrets) == [
        ("Group", "platform", ("get", "list", "watch")),
        ("ServiceAccount", "ci/deployer", ("get",)),
    ]
    assert ("Group", "ml-team", ("create pods/exec",)) in who(found.reach)
    assert found.undetermined == []


@pytest.mark.parametrize(
    ("group", "resource", "verbs", "expected"),
    [
        ("*", "*", "*", True),
        (names.GROUP, "*", "patch", True),
        (names.GROUP, names.PLURAL, "update", True),
        (names.GROUP, f"{names.PLURAL}/scale", "patch", True),
        (names.GROUP, "*/scale", "update", True),
        (names.GROUP, f"{names.PLURAL}/status", "patch", False),
        (names.GROUP, names.PLURAL, "get,list,watch", False),
        ("apps", names.PLURAL, "*", False),
        ("", "*", "*", False),
    ],
)
def test_rules_that_let_change(group: str, resource: str, verbs: str, expected: bool) -> None:
    given = collected(
        cluster_roles=[role("it", (group, resource, verbs))],
        role_bindings=[binding("b", ("ClusterRole", "it"), ("User", "ann"))],
        cluster_role_bindings=[],
    )
    assert bool(who(access(given, NAMESPACE).change)) is expected


def test_a_right_to_named_objects_says_their_names() -> None:
    rules = [
        {
            "apiGroups": [names.GROUP],
            "resources": [names.PLURAL],
            "verbs": ["patch"],
            "resourceNames": ["qwen"],
        }
    ]
    given = collected(
        roles=[{"metadata": {"name": "one", "namespace": NAMESPACE}, "rules": rules}],
        role_bindings=[binding("b", ("Role", "one"), ("User", "ann"))],
        cluster_role_bindings=[],
    )
    assert access(given, NAMESPACE).change == [
        Grant(kind="User", name="ann", verbs=["patch"], only=["qwen"], by="RoleBinding b, Role one")
    ]


def test_without_the_bindings_nothing_is_claimed() -> None:
    """Half of them would look like all."""
    for part in ("role_bindings", "cluster_role_bindings"):
        assert access(collected(**{part: FORBIDDEN}), NAMESPACE).change is None


def test_bindings_whose_role_cannot_be_read_are_named() -> None:
    found = access(collected(cluster_roles=FORBIDDEN), NAMESPACE)
    assert found.change == []
    assert found.undetermined == [
        "ClusterRoleBinding admins, ClusterRole cluster-admin",
        "RoleBinding team, ClusterRole edit",
    ]


# --- networks -------------------------------------------------------------------------------------


def limits(*policies: dict[str, Any]) -> Any:
    return selecting(list(policies), NAMESPACE, [LABELS])


def custom(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "mine", "namespace": NAMESPACE}, "spec": {"podSelector": {}, **spec}}


def test_the_operator_s_own_policy_is_read() -> None:
    state, to, by = egress(limits(policy()))
    assert (state, by) == (EgressState.LIMITED, ["tiny-engine"])
    assert to == [
        "any address, UDP 53, TCP 53",
        "pods with moe-operator.dev/deployment=tiny of namespace serving",
    ]
    assert ingress(limits(policy())) == (
        True,
        [
            "all pods of namespace serving",
            "all pods of namespaces with kubernetes.io/metadata.name=gateways",
            "pods with moe-operator.dev/deployment=tiny of namespace serving",
        ],
    )


def test_without_a_policy_of_egress_requests_may_leave() -> None:
    assert egress(limits(policy(egress=False)))[0] is EgressState.OPEN
    assert egress(limits())[0] is EgressState.OPEN
    assert egress(selecting(FORBIDDEN, NAMESPACE, [LABELS]))[0] is EgressState.UNKNOWN


def test_a_policy_that_denies_everything_names_nobody() -> None:
    assert egress(limits(custom(policyTypes=["Egress"]))) == (EgressState.LIMITED, [], ["mine"])
    assert ingress(limits(custom())) == (True, [])


def test_policies_add_up_so_that_one_that_is_open_opens_all() -> None:
    assert ingress(limits(custom(), custom(ingress=[{}]))) == (False, [])


def test_egress_rules_make_a_policy_of_egress_without_its_types() -> None:
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
    rule = {"to": [block], "ports": [{"protocol": "TCP", "port": 443, "endPort": 444}]}
    assert egress(limits(custom(egress=[rule])))[1] == ["addresses 10.0.0.0/8 but 10.1.0.0/16, TCP 443-444"]


def test_rules_of_other_ports_let_nobody_to_the_model() -> None:
    rules = [
        {"from": [{"namespaceSelector": {}}], "ports": [{"port": 9090}]},
        {"from": [{"podSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": 7999, "endPort": 8001}]},
    ]
    assert ingress(limits(custom(ingress=rules))) == (True, ["pods with a=b of namespace serving"])


def test_policies_of_other_pods_and_namespaces_do_not_count() -> None:
    other = custom(policyTypes=["Egress"])
    other["metadata"]["namespace"] = "elsewhere"
    unlike = custom(policyTypes=["Egress"], podSelector={"matchLabels": {"app": "web"}})
    unlike_too = custom(
        policyTypes=["Egress"],
        podSelector={"matchExpressions": [{"key": names.LABEL_GROUP, "operator": "DoesNotExist"}]},
    )
    assert limits(other, unlike, unlike_too) == []


def test_a_service_that_somebody_else_made_is_found() -> None:
    """A load balancer of one's own goes around every gateway."""
    given = [service(NAME, "ClusterIP"), service("public", "LoadBalancer")]
    given.append({"metadata": {"name": "none", "namespace": NAMESPACE}, "spec": {"selector": None}})
    assert services_of(given, NAMESPACE, [LABELS]) == {"public": "LoadBalancer", NAME: "ClusterIP"}
    assert services_of(FORBIDDEN, NAMESPACE, [LABELS]) is None


def test_ingresses_and_routes_that_lead_to_it() -> None:
    backend = {"service": {"name": NAME, "port": {"number": 8000}}}
    gate = {
        "metadata": {"name": "gate", "namespace": NAMESPACE},
        "spec": {"rules": [{"host": "a.example", "http": {"paths": [{"path": "/", "backend": backend}]}}]},
    }
    default = {"metadata": {"name": "all", "namespace": NAMESPACE}, "spec": {"defaultBackend": backend}}
    other = {"metadata": {"name": "o", "namespace": NAMESPACE}, "spec": {"rules": [{"http": None}]}}
    pool = {
        "metadata": {"name": "p", "namespace": NAMESPACE},
        "spec": {"rules": [{"backendRefs": [{"kind": "InferencePool", "name": NAME}]}]},
    }
    assert published([gate, default, other], [pool], NAMESPACE, [NAME]) == [
        "Ingress all (any host)",
        "Ingress gate (a.example)",
    ]
    assert published(FORBIDDEN, FORBIDDEN, NAMESPACE, [NAME]) is None
