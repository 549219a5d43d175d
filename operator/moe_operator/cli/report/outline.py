"""The record as headings, fields, tables and lines, for pages of any markup. Pure.

What stands here is text as it was read, names and messages of others included: renderers make it harmless.
"""

from collections.abc import Iterator, Sequence

from moe_operator.cli.report.blocks import Block, Fields, Heading, Items, Paragraph, Table
from moe_operator.cli.report.data import (
    UNKNOWN,
    AccessRecord,
    DeploymentRecord,
    EgressState,
    GoneRecord,
    Grant,
    Report,
    Source,
    Unread,
    UptimeRecord,
    Usage,
    UsageRecord,
)
from moe_operator.cli.units import count, gib, span

TITLE = "Technical record of ModelDeployments"


def outline(report: Report) -> Iterator[Block]:
    """The whole record."""
    scope, period = report.scope, report.period
    where = "all namespaces" if scope.namespace is None else f"namespace {scope.namespace}"
    yield Heading(1, TITLE)
    rows = [
        ("Period", f"{period.begin} to {period.end} ({span(period.seconds)})"),
        ("Cluster", _cluster(report)),
        ("Covers", f"{count(len(report.deployments), 'ModelDeployment')} in {where}"),
        ("Read at", f"{report.generated_at}, by {report.generated_by}"),
        ("Figures of the period", _figures(report)),
        ("Format", report.schema_),
    ]
    yield Fields((*rows, *(("Note", note) for note in period.notes)))
    yield Paragraph(
        "What is read from the cluster is of the moment of reading; only uptime, use and counts that are marked so are"
        " of the period."
    )
    if report.deployments:
        yield Heading(2, "At a glance")
        yield _glance(report)
    for one in report.deployments:
        yield from _deployment(one, report.unread)
    yield from _gone(report.gone)
    yield Heading(2, "Who may change and read")
    yield Paragraph(
        "By the RBAC objects of the cluster. Not seen: members of system:masters, other authorizers, and who may become"
        " one of these."
    )
    for access in report.access:
        yield from _access(access)
    yield from _unread(report.unread)
    yield Heading(2, "What this record covers")
    yield Items(tuple(report.coverage.covers))
    yield Heading(2, "What it does not cover")
    yield Items(tuple(report.coverage.does_not_cover))
    yield Heading(2, "Obligations that it helps with")
    yield Items(tuple(report.coverage.obligations))


def _cluster(report: Report) -> str:
    scope = report.scope
    name = f"{scope.cluster} (context {scope.context})" if scope.cluster else "not named: no kubeconfig"
    return f"{name}, id {scope.cluster_id or UNKNOWN}"


def _figures(report: Report) -> str:
    found = report.prometheus
    if found is None:
        return "none: no Prometheus was asked (--prometheus)"
    return f"Prometheus at {found.url}" + (f" gave none: {found.message}" if found.message else "")


def _glance(report: Report) -> Table:
    rows = []
    for one in report.deployments:
        used = one.usage.period
        rows.append(
            (
                f"{one.namespace}/{one.name}",
                one.model.name,
                one.model.licence,
                ", ".join(one.place.regions) or UNKNOWN,
                _percent(one.uptime),
                UNKNOWN if used is None else _tokens(used),
                UNKNOWN if used is None else used.gpu_hours or UNKNOWN,
                UNKNOWN if used is None else _money(used),
            )
        )
    header = ("Deployment", "Model", "Licence", "Region", "Ready", "Tokens in / out", "GPU-hours", "Cost")
    return Table(header, tuple(rows))


# --- a deployment -----------------------------------------------------------------------------------


