"""Who may connect to the engines of a deployment, and where they may connect to.

What ranks say to each other is neither encrypted nor authenticated, and some of it is unpickled: whoever reaches
their ports runs code in the engine. Ports are the kernel's choice, so all of them are open between the deployment's
own pods, and to nobody else. RDMA passes by these rules: SR-IOV and InfiniBand devices are no interfaces of the CNI,
and EFA obeys its security groups.
"""

from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.network import Network, Policies
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.catalog.policy import Egress
from moe_operator.resources.metadata import child_metadata
from moe_operator.resources.revision import Revision
from moe_operator.resources.source_ports import source_ports

_NAMESPACE = "kubernetes.io/metadata.name"


def network_policy_name(deployment_name: str) -> str:
    """Suffixed as the ServiceAccount is, so that a policy of the user's named as the model is not in the way."""
    return f"{deployment_name}-engine"


def build_network_policy(
    deployment: ModelDeployment, revision: Revision, config: OperatorConfig
) -> dict[str, Any] | None:
    """The policy; None where the site has switched them off and no rule denies egress."""
    deny = denies_egress(deployment, config)
    ingress = config.network.policies is Policies.INGRESS
    if not ingress and not deny:
        return None
    # Only pods of groups: others that carry the deployment's label (weights jobs) need the hub, and serve nobody.
    selector = {
        "matchLabels": {names.LABEL_DEPLOYMENT: deployment.name},
        "matchExpressions": [{"key": names.LABEL_GROUP, "operator": "Exists"}],
    }
    spec: dict[str, Any] = {"podSelector": selector, "policyTypes": []}
    own = {"podSelector": {"matchLabels": {names.LABEL_DEPLOYMENT: deployment.name}}}
    if ingress:
        spec["policyTypes"].append("Ingress")
        spec["ingress"] = [{"from": [own]}, _clients(deployment, config.network)]
    if deny:
        spec["policyTypes"].append("Egress")
        spec["egress"] = [{"to": [own]}, _dns(config.network), *_sources(revision)]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": child_metadata(deployment, network_policy_name(deployment.name)),
        "spec": spec,
    }


def denies_egress(deployment: ModelDeployment, config: OperatorConfig) -> bool:
    """Whether the site's policy lets engines reach nothing but what they must."""
    rule = config.policy.rule_for(deployment.namespace)
    return rule is not None and rule.egress is Egress.DENY


def _clients(deployment: ModelDeployment, network: Network) -> dict[str, Any]:
    """Requests, probes and scrapes; and the ports that further containers name, whose clients only the user knows."""
    ports = [{"protocol": "TCP", "port": names.HTTP_PORT}]
    for container in deployment.spec.pod_template.containers:
        for port in container.get("ports") or ():
            one = {"protocol": port.get("protocol") or "TCP", "port": port.get("containerPort")}
            if one not in ports:
                ports.append(one)
    if not network.clients:
        return {"ports": ports}
    peers: list[dict[str, Any]] = [{"podSelector": {}}]
    if network.operator_namespace is not None:
        peers.append({"namespaceSelector": {"matchLabels": {_NAMESPACE: network.operator_namespace}}})
    return {"from": [*peers, *network.clients], "ports": ports}


def _dns(network: Network) -> dict[str, Any]:
    rule: dict[str, Any] = {"ports": [{"protocol": p, "port": 53} for p in ("UDP", "TCP")]}
    return {"to": list(network.dns), **rule} if network.dns else rule


def _sources(revision: Revision) -> list[dict[str, Any]]:
    """Anywhere, as addresses of hubs and stores change, by the ports of the sources that the pods read themselves."""
    ports = source_ports(revision.template["leaderWorkerTemplate"]["workerTemplate"]["spec"])
    return [{"ports": [{"protocol": "TCP", "port": port} for port in ports]}] if ports else []
