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
  that was found for them;
- but of groups of several pods none that would be placed in part: not before those of its own deployment have their
  nodes, one at a time, and in a pool that does not grow only while no node takes a single pod of it.

Where groups are there in part all the same (somebody else's pods were quicker), the first takes what is left, and one
that comes later gives up what it has if that makes the first whole.

Nothing that fits is held back for what does not, but for a place that is being cleared, and for a reservation: the
first that would fit if groups of its own or of higher priority left has the roomiest place kept for it, in turns (see
`RESERVATION`), so that small groups do not take each GPU that comes free.

Pure; times are seconds. O(n log n) in claims, but for at most `_SEARCHES` looks over all nodes and groups in a pass.
"""

import heapq
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from moe_operator.api.reasons import WaitingReason
from moe_operator.autoscaler.claims import LIVE, Allocation, Claim, Held, Key, Phase, Pool, Shape, avoided
from moe_operator.autoscaler.free_room import FreeRoom
from moe_operator.autoscaler.halves import halves, rest_of, yielding
from moe_operator.autoscaler.reclaim import Reclaiming, Standing

#: A wait must last this long (s) before a group of another deployment is drained for it: many are over sooner, as
#: draining groups are deleted and limits or replicas are set back, and a drained group costs a cold start.
RECLAIM_AFTER = 30.0
#: First turn of a reservation (s); each turn lasts twice as long as the one before it, and every other one keeps the
#: place. So smaller groups never wait for ever, and any wait ends once a turn outlasts the groups that are in the way.
RESERVATION = 600.0
#: Looks over all nodes and groups of a pool in one pass: it bounds the time of a pass. What is not looked for waits for
#: the next one.
_SEARCHES = 24
#: Names of other deployments that are given of those ahead.
_NAMED = 3


def allocate(claims: Iterable[Claim], free: Mapping[str, int], now: float) -> Allocation:
    """Share out the GPUs.

    Args:
        claims: Of all deployments: nothing may be reclaimed on the word of some of them.
        free: GPUs by node that nobody holds. Those of the claims' own groups are not among them.
        now: Seconds, of the clock of `Claim.since`.
    """
    return _Pass(claims, free, now).run()


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


_CLEARING = (WaitingReason.DRAINING, WaitingReason.RECLAIMING, WaitingReason.RECLAIM_DUE)


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
        self._rooms = {pool: FreeRoom(pool, self._free) for pool in pools}
        self._rooms_of: dict[str, list[FreeRoom]] = {}
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
        self._kept_for: set[Pool] = set()
        self._nothing_kept: set[tuple[Pool, Shape]] = set()
        self._searches = 0
        self._recheck: float | None = None
        self._reclaiming = Reclaiming(self._standings, self._comes, self._may_search)
        self._holders: dict[Pool, tuple[Key, ...]] = {}

    def _standing(self, claim: Claim) -> Standing:
        placed = serving = 0
        unplaced: list[Held] = []
        for group in claim.groups:
            if group.phase not in LIVE:
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
        return Standing(claim, avoided(claim), base, base, owed, placed, serving, unplaced, draining=draining)

    def run(self) -> Allocation:
        self._finish_halves()
        for standing in self._standings:
            for group in standing.claim.groups:
                if group.phase is Phase.DRAINING and standing.owed > 0:
                    self._succeed(standing, group)
            self._push(standing)
        while self._heap:
            _, index = heapq.heappop(self._heap)
            self._in_heap.discard(index)
            standing = self._standings[index]
            if self._next(standing):
                self._push(standing)
        for standing in self._standings:
            standing.surge = not (standing.claim.moving and self._cleared_above(standing.claim))
        return Allocation(
            shares={s.claim.key: s.share() for s in self._standings},
            reserved=self._reserved,
            moving_in=self._moving_in,
            recheck_after=self._recheck,
        )

    def _push(self, s: Standing) -> None:
        index = self._index[id(s)]
        if s.position < s.claim.wanted and index not in self._in_heap:
            self._in_heap.add(index)
            heapq.heappush(self._heap, (s.rank(), index))

    # --- one group --------------------------------------------------------------------------------

    def _next(self, s: Standing) -> bool:
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
        clearing = self._reclaiming.place(s.claim)
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

    def _moves_in(self, s: Standing, nodes: Collection[str]) -> bool:
        """It gets this place. Until its pods are there, the place is kept for it: a group that was told to go there
        says so itself."""
        hint = s.unplaced[0].hint if s.unplaced else None
        told = all(hint in (node, s.claim.pool.nodes[node]) for node in nodes)
        kept = None if told else self._moving_in.setdefault(s.claim.key, {})
        self._take(nodes, s.claim.shape.gpus, kept)
        self._lines[s.claim.pool].moving_in.setdefault(s.claim.key, s.rank()[:2])
        s.grant()
        s.position += 1
        return True

    def _clears(self, s: Standing, reason: WaitingReason) -> bool:
        """It waits for a place that comes free. A group that is there waits on."""
        self._enter(s, reason)
        if s.owed > 0:
            s.grant()
        s.missing += 1
        s.position += 1
        return True

    def _asks(self, s: Standing) -> bool:
        """Nothing here makes room for it."""
        splits = self._would_split(s)
        self._reserve(s.claim)
        behind = self._held_back(s)
        if behind or splits:
            self._enter(s, WaitingReason.BEHIND if behind else WaitingReason.NO_ROOM)
            s.missing += s.claim.wanted - s.position
            return False
        self._enter(s, WaitingReason.NO_ROOM)
        s.grant()
        s.missing += 1
        s.position += 1
        return True

    def _room_now(self, s: Standing) -> list[str] | None:
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

    # --- groups that are there in part ------------------------------------------------------------

    def _finish_halves(self) -> None:
        """Groups that are there in part take the rest of their room before anything else. Where there is none, one
        that comes later gives its nodes up for one that so becomes whole: else neither serves."""
        known = halves(self._standings)
        for index, (s, group) in enumerate(known):
            if group.name in s.given_up:
                continue
            rest = rest_of(s.claim, group, self._free)
            if len(rest) < group.lacks and not s.claim.pool.grows:
                for victim, other in yielding(s.claim, group, rest, known[index + 1 :]):
                    self._yield(victim, other)
                rest = rest_of(s.claim, group, self._free)
            self._take(rest, group.gpus)
            if len(rest) == group.lacks or not s.claim.pool.grows:
                # Where nodes are added, some come for it and some for others.
                self._lines[s.claim.pool].moving_in.setdefault(s.claim.key, s.rank()[:2])

    def _yield(self, victim: Standing, group: Held) -> None:
        """It stands in the queue again, for a whole place. Its pods never served: they are gone in seconds."""
        victim.given_up.append(group.name)
        victim.live -= 1
        victim.granted = victim.position = min(victim.position, victim.live)
        for node in group.nodes:
            self._add_free(node, group.gpus)

    def _would_split(self, s: Standing) -> bool:
        """Whether pods of a further group without a place would get nodes for some of them only, or take one of those
        that another of its own groups counts on."""
        claim = s.claim
        if claim.shape.pods == 1:
            return False
        counts_on = claim.key in self._lines[claim.pool].moving_in
        if claim.pool.grows:
            return not s.unplaced and (counts_on or s.reason in _CLEARING)
        return (
            counts_on
            or s.missing > 0
            or (not s.unplaced and self._rooms[claim.pool].takes_a_pod(claim.shape))
        )

    def _succeed(self, s: Standing, group: Held) -> None:
        """A group that drains for a successor of its own makes room for that, and not for those in the queue."""
        shape, nodes = s.claim.shape, [node for node in group.nodes if node in s.claim.pool.nodes]
        if group.gpus >= shape.gpus and len(nodes) >= shape.pods:
            for node in nodes[: shape.pods]:
                self._coming[node] -= shape.gpus
            s.draining.remove(group)
            s.grant()
            s.position += 1

    def _returns(self, s: Standing) -> bool:
        """Whether a group that drains comes back: it is there, and none of it is promised to somebody ahead."""
        if s.unplaced:
            return False
        for group in s.draining:
            there = group.nodes and all(node in s.claim.pool.nodes for node in group.nodes)
            if there and all(self._coming.get(node, 0) >= group.gpus for node in group.nodes):
                for node in group.nodes:
                    self._coming[node] -= group.gpus
                s.draining.remove(group)
                s.grant()
                s.position += 1
                return True
        return False

    # --- the queue --------------------------------------------------------------------------------

    def _enter(self, s: Standing, reason: WaitingReason) -> None:
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

    def _ahead(self, s: Standing) -> tuple[Key, ...]:
        """The first of those that come before it and wait too, or are about to move in."""
        lines = [self._lines[pool] for pool in self._neighbours(s.claim.pool)]
        first = sorted((rank, key) for line in lines for key, rank in line.entries[: _NAMED + 1])
        keys = [key for _, key in first if key != s.claim.key]
        if not keys:
            moving = (key for line in lines for key in islice(line.moving_in, _NAMED + 1))
            keys = sorted(key for key in moving if key != s.claim.key)
        return tuple(keys[:_NAMED])

    def _held_back(self, s: Standing) -> bool:
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

    def _cleared_above(self, claim: Claim) -> bool:
        """Whether a place is being cleared for a higher priority on its nodes."""
        lines = [self._lines[pool] for pool in self._neighbours(claim.pool)]
        return any(line.clearing and rank[1] < -claim.priority for line in lines for rank in line.ranks)

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
            now = min(gpus, max(0, self._free.get(node, 0)))
            self._coming[node] = self._coming.get(node, 0) - (gpus - now)
            if kept is not None and gpus:
                kept[node] = kept.get(node, 0) + gpus
            if now:
                self._add_free(node, -now)

    def _add_free(self, node: str, gpus: int) -> None:
        before = self._free.get(node, 0)
        self._free[node] = before + gpus
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
                if group.phase in LIVE and group.name not in standing.given_up:
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

    def _give_up(self, victim: Standing, group: Held) -> None:
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