def _deployment(one: DeploymentRecord, unread: Sequence[Unread]) -> Iterator[Block]:
    yield Heading(2, f"{one.namespace}/{one.name}")
    if one.invalid_spec:
        yield Paragraph(f"Its spec cannot be read, what follows is of its status: {one.invalid_spec}")
    yield Heading(3, "Model and weights")
    yield Fields(tuple(_model(one)))
    yield Heading(3, "Engine")
    yield Fields(tuple(_engine(one, unread)))
    yield Heading(3, "Where requests are processed")
    yield Fields(tuple(_place(one, unread)))
    if one.place.nodes:
        cells = tuple((node.name, node.region or UNKNOWN, node.zone or UNKNOWN) for node in one.place.nodes)
        yield Table(("Node", "Region", "Zone"), cells)
    yield Heading(3, "Who may send requests")
    yield Fields(tuple(_callers(one, unread)))
    yield Heading(3, "Uptime")
    yield from _uptime(one.uptime)
    yield Heading(3, "Use and cost")
    yield from _usage(one.usage)
    yield Heading(3, "Changes")
    yield from _changes(one, unread)
    yield Heading(3, "Incidents")
    yield from _incidents(one, unread)
    yield Heading(3, "Scaling")
    yield Fields(tuple(_scaling(one)))


def _model(one: DeploymentRecord) -> Iterator[tuple[str, str]]:
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


def _engine(one: DeploymentRecord, unread: Sequence[Unread]) -> Iterator[tuple[str, str]]:
    engine = one.engine
    yield "Image", engine.image or UNKNOWN
    yield "vLLM version", f"{engine.version} (by the image's tag)" if engine.version else UNKNOWN
    running = _why("pods", unread) if engine.running is None else ", ".join(engine.running) or "none runs"
    yield "Running, by digest", running
    yield "Revision", engine.revision or "none yet"
    yield "Pod Security Standard", engine.pod_security or UNKNOWN
    yield "Logs or traces of requests", ", ".join(engine.logging) or "none that its arguments ask for"
    yield "Loads further code", "; ".join(engine.code_loading) or "nothing that the spec asks for"


def _place(one: DeploymentRecord, unread: Sequence[Unread]) -> Iterator[tuple[str, str]]:
    place = one.place
    if place.nodes is None:
        yield "Nodes", _why("pods", unread)
    elif not place.nodes:
        yield "Nodes", "none: no pod has one"
    yield "Regions", ", ".join(place.regions) or UNKNOWN
    required = "; ".join(
        f"{key} {' or '.join(values)}" for key, values in sorted(place.required_nodes.items())
    )
    yield "Nodes that the policy allows", required or "any"
    if place.egress is EgressState.UNKNOWN:
        yield "Connections to elsewhere", _why("NetworkPolicies", unread)
    elif place.egress is EgressState.OPEN:
        yield "Connections to elsewhere", "not limited by any NetworkPolicy"
    else:
        to = "; ".join(place.egress_to) or "nowhere"
        yield (
            "Connections to elsewhere",
            f"only to: {to} (NetworkPolicies {', '.join(place.egress_policies)})",
        )


def _callers(one: DeploymentRecord, unread: Sequence[Unread]) -> Iterator[tuple[str, str]]:
    callers, key = one.callers, one.callers.api_key
    yield "Address", callers.endpoint or "none yet"
    services = _why("Services", unread) if callers.services is None else ", ".join(callers.services)
    yield "Services", services or "none selects its pods"
    if callers.published is None:
        yield "Published by", f"{_why('Ingresses', unread)}; {_why('HTTPRoutes', unread)}"
    else:
        yield "Published by", ", ".join(callers.published) or "no Ingress or HTTPRoute of this namespace"
    if callers.ingress_limited is None:
        yield "May connect", _why("NetworkPolicies", unread)
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
        None: _why(f"Secret {one.namespace}/{key.secret}", unread),
    }
    yield "API key", f"required; Secret {key.secret} (key {key.key}) {there[key.present]}"


def _percent(found: UptimeRecord) -> str:
    return UNKNOWN if found.ready_percent is None else f"{found.ready_percent:.3f} %"


