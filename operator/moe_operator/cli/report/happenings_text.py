"""Changes, incidents and scaling of a deployment, in a record's text. Pure."""

from collections.abc import Iterator, Sequence

from moe_operator.cli.report.blocks import Block, Fields, Paragraph, Table
from moe_operator.cli.report.data import UNKNOWN, DeploymentRecord, Unread
from moe_operator.cli.report.unread_text import why
from moe_operator.cli.report.use_text import source_text


def changes_blocks(one: DeploymentRecord, unread: Sequence[Unread]) -> Iterator[Block]:
    """Revisions, and what wrote last."""
    changes = one.changes
    yield Fields(
        (
            ("Made", changes.created or UNKNOWN),
            ("Spec", f"generation {changes.generation}: changed {changes.generation - 1} times since then"),
        )
    )
    if changes.revisions is None:
        yield Paragraph(f"Revisions: {why('revisions', unread)}.")
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


def incidents_blocks(one: DeploymentRecord, unread: Sequence[Unread]) -> Iterator[Block]:
    """Groups lost, trouble now, and Events."""
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
        yield Paragraph(f"Events: {why('Events', unread)}.")
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


def scaling_fields(one: DeploymentRecord) -> Iterator[tuple[str, str]]:
    """How often the number of groups changed."""
    found = one.scaling
    yield "Mode", found.mode or UNKNOWN
    if found.changes is None:
        yield "Changes of the number of groups", UNKNOWN
        return
    least = "at least " if found.at_least else ""
    yield (
        "Changes of the number of groups",
        f"{least}{found.changes} in the period, by {source_text(found.source)}",
    )
    if found.by_reason:
        reasons = ", ".join(f"{reason} {times}" for reason, times in sorted(found.by_reason.items()))
        yield "Reasons of the last ten in it", reasons
