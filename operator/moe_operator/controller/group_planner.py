"""The one planner of groups: compares wanted with existing groups and says what to do, each step with a reason.

Scaling, rollout, drain, failure and recovery are inputs; the bounds stand here, once:

- a group carries traffic only while it is whole and the incarnation that was admitted;
- a broken group is never repaired: traffic off, delete, and a successor in a free slot after back-off;
- `live` groups (neither broken, draining nor on their way out) never exceed desired + maxSurge;
- a serving group is drained only while desired - maxUnavailable others serve, unless its node goes anyway;
- a group that never served is deleted without drain;
- a group that drains comes back before one is created: it is warm, a new one takes minutes;
- a group that has to leave its nodes is replaced in the way in which one of another revision is;
- a group whose GPUs go to another deployment is drained, whatever its revision;
- groups of another width count for what they take of the load, and for the GPUs that they hold.

Pure: time comes in as an argument, all state is in the groups themselves and in the ledger of the status.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

from moe_operator.api import names, reasons
from moe_operator.api.status import Cause
from moe_operator.controller.incarnation import admitted_incarnations, incarnation, serving, whole
from moe_operator.controller.observed import GroupFacts, PodFacts

#: A drained group stays this long after its traffic label went, so that requests on their way still arrive (s).
DRAIN_SETTLE = 2.0
#: Seconds that a pod of a group on its way out gets: it has no requests left, and a stopped process hears no SIGTERM.
REAP_GRACE = 5
#: Canaries that may fail in a row before the group counts as broken.
CANARY_ATTEMPTS = 3


class GroupState(StrEnum):
    """Where a group is in its life. Derived anew in every reconcile."""

    STARTING = "Starting"
    ADMITTABLE = "Admittable"
    SERVING = "Serving"
    SUSPECT = "Suspect"
    BROKEN = "Broken"
    DRAINING = "Draining"
    DELETING = "Deleting"


_ONE = Fraction(1)
#: States of groups that are on their way out.
GONE = (GroupState.BROKEN, GroupState.DRAINING, GroupState.DELETING)


@dataclass(frozen=True)
class CanaryState:
    """What the canaries of one incarnation have said so far."""

    incarnation: str
    passed: bool = False
    failures: int = 0
    message: str = ""


@dataclass(frozen=True)
class GroupView:
    """A group with what was judged of it."""

    facts: GroupFacts
    state: GroupState
    cause: Cause | None = None
    requests: int | None = None
    """Requests in it, and connections that may bring some while it drains; None if telemetry cannot say."""
    canary: CanaryState | None = None
    quiet: float | None = None
    """Seconds for which it has had no request; None if telemetry cannot say."""
    flaw: Cause | None = None
    """What is held against it while it drains: it finishes its requests, and does not come back."""
    closing: bool = False
    """Whether an agent of it closes clients' connections, as it was told to drain."""

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def idle(self) -> bool:
        """Known to have nothing to lose."""
        return self.requests == 0


@dataclass(frozen=True)
class Wanted:
    """What the groups shall become."""

    desired: int
    revision: str | None
    """None: no plan and no earlier revision, nothing may be created."""
    max_surge: int
    max_unavailable: int
    drain_deadline: float
    create_after: float | None
    """The ledger's back-off, or parking: no group is created before this time."""
    occupied_slots: frozenset[int]
    """Slots whose names are taken, by groups on their way out and by objects that are not ours."""
    hold: bool = False
    """Whether groups of the revision cannot start yet, as their weights are not there: none is made, and those of
    others stay."""
    frozen: bool = False
    """Whether groups of all revisions count as wanted: a paused rollout. `revision` is what losses are replaced by."""
    probing: bool = False
    """Whether the ledger has parked: at most one group that does not serve yet may exist at a time."""
    reclaimed: frozenset[str] = frozenset()
    """Groups that go for other deployments, by name; those that drain do not come back. `desired` is without them."""
    worth: Mapping[str, Fraction] = field(default_factory=dict)
    """What groups of another width than the wanted revision's count for, by name; others count for one."""
    size: Mapping[str, Fraction] = field(default_factory=dict)
    """Their GPUs, in groups of the wanted revision."""
    leave: str | None = None
    """The deployment goes, and all groups with it: the reason, else None. `desired` is 0 then."""

    def counts(self, groups: Iterable[GroupView]) -> Fraction:
        """What these groups count for."""
        return sum((self.worth.get(g.name, _ONE) for g in groups), Fraction(0))

    def holds(self, groups: Iterable[GroupView]) -> Fraction:
        """Their GPUs, in groups of the wanted revision."""
        return sum((self.size.get(g.name, _ONE) for g in groups), Fraction(0))

    def ceiling(self, live: Iterable[GroupView]) -> Fraction:
        """Groups' worth of GPUs that there may be in a rollout: those that are wanted, or that live ones stand for,
        and above them the surge, in groups of the wider kind."""
        others = [(self.size[g.name], self.worth[g.name]) for g in live if g.name in self.size]
        there = [self.desired / worth * size for size, worth in others]
        widest = max([_ONE, *(size for size, _ in others)])
        return max([Fraction(self.desired), *there]) + self.max_surge * widest

    @property
    def least(self) -> Fraction:
        """What groups that serve must count for in a rollout. One that may be missing is one of those that count for
        most."""
        return self.desired - self.max_unavailable * max([_ONE, *self.worth.values()])


