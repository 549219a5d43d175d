"""The record from what was read. Pure: objects, samples and times in, a document out."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moe_operator.api import reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.status import Condition
from moe_operator.api.times import format_time
from moe_operator.cli.report.access import access
from moe_operator.cli.report.callers import callers_of
from moe_operator.cli.report.coverage import coverage
from moe_operator.cli.report.data import (
    UNKNOWN,
    ChangesRecord,
    ConditionRecord,
    DeploymentRecord,
    EventRecord,
    FieldChange,
    GoneRecord,
    IncidentsRecord,
    Period,
    PrometheusSource,
    Report,
    RevisionRecord,
    ScalingRecord,
    Scope,
    Source,
    Unread,
    WriterRecord,
)
from moe_operator.cli.report.figures import Recorded, lost
from moe_operator.cli.report.period import Span
from moe_operator.cli.report.place import place_of
from moe_operator.cli.report.reading import Collected, Missing, Obj
from moe_operator.cli.report.subject import Key, Subject, created_of, key_of, subject_of, time_of
from moe_operator.cli.report.uptime import recorded_uptime, uptime_of
from moe_operator.cli.report.usage import recorded_usage, usage_of
from moe_operator.cli.report.what_runs import engine_of, model_of, weights_of
from moe_operator.cli.revision_history import changed_since, history
from moe_operator.cli.spec_changes import Change, change_texts
from moe_operator.cli.timeline import Entry, told

#: Fields that people put secrets into: what they were is not for a record that is passed on.
_HIDDEN = re.compile(r"(^|\.)env(\[|\.|$)|^podTemplate\..*\.?(args|command)(\[|\.|$)")
_NOT_SHOWN = "(not shown)"
#: Events of a deployment that are listed.
_EVENTS = 100
#: Changes of the wanted number that a status remembers.
_REMEMBERED = 10


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
            _Deployment(subject_of(one, collected, recorded.get(key_of(one)), span, asked.now)).record()
            for one in present
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


class _Deployment:
    """One ModelDeployment's record."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._deployment, self._status = subject.deployment, subject.status
        self._collected, self._span, self._recorded = subject.collected, subject.span, subject.recorded

    def record(self) -> DeploymentRecord:
        deployment = self._deployment
        return DeploymentRecord(
            namespace=deployment.namespace,
            name=deployment.name,
            uid=deployment.uid,
            invalid_spec=self._subject.invalid,
            model=model_of(self._subject),
            weights=weights_of(self._subject),
            engine=engine_of(self._subject),
            place=place_of(self._subject),
            callers=callers_of(self._subject),
            uptime=uptime_of(self._subject),
            usage=usage_of(self._subject),
            changes=self._changes(),
            incidents=self._incidents(),
            scaling=self._scaling(),
        )

    # --- what happened -----------------------------------------------------------------------------

    def _changes(self) -> ChangesRecord:
        kept = self._collected.revisions
        created = created_of(self._subject.obj)
        return ChangesRecord(
            created=None if created is None else format_time(created),
            generation=self._deployment.generation,
            revisions=None if isinstance(kept, Missing) else self._revisions(kept),
            writers=sorted(
                _writers(self._subject.obj), key=lambda one: (one.time or "", one.manager, one.operation)
            ),
        )

    def _revisions(self, objects: Sequence[Obj]) -> list[RevisionRecord]:
        found, before = [], None
        for one in history(objects, self._deployment):
            changed = changed_since(before, one)
            found.append(
                RevisionRecord(
                    name=one.name,
                    number=one.number,
                    created=format_time(one.created),
                    in_period=self._span.has(one.created),
                    changes=None if changed is None else [_field(each) for each in changed],
                )
            )
            before = one
        return found

    def _incidents(self) -> IncidentsRecord:
        recovery, events = self._status.recovery, self._events()
        by_reason = lost(self._recorded) if self._recorded is not None else {}
        return IncidentsRecord(
            groups_lost=None if self._recorded is None else sum(by_reason.values()),
            groups_lost_by_reason=by_reason,
            last_loss=recovery.last_failure_time,
            last_loss_cause=f"{recovery.last_group}: {recovery.last_cause.reason}: {recovery.last_cause.message}"
            if recovery.last_cause
            else None,
            conditions=[_condition(one) for one in self._status.conditions if _tells_of_trouble(one)],
            events=None if events is None else events[-_EVENTS:],
            events_left_off=max(0, len(events or ()) - _EVENTS),
        )

    def _events(self) -> list[EventRecord] | None:
        objects = self._collected.events
        if isinstance(objects, Missing):
            return None
        mine = [one for one in objects if _about(one, self._deployment)]
        pairs = [(entry, str(one.get("type") or "")) for one in mine for entry in _entries(one)]
        kept = [(entry, kind) for entry, kind in pairs if self._span.has(entry.at)]
        return [
            EventRecord(
                time=format_time(entry.at),
                since=None if entry.since is None else format_time(entry.since),
                count=entry.count,
                type=kind,
                reason=entry.reason,
                message=entry.text,
            )
            for entry, kind in sorted(kept, key=lambda pair: (pair[0].at, pair[0].reason, pair[0].text))
        ]

    def _scaling(self) -> ScalingRecord:
        scaling = self._status.scaling
        mode = None if self._subject.invalid else self._deployment.spec.scaling.mode.value
        remembered = list(scaling.history) if scaling else []
        within = [one for one in remembered if self._span.has(time_of(one.time))]
        by_reason = dict(sorted(Counter(one.reason for one in within).items()))
        if self._recorded is not None and self._recorded.scalings is not None:
            changes = max(round(self._recorded.scalings), len(within))
            return ScalingRecord(mode=mode, changes=changes, source=Source.PROMETHEUS, by_reason=by_reason)
        if scaling is None:
            return ScalingRecord(mode=mode, source=Source.NONE)
        # None is missed where the oldest that is remembered is of before the period, or more could be remembered.
        oldest = time_of(remembered[0].time) if remembered else None
        all_ = len(remembered) < _REMEMBERED or (oldest is not None and oldest < self._span.begin)
        return ScalingRecord(
            mode=mode, changes=len(within), at_least=not all_, source=Source.STATUS, by_reason=by_reason
        )


