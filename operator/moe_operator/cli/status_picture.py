"""A deployment as one looks at it when something is wrong: groups, revisions, what is waited for, what happened.

Pure: objects and the time in, values out. What state a group is in, and what it waits for, the controller's own
functions say; what only the operator can know (requests in flight, canaries) comes from the status where it says it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from moe_operator.api import names, reasons
from moe_operator.api.base import parse_duration
from moe_operator.api.deployment import InvalidSpecError, ModelDeployment, parse
from moe_operator.api.status import Condition
from moe_operator.api.times import parse_time
from moe_operator.cli.revision_history import KeptRevision, changed_since, history, wanted_revision
from moe_operator.cli.spec_changes import Change
from moe_operator.cli.timeline import Entry, timeline
from moe_operator.cli.units import span
from moe_operator.controller.causes import Limits, broken, limits_of, waiting_for
from moe_operator.controller.children import is_ours
from moe_operator.controller.group_planner import GroupState, GroupView, classify
from moe_operator.controller.observed import GroupFacts, group_facts
from moe_operator.resources.group import parse_slot

Obj = dict[str, Any]
#: Of a group whose pods may not be read, where neither its own object nor the status says more.
UNKNOWN = "Unknown"


@dataclass(frozen=True)
class Seen:
    """What was read. None: it may not be read, or could not be."""

    obj: Obj
    groups: list[Obj] | None
    pods: list[Obj] | None
    revisions: list[Obj] | None
    events: list[Obj] | None
    unread: tuple[str, ...] = ()
    """What could not be read, each with the API server's words."""


@dataclass(frozen=True)
class GroupLine:
    """One group."""

    name: str
    revision: str
    state: str
    """Of `GroupState`, or `Unknown`."""
    ready: int | None
    """Pods; None where pods may not be read."""
    size: int
    traffic: int | None
    """Pods that carry the traffic label."""
    restarts: int
    """Of engines, in all pods."""
    nodes: tuple[str, ...]
    domain: str | None
    created: float
    draining_since: float | None
    waits_for: str | None


@dataclass(frozen=True)
class RevisionLine:
    """One kept revision."""

    kept: KeptRevision
    groups: int | None
    """That run it; None where groups may not be read."""
    roles: tuple[str, ...]
    """`wanted`: of the spec as it is. `in effect`: runs, while the spec is refused. `serving`: groups of it serve."""
    changes: tuple[Change, ...] | None
    """Against the one before; None where nothing can be compared."""


@dataclass(frozen=True)
class Picture:
    """All of it."""

    deployment: ModelDeployment
    invalid: str
    """Why the stored spec cannot be read, if so."""
    number: int | None
    """Of the revision in effect."""
    groups: tuple[GroupLine, ...] | None
    revisions: tuple[RevisionLine, ...] | None
    waits: tuple[str, ...]
    timeline: tuple[Entry, ...]
    unread: tuple[str, ...]
    now: float

    def condition(self, type_: str) -> Condition | None:
        """One condition of it."""
        return next((c for c in self.deployment.status.conditions if c.type == type_), None)


def picture(seen: Seen, now: float) -> Picture:
    """Everything that can be said. `now`: seconds since the epoch."""
    deployment, invalid = _parsed(seen.obj)
    kept = history(seen.revisions or (), deployment)
    groups = None if seen.groups is None else tuple(_groups(deployment, seen.groups, seen.pods, now))
    in_effect = next((one for one in kept if one.name == deployment.status.revision), None)
    return Picture(
        deployment=deployment,
        invalid=invalid,
        number=in_effect.number if in_effect else None,
        groups=groups,
        revisions=None
        if seen.revisions is None
        else tuple(_revisions(deployment, kept, groups, bool(invalid))),
        waits=tuple(_waits(deployment, groups or (), now)),
        timeline=tuple(timeline(deployment, seen.events or (), kept)),
        unread=seen.unread,
        now=now,
    )


def _parsed(obj: Obj) -> tuple[ModelDeployment, str]:
    """A spec that cannot be read hides nothing of the rest."""
    try:
        return parse(obj), ""
    except InvalidSpecError as error:
        blank = {"model": {"name": "unreadable"}, "hardware": {"accelerator": "cpu"}}
        return parse({**obj, "spec": blank}), str(error)


def _groups(
    deployment: ModelDeployment, objects: Iterable[Obj], pods: Sequence[Obj] | None, now: float
) -> Iterable[GroupLine]:
    by_group: dict[str, list[Obj]] = {}
    for pod in pods or ():
        by_group.setdefault((pod["metadata"].get("labels") or {}).get(names.LABEL_GROUP, ""), []).append(pod)
    limits = limits_of(deployment.spec.recovery)
    found = []
    for lws in objects:
        slot = parse_slot(deployment.name, lws["metadata"]["name"])
        if slot is not None and is_ours(lws, deployment):
            found.append(group_facts(lws, slot, by_group.get(lws["metadata"]["name"], ()), None))
    for facts in sorted(found, key=lambda one: one.slot):
        yield _blind(deployment, facts) if pods is None else _line(deployment, facts, limits, now)


