"""The ledger of failures in status: written before a broken group is deleted, so that no cause is ever lost.

It paces replacement in two ways. Back-off between attempts: the first is at once, then 10 s doubling up to 5 min; ten
quiet minutes forgive. And a budget of losses per window: once it is spent, no group is made until the retry interval
is over, then one; that goes on until one serves. Both are about one revision: another one begins anew.
"""

from dataclasses import dataclass

from moe_operator.api import reasons
from moe_operator.api.status import AvoidedNode, Cause, RecoveryStatus
from moe_operator.api.times import format_time, parse_time
from moe_operator.controller.incarnation import admitted_incarnations
from moe_operator.controller.observed import GroupFacts

_FIRST_DELAY = 10.0
_LONGEST_DELAY = 300.0
#: Seconds without a failure after which the count starts anew.
_FORGIVE_AFTER = 600.0
_REMEMBERED = 16
_DOMAINS_REMEMBERED = 16
_NODES_REMEMBERED = 16
#: Seconds for which a node is held to account for a loss.
NODE_BLAMED_FOR = 3600.0
#: Losses after which a node is avoided ...
_NODE_LOSSES = 2
#: ... and causes for which the first is enough: the device itself failed.
_OF_THE_DEVICE = frozenset({reasons.ACCELERATOR_FAULT})
#: Losses that say nothing about the revision: they wait for nodes, and are no reason to stop trying.
_FOR_WANT_OF_NODES = frozenset({reasons.PLACED_IN_PART, reasons.NOT_PLACED})
#: Losses for which a node is to blame, where the cause names one ...
_OF_THE_NODE = frozenset(
    {reasons.NODE_NOT_READY, reasons.ENGINE_STALLED, reasons.IDLE_CANARY_FAILED, reasons.POD_NOT_READY}
)
#: ... and those for which it is if the group had served: before, it is as likely the revision.
_PERHAPS_OF_THE_NODE = frozenset({reasons.ENGINE_EXITED, reasons.TRANSPORT_FAILED})


@dataclass(frozen=True)
class Budget:
    """How many losses are too many. Times in seconds."""

    losses: int
    """Within a window, all wanted groups together."""
    window: float
    retry: float
    """From parking to the next attempt, and between further ones."""


def backoff(failures: int) -> float:
    """Seconds to wait before the next group after so many failures in a row."""
    if failures <= 1:
        return 0.0
    return float(min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(failures - 2, 16)))


def of_revision(ledger: RecoveryStatus, revision: str | None) -> RecoveryStatus:
    """The ledger for groups of this revision: what was counted about another one neither delays nor parks it."""
    if ledger.revision is None or revision is None or ledger.revision == revision:
        return ledger
    return ledger.model_copy(
        update={
            "revision": None,
            "failures": 0,
            "next_attempt_time": None,
            "window_start_time": None,
            "losses_in_window": 0,
            "parked_until": None,
        }
    )


def record(
    ledger: RecoveryStatus, group: GroupFacts, cause: Cause, revision: str | None, budget: Budget, now: float
) -> RecoveryStatus:
    """The ledger with this group's failure counted once, however often it is asked. `revision`: what groups are made
    of; the loss of a group of another one is written down, and delays nothing."""
    if group.uid in ledger.counted:
        return ledger
    last = parse_time(ledger.last_failure_time)
    calm = last is None or _calm(ledger, last, now)
    told = ledger.model_copy(
        update={
            "last_failure_time": format_time(now),
            "last_cause": cause,
            "last_group": group.name,
            "counted": [*ledger.counted, group.uid][-_REMEMBERED:],
            "avoided_domains": _avoid([] if calm else ledger.avoided_domains, cause.domain),
            "suspect_nodes": _blame(ledger.suspect_nodes, group, cause, now),
        }
    )
    if revision is not None and group.revision != revision:
        return told
    failures = 1 if calm else ledger.failures + 1
    delay = backoff(failures)
    counted = told.model_copy(
        update={
            "revision": group.revision,
            "failures": failures,
            "next_attempt_time": format_time(now + delay + 1) if delay else None,
        }
    )
    return _spend(counted, cause, budget, now)


