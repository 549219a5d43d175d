"""What was changed of a deployment, when and by what, for its record. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence

from moe_operator.api.times import format_time
from moe_operator.cli.report.data import UNKNOWN, ChangesRecord, FieldChange, RevisionRecord, WriterRecord
from moe_operator.cli.report.reading import Missing, Obj
from moe_operator.cli.report.subject import Subject, created_of, time_of
from moe_operator.cli.revision_history import changed_since, history
from moe_operator.cli.spec_changes import Change, change_texts

#: Fields that people put secrets into: what they were is not for a record that is passed on.
_HIDDEN = re.compile(r"(^|\.)env(\[|\.|$)|^podTemplate\..*\.?(args|command)(\[|\.|$)")
_NOT_SHOWN = "(not shown)"


def changes_of(subject: Subject) -> ChangesRecord:
    """By the revisions that are kept, and by who wrote which fields last."""
    kept = subject.collected.revisions
    created = created_of(subject.obj)
    return ChangesRecord(
        created=None if created is None else format_time(created),
        generation=subject.deployment.generation,
        revisions=None if isinstance(kept, Missing) else list(_revisions(kept, subject)),
        writers=sorted(_writers(subject.obj), key=lambda one: (one.time or "", one.manager, one.operation)),
    )


def _revisions(objects: Sequence[Obj], subject: Subject) -> Iterator[RevisionRecord]:
    before = None
    for one in history(objects, subject.deployment):
        changed = changed_since(before, one)
        yield RevisionRecord(
            name=one.name,
            number=one.number,
            created=format_time(one.created),
            in_period=subject.span.has(one.created),
            changes=None if changed is None else [_field(each) for each in changed],
        )
        before = one


def _field(change: Change) -> FieldChange:
    before, after = change_texts(change)
    if _HIDDEN.search(change.path) and not change.path.endswith(".name"):
        before, after = before and _NOT_SHOWN, after and _NOT_SHOWN
    return FieldChange(path=change.path, before=before, after=after)


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
