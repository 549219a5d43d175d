"""Who may connect to engines. Too much, and anybody runs code in the engine; too little, and a group is deaf."""

from typing import Any

from factories.deployments import group_plan, model_deployment, revision_of
from factories.golden import check_golden
from moe_operator.api import names
from moe_operator.catalog.operator_config import OperatorConfig, read_config
from moe_operator.resources.network_policy import build_network_policy

OWN = {"podSelector": {"matchLabels": {names.LABEL_DEPLOYMENT: "tiny"}}}
HTTP = {"protocol": "TCP", "port": 8000}
DENY = "policy: {rules: [{name: r, egress: Deny}]}"


def built(text: str = "", **spec: Any) -> dict[str, Any] | None:
    deployment = model_deployment(**spec)
    config = read_config(text)
    return build_network_policy(deployment, revision_of(deployment, group_plan(2), config), config)


def spec_of(text: str = "", **spec: Any) -> dict[str, Any]:
    found = built(text, **spec)
    assert found is not None
    inner: dict[str, Any] = found["spec"]
    return inner


def test_it_is_rendered_as_reviewed() -> None:
    check_golden("network-policy", built())


def test_anyone_may_ask_and_only_the_groups_own_pods_reach_other_ports() -> None:
    """Existing clients go on; ranks unpickle what they are sent."""
    spec = spec_of()
    assert spec["ingress"] == [{"from": [OWN]}, {"ports": [HTTP]}]
    assert spec["policyTypes"] == ["Ingress"]
    assert "egress" not in spec


def test_named_clients_keep_out_others_but_never_the_operator_or_the_namespace() -> None:
    """Without the operator no group would be admitted, and none drained."""
    gateways = {"namespaceSelector": {"matchLabels": {"role": "gateways"}}}
    text = "network: {clients: [{namespaceSelector: {matchLabels: {role: gateways}}}]}"
    deployment = model_deployment()
    config = read_config(text)
    config = OperatorConfig(
        config.catalog, network=type(config.network)(clients=(gateways,), operator_namespace="ops")
    )
    found = build_network_policy(deployment, revision_of(deployment, group_plan()), config)
    assert found is not None
    operator = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}}}
    assert found["spec"]["ingress"][1] == {"from": [{"podSelector": {}}, operator, gateways], "ports": [HTTP]}
    assert spec_of(text)["ingress"][1]["from"] == [{"podSelector": {}}, gateways]


def test_ports_of_further_containers_stay_open() -> None:
    """A proxy that the user put beside the engine would be cut off by an upgrade."""
    containers = [
        {
            "name": "proxy",
            "image": "x",
            "ports": [{"containerPort": 8443}, {"containerPort": 53, "protocol": "UDP"}],
        }
    ]
    ports = spec_of(podTemplate={"containers": containers})["ingress"][1]["ports"]
    assert ports == [HTTP, {"protocol": "TCP", "port": 8443}, {"protocol": "UDP", "port": 53}]


def test_denied_egress_leaves_the_group_names_and_the_hub_for_those_who_fetch() -> None:
    spec = spec_of(DENY)
    dns = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["egress"] == [{"to": [OWN]}, dns, {"ports": [{"protocol": "TCP", "port": 443}]}]


def test_an_engine_that_finds_its_weights_in_the_pod_reaches_nothing_outside() -> None:
    """Prompts could leave by any library that calls home."""
    spec = spec_of(DENY, model={"name": "m", "source": "pvc://models/m"})
    assert [rule for rule in spec["egress"] if "to" not in rule] == [
        {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    ]


def test_a_container_that_fetches_before_the_engine_reaches_the_hub() -> None:
    """The engine is offline, and would wait for ever for weights that cannot come."""
    deployment = model_deployment(model={"name": "m", "source": "pvc://models/m"})
    revision = revision_of(deployment, group_plan())
    revision.template["leaderWorkerTemplate"]["workerTemplate"]["spec"]["initContainers"] = [
        {"name": "fetch"}
    ]
    found = build_network_policy(deployment, revision, read_config(DENY))
    assert found is not None
    assert {"ports": [{"protocol": "TCP", "port": 443}]} in found["spec"]["egress"]


def test_names_are_asked_only_where_the_site_says() -> None:
    text = DENY + "\nnetwork: {dns: [{ipBlock: {cidr: 10.96.0.10/32}}]}"
    assert spec_of(text)["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.96.0.10/32"}}]


def test_a_site_with_policies_of_its_own_gets_none_but_denied_egress() -> None:
    off = "network: {policies: Disabled}"
    assert built(off) is None
    assert spec_of(f"{DENY}\n{off}")["policyTypes"] == ["Egress"]


def test_only_pods_of_groups_are_chosen() -> None:
    """A job that fetches weights carries the deployment's label too, and could not reach the hub."""
    selector = spec_of()["podSelector"]
    assert selector["matchLabels"] == {names.LABEL_DEPLOYMENT: "tiny"}
    assert selector["matchExpressions"] == [{"key": names.LABEL_GROUP, "operator": "Exists"}]
