"""One predicate for admission, failure and canary alike: is this group whole, and still the one that was admitted?

A rank cannot rejoin a running group. So the identity of a group that serves is the set of its pods and of
the engine processes in them: if any of these changes, the group that was admitted no longer exists.
"""

import hashlib
from collections.abc import Sequence

from moe_operator.controller.observed import GroupFacts, NodeState, PodFacts


def incarnation(pods: Sequence[PodFacts]) -> str:
    """Hash over the pods' uids and their engines' restart counts; equal exactly while neither changes."""
    text = ",".join(sorted(f"{p.uid}:{p.engine.restarts}" for p in pods))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def whole(group: GroupFacts) -> bool:
    """All pods of the group are there, run, are ready and sit on nodes that answer."""
    return (
        not group.deleting
        and len(group.pods) == group.size
        and {p.index for p in group.pods} == set(range(group.size))
        and all(
            p.ready
            and not p.deleting
            and p.engine.running_since is not None
            and p.node_state in (NodeState.READY, NodeState.UNKNOWN)
            for p in group.pods
        )
    )


def admitted_incarnations(group: GroupFacts) -> set[str]:
    """The incarnations that the pods remember; more than one, or another than the present one: the group broke."""
    return {p.incarnation for p in group.pods if p.incarnation}


def serving(group: GroupFacts) -> bool:
    """Whole, and every pod carries the traffic label for the present incarnation."""
    now = incarnation(group.pods)
    return whole(group) and all(p.traffic and p.incarnation == now for p in group.pods)
