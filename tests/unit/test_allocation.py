"""Who gets scarce GPUs, by hand.

Lost if this fails: a model of high priority that waits beside GPUs of a low one, a floor that is taken away, groups
that are drained for nothing, or a queue in which somebody waits for ever.
"""

from dataclasses import replace

import pytest

from factories.claims import Cluster, claim, draining, key, pool, serving, starting
from moe_operator.api.reasons import WaitingReason
from moe_operator.autoscaler.allocation import RECLAIM_AFTER, RESERVATION, allocate
from moe_operator.autoscaler.claims import Allocation, Claim, Held, Phase, Shape, Waiting, avoided

NOW = 10_000.0
#: A group on two nodes of eight GPUs.
PAIR = Shape(2, 8)


def _pass(*claims: Claim, now: float = NOW, **free: int) -> Allocation:
    return allocate(claims, free, now)


def _granted(found: Allocation) -> dict[str, int]:
    return {name: share.granted for (_, name), share in found.shares.items()}


def _roomed(found: Allocation) -> dict[str, int]:
    """Groups that have room: without those that are made for node autoscalers to see."""
    asked = {
        name: share.waiting.groups
        for (_, name), share in found.shares.items()
        if share.waiting and share.waiting.reason is WaitingReason.NO_ROOM
    }
    return {name: count - asked.get(name, 0) for name, count in _granted(found).items()}


def _waiting(found: Allocation, name: str) -> Waiting:
    waiting = found.shares[key(name)].waiting
    assert waiting is not None, f"{name} does not wait"
    return waiting


def test_with_room_for_all_everybody_gets_what_they_want() -> None:
    of = pool("n1", "n2", "n3")
    found = _pass(claim("a", of, wanted=2), claim("b", of, wanted=1), n1=8, n2=8, n3=8)
    assert _granted(found) == {"a": 2, "b": 1}
    assert not any(share.waiting or share.given_up for share in found.shares.values())
    assert not found.reserved
    assert sorted(node for nodes in found.moving_in.values() for node in nodes) == ["n1", "n2", "n3"]


def test_floors_come_before_growth_whatever_the_priority() -> None:
    of = pool("n1", "n2")
    high = claim("high", of, wanted=3, priority=100)
    low = claim("low", of, wanted=1)
    assert _roomed(_pass(high, low, n1=8, n2=8)) == {"high": 1, "low": 1}


def test_above_the_floors_priority_decides() -> None:
    of = pool("n1")
    first = claim("first", of, serving("first-g0", "x"), wanted=2, losses=(9.0, 0.0))
    second = claim("second", of, serving("second-g0", "y"), wanted=2, losses=(1.0, 0.0), priority=1)
    assert _roomed(_pass(first, second, n1=8)) == {"first": 1, "second": 2}


def test_in_a_class_the_group_that_avoids_most_loss_per_gpu_comes_first() -> None:
    of = pool("n1")
    small = claim("small", of, wanted=1, floor=0, shape=Shape(1, 4), losses=(3.0, 0.0))
    large = claim("large", of, wanted=1, floor=0, losses=(5.0, 0.0))
    found = _pass(small, large, n1=8)
    assert _roomed(found) == {"small": 1, "large": 0}, "3 per 4 GPUs is more than 5 per 8"


def test_alike_the_longest_wait_comes_first_then_the_name() -> None:
    of = pool("n1")
    early, late = claim("z", of, wanted=1, since=NOW - 60), claim("a", of, wanted=1, since=NOW - 50)
    assert _roomed(_pass(early, late, n1=8)) == {"z": 1, "a": 0}
    same = [claim(name, of, wanted=1, floor=0, since=NOW) for name in ("b", "a")]
    assert _roomed(_pass(*same, n1=8)) == {"b": 0, "a": 1}


def test_losses_that_fall_late_count_with_their_mean() -> None:
    """The second group helps only once the third is there: together they are worth 4 each."""
    of = pool("n1")
    assert avoided(claim("a", of, wanted=4, losses=(10.0, 10.0, 2.0, 1.0))) == [4.0, 4.0, 1.0]
    assert avoided(claim("a", of, wanted=3)) == [0.5, 0.25]
    assert avoided(claim("a", of, wanted=3, losses=(float("nan"), 1.0))) == [0.0, 0.0]


