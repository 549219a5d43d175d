"""Over all fleets: a domain is never promised more than it has, and what is chosen takes the whole group.

A breach here is half a group that holds GPUs and serves nobody.
"""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from factories.fleets import GPU, fleet, need, rack, waiting
from moe_operator.planner.inventory import NodeFacts
from moe_operator.planner.placement import Holding, Placement

_ZONES = ["zone-a", "zone-b", "zone-c"]


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[NodeFacts], dict[str, int]]:
    """Racks of any size in any zone, some nodes out of service, some GPUs held by others."""
    nodes: list[NodeFacts] = []
    for index in range(draw(st.integers(1, 5))):
        zone = draw(st.sampled_from(_ZONES))
        nodes += rack(f"r{index}", draw(st.integers(1, 9)), zone)
    for at in draw(st.sets(st.integers(0, len(nodes) - 1), max_size=6)):
        nodes[at] = replace(nodes[at], **{draw(st.sampled_from(["cordoned", "divided"])): True})
    for at in draw(st.sets(st.integers(0, len(nodes) - 1), max_size=4)):
        nodes[at] = replace(nodes[at], ready=False)
    held = {
        nodes[at].name: draw(st.integers(1, 4))
        for at in draw(st.sets(st.integers(0, len(nodes) - 1), max_size=10))
    }
    return nodes, held


def _open(nodes: list[NodeFacts], held: dict[str, int], gpus: int) -> dict[str, list[str]]:
    """Nodes by rack that take a pod, counted without the code under test."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        usable = node.ready and not node.cordoned and not node.divided
        if usable and node.allocatable[GPU] - held.get(node.name, 0) >= gpus:
            found.setdefault(node.clique or "", []).append(node.name)
    return found


@settings(max_examples=300)
@given(fleets(), st.lists(st.tuples(st.integers(2, 6), st.integers(1, 4), st.booleans()), max_size=12))
def test_no_domain_is_promised_more_than_it_has(
    world: tuple[list[NodeFacts], dict[str, int]], groups: list[tuple[int, int, bool]]
) -> None:
    """Groups of all sizes come one after another; some get their nodes before the next is placed, some do not."""
    nodes, held = world
    holdings: list[Holding] = []
    promised: Counter[str] = Counter()
    for pods, gpus, bound in groups:
        free = _open(nodes, held, gpus)
        place = fleet(need(pods, gpus), nodes, held, holdings).place()
        if place == Placement():
            # Nothing is left out that would certainly have taken it.
            assert all(len(names) - promised[value] < pods for value, names in free.items())
            continue
        assert place.domain is not None
        value = place.domain[1]
        assert len(free[value]) - promised[value] >= pods
        if bound and not promised[value]:
            taken = free[value][:pods]
            for name in taken:
                held[name] = held.get(name, 0) + gpus
            holdings.append(Holding(own=True, nodes=tuple(taken)))
        else:
            promised[value] += pods
            holdings.append(waiting(pods, gpus, value, own=True))


@given(fleets(), st.integers(1, 4), st.integers(2, 4))
def test_an_answer_does_not_depend_on_the_order_of_what_is_known(
    world: tuple[list[NodeFacts], dict[str, int]], gpus: int, pods: int
) -> None:
    """Lost: the same fleet, another rack after each restart of the operator."""
    nodes, held = world
    there = fleet(need(pods, gpus), nodes, held).place()
    assert fleet(need(pods, gpus), list(reversed(nodes)), held).place() == there
    one = fleet(need(1, gpus), nodes, held).place()
    assert fleet(need(1, gpus), list(reversed(nodes)), held).place() == one


@given(fleets(), st.integers(1, 4))
def test_a_narrow_group_breaks_a_whole_node_only_where_none_is_begun(
    world: tuple[list[NodeFacts], dict[str, int]], gpus: int
) -> None:
    nodes, held = world
    place = fleet(need(1, gpus), nodes, held).place()
    by_name = {node.name: node for node in nodes}
    room = [name for names in _open(nodes, held, gpus).values() for name in names]
    if place.node is None:
        assert not room
        return
    left = {name: by_name[name].allocatable[GPU] - held.get(name, 0) for name in room}
    assert left[place.node] == min(left.values())


@given(st.integers(2, 18), st.integers(1, 4))
def test_racks_are_filled_one_after_the_other(trays: int, racks: int) -> None:
    """Eighteen trays take nine groups of two before the next rack is begun, and so for every size."""
    nodes = [node for index in range(racks) for node in rack(f"r{index}", trays)]
    holdings: list[Holding] = []
    order: list[str] = []
    while (place := fleet(need(2), nodes, holdings=holdings).place()).domain is not None:
        order.append(place.domain[1])
        holdings.append(waiting(value=place.domain[1]))
    assert order == [f"r{index}" for index in range(racks) for _ in range(trays // 2)]
