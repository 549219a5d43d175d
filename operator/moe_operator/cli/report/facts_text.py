"""What a deployment runs, where, and for whom, in a record's text. Pure."""

from collections.abc import Iterator, Sequence

from moe_operator.cli.report.blocks import Block, Fields, Table
from moe_operator.cli.report.data import UNKNOWN, DeploymentRecord, EgressState, Unread
from moe_operator.cli.report.unread_text import why
from moe_operator.cli.units import gib


def model_fields(one: DeploymentRecord) -> Iterator[tuple[str, str]]:
    """The model, and where its weights are from."""
    model, weights = one.model, one.weights
    yield "Model", model.name + (f", served as {model.served_name}" if model.served_name else "")
    yield "Licence", model.licence + (" (by the operator's catalogue)" if model.licence != UNKNOWN else "")
    yield "Publisher", model.publisher
    yield "Source of the weights", model.source
    yield "Revision asked for", model.revision or "none: the default branch, or a source without revisions"
    yield "Commit loaded", model.commit or UNKNOWN
    yield "Precision", model.precision or UNKNOWN
    yield "Adapters", ", ".join(model.adapters) or "none"
    yield "Allowed by", f"policy rule {model.policy_rule}" if model.policy_rule else "no policy"
    yield "Digest", weights.digest or UNKNOWN
    where = "no cache of the operator's"
    if weights.cache:
        size = f", {gib(weights.bytes)}" if weights.bytes else ""
        where = f"{weights.cache}, entry {weights.entry}{size}"
    yield "Kept in", where
    if weights.cache:
        yield "Complete since", weights.complete_since or "not complete"
    yield "Verified", weights.verification
    for note in model.notes:
        yield "Note", note


def engine_fields(one: DeploymentRecord, unread: Sequence[Unread]) -> Iterator[tuple[str, str]]:
    """The image that runs, and what it is asked to log and to load."""
    engine = one.engine
    yield "Image", engine.image or UNKNOWN
    yield "vLLM version", f"{engine.version} (by the image's tag)" if engine.version else UNKNOWN
    running = why("pods", unread) if engine.running is None else ", ".join(engine.running) or "none runs"
    yield "Running, by digest", running
    yield "Revision", engine.revision or "none yet"
    yield "Pod Security Standard", engine.pod_security or UNKNOWN
    yield "Logs or traces of requests", ", ".join(engine.logging) or "none that its arguments ask for"
    yield "Loads further code", "; ".join(engine.code_loading) or "nothing that the spec asks for"


def place_blocks(one: DeploymentRecord, unread: Sequence[Unread]) -> Iterator[Block]:
    """Where requests are processed and what engines may connect to, with a table of nodes."""
    yield Fields(tuple(_place(one, unread)))
    if one.place.nodes:
        cells = tuple((node.name, node.region or UNKNOWN, node.zone or UNKNOWN) for node in one.place.nodes)
        yield Table(("Node", "Region", "Zone"), cells)


def _place(one: DeploymentRecord, unread: Sequence[Unread]) -> Iterator[tuple[str, str]]:
    place = one.place
    if place.nodes is None:
        yield "Nodes", why("pods", unread)
    elif not place.nodes:
        yield "Nodes", "none: no pod has one"
    yield "Regions", ", ".join(place.regions) or UNKNOWN
    required = "; ".join(
        f"{key} {' or '.join(values)}" for key, values in sorted(place.required_nodes.items())
    )
    yield "Nodes that the policy allows", required or "any"
    if place.egress is EgressState.UNKNOWN:
        yield "Connections to elsewhere", why("NetworkPolicies", unread)
    elif place.egress is EgressState.OPEN:
        yield "Connections to elsewhere", "not limited by any NetworkPolicy"
    else:
        to = "; ".join(place.egress_to) or "nowhere"
        yield (
            "Connections to elsewhere",
            f"only to: {to} (NetworkPolicies {', '.join(place.egress_policies)})",
        )


def callers_fields(one: DeploymentRecord, unread: Sequence[Unread]) -> Iterator[tuple[str, str]]:
    """Who may send requests."""
    callers, key = one.callers, one.callers.api_key
    yield "Address", callers.endpoint or "none yet"
    services = why("Services", unread) if callers.services is None else ", ".join(callers.services)
    yield "Services", services or "none selects its pods"
    if callers.published is None:
        yield "Published by", f"{why('Ingresses', unread)}; {why('HTTPRoutes', unread)}"
    else:
        yield "Published by", ", ".join(callers.published) or "no Ingress or HTTPRoute of this namespace"
    if callers.ingress_limited is None:
        yield "May connect", why("NetworkPolicies", unread)
    else:
        yield (
            "May connect",
            "; ".join(callers.ingress_from) or "nobody" if callers.ingress_limited else "anyone in reach",
        )
    if not key.required:
        yield "API key", "not required: whoever may connect may send requests"
        return
    there = {
        True: "is there",
        False: "is NOT there",
        None: why(f"Secret {one.namespace}/{key.secret}", unread),
    }
    yield "API key", f"required; Secret {key.secret} (key {key.key}) {there[key.present]}"