def test_a_group_is_placed_whole_or_not_at_all() -> None:
    of = pool("n1", "n2")
    found = _pass(claim("a", of, wanted=1), n1=7, n2=7)
    assert _waiting(found, "a").reason is WaitingReason.NO_ROOM, "14 GPUs are free, and no node has 8"
    wide = claim("w", pool(n1="r1", n2="r2", n3="r2"), wanted=1, shape=Shape(2, 8))
    assert _pass(wide, n1=8, n2=8, n3=0).shares[key("w")].waiting is not None, "two racks are no domain"
    assert _pass(wide, n1=0, n2=8, n3=8).shares[key("w")].waiting is None


def test_what_drains_is_held_until_it_is_gone() -> None:
    of = pool("n1")
    leaving = claim("leaving", of, draining("leaving-g0", "n1"), wanted=0, floor=0)
    found = _pass(leaving, claim("a", of, wanted=1))
    assert _granted(found)["a"] == 0, "made when its GPUs are there, as its pods might take others"
    assert _waiting(found, "a") == Waiting(1, WaitingReason.DRAINING)


def test_what_ends_makes_room_at_once() -> None:
    """A successor is made while its predecessor's pods end."""
    of = pool("n1")
    ending = Held("a-g0", Phase.ENDING, ("n1",), 8)
    found = _pass(claim("a", of, ending, wanted=1, granted=1))
    assert _granted(found)["a"] == 1
    assert found.shares[key("a")].waiting is None


def test_a_lost_group_is_replaced_before_others_of_its_class_grow() -> None:
    of = pool("n1")
    lost = claim("lost", of, serving("lost-g0", "x"), wanted=2, granted=2, losses=(0.1, 0.0))
    grows = claim("grows", of, serving("grows-g0", "y"), wanted=2, losses=(9.0, 0.0))
    assert _roomed(_pass(lost, grows, n1=8)) == {"lost": 2, "grows": 1}
    higher = claim("higher", of, serving("grows-g0", "y"), wanted=2, priority=1)
    assert _roomed(_pass(lost, higher, n1=8)) == {"lost": 1, "higher": 2}


def test_a_higher_class_gets_a_group_of_a_lower_one_by_drain() -> None:
    of = pool("n1", "n2")
    low = claim("low", of, serving("low-g0", "n1"), serving("low-g1", "n2"))
    found = _pass(low, claim("high", of, wanted=1, priority=10))
    assert len(found.shares[key("low")].given_up) == 1
    assert _granted(found) == {"low": 1, "high": 0}
    victim = found.shares[key("low")].given_up[0]
    assert _waiting(found, "high") == Waiting(1, WaitingReason.RECLAIMING, reclaimed=((key("low"), victim),))
    assert _waiting(found, "low") == Waiting(1, WaitingReason.BEHIND, (key("high"),))


def test_nothing_is_taken_from_equals_or_from_a_floor() -> None:
    of = pool("n1", "n2")
    equal = claim("equal", of, serving("equal-g0", "n1"), serving("equal-g1", "n2"), priority=10)
    found = _pass(equal, claim("high", of, wanted=1, priority=10))
    assert not found.shares[key("equal")].given_up
    floor = claim("floor", of, serving("floor-g0", "n1"), serving("floor-g1", "n2"), floor=2)
    found = _pass(floor, claim("high", of, wanted=1, priority=10))
    assert not found.shares[key("floor")].given_up
    assert _waiting(found, "high").reason is WaitingReason.NO_ROOM
    assert _waiting(found, "high").ahead == (key("floor"),), "the status says who holds the GPUs"


def test_a_floor_is_kept_serving() -> None:
    """What only starts does not stand in for a group that serves."""
    of = pool("n1", "n2")
    low = claim("low", of, serving("low-g0", "n1"), starting("low-g1", "n2"))
    assert _pass(low, claim("high", of, wanted=1, priority=1)).shares[key("low")].given_up == ("low-g1",)
    only_n1 = pool("n1")
    found = _pass(low, claim("high", only_n1, wanted=1, priority=1))
    assert found.shares[key("low")].given_up == ()


