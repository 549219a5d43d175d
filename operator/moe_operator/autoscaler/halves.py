"""Groups that are there in part: some of their pods have nodes, others find none. They hold GPUs and cannot serve."""

from collections.abc import Mapping, Sequence

from moe_operator.autoscaler.claims import LIVE, Claim, Held, Key, Phase
from moe_operator.autoscaler.reclaim import Standing

Half = tuple[Standing, Held]


def halves(standings: Sequence[Standing]) -> list[Half]:
    """All of them, in the order in which they become whole: that of the queue; of equals first what lacks least, then
    what waits longest."""
    return sorted(
        ((s, g) for s in standings for g in s.claim.groups if g.phase in LIVE and g.lacks), key=_order
    )


def _order(half: Half) -> tuple[tuple[int, int], int, float, Key, str]:
    standing, group = half
    claim = standing.claim
    return (standing.rank()[:2], group.lacks, claim.since, claim.key, group.name)


def rest_of(claim: Claim, group: Held, free: Mapping[str, int]) -> list[str]:
    """Nodes for the pods that have none, as far as there are any. `free`: GPUs by node."""
    domains = claim.pool.nodes
    domain = domains.get(group.nodes[0])
    if domain is None:  # it is on a node that takes no more
        return []
    beside = sorted(node for node, at in domains.items() if at == domain and node not in group.nodes)
    return [node for node in beside if free.get(node, 0) >= group.gpus][: group.lacks]


def yielding(claim: Claim, group: Held, rest: Sequence[str], later: Sequence[Half]) -> list[Half]:
    """Of the halves that come later, those without which this one becomes whole, the last first; none where it does
    not. Of groups that have served none."""
    domains, missing = claim.pool.nodes, group.lacks - len(rest)
    domain = domains.get(group.nodes[0])
    if domain is None:
        return []
    chosen: list[Half] = []
    for standing, other in reversed(later):
        if other.phase is not Phase.STARTING or other.name in standing.given_up or other.gpus < group.gpus:
            continue
        useful = {n for n in other.nodes if domains.get(n) == domain and n not in (*group.nodes, *rest)}
        if useful and missing > 0:
            chosen.append((standing, other))
            missing -= len(useful)
    return chosen if missing <= 0 else []