@dataclass(frozen=True)
class CreateGroup:
    slot: int
    reason: str


@dataclass(frozen=True)
class RunCanary:
    group: GroupFacts


@dataclass(frozen=True)
class TrafficOn:
    group: GroupFacts


@dataclass(frozen=True)
class TrafficOff:
    group: GroupFacts
    pods: tuple[PodFacts, ...]
    reason: str


@dataclass(frozen=True)
class StartDrain:
    group: GroupFacts
    reason: str


@dataclass(frozen=True)
class Undrain:
    """The group stays: it is no longer marked, and its agents let clients keep their connections. Traffic comes as for
    any group that is whole."""

    group: GroupFacts


@dataclass(frozen=True)
class DeleteGroup:
    group: GroupFacts
    reason: str
    cause: Cause | None = None


@dataclass(frozen=True)
class ReapPods:
    """The group is terminating: end its pods soon, as a stopped engine does not hear SIGTERM."""

    group: GroupFacts


Action = CreateGroup | RunCanary | TrafficOn | TrafficOff | StartDrain | Undrain | DeleteGroup | ReapPods


@dataclass
class GroupPlan:
    """Actions in the order to carry them out; `requeue_after` seconds at the latest if nothing else happens."""

    actions: list[Action] = field(default_factory=list)
    requeue_after: float | None = None

    def again(self, seconds: float) -> None:
        """Ask for another look after this many seconds at the latest."""
        seconds = max(0.05, seconds)
        self.requeue_after = seconds if self.requeue_after is None else min(self.requeue_after, seconds)


def classify(
    facts: GroupFacts, cause: Cause | None, requests: int | None, canary: CanaryState | None
) -> GroupView:
    """The state of one group; `cause` as `causes.broken` found it."""
    now = incarnation(facts.pods)
    tried = canary if canary and canary.incarnation == now else None
    if facts.deleting:
        state = GroupState.DELETING
    elif cause is None and tried and not tried.passed and tried.failures >= CANARY_ATTEMPTS:
        state = GroupState.BROKEN
        cause = Cause(
            reason=reasons.CANARY_FAILED,
            message=f"{tried.failures} admission canaries failed in a row: {tried.message}",
        )
    elif facts.draining_since is not None:
        state = GroupState.DRAINING
    elif cause is not None:
        state = GroupState.BROKEN
    elif serving(facts):
        state = GroupState.SERVING
    elif whole(facts):
        state = GroupState.ADMITTABLE
    elif admitted_incarnations(facts):
        state = GroupState.SUSPECT
    else:
        state = GroupState.STARTING
    return GroupView(facts, state, cause, requests, tried)


def plan_groups(wanted: Wanted, groups: Sequence[GroupView], now: float) -> GroupPlan:
    """What to do next. Applied and asked again, it ends in no action."""
    plan = GroupPlan()
    live = [g for g in groups if g.state not in GONE]
    draining = [g for g in groups if g.state is GroupState.DRAINING]
    back = {g.name: g for g in _returning(wanted, live, draining, now)}
    for group in groups:
        if group.state is GroupState.DELETING:
            _traffic_off(plan, group, "the group is on its way out")
            if any(p.grace is None or p.grace > REAP_GRACE for p in group.facts.pods):
                plan.actions.append(ReapPods(group.facts))
                plan.again(1.0)
        elif group.state is GroupState.BROKEN:
            assert group.cause is not None
            _traffic_off(plan, group, group.cause.reason)
            plan.actions.append(DeleteGroup(group.facts, reasons.GROUP_LOST, group.cause))
        elif group.name in back:
            plan.actions.append(Undrain(group.facts))
        elif group.state is GroupState.DRAINING:
            _drain(plan, wanted, group, now)
    draining = [g for g in draining if g.name not in back]
    for group in _fit(plan, wanted, [*live, *back.values()], draining, now):
        _admission(plan, group)
    return plan