def test_nothing_is_drained_that_makes_no_place() -> None:
    """Half of a node's GPUs are somebody else's: its other half is no use to a group of eight."""
    of = pool("n1", "n2")
    low = claim(
        "low", of, serving("low-g0", "n1", gpus=4), serving("low-g1", "n2", gpus=4), shape=Shape(1, 4)
    )
    found = _pass(low, claim("high", of, wanted=1, priority=1), n1=0, n2=0)
    assert not found.shares[key("low")].given_up
    assert _waiting(found, "high").reason is WaitingReason.NO_ROOM
    assert _pass(low, claim("high", of, wanted=1, priority=1), n2=4).shares[key("low")].given_up == (
        "low-g1",
    )


def test_as_few_are_drained_as_needed_and_the_cheapest() -> None:
    of = pool("n1", "n2", "n3")
    small = claim(
        "small",
        of,
        *(serving(f"small-g{i}", "n1", gpus=2) for i in range(4)),
        shape=Shape(1, 2),
        floor=0,
        losses=(9.0, 6.0, 4.0, 3.0, 2.5),
    )
    large = claim("large", of, serving("large-g0", "n2"), floor=0, losses=(50.0, 0.0), priority=0)
    dear = claim("dear", of, serving("dear-g0", "n3"), floor=0, losses=(0.1, 0.0), priority=5)
    found = _pass(small, large, dear, claim("high", of, wanted=1, priority=9))
    assert len(found.shares[key("small")].given_up) == 4, "four small ones avoid less than the large one"
    assert not found.shares[key("large")].given_up
    assert not found.shares[key("dear")].given_up, "the lowest class first, whatever it avoids"
    half = claim("half", of, wanted=1, priority=9, shape=Shape(1, 4))
    assert len(_pass(small, large, dear, half).shares[key("small")].given_up) == 2


def test_what_turns_out_not_to_be_needed_is_not_drained() -> None:
    """The cheap one alone does not do, and with the dear one it is not needed."""
    of = pool("n1")
    cheap = claim(
        "cheap", of, serving("cheap-g0", "n1", gpus=4), shape=Shape(1, 4), floor=0, losses=(1.0, 0.0)
    )
    dear = claim("dear", of, serving("dear-g0", "n1"), floor=0, losses=(9.0, 0.0))
    found = _pass(cheap, dear, claim("high", of, wanted=1, priority=1))
    assert found.shares[key("dear")].given_up == ("dear-g0",)
    assert not found.shares[key("cheap")].given_up


def test_all_that_a_drained_group_frees_is_used() -> None:
    """A wide group goes for the first; the second takes its other node instead of having a further one drained."""
    nodes = pool(n1="r", n2="r", n3="r", n4="r")
    wide = claim(
        "wide",
        nodes,
        *(serving(f"wide-g{i}", f"n{2 * i + 1}", f"n{2 * i + 2}") for i in range(2)),
        shape=Shape(2, 8),
        floor=0,
    )
    highs = [claim(name, nodes, wanted=1, priority=1) for name in ("a", "b")]
    found = _pass(wide, *highs)
    assert len(found.shares[key("wide")].given_up) == 1
    assert _waiting(found, "b").reason is WaitingReason.DRAINING


def test_of_alike_groups_the_least_busy_one_goes() -> None:
    of = pool("n1", "n2")
    busy, idle = replace(serving("low-g0", "n1"), work=9), serving("low-g1", "n2")
    low = claim("low", of, busy, idle)
    assert _pass(low, claim("high", of, wanted=1, priority=1)).shares[key("low")].given_up == ("low-g1",)


def test_reclaiming_waits_until_the_wait_has_lasted() -> None:
    of = pool("n1", "n2")
    low = claim("low", of, serving("low-g0", "n1"), serving("low-g1", "n2"))
    high = claim("high", of, wanted=1, priority=10, since=NOW - RECLAIM_AFTER + 10)
    found = _pass(low, high)
    assert not found.shares[key("low")].given_up
    assert _waiting(found, "high").reason is WaitingReason.RECLAIM_DUE
    assert found.recheck_after == pytest.approx(10.0)
    assert _pass(low, high, now=NOW + 10).shares[key("low")].given_up


def test_what_drains_already_is_waited_for_before_more_is_drained() -> None:
    of = pool("n1", "n2")
    low = claim("low", of, draining("low-g0", "n1"), serving("low-g1", "n2"), wanted=2, granted=1)
    found = _pass(low, claim("high", of, wanted=1, priority=10))
    assert not found.shares[key("low")].given_up
    assert _waiting(found, "high").reason is WaitingReason.DRAINING
    assert _granted(found)["low"] == 1, "the GPUs are not given back to the one that they come from"