def _line(deployment: ModelDeployment, facts: GroupFacts, limits: Limits, now: float) -> GroupLine:
    view = classify(facts, broken(facts, limits, {}, now), None, None)
    return GroupLine(
        name=facts.name,
        revision=facts.revision,
        state=view.state.value,
        ready=sum(pod.ready for pod in facts.pods),
        size=facts.size,
        traffic=sum(pod.traffic for pod in facts.pods),
        restarts=sum(pod.engine.restarts for pod in facts.pods),
        nodes=tuple(dict.fromkeys(pod.node for pod in facts.pods if pod.node)),
        domain=facts.domain,
        created=facts.created_at,
        draining_since=facts.draining_since,
        waits_for=_waits_for(deployment, view, now),
    )


def _waits_for(deployment: ModelDeployment, view: GroupView, now: float) -> str | None:
    facts = view.facts
    if view.state is GroupState.SERVING:
        return None
    if view.state is GroupState.DELETING:
        left = len(facts.pods)
        return f"{left} of its pods to end" if left else "its StatefulSets to be gone"
    if view.state is GroupState.DRAINING:
        return _drains(deployment, facts, now)
    if view.cause is not None:
        return f"its replacement: {view.cause.reason}: {view.cause.message}"
    if told := _told(deployment, facts.name):
        return told
    if view.state is GroupState.SUSPECT:
        late = [pod.name for pod in facts.pods if not pod.ready]
        limit = deployment.spec.recovery.unready_limit
        return f"{', '.join(late) or 'its pods'} to be ready again (given up after {limit})"
    reason, message = waiting_for(facts)
    return message if reason == reasons.STARTING else f"{reason}: {message}"


def _drains(deployment: ModelDeployment, facts: GroupFacts, now: float) -> str:
    deadline = parse_duration(deployment.spec.rollout.drain_deadline)
    left = (facts.draining_since or now) + deadline - now
    until = f"{span(left)} more at most" if left > 0 else "its deadline is over"
    return f"its requests to end: {until} (rollout.drainDeadline {deployment.spec.rollout.drain_deadline})"


def _told(deployment: ModelDeployment, group: str) -> str | None:
    """What the operator says of a group that does not serve."""
    found = next((one for one in deployment.status.groups.unhealthy if one.name == group), None)
    if found is None:
        return None
    return found.message if found.reason == reasons.STARTING else f"{found.reason}: {found.message}"


def _blind(deployment: ModelDeployment, facts: GroupFacts) -> GroupLine:
    """A group whose pods may not be read: its own object tells of its end, the status of its troubles."""
    told = _told(deployment, facts.name)
    waits = None
    if facts.deleting:
        state = GroupState.DELETING.value
    elif facts.draining_since is not None:
        state = GroupState.DRAINING.value
    else:
        state, waits = UNKNOWN, told
    return GroupLine(
        name=facts.name,
        revision=facts.revision,
        state=state,
        ready=None,
        size=facts.size,
        traffic=None,
        restarts=0,
        nodes=(),
        domain=facts.domain,
        created=facts.created_at,
        draining_since=facts.draining_since,
        waits_for=waits,
    )


def _revisions(
    deployment: ModelDeployment,
    kept: Sequence[KeptRevision],
    groups: Sequence[GroupLine] | None,
    invalid: bool,
) -> Iterable[RevisionLine]:
    wanted = None if invalid else wanted_revision(deployment, kept)
    before: KeptRevision | None = None
    for one in kept:
        own = [group for group in groups or () if group.revision == one.name]
        roles = []
        if one is wanted:
            roles.append("wanted")
        elif one.name == deployment.status.revision:
            roles.append("in effect")
        if any(group.state == GroupState.SERVING for group in own):
            roles.append("serving")
        found = changed_since(before, one)
        yield RevisionLine(
            kept=one,
            groups=None if groups is None else len(own),
            roles=tuple(roles),
            changes=None if found is None else tuple(found),
        )
        before = one


def _waits(deployment: ModelDeployment, groups: Sequence[GroupLine], now: float) -> Iterable[str]:
    """What must happen before all is well: what groups wait for, conditions that do not hold, back-off."""
    status = deployment.status
    said: list[str] = []
    if status.observed_generation is not None and status.observed_generation < deployment.generation:
        said.append(
            f"the operator to look at the spec: it is at generation {deployment.generation}, the status at"
            f" {status.observed_generation}"
        )
    elif status.observed_generation is None:
        said.append("the operator: it has never written a status; does it run, and serve this namespace?")
    said += [f"{group.name}: {group.waits_for}" for group in groups if group.waits_for]
    listed = {group.name for group in groups}
    said += [
        f"{one.name}: {_told(deployment, one.name)}"
        for one in status.groups.unhealthy
        if one.name not in listed
    ]
    due = parse_time(status.recovery.next_attempt_time)
    if due is not None and due > now:
        said.append(
            f"the next group is made in {span(due - now)}, after {status.recovery.failures} losses in a row"
        )
    stalled = next((one for one in status.conditions if one.type == reasons.STALLED), None)
    if stalled is not None:
        said.append(f"you: {stalled.reason}: the message beside Stalled says what to change")
    for condition in status.conditions:
        if stalled is not None and (
            condition.type == reasons.SCALING_ACTIVE or condition.message == stalled.message
        ):
            continue
        summary = condition.type in (reasons.READY, reasons.STALLED, reasons.RECONCILING)
        if condition.status == "True" or summary or (condition.type == reasons.GROUPS_READY and said):
            continue
        if not any(condition.message and condition.message in one for one in said):
            said.append(f"{condition.type}: {condition.reason}: {condition.message}")
    return said
