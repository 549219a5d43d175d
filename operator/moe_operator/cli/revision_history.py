"""The kept revisions of a deployment, in order, and what tells one from the one before. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.times import parse_time
from moe_operator.cli.spec_changes import Change, changes
from moe_operator.controller.children import is_ours
from moe_operator.resources.revision import (
    Revision,
    read_revision,
    revision_name,
    written_of,
    written_parts,
)


@dataclass(frozen=True)
class KeptRevision:
    """One ControllerRevision."""

    name: str
    number: int
    """Counts up in the order in which revisions were made. Those of early versions of the operator all have 1."""
    created: float
    """Seconds since the epoch."""
    written: dict[str, Any] | None
    """The user's part of the spec (`revision.written_parts`); None where an early version kept none."""
    rendered: Revision | None
    """None where it cannot be read."""


def history(objects: Iterable[Mapping[str, Any]], deployment: ModelDeployment) -> list[KeptRevision]:
    """The revisions that belong to this deployment and are there to stay, oldest first."""
    found = [
        KeptRevision(
            name=obj["metadata"]["name"],
            number=obj.get("revision") or 0,
            created=parse_time(obj["metadata"].get("creationTimestamp")) or 0.0,
            written=written_of(obj),
            rendered=_rendered(obj),
        )
        for obj in objects
        if is_ours(obj, deployment) and not obj["metadata"].get("deletionTimestamp")
    ]
    return sorted(found, key=lambda one: (one.created, one.number, one.name))


def _rendered(obj: Mapping[str, Any]) -> Revision | None:
    try:
        return read_revision(obj)
    except ValueError:
        return None


def wanted_revision(deployment: ModelDeployment, kept: Sequence[KeptRevision]) -> KeptRevision | None:
    """The revision of the spec as it is now; None where it has none, as it is new or refused.

    A site's policy is part of a revision's name but not of what a user wrote: so the spec is compared, and among equal
    ones (of two policies) the one in effect is meant.
    """
    now = written_parts(deployment.spec)
    same = [one for one in kept if one.written == now or one.name == revision_name(deployment)]
    in_effect = [one for one in same if one.name == deployment.status.revision]
    return next(iter(in_effect), same[-1] if same else None)


def changed_since(before: KeptRevision | None, one: KeptRevision) -> list[Change] | None:
    """What the spec of `one` has otherwise than the one before it; of revisions without a spec, what was rendered. None
    where there is nothing to compare with."""
    if before is None:
        return None
    if before.written is not None and one.written is not None:
        return changes(before.written, one.written)
    if before.rendered is not None and one.rendered is not None:
        return changes(_outline(before.rendered), _outline(one.rendered))
    return None


def _outline(revision: Revision) -> dict[str, Any]:
    """What people ask of a rendered revision first."""
    plan = revision.plan
    return {
        "image": revision.image,
        "layout": f"{plan.pods_per_group} pods x {plan.ranks_per_pod} ranks x {plan.tensor} GPUs, {plan.accelerator}",
        "arguments": _flags(revision.engine_arguments),
    }


def _flags(arguments: Sequence[str]) -> dict[str, str]:
    """`{"max-num-seqs": "256", ...}` of an argument list (`--flag value`, `--flag=value` or bare)."""
    found: dict[str, str] = {}
    flag = "model"
    for word in arguments:
        if word.startswith("--"):
            flag, _, value = word[2:].partition("=")
            found[flag] = value
        else:
            found[flag] = f"{found.get(flag, '')} {word}".strip()
    return found