def test_a_group_that_drains_comes_back_when_it_is_wanted_again() -> None:
    of = pool("n1")
    mine = claim("a", of, draining("a-g0", "n1"), wanted=1, granted=0)
    share = _pass(mine).shares[key("a")]
    assert (share.granted, share.gone, share.waiting) == (1, (), None)


def test_it_does_not_when_somebody_ahead_waits_for_its_gpus() -> None:
    """Not even where the other group is made instead: the planner would take this one back for it."""
    of = pool("n1", "n2")
    mine = claim("a", of, draining("a-g0", "n1", gpus=8), wanted=1, granted=0, floor=0)
    other = claim("b", pool("n1"), wanted=1)
    found = _pass(mine, other, n2=8)
    assert found.shares[key("a")].granted == 1
    assert found.shares[key("a")].gone == ("a-g0",)
    assert _waiting(found, "b").reason is WaitingReason.DRAINING


def test_a_deployment_that_moves_goes_on_with_its_own_gpus() -> None:
    """A rollout without surge: the old group drains, and the new one takes its GPUs."""
    of = pool("n1", "n2")
    rolling = claim("a", of, draining("a-g0", "n1"), serving("a-g1", "n2"), wanted=2, granted=2, moving=True)
    found = _pass(rolling, claim("b", of, wanted=1))
    assert _granted(found)["a"] == 2
    assert _granted(found)["b"] <= 1


def test_a_group_above_the_wanted_number_of_a_rollout_is_not_made_again() -> None:
    of = pool("n1", "n2", "n3")
    groups = [serving(f"low-g{i}", f"n{i + 1}") for i in range(3)]
    low = claim("low", of, *groups, wanted=2, granted=2, moving=True)
    found = _pass(low, claim("high", of, wanted=1, priority=1))
    assert len(found.shares[key("low")].given_up) == 1
    assert _granted(found)["low"] == 1


def test_a_rollout_does_not_surge_into_a_place_that_is_cleared_for_a_higher_class() -> None:
    """Its pods wait for a node, and would be served first."""
    of = pool("n1", "n2", "n3")
    low = claim("low", of, serving("low-g0", "n1"), serving("low-g1", "n2"), serving("low-g2", "n3"))
    rolling = claim(
        "rolling", pool("n3", "n4"), serving("r-g0", "n4"), starting("r-g1"), wanted=1, moving=True
    )
    calm = _pass(low, rolling).shares[key("rolling")]
    assert (calm.surge, calm.given_up, calm.granted) == (True, (), 1)
    told = _pass(low, rolling, claim("high", of, wanted=1, priority=1)).shares[key("rolling")]
    assert (told.surge, told.given_up, told.granted) == (False, ("r-g1",), 1)


def test_small_groups_go_past_one_that_does_not_fit() -> None:
    of = pool("n1", "n2")
    wide = claim("wide", pool(n1="r", n2="r", n3="r"), wanted=1, shape=Shape(3, 8), priority=100)
    found = _pass(wide, claim("small", of, wanted=1), n1=8, n2=8)
    assert _granted(found)["small"] == 1, "the third node of the wide one is not ours to clear"


def test_a_place_that_is_being_cleared_is_kept() -> None:
    nodes = pool(n1="r", n2="r")
    low = claim("low", nodes, serving("low-g0", "n2"), floor=0, shape=Shape(1, 8))
    wide = claim("wide", nodes, wanted=1, shape=Shape(2, 8), priority=100)
    small = claim("small", nodes, wanted=1)
    found = _pass(low, wide, small, n1=8)
    assert found.shares[key("low")].given_up == ("low-g0",)
    assert found.reserved == {key("wide"): {"n1": 8, "n2": 8}}
    assert _granted(found)["small"] == 0
    assert _waiting(found, "small").ahead == (key("wide"),)