# --- parts ----------------------------------------------------------------------------------------


def _writers(obj: Obj) -> Iterator[WriterRecord]:
    for entry in obj["metadata"].get("managedFields") or ():
        fields = (entry.get("fieldsV1") or {}).get("f:spec")
        at = time_of(entry.get("time"))
        yield WriterRecord(
            manager=str(entry.get("manager") or UNKNOWN),
            operation=str(entry.get("operation") or UNKNOWN),
            subresource=entry.get("subresource") or None,
            time=None if at is None else format_time(at),
            fields=sorted(key.removeprefix("f:") for key in fields if key.startswith("f:"))
            if isinstance(fields, Mapping)
            else [],
        )


def _field(change: Change) -> FieldChange:
    before, after = change_texts(change)
    if _HIDDEN.search(change.path) and not change.path.endswith(".name"):
        before, after = before and _NOT_SHOWN, after and _NOT_SHOWN
    return FieldChange(path=change.path, before=before, after=after)


def _condition(one: Condition) -> ConditionRecord:
    return ConditionRecord(
        type=one.type,
        status=one.status,
        reason=one.reason,
        message=one.message,
        since=one.last_transition_time,
    )


def _tells_of_trouble(one: Condition) -> bool:
    """Stalled and Reconciling are there only while they hold; the others are well when they are True."""
    if one.type == reasons.STALLED:
        return one.status == "True"
    return one.type != reasons.RECONCILING and one.status != "True"


def _about(event: Obj, deployment: ModelDeployment) -> bool:
    return (event.get("regarding") or {}).get("uid") == deployment.uid


def _entries(event: Obj) -> Iterator[Entry]:
    """An Event as a line: of a series its last time. One with times that are none is left out."""
    try:
        found = list(told(event))
    except (ValueError, KeyError, TypeError):
        return
    yield from found[-1:]
