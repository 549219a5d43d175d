"""Where a deployment's requests are processed, and where its pods may connect to, for its record. Pure."""

from collections.abc import Iterable

from moe_operator.cli.report.data import NodeRecord, PlaceRecord
from moe_operator.cli.report.network import egress
from moe_operator.cli.report.reading import Listing, Missing, Obj
from moe_operator.cli.report.subject import Subject

_REGION, _ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"


def place_of(subject: Subject) -> PlaceRecord:
    """By the nodes of its pods and the NetworkPolicies that select them."""
    nodes = None if subject.pods is None else _nodes(subject.pods, subject.collected.nodes)
    state, to, policies = egress(subject.policies)
    return PlaceRecord(
        nodes=nodes,
        regions=sorted({one.region for one in nodes or () if one.region}),
        required_nodes=subject.status.provenance.nodes if subject.status.provenance else {},
        egress=state,
        egress_to=to,
        egress_policies=policies,
    )


def _nodes(pods: Iterable[Obj], listed: Listing) -> list[NodeRecord]:
    labels: dict[str, Obj] = {}
    if not isinstance(listed, Missing):
        labels = {one["metadata"]["name"]: one["metadata"].get("labels") or {} for one in listed}
    used = sorted({node for pod in pods if (node := (pod.get("spec") or {}).get("nodeName"))})
    return [
        NodeRecord(name=node, region=labels.get(node, {}).get(_REGION), zone=labels.get(node, {}).get(_ZONE))
        for node in used
    ]
