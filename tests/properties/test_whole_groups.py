"""Groups of several nodes that do not all fit, for any layout of nodes.

Lost if this fails: GPUs that halves of groups hold, of which none ever serves.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, count, islice
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from factories.claims import claim, pool, serving, starting
from moe_operator.api.reasons import WaitingReason
from moe_operator.autoscaler.allocation import allocate
from moe_operator.autoscaler.claims import Claim, Held, Key, Pool, Shape

_SHAPES = [Shape(2, 8), Shape(3, 8), Shape(2, 4), Shape(3, 4)]
_NOW = 10_000.0
_MANY = settings(max_examples=150, deadline=None, derandomize=True)


@st.composite
def _scarce(draw: st.DrawFn, *, parts: bool) -> tuple[list[Claim], dict[str, int]]:
    """Claims on the nodes of a few racks, of which others hold some GPUs, and what is free of them. With `parts`, on
    one rack, and groups of which some pods have no node are among them."""
    size = draw(st.integers(2, 7))
    racks = {f"n{index}": f"r{index % draw(st.integers(1, 1 if parts else 2))}" for index in range(size)}
    nodes = pool(grows=False, **racks)
    free = {name: draw(st.sampled_from([8, 8, 8, 4, 0])) for name in racks}
    claims = []
    for index in range(draw(st.integers(1, 4))):
        shape = draw(st.sampled_from(_SHAPES))
        groups: list[Held] = []
        for number in range(draw(st.integers(0, 2))):
            rack = draw(st.sampled_from(sorted(set(racks.values()))))
            fits = [name for name in racks if racks[name] == rack and free[name] >= shape.gpus]
            has = draw(st.integers(1, shape.pods)) if parts else shape.pods
            if len(fits) >= has:
                for name in fits[:has]:
                    free[name] -= shape.gpus
                made = serving if has == shape.pods else starting
                group = made(f"m{index}-g{number}", *fits[:has], gpus=shape.gpus)
                groups.append(replace(group, pods=shape.pods))
        claims.append(
            claim(
                f"m{index}",
                nodes,
                *groups,
                wanted=len(groups) + draw(st.integers(0, 2)),
                shape=shape,
                floor=draw(st.integers(0, 1)),
                priority=draw(st.sampled_from([0, 0, 5])),
                # Too short for anything to be drained: only what is free counts here.
                since=_NOW,
            )
        )
    return claims, free


def _fit(groups: Sequence[tuple[Pool, Shape]], free: dict[str, int]) -> bool:
    """Whether all of them have room at once, each whole and in one domain. Tries everything."""
    if not groups:
        return True
    (nodes, shape), *others = groups
    fitting = [name for name in nodes.nodes if free[name] >= shape.gpus]
    for place in combinations(fitting, shape.pods):
        if len({nodes.nodes[name] for name in place}) == 1:
            left = {name: gpus - shape.gpus * (name in place) for name, gpus in free.items()}
            if _fit(others, left):
                return True
    return False


@given(_scarce(parts=False))
@_MANY
def test_no_more_groups_are_made_than_fit_whole(scarce: tuple[list[Claim], dict[str, int]]) -> None:
    """But for the first in the queue, while no node would take a single pod of it: its pods all wait."""
    claims, free = scarce
    found = allocate(claims, free, _NOW)
    made = [c for c in claims for _ in range(found.shares[c.key].granted - len(c.groups))]
    asking = [
        c
        for c in set(made)
        if (waiting := found.shares[c.key].waiting) and waiting.reason is WaitingReason.NO_ROOM
    ]
    assert len(asking) <= 1
    for one in asking:
        if all(gpus < one.shape.gpus for gpus in free.values()):
            made.remove(one)
    assert _fit([(c.pool, c.shape) for c in made], free)


@given(_scarce(parts=True), st.randoms(use_true_random=False))
@_MANY
def test_halves_end_where_one_of_them_would_be_whole(
    scarce: tuple[list[Claim], dict[str, int]], random: Random
) -> None:
    """Whatever was placed in part before, and in whatever order the scheduler takes pods: it knows of no groups. On one
    rack: which of several a group goes to, the operator tells it."""
    claims, free = {one.key: one for one in scarce[0]}, dict(scarce[1])
    before = {g.name for one in claims.values() for g in one.groups}
    for _ in range(40):
        done = _follow(claims, free)
        if not _schedule(claims, free, random) and not done:
            break
    else:
        raise AssertionError("no end after 40 passes")
    halves = [(one, g) for one in claims.values() for g in one.groups if g.lacks]
    assert {g.name for _, g in halves} <= before, "none was made that is not whole"
    for one, group in halves:
        rack = one.pool.nodes[group.nodes[0]]
        room = dict(free)
        for other, theirs in halves:
            if other.priority <= one.priority and theirs is not group and theirs.gpus >= group.gpus:
                for name in theirs.nodes:
                    room[name] += theirs.gpus
        fits = [n for n, at in one.pool.nodes.items() if at == rack and room[n] >= group.gpus]
        alone = [n for n in fits if n not in group.nodes and free[n] >= group.gpus]
        assert len(alone) < group.lacks, "it has room"
        first = min(halves, key=lambda half: (-half[0].priority, half[1].lacks, half[0].key, half[1].name))
        if group is first[1] and len(halves) == 2:
            assert len(set(fits) - set(group.nodes)) < group.lacks, "another yields to it"


def _follow(claims: dict[Key, Claim], free: dict[str, int]) -> bool:
    """What the operator does of one pass; whether that was anything."""
    found, changed = allocate(claims.values(), free, _NOW), False
    for key, share in found.shares.items():
        one = claims[key]
        for group in one.groups:
            for node in group.nodes if group.name in share.given_up else ():
                free[node] += group.gpus
        stay = [g for g in one.groups if g.name not in share.given_up]
        names = (name for n in count() if (name := f"{key[1]}-n{n}") not in {g.name for g in stay})
        more = max(0, share.granted - len(stay))
        new = [starting(n, gpus=one.shape.gpus, pods=one.shape.pods) for n in islice(names, more)]
        changed |= bool(new) or len(stay) < len(one.groups)
        claims[key] = replace(one, groups=(*stay, *new), granted=share.granted)
    return changed


def _schedule(claims: dict[Key, Claim], free: dict[str, int], random: Random) -> bool:
    """Bind pod after pod where there is room, those of a group in one domain; whether there was any."""
    bound = False
    pending = [(key, g.name) for key, one in claims.items() for g in one.groups for _ in range(g.pods)]
    random.shuffle(pending)
    for key, name in pending:
        one = claims[key]
        group = next(g for g in one.groups if g.name == name)
        domains = {one.pool.nodes[node] for node in group.nodes} or set(one.pool.nodes.values())
        fits = [n for n, at in one.pool.nodes.items() if at in domains and free[n] >= one.shape.gpus]
        fits = [n for n in fits if n not in group.nodes]
        if fits and len(group.nodes) < group.pods:
            # Until it is in a domain, the one that it was told: that with room for all of it, where there is one.
            node = max(fits, key=lambda n: (sum(one.pool.nodes[o] == one.pool.nodes[n] for o in fits), n))
            free[node] -= one.shape.gpus
            placed, bound = replace(group, nodes=(*group.nodes, node)), True
            claims[key] = replace(one, groups=tuple(placed if g is group else g for g in one.groups))
    return bound
