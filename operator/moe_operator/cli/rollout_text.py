"""What `kubectl moe rollout` prints. Pure: values in, text out."""

from collections.abc import Sequence
from itertools import pairwise

from moe_operator.cli.spec_changes import change_text
from moe_operator.cli.status_picture import Picture, RevisionLine
from moe_operator.cli.status_text import revisions_table
from moe_operator.cli.undo import Owner


def history_text(picture: Picture, *, absolute: bool = False) -> str:
    """The kept revisions in a table, then all that changed from each to the next."""
    lines = picture.revisions or ()
    if not lines:
        return "no revisions are kept: none has been made yet"
    parts = [revisions_table(lines, picture.now, absolute=absolute)]
    parts += [_changes(before, line) for before, line in pairwise(lines)]
    if nameless := [line.kept.name for line in lines if line.kept.written is None]:
        parts.append(
            "kept by an earlier version of the operator, without the spec, so that rollout undo cannot lead there:"
            f" {', '.join(nameless)}"
        )
    return "\n\n".join(parts)


def _changes(before: RevisionLine, line: RevisionLine) -> str:
    head = f"{before.kept.number} -> {line.kept.number} ({line.kept.name})"
    if line.changes is None:
        return f"{head}\n  (cannot be read)"
    texts = [change_text(one) for one in line.changes] or ["nothing that its user wrote"]
    return "\n".join([head, *(f"  {text}" for text in texts)])


def owners_text(found: Sequence[Owner]) -> list[str]:
    """A warning for each that may write back what the patch changes."""
    return [_owner(one) for one in found if one.applied or not one.by_hand]


def _owner(owner: Owner) -> str:
    shown = ", ".join(owner.paths[:3]) + (f" and {len(owner.paths) - 3} more" if len(owner.paths) > 3 else "")
    if owner.by_hand:
        return (
            f"note: {shown} came by kubectl apply: change the manifest too, or the next apply brings it back"
        )
    return (
        f"warning: {shown} is written by {owner.manager}: if that is a GitOps controller (Argo CD, Flux, Helm) it"
        " undoes this: change its source instead, or suspend it first"
    )