def unfit(groups: Sequence[GroupView]) -> list[TrafficOff]:
    """What has to go out of traffic whatever else is wanted: groups that are not, or no longer, as they were admitted.

    The same steps are in `plan_groups`; these wait for nothing that is looked up for a plan.
    """
    plan, states = GroupPlan(), (GroupState.BROKEN, GroupState.DELETING, GroupState.SUSPECT)
    for group in groups:
        if group.state in states:
            _traffic_off(plan, group, group.cause.reason if group.cause else reasons.POD_NOT_READY)
    return [action for action in plan.actions if isinstance(action, TrafficOff)]


def _traffic_off(plan: GroupPlan, group: GroupView, reason: str) -> None:
    carriers = tuple(p for p in group.facts.pods if p.traffic)
    if carriers:
        plan.actions.append(TrafficOff(group.facts, carriers, reason))


def _admission(plan: GroupPlan, group: GroupView) -> None:
    if group.closing and group.facts.draining_since is None:
        # Told to drain, and not that this is over: whoever should have said so ended between the two.
        plan.actions.append(Undrain(group.facts))
        plan.again(5.0)
    if group.state is GroupState.ADMITTABLE:
        if group.canary and group.canary.passed:
            plan.actions.append(TrafficOn(group.facts))
        else:
            plan.actions.append(RunCanary(group.facts))
    elif group.state in (GroupState.SUSPECT, GroupState.STARTING):
        _traffic_off(plan, group, reasons.POD_NOT_READY)
        # Limits are spans of time: nothing else may wake us when one is over.
        plan.again(5.0)


def _drain(plan: GroupPlan, wanted: Wanted, group: GroupView, now: float) -> None:
    """Delete a draining group once it is empty, broken, or out of time."""
    _traffic_off(plan, group, reasons.DRAINING)
    since = group.facts.draining_since
    assert since is not None
    waited = now - since
    if group.cause is not None:
        plan.actions.append(DeleteGroup(group.facts, reasons.GROUP_LOST, group.cause))
    elif waited >= wanted.drain_deadline:
        plan.actions.append(DeleteGroup(group.facts, reasons.DRAIN_DEADLINE))
    elif waited >= DRAIN_SETTLE and group.idle:
        plan.actions.append(DeleteGroup(group.facts, reasons.DRAINED))
    else:
        plan.again(min(1.0, wanted.drain_deadline - waited))


def _returning(
    wanted: Wanted, live: Sequence[GroupView], draining: Sequence[GroupView], now: float
) -> list[GroupView]:
    """Groups that drain and come back, as more are wanted: those whose drain has come least far first.

    Why they drain does not matter: what counts is that they are what is wanted now, where they are. In a rollout they
    count as those that are created, but for the GPUs, which they hold already.
    """
    if wanted.leave is not None or wanted.revision is None:
        return []
    kept = sum(_stays(wanted, g.facts) for g in live)
    count = min(wanted.desired - kept, math.floor(wanted.ceiling(live) - wanted.holds(live)))
    able = [g for g in draining if _may_return(wanted, g, now)]
    able.sort(key=lambda g: (-(g.facts.draining_since or 0.0), -(g.requests or 0), g.facts.slot))
    return able[: max(0, count)]


def _may_return(wanted: Wanted, group: GroupView, now: float) -> bool:
    since = group.facts.draining_since
    return (
        since is not None
        and now - since < wanted.drain_deadline
        and group.cause is None
        and group.flaw is None
        and group.name not in wanted.reclaimed
        and _stays(wanted, group.facts)
        and whole(group.facts)
    )


def _victims(wanted: Wanted, groups: Sequence[GroupView]) -> list[GroupView]:
    """Least loss first: groups without traffic, those on nodes that are to go, those of other revisions, then by the
    requests in them (where that is not known, as many as in the busiest), then the newest slot."""
    most = max((g.requests for g in groups if g.requests is not None), default=0)

    def order(group: GroupView) -> tuple[bool, bool, bool, int, int]:
        return (
            group.state is GroupState.SERVING,
            group.facts.leaving is None,
            group.facts.revision == wanted.revision,
            most if group.requests is None else group.requests,
            -group.facts.slot,
        )

    return sorted(groups, key=order)


def _retire(plan: GroupPlan, group: GroupView, reason: str) -> None:
    if group.state is GroupState.SERVING or admitted_incarnations(group.facts):
        plan.actions.append(StartDrain(group.facts, reason))
        _traffic_off(plan, group, reason)
        plan.again(DRAIN_SETTLE)
    else:
        plan.actions.append(DeleteGroup(group.facts, reason))


