"""What happened to a deployment, from the Events that the operator posts and the times that its objects keep. Pure.

Events live for an hour by default: what is older is known only where the status or an object remembers it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moe_operator.api import names, reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.scaling import ScalingStatus
from moe_operator.api.times import parse_time
from moe_operator.cli.revision_history import KeptRevision
from moe_operator.cli.units import count

#: What an Event's action is called here.
_STEPS = {
    "Create": "created",
    "Admit": "serves",
    "Drain": "draining",
    "Undrain": "returns",
    "Replace": "lost",
    "Delete": "deleted",
    "Plan": "stalled",
    "Scale": "scaling",
}
#: Seconds around an Event within which the status speaks of the same thing.
_SAME = 60.0


@dataclass(frozen=True)
class Entry:
    """One thing that happened."""

    at: float
    """Seconds since the epoch; of a series the last time."""
    step: str
    """`created`, `serves`, `draining`, `returns`, `lost`, `deleted`, `stalled`, `revision`, `scaling`, `weights`,
    `ready`."""
    reason: str
    text: str
    count: int = 1
    since: float | None = None
    """When a series began."""


def timeline(
    deployment: ModelDeployment, events: Iterable[Mapping[str, Any]], kept: Sequence[KeptRevision]
) -> list[Entry]:
    """Everything that is known, newest last, without Events of other objects and of a former one of this name."""
    entries = [entry for event in events if _is_about(event, deployment) for entry in told(event)]
    entries += _of_revisions(kept)
    entries += [one for one in _of_status(deployment) if not _known(one, entries)]
    # Sorted by time alone: what the operator did within a second stays in the order in which it was told.
    return sorted(entries, key=lambda one: one.at)


def _is_about(event: Mapping[str, Any], deployment: ModelDeployment) -> bool:
    regarding = event.get("regarding") or {}
    return regarding.get("kind") == names.KIND and regarding.get("uid") == deployment.uid


def told(event: Mapping[str, Any]) -> Iterator[Entry]:
    """Of a series the first and the last: slots are used again, so that two entries may be about two groups."""
    series = event.get("series") or {}
    first = parse_time(event.get("eventTime")) or parse_time(event["metadata"].get("creationTimestamp"))
    last = parse_time(series.get("lastObservedTime")) or first
    if first is None or last is None:
        return
    action = str(event.get("action") or "")
    entry = Entry(
        at=first,
        step=_STEPS.get(action, action.lower()),
        reason=str(event.get("reason") or ""),
        text=str(event.get("note") or ""),
    )
    yield entry
    count = int(series.get("count") or 1)
    if count > 1:
        yield replace(entry, at=last, count=count, since=first)


def _of_revisions(kept: Sequence[KeptRevision]) -> Iterator[Entry]:
    for one in kept:
        yield Entry(one.created, "revision", "Revision", f"revision {one.number} was made: {one.name}")


def _of_status(deployment: ModelDeployment) -> Iterator[Entry]:
    status = deployment.status
    lost = parse_time(status.recovery.last_failure_time)
    cause = status.recovery.last_cause
    if lost is not None and cause is not None:
        yield Entry(
            lost, "lost", cause.reason, f"group {status.recovery.last_group} is lost: {cause.message}"
        )
    if status.scaling:
        yield from _of_scaling(status.scaling)
    if status.weights and (ready := parse_time(status.weights.ready_since)) is not None:
        yield Entry(
            ready, "weights", reasons.WEIGHTS_READY, f"the weights are there, in {status.weights.cache}"
        )
    for condition in status.conditions:
        moved = parse_time(condition.last_transition_time)
        if condition.type == reasons.READY and moved is not None:
            if condition.status == "True":
                yield Entry(moved, "ready", "Ready", "Ready since then")
            else:
                yield Entry(moved, "ready", "NotReady", f"not Ready since then: {condition.reason}")


def _of_scaling(scaling: ScalingStatus) -> Iterator[Entry]:
    """Changes that are remembered; of an operator that remembered none, that there was one."""
    for change in scaling.history:
        if (at := parse_time(change.time)) is not None:
            load = "" if change.figures is None else f"at a load of {change.figures.load} full groups"
            text = f"{count(change.after, 'group')} wanted, {change.before} before: {change.reason}"
            yield Entry(at, "scaling", "Scaling", f"{text}: {change.message or load}".removesuffix(": "))
    changed = parse_time(scaling.last_change_time)
    if changed is not None and not scaling.history:
        text = f"{count(scaling.desired, 'group')} wanted since then; now {scaling.reason}: {scaling.message}"
        yield Entry(changed, "scaling", "Scaling", text)


def _known(entry: Entry, others: Sequence[Entry]) -> bool:
    """Whether an Event says the same as the status."""
    return any(
        one.step == entry.step
        and (one.step == "scaling" or (one.step == "lost" and one.reason == entry.reason))
        and abs(one.at - entry.at) <= _SAME
        for one in others
    )
