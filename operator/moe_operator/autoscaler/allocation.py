"""Who gets scarce GPUs: one pass over the claims of all deployments of a cluster.

Groups are placed whole or not at all, so what is shared out is room for groups on nodes, not a number of GPUs. Groups
that hold GPUs keep them unless they are reclaimed. Further ones stand in one queue: floors first, by priority; then
one group at a time by priority, by what was given before and is lost, by the largest loss that a group avoids per GPU,
by the longest wait, by name.

A group that drains comes back before another is placed, unless what it holds is given to somebody ahead.

What finds no room waits, for the first of these that does:

- GPUs that drain already make its place: they are kept for it;
- groups of lower priority, above their floors, make it: as few as needed are drained, the cheapest first;
- nothing here makes it: a group without a place is made all the same, as pods without a node are what node autoscalers
  add nodes for, and what the scheduler serves first. In a pool that does not grow that is the head of the queue alone:
  pods of those behind it would take what comes free for it. Nor is one made before others' pods have taken the room
  that was found for them.

Nothing that fits is held back for what does not, but for a place that is being cleared, and for a reservation: the
first that would fit if groups of its own or of higher priority left has the roomiest place kept for it, in turns (see
`RESERVATION`), so that small groups do not take each GPU that comes free.

Pure; times are seconds. O(n log n) in claims, but for at most `_SEARCHES` looks over all nodes and groups in a pass.
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice, pairwise

from moe_operator.api.reasons import WaitingReason

Key = tuple[str, str]
"""Namespace and name of a deployment."""

#: A wait must last this long (s) before a group of another deployment is drained for it: many are over sooner, as
#: draining groups are deleted and limits or replicas are set back, and a drained group costs a cold start.
RECLAIM_AFTER = 30.0
#: First turn of a reservation (s); each turn lasts twice as long as the one before it, and every other one keeps the
#: place. So smaller groups never wait for ever, and any wait ends once a turn outlasts the groups that are in the way.
RESERVATION = 600.0
#: Looks over all nodes and groups of a pool in one pass: it bounds the time of a pass. What is not looked for waits for
#: the next one.
_SEARCHES = 24
#: Places that one pass clears by reclaiming: drains begin one handful after the other.
_CLEARED = 16
#: Names of other deployments that are given of those ahead.
_NAMED = 3


class Phase(StrEnum):
    """What a group does with the GPUs that it holds."""

    SERVING = "Serving"
    STARTING = "Starting"
    DRAINING = "Draining"
    """It gives them back in minutes."""
    ENDING = "Ending"
    """It gives them back in seconds: its successor is made meanwhile."""


@dataclass(frozen=True)
class Held:
    """A group that exists."""

    name: str
    phase: Phase
    nodes: tuple[str, ...] = ()
    """Of its pods that have one."""
    gpus: int = 0
    """Of each pod."""
    work: int = 0
    """Requests in it."""
    hint: str | None = None
    """Node or domain that it was given, while no pod has a node."""


@dataclass(frozen=True)
class Shape:
    """Room that one group takes."""

    pods: int
    """Each on a node of its own."""
    gpus: int
    """Of each pod."""

    @property
    def total(self) -> int:
        """GPUs of a group."""
        return self.pods * self.gpus


@dataclass(frozen=True, eq=False)
class Pool:
    """Nodes that groups of one kind may run on. Pools may share nodes."""

    name: str
    """For people: the accelerator."""
    nodes: Mapping[str, str]
    """Node -> the domain that all pods of a group must be within; one and the same where it does not matter."""
    grows: bool = False
    """Whether nodes may be added for pods that find none."""


@dataclass(frozen=True)
class Claim:
    """What one deployment has and wants."""

    key: Key
    pool: Pool
    shape: Shape
    floor: int
    """Groups."""
    wanted: int
    """Groups; fewer than it has where some are about to go."""
    granted: int = 0
    """The last grant (groups): what was lost of it is replaced before others of the class grow."""
    groups: tuple[Held, ...] = ()
    """Of those that drain the last to begin first."""
    priority: int = 0
    losses: tuple[float, ...] | None = None
    """Expected requests per second that miss the objective with floor, floor + 1 .. wanted groups; None: not known,
    then each further group avoids half of what the one before it did."""
    since: float = 0.0
    """Since when it waits (s)."""
    moving: bool = False
    """Whether groups are replaced by others one by one (a rollout, a move off nodes): for a while it has more than it
    wants."""


@dataclass(frozen=True)
class Waiting:
    """What a deployment waits for."""

    groups: int
    reason: WaitingReason
    ahead: tuple[Key, ...] = ()
    """The first of those that come before it; `NO_ROOM`: those that hold most of the pool."""
    reclaimed: tuple[tuple[Key, str], ...] = ()
    """Deployments and groups that are drained for it."""


@dataclass(frozen=True)
class Share:
    """What one deployment gets."""

    granted: int
    """Groups it may have."""
    given_up: tuple[str, ...] = ()
    """Groups of it that go, by name."""
    gone: tuple[str, ...] = ()
    """Groups of it that drain and do not come back."""
    waiting: Waiting | None = None


@dataclass(frozen=True)
class Allocation:
    """What all get."""

    shares: Mapping[Key, Share]
    reserved: Mapping[Key, Mapping[str, int]]
    """GPUs by node that are kept for those that wait, those that are yet to come free included."""
    moving_in: Mapping[Key, Mapping[str, int]]
    """The same for groups that got room in this pass: until their pods are there."""
    recheck_after: float | None = None
    """Seconds until time alone may change it."""


def allocate(claims: Iterable[Claim], free: Mapping[str, int], now: float) -> Allocation:
    """Share out the GPUs.

    Args:
        claims: Of all deployments: nothing may be reclaimed on the word of some of them.
        free: GPUs by node that nobody holds. Those of the claims' own groups are not among them.
        now: Seconds, of the clock of `Claim.since`.
    """
    return _Pass(claims, free, now).run()


def avoided(claim: Claim) -> list[float]:
    """Loss (requests per second) that the group beyond the floor, the next one .. avoid each; never rising.

    Where a group avoids less than one after it, the two count with their mean (pool adjacent violators): the first must
    be had to get to the second.
    """
    count = max(0, claim.wanted - claim.floor)
    if claim.losses is None:
        return [0.5 ** (index + 1) for index in range(count)]
    known = claim.losses
    steps = [max(0.0, a - b) if math.isfinite(a - b) else 0.0 for a, b in pairwise(known)]
    blocks: list[tuple[float, int]] = []
    for step in steps[:count]:
        total, size = step, 1
        while blocks and blocks[-1][0] * size < total * blocks[-1][1]:
            before = blocks.pop()
            total, size = total + before[0], size + before[1]
        blocks.append((total, size))
    found = [total / size for total, size in blocks for _ in range(size)]
    return found + [0.0] * (count - len(found))


@dataclass(eq=False)
class _Standing:
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
        without = self.unplaced if self.granted < self.claim.wanted else ()
        return Share(
            granted=self.granted,
            given_up=(*self.given_up, *(group.name for group in without)),
            gone=tuple(group.name for group in self.draining),
            waiting=waiting,
        )


@dataclass
class _Line:
    """Those that wait for one pool, in the order of the queue."""

    entries: list[tuple[Key, tuple[int, int]]] = field(default_factory=list)
    """With floor or not, and priority: the lowest first."""
    ranks: set[tuple[int, int]] = field(default_factory=set)
    clearing: int = 0
    """Of them those that have a place cleared."""
    moving_in: dict[Key, tuple[int, int]] = field(default_factory=dict)
    """Those whose pods are yet to take the room that was found for them."""


class _Room:
    """The free GPUs of one pool's nodes, kept so that the tightest place is found without a look at all of them."""

    def __init__(self, pool: Pool, free: Mapping[str, int]) -> None:
        self._free = free
        self._pool = pool
        self._most = max((free.get(node, 0) for node in pool.nodes), default=0)
        self._all = self._levels(pool.nodes)
        self._domains: dict[str, dict[int, list[str]]] | None = None
        self._counts: dict[int, dict[str, int]] = {}
        """GPUs -> nodes of each domain that have as many free."""

    def changed(self, node: str, before: int) -> None:
        """A node's free GPUs are others than before."""
        after = self._free[node]
        self._most = max(self._most, after)
        heapq.heappush(self._all.setdefault(after, []), node)
        domain = self._pool.nodes[node]
        if self._domains is not None:
            heapq.heappush(self._domains[domain].setdefault(after, []), node)
        for gpus, counts in self._counts.items():
            counts[domain] += (after >= gpus) - (before >= gpus)

    def place(self, shape: Shape) -> list[str] | None:
        """The tightest place for a group: a node, or those of one domain."""
        if shape.pods == 1:
            return list(islice(self._fitting(self._all, shape.gpus), 1)) or None
        if self._domains is None:
            members: dict[str, list[str]] = {}
            for node, domain in self._pool.nodes.items():
                members.setdefault(domain, []).append(node)
            self._domains = {domain: self._levels(nodes) for domain, nodes in members.items()}
        if shape.gpus not in self._counts:
            counts = self._counts[shape.gpus] = dict.fromkeys(self._domains, 0)
            for node, domain in self._pool.nodes.items():
                counts[domain] += self._free.get(node, 0) >= shape.gpus
        counts = self._counts[shape.gpus]
        best = min(((n, domain) for domain, n in counts.items() if n >= shape.pods), default=None)
        if best is None:
            return None
        return list(islice(self._fitting(self._domains[best[1]], shape.gpus), shape.pods))

    def _levels(self, nodes: Iterable[str]) -> dict[int, list[str]]:
        levels: dict[int, list[str]] = {}
        for node in sorted(nodes):
            levels.setdefault(self._free.get(node, 0), []).append(node)
        return levels

    def _fitting(self, levels: Mapping[int, list[str]], gpus: int) -> Iterator[str]:
        """Nodes with so many free GPUs, the tightest first. Each stands at the level that it has now."""
        for level in range(gpus, self._most + 1):
            heap = levels.get(level)
            seen: list[str] = []
            while heap:
                node = heapq.heappop(heap)
                if self._free.get(node, 0) != level or node in seen:
                    continue  # of an earlier moment
                seen.append(node)
                heapq.heappush(heap, node)
                yield node
                # Those that were given out stand first again: on to the next.
                heapq.heappop(heap)
            if heap is not None:
                for node in seen:
                    heapq.heappush(heap, node)


