"""The record as headings, fields, tables and lines, for pages of any markup. Pure.

What stands here is text as it was read, names and messages of others included: renderers make it harmless.
"""

from collections.abc import Iterator, Sequence

from moe_operator.cli.report.access_text import access_blocks
from moe_operator.cli.report.blocks import Block, Fields, Heading, Items, Paragraph, Table
from moe_operator.cli.report.data import UNKNOWN, DeploymentRecord, GoneRecord, Report, Unread
from moe_operator.cli.report.facts_text import callers_fields, engine_fields, model_fields, place_blocks
from moe_operator.cli.report.happenings_text import changes_blocks, incidents_blocks, scaling_fields
from moe_operator.cli.report.unread_text import unread_blocks
from moe_operator.cli.report.use_text import money, percent, tokens, uptime_blocks, usage_blocks
from moe_operator.cli.units import count, span

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
        yield from access_blocks(access)
    yield from unread_blocks(report.unread)
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
                percent(one.uptime),
                UNKNOWN if used is None else tokens(used),
                UNKNOWN if used is None else used.gpu_hours or UNKNOWN,
                UNKNOWN if used is None else money(used),
            )
        )
    header = ("Deployment", "Model", "Licence", "Region", "Ready", "Tokens in / out", "GPU-hours", "Cost")
    return Table(header, tuple(rows))


def _deployment(one: DeploymentRecord, unread: Sequence[Unread]) -> Iterator[Block]:
    yield Heading(2, f"{one.namespace}/{one.name}")
    if one.invalid_spec:
        yield Paragraph(f"Its spec cannot be read, what follows is of its status: {one.invalid_spec}")
    yield Heading(3, "Model and weights")
    yield Fields(tuple(model_fields(one)))
    yield Heading(3, "Engine")
    yield Fields(tuple(engine_fields(one, unread)))
    yield Heading(3, "Where requests are processed")
    yield from place_blocks(one, unread)
    yield Heading(3, "Who may send requests")
    yield Fields(tuple(callers_fields(one, unread)))
    yield Heading(3, "Uptime")
    yield from uptime_blocks(one.uptime)
    yield Heading(3, "Use and cost")
    yield from usage_blocks(one.usage)
    yield Heading(3, "Changes")
    yield from changes_blocks(one, unread)
    yield Heading(3, "Incidents")
    yield from incidents_blocks(one, unread)
    yield Heading(3, "Scaling")
    yield Fields(tuple(scaling_fields(one)))


def _gone(gone: Sequence[GoneRecord]) -> Iterator[Block]:
    if not gone:
        return
    yield Heading(2, "Gone")
    yield Paragraph("Prometheus has figures of these in the period, and they are not there any more.")
    for one in gone:
        yield Heading(3, f"{one.namespace}/{one.name}")
        yield from uptime_blocks(one.uptime)
        yield from usage_blocks(one.usage)
