"""The record from what was read. Pure: objects, samples and times in, a document out."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moe_operator.api import reasons
from moe_operator.api.cost import CostFigures
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
    UptimeRecord,
    Usage,
    UsageRecord,
    WriterRecord,
)
from moe_operator.cli.report.figures import Recorded, lost, taken, uptime
from moe_operator.cli.report.period import Span
from moe_operator.cli.report.place import place_of
from moe_operator.cli.report.reading import Collected, Missing, Obj
from moe_operator.cli.report.subject import Key, Subject, created_of, key_of, subject_of, time_of
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
                uptime=_recorded_uptime(found, span, None, None),
                usage=_recorded_usage(found, span, None, None),
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
            uptime=self._uptime(),
            usage=self._usage(),
            changes=self._changes(),
            incidents=self._incidents(),
            scaling=self._scaling(),
        )

    # --- figures -----------------------------------------------------------------------------------

    def _uptime(self) -> UptimeRecord:
        ready = self._subject.ready
        if self._recorded is not None:
            return _recorded_uptime(self._recorded, self._span, ready, self._subject.made)
        since = time_of(ready.last_transition_time) if ready else None
        if ready is None or since is None:
            return UptimeRecord(source=Source.NONE, message="the operator has written no condition Ready")
        begin, end = max(since, self._span.begin), min(self._subject.now, self._span.end)
        known = max(0.0, end - begin)
        up = known if ready.status == "True" else 0.0
        return UptimeRecord(
            source=Source.STATUS,
            ready=ready.status,
            since=ready.last_transition_time,
            known_seconds=round(known),
            ready_seconds=round(up),
            ready_percent=_percent(up, known),
            message="only since the last transition of the condition Ready: what was before is not known without"
            " Prometheus",
        )

    def _usage(self) -> UsageRecord:
        cost = self._status.cost
        since = time_of(cost.since) if cost else None
        if self._recorded is not None:
            found = _recorded_usage(self._recorded, self._span, since, self._subject.made)
            if self._subject.made is None:
                found = found.model_copy(
                    update={
                        "notes": [*found.notes, "it has figures of a former ModelDeployment of this name too"]
                    }
                )
        elif cost is None:
            found = UsageRecord(source=Source.NONE)
        else:
            at = time_of(cost.time)
            whole = (
                since is not None and at is not None and self._span.begin <= since and at <= self._span.end
            )
            found = UsageRecord(
                source=Source.STATUS if whole else Source.NONE,
                period=_of_status(cost.total, cost.time, cost.currency) if whole else None,
                notes=[
                    "the accounts began in the period: their total is the period's, until they were written"
                    if whole
                    else "the period's figures are not known without Prometheus: total, last day and last hour are not"
                    " the period's"
                ],
            )
        if cost is None:
            return found.model_copy(update={"notes": [*found.notes, "the operator has written no accounts"]})
        price = cost.price
        return found.model_copy(
            update={
                "total": _of_status(cost.total, cost.time, cost.currency),
                "last_day": _of_status(cost.last_day, cost.time, cost.currency),
                "last_hour": _of_status(cost.last_hour, cost.time, cost.currency),
                "price": price.message
                if price.per_gpu_hour is None
                else f"{price.per_gpu_hour} {cost.currency} per GPU-hour ({price.message})",
            }
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


def _percent(part: float, of: float) -> float | None:
    """To three places, never more than it is: 100 is without a second missing."""
    return math.floor(100_000.0 * part / of + 1e-6) / 1000 if of else None


def _recorded_uptime(
    found: Recorded, span: Span, ready: Condition | None, created: float | None
) -> UptimeRecord:
    """`created`: when the deployment was made, where Prometheus has no samples of an earlier one of its name."""
    seen = uptime(found, span)
    begin = max(span.begin, created or 0.0)
    covered = min(100.0, 100.0 * seen.known / max(1.0, span.end - begin))
    since = "" if begin == span.begin else " since it was made"
    message = f"Prometheus has samples of {covered:.1f} % of the period{since}"
    if seen.first is None:
        message = "Prometheus has no samples of it in the period: was the operator scraped, with honorLabels?"
    elif seen.first > begin + found.step:
        message += f", the first of {format_time(seen.first + 0.5)}"
    return UptimeRecord(
        source=Source.PROMETHEUS,
        ready=ready.status if ready else None,
        since=ready.last_transition_time if ready else None,
        known_seconds=round(seen.known),
        ready_seconds=round(seen.ready),
        ready_percent=_percent(seen.ready, seen.known),
        outages=list(seen.outages),
        outages_left_off=seen.left_off,
        window_seconds=round(found.step),
        message=message,
    )


def _recorded_usage(found: Recorded, span: Span, since: float | None, created: float | None) -> UsageRecord:
    counted = taken(found, span, since)
    notes = []
    if counted.usage is None:
        notes.append(
            "Prometheus has no accounts of it in the period: was the operator scraped, with honorLabels?"
        )
    else:
        if counted.first is not None and counted.first > max(span.begin, created or 0.0) + found.step:
            notes.append(f"Prometheus has nothing of before {format_time(counted.first)}")
        if counted.last is not None and counted.last < span.end - 2 * found.step:
            notes.append(f"Prometheus has nothing of after {format_time(counted.last)}")
        if counted.falls:
            notes.append(
                f"an account fell {counted.falls} times: an operator ended without its last write, or the accounts"
                f" began anew; of these {round(found.step)} s windows only what is certain is counted"
            )
    return UsageRecord(source=Source.PROMETHEUS, period=counted.usage, notes=notes)


def _of_status(figures: CostFigures, until: str, currency: str) -> Usage:
    held, tokens, requests = figures.gpu_hours, figures.tokens, figures.requests
    states = {
        "starting": held.starting,
        "serving": held.serving,
        "idle": held.idle,
        "draining": held.draining,
    }
    return Usage(
        begin=figures.since,
        end=until,
        input_tokens=tokens.input,
        cached_input_tokens=tokens.cached_input,
        output_tokens=tokens.output,
        requests_completed=requests.completed,
        requests_aborted=requests.aborted,
        requests_failed=requests.failed,
        gpu_hours=held.total,
        gpu_hours_by_state=states,
        unpriced_gpu_hours=figures.unpriced_gpu_hours,
        cost={} if figures.cost is None else {currency: figures.cost},
    )


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
