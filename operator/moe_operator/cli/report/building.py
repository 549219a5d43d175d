"""The record from what was read. Pure: objects, samples and times in, a document out."""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_operator.api.times import format_time
from moe_operator.cli.report.access import access
from moe_operator.cli.report.callers import callers_of
from moe_operator.cli.report.changes import changes_of
from moe_operator.cli.report.coverage import coverage
from moe_operator.cli.report.data import (
    DeploymentRecord,
    GoneRecord,
    Period,
    PrometheusSource,
    Report,
    Scope,
    Unread,
)
from moe_operator.cli.report.figures import Recorded
from moe_operator.cli.report.incidents import incidents_of
from moe_operator.cli.report.period import Span
from moe_operator.cli.report.place import place_of
from moe_operator.cli.report.reading import Collected
from moe_operator.cli.report.scaling import scaling_of
from moe_operator.cli.report.subject import Key, Subject, created_of, key_of, subject_of
from moe_operator.cli.report.uptime import recorded_uptime, uptime_of
from moe_operator.cli.report.usage import recorded_usage, usage_of
from moe_operator.cli.report.what_runs import engine_of, model_of, weights_of


@dataclass(frozen=True)
class Asked:
    """What the record is about, and who makes it."""

    span: Span
    now: float
    """When the cluster was read."""
    scope: Scope
    program: str
    prometheus: str | None = None
    """Address without credentials; None: not asked."""


#: What Prometheus has, or why it has nothing; None: not asked.
Figures = Mapping[Key, Recorded] | str | None


def build(collected: Collected, figures: Figures, asked: Asked) -> Report:
    """The whole record."""
    span = asked.span
    objects = sorted(collected.deployments, key=key_of)
    present = [one for one in objects if (created_of(one) or 0.0) < span.end]
    recorded = figures if isinstance(figures, Mapping) else {}
    unread = collected.unread()
    if isinstance(figures, str):
        unread.append(Unread(section="Prometheus", message=figures))
    notes = [*span.notes]
    if later := [
        f"{space}/{name}" for space, name in map(key_of, objects) if (space, name) not in map(key_of, present)
    ]:
        notes.append(f"made after it, and left out: {', '.join(later)}")
    spaces = sorted(
        {key_of(one)[0] for one in present} | ({asked.scope.namespace} if asked.scope.namespace else set())
    )
    there = set(map(key_of, objects))
    return Report(
        generated_at=format_time(asked.now),
        generated_by=asked.program,
        period=Period(
            begin=format_time(span.begin), end=format_time(span.end), seconds=round(span.seconds), notes=notes
        ),
        scope=asked.scope.model_copy(update={"cluster_id": collected.cluster_id}),
        prometheus=None
        if asked.prometheus is None
        else PrometheusSource(url=asked.prometheus, message=figures if isinstance(figures, str) else None),
        deployments=[
            _record(subject_of(one, collected, recorded.get(key_of(one)), span, asked.now)) for one in present
        ],
        gone=[
            GoneRecord(
                namespace=key[0],
                name=key[1],
                uptime=recorded_uptime(found, span),
                usage=recorded_usage(found, span),
            )
            for key, found in sorted(recorded.items())
            if key not in there
        ],
        access=[access(collected, space) for space in spaces],
        unread=unread,
        coverage=coverage(prometheus=asked.prometheus is not None),
    )


def _record(subject: Subject) -> DeploymentRecord:
    deployment = subject.deployment
    return DeploymentRecord(
        namespace=deployment.namespace,
        name=deployment.name,
        uid=deployment.uid,
        invalid_spec=subject.invalid,
        model=model_of(subject),
        weights=weights_of(subject),
        engine=engine_of(subject),
        place=place_of(subject),
        callers=callers_of(subject),
        uptime=uptime_of(subject),
        usage=usage_of(subject),
        changes=changes_of(subject),
        incidents=incidents_of(subject),
        scaling=scaling_of(subject),
    )