def _uptime(found: UptimeRecord) -> Iterator[Block]:
    rows = []
    if found.ready is not None:
        rows.append(("Ready now", f"{found.ready} since {found.since}"))
    if found.ready_percent is not None:
        down = span(found.known_seconds - found.ready_seconds)
        known = f"not for {down} of the {span(found.known_seconds)} that are known"
        rows.append(("Ready in the period", f"{_percent(found)}: {known}"))
    rows.append(("Known from", found.message))
    yield Fields(tuple(rows))
    if found.outages:
        cells = tuple((one.begin, one.end, span(one.not_ready_seconds)) for one in found.outages)
        yield Table((f"Not Ready, in windows of {span(found.window_seconds or 0)} from", "to", "for"), cells)
    if found.outages_left_off:
        yield Paragraph(f"And {found.outages_left_off} further times.")


def _source(source: Source) -> str:
    return {Source.PROMETHEUS: "Prometheus", Source.STATUS: "the status", Source.NONE: "none"}[source]


def _usage(found: UsageRecord) -> Iterator[Block]:
    columns = (
        ("The period", found.period),
        ("In total", found.total),
        ("Last day", found.last_day),
        ("Last hour", found.last_hour),
    )
    shown = [(name, one) for name, one in columns if one is not None]
    if shown:
        rows: list[tuple[str, ...]] = [
            ("From", *(one.begin or UNKNOWN for _, one in shown)),
            ("To", *(one.end or UNKNOWN for _, one in shown)),
            ("Input tokens", *(_number(one.input_tokens) for _, one in shown)),
            ("of these cached", *(_number(one.cached_input_tokens) for _, one in shown)),
            ("Output tokens", *(_number(one.output_tokens) for _, one in shown)),
            ("Requests completed", *(_number(one.requests_completed) for _, one in shown)),
            ("Requests aborted", *(_number(one.requests_aborted) for _, one in shown)),
            ("Requests failed", *(_number(one.requests_failed) for _, one in shown)),
            ("GPU-hours", *(one.gpu_hours or UNKNOWN for _, one in shown)),
            *(
                (f"of these {state}", *(one.gpu_hours_by_state.get(state, UNKNOWN) for _, one in shown))
                for state in ("starting", "serving", "idle", "draining")
            ),
            ("of these without a price", *(one.unpriced_gpu_hours or "0" for _, one in shown)),
            ("Cost", *(_money(one) for _, one in shown)),
        ]
        yield Table(("", *(name for name, _ in shown)), tuple(rows))
    facts = [("Price", found.price)] if found.price else []
    facts += [("Note", note) for note in found.notes]
    if found.source is not Source.NONE:
        facts.append(("Figures of the period from", _source(found.source)))
    yield Fields(tuple(facts))


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _tokens(used: Usage) -> str:
    return f"{_number(used.input_tokens)} / {_number(used.output_tokens)}"


def _money(used: Usage) -> str:
    return " + ".join(f"{value} {currency}" for currency, value in sorted(used.cost.items())) or UNKNOWN


def _changes(one: DeploymentRecord, unread: Sequence[Unread]) -> Iterator[Block]:
    changes = one.changes
    yield Fields(
        (
            ("Made", changes.created or UNKNOWN),
            ("Spec", f"generation {changes.generation}: changed {changes.generation - 1} times since then"),
        )
    )
    if changes.revisions is None:
        yield Paragraph(f"Revisions: {_why('revisions', unread)}.")
    elif changes.revisions:
        rows = []
        for kept in changes.revisions:
            told = "; ".join(
                f"{each.path}: {each.before or '(not set)'} to {each.after or '(not set)'}"
                for each in kept.changes or ()
            )
            first = "the first that is kept" if kept.changes is None else "nothing that the spec says"
            rows.append(
                (kept.created, str(kept.number), kept.name, "yes" if kept.in_period else "no", told or first)
            )
        yield Table(
            ("Made", "Number", "Revision", "In the period", "Changed against the one before"), tuple(rows)
        )
    if changes.writers:
        writers = [
            (
                writer.time or UNKNOWN,
                writer.manager,
                writer.operation + (f" of {writer.subresource}" if writer.subresource else ""),
                ", ".join(writer.fields) or "nothing of the spec",
            )
            for writer in changes.writers
        ]
        yield Table(("Last write", "Program", "Operation", "Owns of the spec"), tuple(writers))
    yield Paragraph(
        "Programs, and of each its last write alone; which person it was, the API server's audit log says. Only"
        " changes that reach pods make a revision, and going back to one makes none."
    )