def _spend(ledger: RecoveryStatus, cause: Cause, budget: Budget, now: float) -> RecoveryStatus:
    """Count against the budget, and park when it is spent. A failed retry parks again."""
    if ledger.parked_until is not None or cause.reason == reasons.PROGRESS_DEADLINE:
        return park(ledger, budget, now)
    if cause.reason in _FOR_WANT_OF_NODES:
        return ledger
    start = parse_time(ledger.window_start_time)
    fresh = start is None or now - start > budget.window
    losses = 1 if fresh else ledger.losses_in_window + 1
    spent = ledger.model_copy(
        update={
            "window_start_time": format_time(now) if fresh else ledger.window_start_time,
            "losses_in_window": losses,
        }
    )
    return park(spent, budget, now) if losses > budget.losses else spent


def park(ledger: RecoveryStatus, budget: Budget, now: float) -> RecoveryStatus:
    """Make no group until the retry interval is over."""
    return ledger.model_copy(update={"parked_until": format_time(now + budget.retry)})


def unparked(ledger: RecoveryStatus, served_since: float | None) -> RecoveryStatus:
    """The ledger once a group made after parking serves. `served_since`: creation of the newest serving group of the
    revision (s)."""
    until = parse_time(ledger.parked_until)
    if until is None or served_since is None or served_since < until - 1:
        return ledger
    return ledger.model_copy(
        update={"parked_until": None, "window_start_time": None, "losses_in_window": 0, "failures": 1}
    )


def create_after(ledger: RecoveryStatus) -> float | None:
    """No group is made before this time."""
    times = (parse_time(ledger.next_attempt_time), parse_time(ledger.parked_until))
    return max((t for t in times if t is not None), default=None)


def lately_lost(ledger: RecoveryStatus, now: float) -> str | None:
    """The revision of which groups were lost, while that is not long ago."""
    last = parse_time(ledger.last_failure_time)
    return None if last is None or _calm(ledger, last, now) else ledger.revision


def avoided(ledger: RecoveryStatus, now: float) -> list[str]:
    """Domains that found no room for groups lately, though they seemed to have some; the newest last."""
    last = parse_time(ledger.last_failure_time)
    return [] if last is None or _calm(ledger, last, now) else ledger.avoided_domains


def avoided_nodes(ledger: RecoveryStatus, now: float) -> list[str]:
    """Nodes on which groups were lost again and again lately, or whose device failed."""
    return [
        node.name
        for node in ledger.suspect_nodes
        if node.losses >= _NODE_LOSSES and now - (parse_time(node.last_time) or 0.0) < NODE_BLAMED_FOR
    ]


def _blame(known: list[AvoidedNode], group: GroupFacts, cause: Cause, now: float) -> list[AvoidedNode]:
    recent = [n for n in known if now - (parse_time(n.last_time) or 0.0) < NODE_BLAMED_FOR]
    guilty = _OF_THE_NODE | _OF_THE_DEVICE
    if admitted_incarnations(group):
        guilty |= _PERHAPS_OF_THE_NODE
    if cause.node is None or cause.reason not in guilty:
        return recent
    before = next((n.losses for n in recent if n.name == cause.node), 0)
    losses = max(before + 1, _NODE_LOSSES if cause.reason in _OF_THE_DEVICE else 0)
    others = [n for n in recent if n.name != cause.node]
    return [*others, AvoidedNode(name=cause.node, losses=losses, last_time=format_time(now))][
        -_NODES_REMEMBERED:
    ]


def _calm(ledger: RecoveryStatus, last: float, now: float) -> bool:
    """Whether the last failure is so long ago that it is forgiven."""
    return now - last > _FORGIVE_AFTER + backoff(ledger.failures)


def _avoid(known: list[str], domain: str | None) -> list[str]:
    if domain is None:
        return known
    return [*(one for one in known if one != domain), domain][-_DOMAINS_REMEMBERED:]
