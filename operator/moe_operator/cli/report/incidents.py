"""What went wrong with a deployment, for its record. Pure."""

from collections.abc import Iterator

from moe_operator.api import reasons
from moe_operator.api.status import Condition
from moe_operator.api.times import format_time
from moe_operator.cli.report.data import ConditionRecord, EventRecord, IncidentsRecord
from moe_operator.cli.report.figures import lost
from moe_operator.cli.report.reading import Missing, Obj
from moe_operator.cli.report.subject import Subject
from moe_operator.cli.timeline import Entry, told

#: Events of a deployment that are listed.
_EVENTS = 100


def incidents_of(subject: Subject) -> IncidentsRecord:
    """By Prometheus, the status and Events."""
    recovery, events = subject.status.recovery, _events(subject)
    by_reason = lost(subject.recorded) if subject.recorded is not None else {}
    return IncidentsRecord(
        groups_lost=None if subject.recorded is None else sum(by_reason.values()),
        groups_lost_by_reason=by_reason,
        last_loss=recovery.last_failure_time,
        last_loss_cause=f"{recovery.last_group}: {recovery.last_cause.reason}: {recovery.last_cause.message}"
        if recovery.last_cause
        else None,
        conditions=[_condition(one) for one in subject.status.conditions if _tells_of_trouble(one)],
        events=None if events is None else events[-_EVENTS:],
        events_left_off=max(0, len(events or ()) - _EVENTS),
    )


def _tells_of_trouble(one: Condition) -> bool:
    """Stalled and Reconciling are there only while they hold; the others are well when they are True."""
    if one.type == reasons.STALLED:
        return one.status == "True"
    return one.type != reasons.RECONCILING and one.status != "True"


def _condition(one: Condition) -> ConditionRecord:
    return ConditionRecord(
        type=one.type,
        status=one.status,
        reason=one.reason,
        message=one.message,
        since=one.last_transition_time,
    )


def _events(subject: Subject) -> list[EventRecord] | None:
    objects = subject.collected.events
    if isinstance(objects, Missing):
        return None
    mine = [one for one in objects if (one.get("regarding") or {}).get("uid") == subject.deployment.uid]
    pairs = [(entry, str(one.get("type") or "")) for one in mine for entry in _entries(one)]
    kept = [(entry, kind) for entry, kind in pairs if subject.span.has(entry.at)]
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


def _entries(event: Obj) -> Iterator[Entry]:
    """An Event as a line: of a series its last time. One with times that are none is left out."""
    try:
        found = list(told(event))
    except (ValueError, KeyError, TypeError):
        return
    yield from found[-1:]
