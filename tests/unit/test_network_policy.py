"""Who may connect to engines. Too much, and anybody runs code in the engine; too little, and a group is deaf."""

from typing import Any

from factories.deployments import group_plan, model_deployment, revision_of
from factories.golden import check_golden
from moe_operator.api import names
from moe_operator.catalog.operator_config import OperatorConfig, read_config
from moe_operator.resources.network_policy import build_network_policy
from moe_operator.resources.security_notes import security_notes

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


def ports_out(text: str = "", **spec: Any) -> list[int]:
    """Ports of sources that the policy opens."""
    rules = spec_of(DENY + "\n" + text, **spec)["egress"][2:]
    return [port["port"] for rule in rules for port in rule["ports"]]


BUCKET = {"name": "m", "source": "s3://bucket/m"}
ON_NODES = {"cache": {"hostPath": "/var/lib/weights"}}
FOLDER = "hostPaths: [/var/lib/weights]"


def test_a_container_that_fetches_before_the_engine_reaches_the_hub() -> None:
    """The engine is offline, and would wait for ever for weights that cannot come."""
    assert ports_out(f"weights: {{{FOLDER}}}", weights=ON_NODES) == [443]


def test_a_mirror_and_a_store_are_reached_at_their_own_ports_and_at_no_other() -> None:
    """Port 443 leads to the whole world; without the mirror's no engine starts."""
    assert ports_out("weights: {endpoint: 'http://mirror:8080'}") == [8080]
    assert ports_out("weights: {endpoint: 'http://mirror'}") == [80]
    assert ports_out("weights: {s3Endpoint: 'http://minio.storage:9000/'}", model=BUCKET) == [9000]
    on_nodes = f"weights: {{{FOLDER}, endpoint: 'http://mirror:8080', s3Endpoint: 'http://minio:9000'}}"
    assert ports_out(on_nodes, weights=ON_NODES) == [8080]
    assert ports_out(on_nodes, weights=ON_NODES, model=BUCKET) == [9000]
    lora = {**BUCKET, "adapters": [{"name": "a", "source": "hf://acme/lora"}]}
    assert ports_out(on_nodes, weights=ON_NODES, model=lora) == [8080, 9000]


def test_addresses_in_the_engines_variables_count() -> None:
    env = [{"name": "AWS_ENDPOINT_URL", "value": "http://minio:9000"}]
    assert ports_out(model=BUCKET, engine={"env": env}) == [9000]
    proxy = [{"name": "https_proxy", "value": "proxy:3128"}]
    assert ports_out(engine={"env": proxy}) == [443, 3128]


def test_an_engine_that_streams_from_a_bucket_reaches_it() -> None:
    """It never asks the hub, but it must reach its store."""
    assert ports_out(model=BUCKET) == [443]


def test_shared_caches_need_no_way_out_even_with_adapters_of_the_hub() -> None:
    model = {"name": "org/m", "adapters": [{"name": "a", "source": "hf://acme/lora"}]}
    assert ports_out(model=model, weights={"cache": {"claim": "models"}}) == []
    assert ports_out(model={**model, "source": "pvc://models/m"}) == [443], "nothing keeps them"


def test_an_address_that_only_a_secret_names_is_said() -> None:
    """The operator reads no Secrets: the port of such a store stays shut, and the pods hang."""

    def notes(text: str, **spec: Any) -> list[str]:
        deployment = model_deployment(model=BUCKET, **spec)
        config = read_config(text)
        revision = revision_of(deployment, group_plan(), config)
        return [n for n in security_notes(deployment, revision, config) if "AWS_ENDPOINT_URL" in n]

    secret = {"credentialsSecret": "store"}
    (note,) = notes(DENY, weights=secret)
    assert "Secret store" in note
    assert "weights.s3Endpoint" in note
    assert notes("", weights=secret) == []
    assert notes(DENY + "\nweights: {s3Endpoint: 'http://minio:9000'}", weights=secret) == []
    given = {"env": [{"name": "AWS_ENDPOINT_URL", "value": "http://minio:9000"}]}
    assert notes(DENY, weights=secret, engine=given) == []
    assert notes(DENY, weights={**secret, "cache": {"claim": "models"}}) == []


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