def _incidents(one: DeploymentRecord, unread: Sequence[Unread]) -> Iterator[Block]:
    found = one.incidents
    if found.groups_lost is None:
        lost = "not known without Prometheus"
    else:
        causes = ", ".join(
            f"{reason} {count}" for reason, count in sorted(found.groups_lost_by_reason.items())
        )
        lost = f"at least {found.groups_lost}" + (f": {causes}" if causes else "")
    last = "none that the status remembers"
    if found.last_loss:
        last = f"{found.last_loss}: {found.last_loss_cause or UNKNOWN}"
    yield Fields((("Groups lost in the period", lost), ("Last loss", last)))
    if found.conditions:
        rows = tuple(
            (each.type, each.status, each.since, f"{each.reason}: {each.message}")
            for each in found.conditions
        )
        yield Table(("Trouble now", "Status", "Since", "Why"), rows)
    if found.events is None:
        yield Paragraph(f"Events: {_why('Events', unread)}.")
    elif found.events:
        events = tuple(
            (each.time, each.type, str(each.count), each.reason, each.message) for each in found.events
        )
        yield Table(("Event at", "Type", "Times", "Reason", "Message"), events)
    if found.events_left_off:
        yield Paragraph(f"{found.events_left_off} older Events of the period are left off.")
    yield Paragraph(
        "Clusters keep Events for an hour by default: none of an earlier time does not mean that nothing happened."
    )


def _scaling(one: DeploymentRecord) -> Iterator[tuple[str, str]]:
    found = one.scaling
    yield "Mode", found.mode or UNKNOWN
    if found.changes is None:
        yield "Changes of the number of groups", UNKNOWN
        return
    least = "at least " if found.at_least else ""
    yield (
        "Changes of the number of groups",
        f"{least}{found.changes} in the period, by {_source(found.source)}",
    )
    if found.by_reason:
        reasons = ", ".join(f"{reason} {times}" for reason, times in sorted(found.by_reason.items()))
        yield "Reasons of the last ten in it", reasons


# --- the rest ---------------------------------------------------------------------------------------


def _gone(gone: Sequence[GoneRecord]) -> Iterator[Block]:
    if not gone:
        return
    yield Heading(2, "Gone")
    yield Paragraph("Prometheus has figures of these in the period, and they are not there any more.")
    for one in gone:
        yield Heading(3, f"{one.namespace}/{one.name}")
        yield from _uptime(one.uptime)
        yield from _usage(one.usage)


def _access(access: AccessRecord) -> Iterator[Block]:
    yield Heading(3, f"Namespace {access.namespace}")
    parts: tuple[tuple[str, list[Grant] | None], ...] = (
        ("Change ModelDeployments", access.change),
        ("Read ModelDeployments", access.read),
        ("Reach engines past NetworkPolicies", access.reach),
        ("Read Secrets", access.secrets),
    )
    if access.change is None:
        yield Paragraph(
            "Not readable: needs list rolebindings and clusterrolebindings (rbac.authorization.k8s.io)."
        )
        return
    rows = [
        (
            what,
            f"{grant.kind} {grant.name}",
            ", ".join(grant.verbs) + (f" (only {', '.join(grant.only)})" if grant.only else ""),
            grant.by,
        )
        for what, grants in parts
        for grant in grants or ()
    ]
    yield Table(("May", "Who", "Verbs", "By"), tuple(rows))
    if access.undetermined:
        yield Paragraph(
            f"Roles that could not be read, so that these are not judged: {'; '.join(access.undetermined)}."
        )


def _unread(unread: Sequence[Unread]) -> Iterator[Block]:
    if unread:
        yield Heading(2, "What could not be read")
        yield Items(tuple(f"{one.section}: {one.message}" for one in unread))


def _why(section: str, unread: Sequence[Unread], other: str = UNKNOWN) -> str:
    """Why a part is not there."""
    return next((one.message for one in unread if one.section.split(" (")[0] == section), other)