_Cost = tuple[int, float, int, int]
"""Of groups that go: the highest priority, the loss that they avoid, how many they are, the requests in them."""
#: Below every priority.
_LEAST = -(1 << 62)


@dataclass
class _Clearing:
    """A place that groups of lower priority make."""

    nodes: list[str]
    victims: list[tuple[_Standing, Held]]

    def cost(self) -> _Cost:
        """What is lost with them."""
        return (
            max((victim.claim.priority for victim, _ in self.victims), default=_LEAST),
            sum(victim.worth() * victim.claim.shape.total for victim, _ in self.victims),
            len(self.victims),
            sum(group.work for _, group in self.victims),
        )


_CLEARING = (WaitingReason.DRAINING, WaitingReason.RECLAIMING, WaitingReason.RECLAIM_DUE)
_LIVE = (Phase.SERVING, Phase.STARTING)


class _Pass:
    def __init__(self, claims: Iterable[Claim], free: Mapping[str, int], now: float) -> None:
        self._now = now
        self._free = dict(free)
        self._coming: dict[str, int] = {}
        """GPUs by node of groups that drain, less what is given away of them."""
        self._reserved: dict[Key, dict[str, int]] = {}
        self._moving_in: dict[Key, dict[str, int]] = {}
        self._standings = [self._standing(claim) for claim in claims]
        pools = dict.fromkeys(s.claim.pool for s in self._standings)
        self._rooms = {pool: _Room(pool, self._free) for pool in pools}
        self._rooms_of: dict[str, list[_Room]] = {}
        for pool, room in self._rooms.items():
            for node in pool.nodes:
                self._rooms_of.setdefault(node, []).append(room)
        self._lines = {pool: _Line() for pool in self._rooms}
        self._near: dict[Pool, list[Pool]] = {}
        self._heap: list[tuple[tuple[int, int, int, float, float, Key], int]] = []
        self._index = {id(s): index for index, s in enumerate(self._standings)}
        self._in_heap: set[int] = set()
        self._full: set[tuple[Pool, Shape]] = set()
        """Kinds of groups that find no room: nothing is given back in a pass."""
        self._nothing_comes: set[tuple[Pool, Shape]] = set()
        self._no_victims: dict[tuple[Pool, Shape], int] = {}
        """Highest priority for which nothing could be reclaimed."""
        self._cheapest: dict[tuple[int, tuple[Pool, Shape]], list[tuple[_Cost, str]]] = {}
        """Nodes by what it costs groups of lower priority to clear them."""
        self._kept_for: set[Pool] = set()
        self._nothing_kept: set[tuple[Pool, Shape]] = set()
        self._searches = 0
        self._clearings = 0
        self._recheck: float | None = None
        self._victims_of: dict[str, list[tuple[_Standing, Held]]] | None = None
        self._holders: dict[Pool, tuple[Key, ...]] = {}

    def _standing(self, claim: Claim) -> _Standing:
        placed = serving = 0
        unplaced: list[Held] = []
        for group in claim.groups:
            if group.phase not in _LIVE:
                into = self._free if group.phase is Phase.ENDING else self._coming
                for node in group.nodes:
                    into[node] = into.get(node, 0) + group.gpus
            elif group.nodes:
                placed += 1
                serving += group.phase is Phase.SERVING
            else:
                unplaced.append(group)
        base = min(placed, claim.wanted)
        owed = max(0, min(claim.wanted, claim.granted) - base)
        draining = [group for group in claim.groups if group.phase is Phase.DRAINING]
        return _Standing(
            claim, avoided(claim), base, base, owed, placed, serving, unplaced, draining=draining
        )

    def run(self) -> Allocation:
        for standing in self._standings:
            for group in standing.claim.groups:
                if group.phase in _LIVE and 0 < len(group.nodes) < standing.claim.shape.pods:
                    self._finish(standing.claim, group)
                elif group.phase is Phase.DRAINING and standing.owed > 0:
                    self._succeed(standing, group)
            self._push(standing)
        while self._heap:
            _, index = heapq.heappop(self._heap)
            self._in_heap.discard(index)
            standing = self._standings[index]
            if self._next(standing):
                self._push(standing)
        return Allocation(
            shares={s.claim.key: s.share() for s in self._standings},
            reserved=self._reserved,
            moving_in=self._moving_in,
            recheck_after=self._recheck,
        )

    def _push(self, s: _Standing) -> None:
        index = self._index[id(s)]
        if s.position < s.claim.wanted and index not in self._in_heap:
            self._in_heap.add(index)
            heapq.heappush(self._heap, (s.rank(), index))

    # --- one group --------------------------------------------------------------------------------

    def _next(self, s: _Standing) -> bool:
        """Decide over its next group; whether to go on to the one after it."""
        gpus = s.claim.shape.gpus
        if self._returns(s):
            return True
        nodes = self._room_now(s)
        if nodes is not None:
            return self._moves_in(s, nodes)
        nodes = self._coming_place(s.claim)
        if nodes is not None and s.owed > 0:
            # What it had is replaced as it goes: the group planner paces that.
            return self._moves_in(s, nodes)
        if nodes is not None:
            self._take(nodes, gpus, self._reserved.setdefault(s.claim.key, {}))
            return self._clears(s, WaitingReason.DRAINING)
        clearing = self._reclaim(s.claim)
        if clearing is None:
            return self._asks(s)
        due = s.claim.since + RECLAIM_AFTER - self._now
        if not clearing.victims:  # what was given up for another makes room for it too
            self._take(clearing.nodes, gpus, self._reserved.setdefault(s.claim.key, {}))
            return self._clears(s, WaitingReason.DRAINING)
        if due > 0:
            self._recheck = due if self._recheck is None else min(due, self._recheck)
            self._take(clearing.nodes, gpus, self._reserved.setdefault(s.claim.key, {}))
            return self._clears(s, WaitingReason.RECLAIM_DUE)
        for victim, group in clearing.victims:
            self._give_up(victim, group)
            s.reclaimed.append((victim.claim.key, group.name))
        self._take(clearing.nodes, gpus, self._reserved.setdefault(s.claim.key, {}))
        return self._clears(s, WaitingReason.RECLAIMING)

    def _moves_in(self, s: _Standing, nodes: Iterable[str]) -> bool:
        """It gets this place. Until its pods are there, the place is kept for it."""
        self._take(nodes, s.claim.shape.gpus, self._moving_in.setdefault(s.claim.key, {}))
        self._lines[s.claim.pool].moving_in.setdefault(s.claim.key, s.rank()[:2])
        s.grant()
        s.position += 1
        return True

    def _clears(self, s: _Standing, reason: WaitingReason) -> bool:
        """It waits for a place that comes free. A group that is there waits on."""
        self._enter(s, reason)
        if s.owed > 0:
            s.grant()
        s.missing += 1
        s.position += 1
        return True

    def _asks(self, s: _Standing) -> bool:
        """Nothing here makes room for it."""
        self._reserve(s.claim)
        if self._held_back(s):
            self._enter(s, WaitingReason.BEHIND)
            s.missing += s.claim.wanted - s.position
            return False
        self._enter(s, WaitingReason.NO_ROOM)
        s.grant()
        s.missing += 1
        s.position += 1
        return True

    def _room_now(self, s: _Standing) -> list[str] | None:
        claim = s.claim
        if s.unplaced and (hint := s.unplaced[0].hint) is not None and (nodes := self._at(claim, hint)):
            return nodes
        kind = (claim.pool, claim.shape)
        if kind in self._full:
            return None
        place = self._rooms[claim.pool].place(claim.shape)
        if place is None:
            self._full.add(kind)
        return place

    def _at(self, claim: Claim, hint: str) -> list[str] | None:
        """Room where the group was told to go."""
        domains = claim.pool.nodes
        named = [hint] if hint in domains else [node for node, domain in domains.items() if domain == hint]
        fitting = [node for node in named if self._free.get(node, 0) >= claim.shape.gpus]
        return fitting[: claim.shape.pods] if len(fitting) >= claim.shape.pods else None

    def _finish(self, claim: Claim, group: Held) -> None:
        """A group that is there in part takes the rest of its room before anything else."""
        domains, missing = claim.pool.nodes, claim.shape.pods - len(group.nodes)
        domain = domains.get(group.nodes[0])
        for node in sorted(node for node, at in domains.items() if at == domain and node not in group.nodes):
            if missing and self._free.get(node, 0) >= group.gpus:
                self._take([node], group.gpus)
                missing -= 1

    def _succeed(self, s: _Standing, group: Held) -> None:
        """A group that drains for a successor of its own makes room for that, and not for those in the queue."""
        shape, nodes = s.claim.shape, [node for node in group.nodes if node in s.claim.pool.nodes]
        if group.gpus >= shape.gpus and len(nodes) >= shape.pods:
            for node in nodes[: shape.pods]:
                self._coming[node] -= shape.gpus
            s.draining.remove(group)
            s.grant()
            s.position += 1

    def _returns(self, s: _Standing) -> bool:
        """Whether a group that drains comes back: it is there, and none of it is promised to somebody ahead."""
        if s.unplaced:
            return False
        for group in s.draining:
            if group.nodes and all(self._coming.get(node, 0) >= group.gpus for node in group.nodes):
                for node in group.nodes:
                    self._coming[node] -= group.gpus
                s.draining.remove(group)
                s.grant()
                s.position += 1
                return True
        return False

    # --- the queue --------------------------------------------------------------------------------

    def _enter(self, s: _Standing, reason: WaitingReason) -> None:
        """It stands in the queue from here on."""
        if s.reason is not None:
            return
        s.ahead = self._holding(s.claim) if reason is WaitingReason.NO_ROOM else self._ahead(s)
        line = self._lines[s.claim.pool]
        line.entries.append((s.claim.key, s.rank()[:2]))
        line.ranks.add(s.rank()[:2])
        line.clearing += reason in _CLEARING
        s.reason = reason

    def _neighbours(self, pool: Pool) -> list[Pool]:
        """Pools that share nodes with this one, itself included."""
        if pool not in self._near:
            mine = pool.nodes.keys()
            self._near[pool] = [
                other for other in self._rooms if other is pool or not mine.isdisjoint(other.nodes)
            ]
        return self._near[pool]

    def _ahead(self, s: _Standing) -> tuple[Key, ...]:
        """The first of those that come before it and wait too, or are about to move in."""
        lines = [self._lines[pool] for pool in self._neighbours(s.claim.pool)]
        first = sorted((rank, key) for line in lines for key, rank in line.entries[: _NAMED + 1])
        keys = [key for _, key in first if key != s.claim.key]
        if not keys:
            moving = (key for line in lines for key in islice(line.moving_in, _NAMED + 1))
            keys = sorted(key for key in moving if key != s.claim.key)
        return tuple(keys[:_NAMED])

    def _held_back(self, s: _Standing) -> bool:
        """Whether its pods, without a place, would get in the way of those ahead."""
        lines = [self._lines[pool] for pool in self._neighbours(s.claim.pool)]
        mine, is_there = s.rank()[:2], bool(s.unplaced)
        for line in lines:
            for key, rank in islice(line.moving_in.items(), 2):
                if key != s.claim.key and (rank < mine or not is_there):
                    return True
        if not s.claim.pool.grows:
            return sum(len(line.entries) for line in lines) > (s.reason is not None)
        if sum(line.clearing for line in lines) > (s.reason in _CLEARING):
            return True
        # But for a higher priority all ask: nodes are added side by side.
        return any(rank < mine and rank[1] < mine[1] for line in lines for rank in line.ranks)

    def _holding(self, claim: Claim) -> tuple[Key, ...]:
        """Those that hold most of its pool."""
        pool = claim.pool
        if pool not in self._holders:
            held: dict[Key, int] = {}
            for other in self._standings:
                for group in other.claim.groups:
                    count = sum(node in pool.nodes for node in group.nodes) * group.gpus
                    if count:
                        held[other.claim.key] = held.get(other.claim.key, 0) + count
            most = heapq.nsmallest(_NAMED + 1, held, key=lambda key: (-held[key], key))
            self._holders[pool] = tuple(most)
        return tuple(key for key in self._holders[pool] if key != claim.key)[:_NAMED]

    # --- places that come free --------------------------------------------------------------------

    def _take(self, nodes: Iterable[str], gpus: int, kept: dict[str, int] | None = None) -> None:
        """Give a place away, first what is free of it; `kept`: to be entered there."""
        for node in nodes:
            before = self._free.get(node, 0)
            now = min(gpus, max(0, before))
            self._coming[node] = self._coming.get(node, 0) - (gpus - now)
            if kept is not None and gpus:
                kept[node] = kept.get(node, 0) + gpus
            if now:
                self._free[node] = before - now
                for room in self._rooms_of.get(node, ()):
                    room.changed(node, before)

    def _comes(self, node: str) -> int:
        return self._free.get(node, 0) + self._coming.get(node, 0)

    def _may_search(self) -> bool:
        self._searches += 1
        return self._searches <= _SEARCHES

    def _coming_place(self, claim: Claim) -> list[str] | None:
        """A place that is free once what drains is gone."""
        kind = (claim.pool, claim.shape)
        if kind in self._nothing_comes:
            return None
        place = None
        if any(count > 0 for count in self._coming.values()) and self._may_search():
            place = self._best(claim, {node: self._comes(node) for node in claim.pool.nodes})
        if place is None:
            self._nothing_comes.add(kind)
        return place

    def _best(self, claim: Claim, amounts: Mapping[str, int]) -> list[str] | None:
        """Of the places where so many GPUs are enough, the one of which least is missing now."""
        shape, domains = claim.shape, claim.pool.nodes
        found: dict[str, list[tuple[int, int, str]]] = {}
        for node, amount in amounts.items():
            if amount >= shape.gpus:
                missing = max(0, shape.gpus - self._free.get(node, 0))
                found.setdefault(domains[node] if shape.pods > 1 else "", []).append((missing, amount, node))
        places = [sorted(nodes)[: shape.pods] for nodes in found.values() if len(nodes) >= shape.pods]
        best = min(places, key=lambda place: (sum(one[0] for one in place), place), default=None)
        return None if best is None else [node for _, _, node in best]

    def _reserve(self, claim: Claim) -> None:
        """Keep the roomiest place for the first that would fit there if the groups in it left, in turns."""
        kind = (claim.pool, claim.shape)
        if claim.pool.grows or kind in self._nothing_kept or not _in_turn(self._now - claim.since):
            return
        near = self._neighbours(claim.pool)
        if any(pool in self._kept_for for pool in near) or not self._may_search():
            return
        amounts = {node: self._comes(node) for node in claim.pool.nodes}
        for standing in self._standings:
            for group in standing.claim.groups:
                if group.phase in _LIVE and group.name not in standing.given_up:
                    for node in group.nodes:
                        if node in amounts:
                            amounts[node] += group.gpus
        place = self._best(claim, amounts)
        if place is None:
            self._nothing_kept.add(kind)
            return
        self._kept_for.add(claim.pool)
        kept = self._reserved.setdefault(claim.key, {})
        for node in place:
            self._take([node], min(claim.shape.gpus, max(0, self._comes(node))), kept)

    # --- reclaiming -------------------------------------------------------------------------------

    def _reclaim(self, claim: Claim) -> _Clearing | None:
        """The cheapest place that groups of lower priority make."""
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

    def _cleared(self, claim: Claim) -> list[tuple[_Cost, str]]:
        """What it costs to clear each node for one pod: a heap. Costs only rise in a pass, as floors come closer."""
        made = ((self._clear(claim, [node]), node) for node in claim.pool.nodes)
        heap = [(clearing.cost(), node) for clearing, node in made if clearing is not None]
        heapq.heapify(heap)
        return heap

    def _node(self, claim: Claim) -> _Clearing | None:
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

    def _domain(self, claim: Claim) -> _Clearing | None:
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

    def _clear(self, claim: Claim, nodes: list[str]) -> _Clearing | None:
        """These nodes, with the groups to drain for them to have room; None where that does not do."""
        chosen: list[tuple[_Standing, Held]] = []
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
        return _Clearing(nodes, chosen)

    def _victims(self, node: str) -> Sequence[tuple[_Standing, Held]]:
        """Groups on a node, the cheapest first."""
        if self._victims_of is None:
            self._victims_of = {}
            for s in self._standings:
                for group in s.claim.groups:
                    if group.phase in _LIVE:
                        for at in dict.fromkeys(group.nodes):
                            self._victims_of.setdefault(at, []).append((s, group))
            for listed in self._victims_of.values():
                listed.sort(key=_victim_order)
        return self._victims_of.get(node, ())

    def _give_up(self, victim: _Standing, group: Held) -> None:
        before = min(victim.live, victim.claim.wanted)
        victim.given_up.append(group.name)
        victim.live -= 1
        victim.serving -= group.phase is Phase.SERVING
        # While groups are replaced one by one there are more than wanted: a further one would be made again.
        drop = 1 if victim.claim.moving else before - min(victim.live, victim.claim.wanted)
        drop = min(drop, max(0, victim.granted - victim.claim.floor))
        victim.granted -= drop
        victim.position -= drop
        for node in group.nodes:
            self._coming[node] = self._coming.get(node, 0) + group.gpus
        self._push(victim)


def _in_turn(waited: float) -> bool:
    """Whether a reservation holds that began so long (s) ago."""
    return int(math.log2(max(0.0, waited) / RESERVATION + 1.0)) % 2 == 0


def _choices(nodes: Sequence[str], pods: int) -> Iterator[list[str]]:
    """The cheapest nodes, then others in place of the dearest of them: the floor of a deployment may rule out a set of
    nodes of which each alone can be cleared."""
    if len(nodes) < pods:
        return
    yield list(nodes[:pods])
    if pods > 1:
        for further in nodes[pods : pods + 8]:
            yield [*nodes[: pods - 1], further]


def _victim_order(one: tuple[_Standing, Held]) -> tuple[int, bool, float, int, int, Key, str]:
    standing, group = one
    serves, held = group.phase is Phase.SERVING, len(group.nodes) * group.gpus
    claim = standing.claim
    return (claim.priority, serves, standing.worth(), held, group.work, claim.key, group.name)