def _stays(wanted: Wanted, group: GroupFacts) -> bool:
    """Whether a group is what is wanted, where it is."""
    return group.leaving is None and (wanted.frozen or group.revision == wanted.revision)


def _fit(
    plan: GroupPlan, wanted: Wanted, live: Sequence[GroupView], draining: Sequence[GroupView], now: float
) -> list[GroupView]:
    """Bring the live groups to the wanted number of the wanted revision; returns those that stay."""
    if wanted.leave is not None:
        for group in live:
            _retire(plan, group, wanted.leave)
        return []
    if wanted.revision is None:
        return list(live)
    for group in live:
        if group.name in wanted.reclaimed:
            _retire(plan, group, reasons.RECLAIMED)
    live = [group for group in live if group.name not in wanted.reclaimed]
    new = [g for g in live if _stays(wanted, g.facts)]
    old = [g for g in live if not _stays(wanted, g.facts)]
    surplus = len(new) - wanted.desired
    if surplus > 0:
        for group in _victims(wanted, new)[:surplus]:
            _retire(plan, group, reasons.SCALED_DOWN)
            new.remove(group)
    stay = list(old) if wanted.hold else _supersede(plan, wanted, new, old)
    leaving = [g for g in old if g not in stay]
    leaving += [g for g in draining if not _stays(wanted, g.facts)]
    _create(plan, wanted, new, stay, leaving, now)
    return [*new, *stay]


def _supersede(
    plan: GroupPlan, wanted: Wanted, new: Sequence[GroupView], old: Sequence[GroupView]
) -> list[GroupView]:
    """Retire groups of other revisions, and groups that must leave their nodes, as far as enough others serve; returns
    those that stay."""
    stay: list[GroupView] = []
    available = wanted.counts(g for g in (*new, *old) if g.state is GroupState.SERVING)
    for group in _victims(wanted, old):
        serves = wanted.counts([group] if group.state is GroupState.SERVING else [])
        # A group that never served costs nothing to give up, and frees GPUs for the wanted revision. What goes soon
        # goes with its requests if it is not drained.
        if not _served(group) or _goes_soon(group) or available - serves >= wanted.least:
            moves = wanted.frozen or group.facts.revision == wanted.revision
            _retire(plan, group, reasons.NODE_MAINTENANCE if moves else reasons.SUPERSEDED)
            available -= serves
        else:
            stay.append(group)
    return stay


def _goes_soon(group: GroupView) -> bool:
    return group.facts.leaving is not None and group.facts.leaving[1].soon


def _create(
    plan: GroupPlan,
    wanted: Wanted,
    new: Sequence[GroupView],
    old: Sequence[GroupView],
    leaving: Sequence[GroupView],
    now: float,
) -> None:
    """Create what is missing. In a rollout, groups of other revisions hold GPUs until they are gone, `leaving`
    ones too; outside of one, a loss is replaced at once, whatever drains after a scale-down."""
    missing = wanted.desired - len(new)
    rolling = bool(old) or bool(leaving)
    count = missing
    if rolling:
        count = min(missing, math.floor(wanted.ceiling(old) - wanted.holds([*new, *old, *leaving])))
    if wanted.probing:
        count = min(count, 1 - sum(not _served(g) for g in new))
    if count <= 0 or wanted.hold:
        return
    if wanted.create_after is not None and now < wanted.create_after:
        plan.again(wanted.create_after - now)
        return
    taken = set(wanted.occupied_slots) | {g.facts.slot for g in (*new, *old)}
    moves = rolling and all(g.facts.revision == wanted.revision or wanted.frozen for g in old)
    why = reasons.NODE_MAINTENANCE if moves and old else reasons.ROLLOUT if rolling else reasons.GROUP_WANTED
    for slot in free_slots(taken, count):
        plan.actions.append(CreateGroup(slot, why))


def _served(group: GroupView) -> bool:
    return bool(admitted_incarnations(group.facts))


def free_slots(taken: Iterable[int], count: int) -> list[int]:
    """The smallest numbers that are not taken."""
    used, slot = set(taken), 0
    free: list[int] = []
    while len(free) < count:
        if slot not in used:
            free.append(slot)
        slot += 1
    return free


def leader_selector(deployment: str) -> str:
    """Label selector of one pod per group."""
    return f"{names.LABEL_DEPLOYMENT}={deployment},{names.LWS_LABEL_WORKER_INDEX}=0"
