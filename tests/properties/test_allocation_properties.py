"""What holds of every pass over scarce GPUs, whatever is claimed.

Lost if this fails: GPUs that are promised twice, a class that waits beside GPUs of a lower one, drains without end.
"""

from collections import Counter
from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from factories.claims import Cluster
from moe_operator.api.reasons import WaitingReason
from moe_operator.autoscaler.allocation import allocate
from moe_operator.autoscaler.claims import Allocation, Claim, Held, Phase, Pool, Shape

_SHAPES = [Shape(1, 8), Shape(1, 4), Shape(1, 1), Shape(2, 8), Shape(3, 4)]


@st.composite
def _clusters(draw: st.DrawFn) -> Cluster:
    """Few nodes, many claims: scarce nearly always."""
    count = draw(st.integers(1, 6))
    names = [f"n{index}" for index in range(count)]
    racks = {name: f"r{index // 3}" for index, name in enumerate(names)}
    cut = draw(st.integers(1, count))
    pools = [Pool("all", racks, grows=draw(st.booleans())), Pool("some", dict(list(racks.items())[:cut]))]
    size = {name: draw(st.sampled_from([8, 8, 8, 4])) for name in names}
    free = dict(size)
    claims = []
    for index in range(draw(st.integers(1, 6))):
        pool, shape = draw(st.sampled_from(pools)), draw(st.sampled_from(_SHAPES))
        groups: list[Held] = []
        for number in range(draw(st.integers(0, 4))):
            domain = draw(st.sampled_from(sorted(set(racks.values()))))
            fits = [
                n for n in pool.nodes if free[n] >= shape.gpus and (racks[n] == domain or shape.pods == 1)
            ]
            if len(fits) >= shape.pods:
                for node in fits[: shape.pods]:
                    free[node] -= shape.gpus
                phase = draw(st.sampled_from([Phase.SERVING, Phase.SERVING, Phase.STARTING, Phase.DRAINING]))
                groups.append(Held(f"m{index}-g{number}", phase, tuple(fits[: shape.pods]), shape.gpus))
        live = sum(group.phase is not Phase.DRAINING for group in groups)
        floor = draw(st.integers(0, 2))
        wanted = max(floor, draw(st.integers(0, live + 2)))
        losses = draw(
            st.none() | st.lists(st.floats(0, 100), min_size=wanted - floor + 1, max_size=wanted - floor + 1)
        )
        claims.append(
            Claim(
                key=("team", f"m{index}"),
                pool=pool,
                shape=shape,
                floor=floor,
                wanted=wanted,
                granted=min(live, wanted),
                groups=tuple(groups),
                priority=draw(st.sampled_from([0, 0, 5, 10])),
                losses=None if losses is None else tuple(sorted(losses, reverse=True)),
                since=float(draw(st.integers(0, 9000))),
            )
        )
    return Cluster.of(claims, size)


def _kept(found: Allocation) -> Counter[str]:
    """GPUs by node that are kept for somebody."""
    return sum((Counter(nodes) for nodes in found.reserved.values()), Counter[str]())


def _live(claim: Claim) -> list[Held]:
    return [g for g in claim.groups if g.phase is not Phase.DRAINING and g.nodes]


@given(_clusters())
@settings(max_examples=150, deadline=None)
def test_one_pass(cluster: Cluster) -> None:
    """Grants are within what is wanted, floors are kept, and no more is promised than there is."""
    found = cluster.allocation()
    assert found == cluster.allocation(), "the same again"
    backwards = allocate(reversed(cluster.claims.values()), cluster.free(), cluster.now)
    assert {key: share.granted for key, share in backwards.shares.items()} == {
        key: share.granted for key, share in found.shares.items()
    }, "whatever the order that claims are told in"
    assert all(0 <= count <= cluster.size[node] for node, count in _kept(found).items())
    for key, share in found.shares.items():
        claim = cluster.claims[key]
        live = _live(claim)
        left = [g for g in live if g.name not in share.given_up]
        assert 0 <= share.granted <= claim.wanted
        assert len(set(share.given_up)) == len(share.given_up)
        if len(left) < len(live):
            assert len(left) >= claim.floor, "nothing is taken below the floor"
            serving = sum(g.phase is Phase.SERVING for g in left)
            before = sum(g.phase is Phase.SERVING for g in live)
            assert serving == before or serving >= claim.floor
        assert share.granted >= min(len(left), claim.wanted), (
            "what holds GPUs keeps them unless they are taken"
        )
        assert (share.waiting is not None) or share.granted == claim.wanted
        for victim, group in share.waiting.reclaimed if share.waiting else ():
            assert cluster.claims[victim].priority < claim.priority
            assert group in found.shares[victim].given_up


@given(_clusters())
@settings(max_examples=150, deadline=None)
def test_following_the_grants_ends_and_leaves_nobody_of_a_higher_class_waiting(cluster: Cluster) -> None:
    floors = {key: min(len(_live(c)), c.floor) for key, c in cluster.claims.items()}
    cluster.settle()
    found, free = cluster.allocation(), cluster.free()
    for key, claim in cluster.claims.items():
        assert len(_live(claim)) >= floors[key], "a floor that was there stays"
    for key, share in found.shares.items():
        waiting, claim = share.waiting, cluster.claims[key]
        if waiting is None:
            continue
        assert waiting.reason in (WaitingReason.BEHIND, WaitingReason.NO_ROOM), "nothing comes any more"
        kept = _kept(found)
        others = {node: free[node] - kept.get(node, 0) for node in free}
        assert _place(claim, others) is None, "room that fits is used, but for reservations"
        for other in cluster.claims.values():
            if other.priority >= claim.priority or len(_live(other)) <= other.floor:
                continue
            for group in _live(other):
                without = dict(others)
                for node in group.nodes:
                    without[node] += group.gpus
                assert _place(claim, without) is None, f"{other.key} holds what {key} waits for"


def _place(claim: Claim, free: dict[str, int]) -> str | None:
    """A domain with room for a group."""
    domains: dict[str, int] = {}
    for node, domain in claim.pool.nodes.items():
        at = domain if claim.shape.pods > 1 else "any"
        domains[at] = domains.get(at, 0) + (free[node] >= claim.shape.gpus)
    return next((at for at, count in domains.items() if count >= claim.shape.pods), None)


@given(_clusters(), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_a_reversal_needs_a_change_of_what_is_wanted(cluster: Cluster, extra: int) -> None:
    """No group is drained for a class, made again, and drained again."""
    cluster.settle()
    drained = len(cluster.drained)
    cluster.now += 100.0 * extra
    cluster.settle()
    assert len(cluster.drained) == drained


@given(_clusters())
@settings(max_examples=80, deadline=None)
def test_who_withdraws_leaves_the_others_as_they_would_be_without(cluster: Cluster) -> None:
    """A claim that wants nothing and holds nothing changes nothing."""
    assume(cluster.claims)
    idle = replace(
        next(iter(cluster.claims.values())), key=("team", "idle"), floor=0, wanted=0, granted=0, groups=()
    )
    before = cluster.allocation().shares
    cluster.claims[idle.key] = idle
    after = cluster.allocation().shares
    assert {key: share for key, share in after.items() if key != idle.key} == before
