"""Groups that have some of their nodes: what they wait for, and when they give back what they hold.

A group serves whole or not at all. Pods that have nodes while others find none hold GPUs for nothing, and two groups
may so keep each other from ever being whole. Pods behind scheduling gates are another matter: a queue has not let the
group in yet, and admits all of it at once.
"""

from moe_operator.api import reasons
from moe_operator.api.status import Cause
from moe_operator.controller.observed import GroupFacts, PodFacts


def _bound(group: GroupFacts) -> list[PodFacts]:
    return [pod for pod in group.pods if pod.node]


def _without_node(group: GroupFacts) -> list[PodFacts]:
    """Pods for which the scheduler finds no node."""
    return [pod for pod in group.pods if pod.unschedulable]


def _gated(group: GroupFacts) -> PodFacts | None:
    return next((pod for pod in group.pods if pod.gates), None)


def placed_in_part(group: GroupFacts, limit: float, now: float) -> Cause | None:
    """Why the group must give its nodes back, or None while it may wait on.

    The time counts from the last step towards being whole: while nodes come one by one, as from an autoscaler, each has
    the whole limit.
    """
    bound, homeless = _bound(group), _without_node(group)
    missing = group.size - len(group.pods)
    if not bound or _gated(group) is not None or not (homeless or missing > 0):
        return None
    steps = [pod.scheduling_since or now for pod in (*bound, *homeless)]
    since = max(steps)
    if now - since < limit:
        return None
    return Cause(
        reason=reasons.PLACED_IN_PART,
        message=f"only {len(bound)} of {group.size} pods had nodes for {int(now - since)} s"
        f" (spec.recovery.placementLimit is {int(limit)} s), which are free again; {_lacking(group)}",
        pod=homeless[0].name if homeless else None,
        domain=group.domain,
    )


def unplaced_since(group: GroupFacts) -> float | None:
    """Since when no pod of a group finds a node in the domain that was chosen for it; None where that is not so."""
    if group.domain is None or group.deleting or _bound(group) or _gated(group) is not None:
        return None
    steps = [pod.scheduling_since for pod in _without_node(group) if pod.scheduling_since is not None]
    return max(steps, default=None)


def not_placed(group: GroupFacts, elsewhere: str, now: float) -> Cause:
    """Why a group without any node is made anew: the domain `elsewhere` has room for it."""
    waited = int(now - (unplaced_since(group) or now))
    return Cause(
        reason=reasons.NOT_PLACED,
        message=f"no pod found a node for {waited} s, and {elsewhere} has room; {_lacking(group)}",
        pod=group.pods[0].name if group.pods else None,
        domain=group.domain,
    )


def _lacking(group: GroupFacts) -> str:
    """Which pods have no node, and in whose words."""
    homeless = _without_node(group)
    if not homeless and group.notice is not None:
        return group.notice[1]
    if not homeless:
        return (
            f"{group.size - len(group.pods)} of {group.size} pods were never created: a quota or an admission policy"
            f" may have refused them (kubectl describe statefulset {group.name} {group.name}-0)"
        )
    where = f" in {group.domain}" if group.domain else ""
    more = f" and {len(homeless) - 1} more" if len(homeless) > 1 else ""
    return f"pod {homeless[0].name}{more} found no node{where}: {homeless[0].unschedulable}"


def waits_for_place(group: GroupFacts) -> tuple[str, str] | None:
    """What a group with pods without nodes waits for: a reason and a message; None for a group without such pods."""
    gated = _gated(group)
    if gated is not None:
        return (
            reasons.SCHEDULING_GATED,
            f"pod {gated.name} waits until its scheduling gate {', '.join(gated.gates)} is removed: the queue has not"
            " admitted the group",
        )
    homeless, bound = _without_node(group), _bound(group)
    if not homeless:
        return None
    pod = homeless[0]
    where = f" in {group.domain}" if group.domain else ""
    if not bound:
        return reasons.UNSCHEDULABLE, f"pod {pod.name} finds no node{where}: {pod.unschedulable}"
    return (
        reasons.UNSCHEDULABLE,
        f"{len(bound)} of {group.size} pods have nodes, and are given back after spec.recovery.placementLimit if the"
        f" others find none; pod {pod.name} finds no node{where}: {pod.unschedulable}",
    )
