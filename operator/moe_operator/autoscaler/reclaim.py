"""What groups of lower priority would make room for one that waits, and at what cost."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from moe_operator.api.reasons import WaitingReason
from moe_operator.autoscaler.claims import LIVE, Claim, Held, Key, Phase, Pool, Shape, Share, Waiting

#: Places that one pass clears by reclaiming: drains begin one handful after the other.
_CLEARED = 16
Cost = tuple[int, float, int, int]
"""Of groups that go: the highest priority, the loss that they avoid, how many they are, the requests in them."""
#: Below every priority.
_LEAST = -(1 << 62)


@dataclass(eq=False)
class Standing:
    """One claim in the pass."""

    claim: Claim
    values: list[float]
    position: int
    """Groups that have been decided over."""
    granted: int
    owed: int
    """Groups of the last grant that are missing."""
    live: int
    serving: int
    unplaced: list[Held]
    """Groups that exist and hold nothing yet."""
    draining: list[Held] = field(default_factory=list)
    """Groups that may come back."""
    given_up: list[str] = field(default_factory=list)
    reason: WaitingReason | None = None
    """Of the first of its groups that found no room."""
    missing: int = 0
    """Groups that found none."""
    ahead: tuple[Key, ...] = ()
    reclaimed: list[tuple[Key, str]] = field(default_factory=list)
    surge: bool = True

    def rank(self) -> tuple[int, int, int, float, float, Key]:
        """Where its next group stands in the queue."""
        claim = self.claim
        tier = 0 if self.position < claim.floor else 1
        owed = 0 if self.owed > 0 else 1
        return (tier, -claim.priority, owed, -self._per_gpu(self.position), claim.since, claim.key)

    def worth(self) -> float:
        """Loss per GPU that its last group avoids."""
        return self._per_gpu(self.live - 1)

    def _per_gpu(self, before: int) -> float:
        """Loss per GPU that one more group than this avoids."""
        above = before - self.claim.floor
        return self.values[above] / self.claim.shape.total if 0 <= above < len(self.values) else 0.0

    def grant(self) -> None:
        """It may have, or keep, one more."""
        self.granted += 1
        self.owed -= 1
        if self.unplaced:
            self.unplaced.pop(0)

    def share(self) -> Share:
        """What it gets."""
        waiting = None
        if self.reason is not None:
            waiting = Waiting(self.missing, self.reason, self.ahead, tuple(self.reclaimed))
        # What exists, holds nothing and is not granted goes, so that its pods take nothing from those ahead.
        without = self.unplaced if self.granted < self.claim.wanted or not self.surge else ()
        return Share(
            granted=self.granted,
            given_up=(*self.given_up, *(group.name for group in without)),
            gone=tuple(group.name for group in self.draining),
            surge=self.surge,
            waiting=waiting,
        )


@dataclass
class Clearing:
    """A place that groups of lower priority make."""

    nodes: list[str]
    victims: list[tuple[Standing, Held]]

    def cost(self) -> Cost:
        """What is lost with them."""
        return (
            max((victim.claim.priority for victim, _ in self.victims), default=_LEAST),
            sum(victim.worth() * victim.claim.shape.total for victim, _ in self.victims),
            len(self.victims),
            sum(group.work for _, group in self.victims),
        )


class Reclaiming:
    """Looks for places in one pass."""

    def __init__(
        self,
        standings: Sequence[Standing],
        comes: Callable[[str], int],
        may_search: Callable[[], bool],
    ) -> None:
        """`comes`: GPUs of a node that are free or come free; `may_search`: whether all nodes may be looked at."""
        self._standings = standings
        self._comes = comes
        self._may_search = may_search
        self._clearings = 0
        self._no_victims: dict[tuple[Pool, Shape], int] = {}
        """Highest priority for which nothing could be reclaimed."""
        self._cheapest: dict[tuple[int, tuple[Pool, Shape]], list[tuple[Cost, str]]] = {}
        """Nodes by what it costs groups of lower priority to clear them."""
        self._victims_of: dict[str, list[tuple[Standing, Held]]] | None = None

    def place(self, claim: Claim) -> Clearing | None:
        """The cheapest place that groups of lower priority make; None where none does, or as many as a pass clears were
        found."""
        kind = (claim.pool, claim.shape)
        if claim.priority <= self._no_victims.get(kind, _LEAST) or self._clearings >= _CLEARED:
            return None
        if (claim.priority, kind) not in self._cheapest:
            if not self._may_search():
                return None
            self._cheapest[claim.priority, kind] = self._cleared(claim)
        found = (self._node if claim.shape.pods == 1 else self._domain)(claim)
        if found is None:
            self._no_victims[kind] = claim.priority
        else:
            self._clearings += 1
        return found

    def _cleared(self, claim: Claim) -> list[tuple[Cost, str]]:
        """What it costs to clear each node for one pod: a heap. Costs only rise in a pass, as floors come closer."""
        made = ((self._clear(claim, [node]), node) for node in claim.pool.nodes)
        heap = [(clearing.cost(), node) for clearing, node in made if clearing is not None]
        heapq.heapify(heap)
        return heap

    def _node(self, claim: Claim) -> Clearing | None:
        heap = self._cheapest[claim.priority, (claim.pool, claim.shape)]
        while heap:
            _, node = heap[0]
            clearing = self._clear(claim, [node])
            if clearing is None:
                heapq.heappop(heap)
                continue
            cost = clearing.cost()
            heapq.heapreplace(heap, (cost, node))
            if heap[0][1] == node:
                return clearing
        return None

    def _domain(self, claim: Claim) -> Clearing | None:
        nodes: dict[str, list[str]] = {}
        for _, node in sorted(self._cheapest[claim.priority, (claim.pool, claim.shape)]):
            nodes.setdefault(claim.pool.nodes[node], []).append(node)
        places = []
        for listed in nodes.values():
            for chosen in _choices(listed, claim.shape.pods):
                if (clearing := self._clear(claim, chosen)) is not None:
                    places.append(clearing)
                    break
        return min(places, key=lambda one: (one.cost(), one.nodes), default=None)

    def _clear(self, claim: Claim, nodes: list[str]) -> Clearing | None:
        """These nodes, with the groups to drain for them to have room; None where that does not do."""
        chosen: list[tuple[Standing, Held]] = []
        lost: dict[Key, tuple[int, int]] = {}
        freed: dict[str, int] = {}
        for node in nodes:
            for victim, group in self._victims(node):
                if self._comes(node) + freed.get(node, 0) >= claim.shape.gpus:
                    break
                gone = victim.claim.priority >= claim.priority or group.name in victim.given_up
                if gone or (victim, group) in chosen:
                    continue
                serving, live = lost.get(victim.claim.key, (0, 0))
                serves = group.phase is Phase.SERVING
                # The floor serves on: what only starts does not stand in for it.
                left = min(victim.live - live, victim.serving - serving if serves else victim.live - live)
                if left <= victim.claim.floor:
                    continue
                lost[victim.claim.key] = (serving + serves, live + 1)
                chosen.append((victim, group))
                for at in group.nodes:
                    freed[at] = freed.get(at, 0) + group.gpus
            if self._comes(node) + freed.get(node, 0) < claim.shape.gpus:
                return None
        for one in sorted(chosen, key=_victim_order, reverse=True):
            # The dearest first: whether the others do without it.
            rest = dict(freed)
            for at in one[1].nodes:
                rest[at] -= one[1].gpus
            if all(self._comes(node) + rest.get(node, 0) >= claim.shape.gpus for node in nodes):
                chosen.remove(one)
                freed = rest
        return Clearing(nodes, chosen)

    def _victims(self, node: str) -> Sequence[tuple[Standing, Held]]:
        """Groups on a node, the cheapest first."""
        if self._victims_of is None:
            self._victims_of = {}
            for s in self._standings:
                for group in s.claim.groups:
                    if group.phase in LIVE:
                        for at in dict.fromkeys(group.nodes):
                            self._victims_of.setdefault(at, []).append((s, group))
            for listed in self._victims_of.values():
                listed.sort(key=_victim_order)
        return self._victims_of.get(node, ())


def _choices(nodes: Sequence[str], pods: int) -> Iterator[list[str]]:
    """The cheapest nodes, then others in place of the dearest of them: the floor of a deployment may rule out a set of
    nodes of which each alone can be cleared."""
    if len(nodes) < pods:
        return
    yield list(nodes[:pods])
    if pods > 1:
        for further in nodes[pods : pods + 8]:
            yield [*nodes[: pods - 1], further]


def _victim_order(one: tuple[Standing, Held]) -> tuple[int, bool, float, int, int, Key, str]:
    standing, group = one
    serves, held = group.phase is Phase.SERVING, len(group.nodes) * group.gpus
    claim = standing.claim
    return (claim.priority, serves, standing.worth(), held, group.work, claim.key, group.name)