def test_of_equals_a_place_is_kept_in_turns() -> None:
    """A group of eight waits for a node of which equals hold a GPU here and there; small ones come all the time."""
    of = pool("n1", "n2")
    holder = claim(
        "holder", of, serving("h-g0", "n1", gpus=1), serving("h-g1", "n2", gpus=3), shape=Shape(1, 1), floor=2
    )
    small = claim("small", of, wanted=12, floor=0, shape=Shape(1, 1))

    def shared(waited: float) -> tuple[int, int]:
        large = claim("large", of, wanted=1, since=NOW - waited)
        found = _pass(holder, large, small, n1=7, n2=5)
        return _granted(found)["small"], sum(found.reserved.get(key("large"), {}).values())

    assert shared(0.0) == (5, 7)
    assert shared(RESERVATION - 1) == (5, 7)
    assert shared(RESERVATION + 1) == (12, 0), "then others may have it, twice as long"
    assert shared(3 * RESERVATION + 1) == (5, 7)
    assert shared(7 * RESERVATION + 1) == (12, 0)


def test_only_the_head_of_the_queue_has_pods_without_a_place() -> None:
    of = pool("n1")
    holder = claim("holder", of, serving("holder-g0", "n1"))
    waits = [claim(name, of, wanted=1, since=NOW - age) for name, age in (("a", 90), ("b", 80), ("c", 70))]
    found = _pass(holder, *waits)
    assert _granted(found) == {"holder": 1, "a": 1, "b": 0, "c": 0}
    assert _waiting(found, "c") == Waiting(1, WaitingReason.BEHIND, (key("a"), key("b")))


def test_where_nodes_are_added_all_of_a_class_ask_for_them() -> None:
    of = pool("n1", grows=True)
    holder = claim("holder", of, serving("holder-g0", "n1"))
    first, second = claim("a", of, wanted=2), claim("b", of, wanted=1)
    lower = claim("lower", of, wanted=1, priority=-1)
    found = _pass(holder, first, second, lower)
    assert _granted(found)["a"] == 2
    assert _granted(found)["b"] == 1
    assert _granted(found)["lower"] == 0


def test_a_group_without_a_place_goes_when_somebody_comes_before_it() -> None:
    of = pool("n1")
    holder = claim("holder", of, serving("holder-g0", "n1"))
    pending = claim("pending", of, starting("pending-g0"), wanted=1, granted=1)
    assert _granted(_pass(holder, pending))["pending"] == 1
    found = _pass(holder, pending, claim("high", of, wanted=1, priority=1))
    assert found.shares[key("pending")].given_up == ("pending-g0",)
    assert _granted(found) == {"holder": 1, "pending": 0, "high": 1}


def test_it_is_not_for_a_larger_loss_that_a_group_without_a_place_goes() -> None:
    """Losses move with every scrape: groups would come and go with them."""
    of = pool("n1")
    holder = claim("holder", of, serving("holder-g0", "n1"))
    pending = claim("a", of, serving("a-g0", "x"), starting("a-g1"), wanted=2, losses=(1.0, 0.0))
    keen = claim("b", of, serving("b-g0", "y"), wanted=2, losses=(9.0, 0.0))
    assert _granted(_pass(holder, pending, keen)) == {"holder": 1, "a": 2, "b": 1}


def test_a_group_that_was_told_where_to_go_finds_its_room_kept() -> None:
    of = pool("n1", "n2")
    told = claim("told", of, starting("told-g0", hint="n2"), wanted=1, shape=Shape(1, 4))
    found = _pass(told, claim("whole", pool("n2"), wanted=1), n1=4, n2=8)
    assert _waiting(found, "whole") is not None


def test_of_two_groups_of_one_deployment_the_one_that_fits_is_made() -> None:
    """Both at once would share its nodes out among them, and neither would serve."""
    wide = claim("w", pool(n1="r", n2="r", n3="r"), wanted=2, shape=PAIR)
    for third in (0, 8):
        found = _pass(wide, n1=8, n2=8, n3=third)
        assert _granted(found) == {"w": 1}
        assert _waiting(found, "w") == Waiting(1, WaitingReason.NO_ROOM)


def test_the_next_is_made_once_no_node_takes_one_of_its_pods_alone() -> None:
    """Pods that all wait hold nothing, and node autoscalers see them."""
    nodes = pool(n1="r", n2="r", n3="r")
    for held, free, granted in (
        (starting("w-g0", hint="r", pods=2), {"n1": 8, "n2": 8}, 1),  # its pods are yet to come
        (starting("w-g0", "n1", pods=2), {"n2": 8}, 1),  # one of two
        (serving("w-g0", "n1", "n2"), {"n3": 8}, 1),  # the third node would take one of two
        (serving("w-g0", "n1", "n2"), {}, 2),
    ):
        found = _pass(claim("w", nodes, held, wanted=3, shape=PAIR), **free)
        assert _granted(found) == {"w": granted}, (held, free)
        assert _waiting(found, "w").groups == 2


def test_a_group_that_waits_is_not_taken_back_because_a_node_comes_free() -> None:
    nodes = pool(n1="r", n2="r", n3="r")
    waits = claim("w", nodes, serving("w-g0", "n1", "n2"), starting("w-g1", pods=2), wanted=2, shape=PAIR)
    assert _pass(waits, n3=8).shares[key("w")].given_up == ()


def test_where_nodes_are_added_a_group_asks_once_those_before_it_have_theirs() -> None:
    nodes = pool(n1="r", n2="r", n3="r", grows=True)
    first = claim("w", nodes, wanted=3, shape=PAIR)
    assert _granted(_pass(first, n1=8, n2=8, n3=8)) == {"w": 1}
    there = claim("w", nodes, serving("w-g0", "n1", "n2"), wanted=3, shape=PAIR)
    assert _granted(_pass(there, n3=8)) == {"w": 3}, "a node is added for each pod that finds none"


def test_half_a_group_keeps_the_rest_of_its_room() -> None:
    nodes = pool(n1="r", n2="r")
    half = claim("half", nodes, starting("half-g0", "n1", pods=2), shape=PAIR, wanted=1)
    found = _pass(half, claim("other", nodes, wanted=1, priority=9), n2=8)
    assert _granted(found) == {"half": 1, "other": 0}, "a pod of the other would take it"
    assert _waiting(found, "other") == Waiting(1, WaitingReason.BEHIND, (key("half"),))


def _halves(*, grows: bool = False, **changes: object) -> tuple[Claim, Claim]:
    nodes = pool(n1="r", n2="r", grows=grows)
    a = claim("a", nodes, starting("a-g0", "n1", pods=2), shape=PAIR, wanted=1)
    b = claim("b", nodes, starting("b-g0", "n2", pods=2), shape=PAIR, wanted=1, **changes)
    return a, b


def test_of_two_halves_that_keep_each_other_from_being_whole_one_yields() -> None:
    found = _pass(*_halves())
    assert found.shares[key("b")].given_up == ("b-g0",)
    assert _granted(found) == {"a": 1, "b": 0}
    assert _waiting(found, "b") == Waiting(1, WaitingReason.BEHIND, (key("a"),))
    assert _pass(*_halves(priority=1)).shares[key("a")].given_up == ("a-g0",), "the one that comes later"
    nodes = pool(n1="r", n2="r")
    groups = (starting("w-g0", "n1", pods=2), starting("w-g1", "n2", pods=2))
    found = _pass(claim("w", nodes, *groups, wanted=2, shape=PAIR))
    assert found.shares[key("w")].given_up == ("w-g1",), "also of one deployment"
    assert _granted(found) == {"w": 1}


def test_halves_yield_only_where_that_makes_one_whole() -> None:
    a, b = _halves()
    roomy = pool(n1="r", n2="r", n3="r", n4="r")
    assert not _given_up(_pass(replace(a, pool=roomy), replace(b, pool=roomy), n3=8, n4=8)), "both have room"
    apart = pool(n1="r", n2="q")
    assert not _given_up(_pass(replace(a, pool=apart), replace(b, pool=apart))), "of two racks"
    assert not _given_up(_pass(*_halves(grows=True))), "nodes are added for both"


def _given_up(found: Allocation) -> set[str]:
    return {name for share in found.shares.values() for name in share.given_up}


def test_what_was_taken_is_not_taken_back_until_the_other_gives_it_up() -> None:
    of = pool("n1", "n2")
    low = claim("low", of, serving("low-g0", "n1"), serving("low-g1", "n2"))
    cluster = Cluster.of([low, claim("high", of, wanted=1, priority=10)], {"n1": 8, "n2": 8})
    cluster.settle()
    assert len(cluster.drained) == 1
    held = {name: sum(bool(g.nodes) for g in one.groups) for (_, name), one in cluster.claims.items()}
    assert held == {"low": 1, "high": 1}
    for _ in range(5):
        assert not cluster.step()
