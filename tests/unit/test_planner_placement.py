"""Where a new group goes. A wrong answer leaves half a group in a rack, or an empty rack cut up for small ones."""

from dataclasses import replace
from typing import Any

import pytest

from factories.fleets import CLIQUE, GPU, REGION, ZONE, fleet, hgx, need, placed, rack, tray, waiting
from moe_operator.planner.facts import Inventory, Taint
from moe_operator.planner.node_selection import admits, selects
from moe_operator.planner.placement import Fleet, Placement


def _domain(place: Placement) -> str | None:
    return place.domain[1] if place.domain else None


def _full(*names: str) -> dict[str, int]:
    return dict.fromkeys(names, 4)


class TestDomain:
    """Groups of several pods."""

    def test_the_fullest_rack_that_takes_the_whole_group_is_filled_first(self) -> None:
        """Lost: the empty rack, cut up by groups that would have fitted elsewhere."""
        nodes = [*rack("r1"), *rack("r2")]
        held = _full(*(f"r2-{i:02}" for i in range(10)))
        assert _domain(fleet(need(), nodes, held).place()) == "r2"
        assert _domain(fleet(need(pods=9), nodes, held).place()) == "r1", "eight free trays do not take nine"

    def test_a_rack_of_eighteen_trays_takes_nine_groups_of_two_before_the_next_is_begun(self) -> None:
        nodes = [*rack("r1"), *rack("r2")]
        chosen, groups = [], []
        for _ in range(18):
            place = fleet(need(), nodes, holdings=groups).place()
            chosen.append(_domain(place))
            groups.append(waiting(value=_domain(place)))
        assert chosen == ["r1"] * 9 + ["r2"] * 9
        assert fleet(need(), nodes, holdings=groups).place() == Placement()

    def test_pods_that_have_no_node_yet_count_as_there(self) -> None:
        """Lost: the second of two groups that are made in one second, placed in part beside the first."""
        nodes = [*rack("r1", 3), *rack("r2", 18)]
        assert _domain(fleet(need(), nodes).place()) == "r1"
        assert _domain(fleet(need(), nodes, holdings=[waiting(value="r1")]).place()) == "r2"

    def test_a_waiting_group_of_another_kind_of_domain_counts_where_the_two_meet(self) -> None:
        nodes = [*rack("r1", 2, "zone-a"), *rack("r2", 2, "zone-b")]
        other = waiting(pods=1, value="zone-a", key=ZONE)
        assert _domain(fleet(need(), nodes, holdings=[other]).place()) == "r2"

    @pytest.mark.parametrize(
        "trouble",
        [
            {"cordoned": True},
            {"ready": False},
            {"taints": (Taint("karpenter.sh/disrupted", "", "NoSchedule"),)},
        ],
    )
    def test_nodes_that_take_no_pods_make_a_rack_too_small(self, trouble: dict[str, Any]) -> None:
        """Lost: a group sent where its second half can never go."""
        broken = [tray("r1", 0, **trouble), tray("r1", 1)]
        assert _domain(fleet(need(), [*broken, *rack("r2")]).place()) == "r2"
        assert fleet(need(), broken).place() == Placement()

    def test_a_shunned_node_takes_no_pods(self) -> None:
        """Lost: a group, to the node that lost its predecessors."""
        nodes = [*rack("r1", 2), *rack("r2", 18)]
        assert _domain(fleet(need(), nodes).place()) == "r1"
        assert _domain(fleet(need(), nodes, shunned=["r1-01"]).place()) == "r2"
        assert not fleet(need(), rack("r1", 2), shunned=["r1-01"]).across_domains()

    def test_a_node_with_broken_gpus_does_not_take_a_pod_that_needs_all(self) -> None:
        broken = [replace(tray("r1", 0), allocatable={GPU: 3}), tray("r1", 1)]
        assert _domain(fleet(need(), [*broken, *rack("r2")]).place()) == "r2"

    def test_network_adapters_count_like_gpus(self) -> None:
        """Lost: a group in a rack whose adapters are all given away."""
        poor = [replace(node, rdma={"rdma/ib": 0}) for node in rack("r1", 4)]
        rich = [replace(node, rdma={"rdma/ib": 1000}) for node in rack("r2", 18)]
        wanted = need(**{"rdma/ib": 1})
        assert _domain(fleet(wanted, [*poor, *rich]).place()) == "r2"

    def test_groups_of_a_deployment_are_spread_over_zones_before_racks_are_filled(self) -> None:
        """Lost: the whole deployment with one zone."""
        nodes = [*rack("r1", 18, "zone-a"), *rack("r2", 18, "zone-b"), *rack("r3", 6, "zone-b")]
        first = placed("r1-00", "r1-01")
        held = _full("r1-00", "r1-01")
        assert _domain(fleet(need(), nodes, held, [first]).place()) == "r3", (
            "the fuller rack of the other zone"
        )
        others = placed("r1-00", "r1-01", own=False)
        assert _domain(fleet(need(), nodes, held, [others]).place()) == "r3", "the fullest of all"
        second = waiting(value="r3", own=True)
        assert _domain(fleet(need(), nodes, held, [first, second]).place()) == "r3"

    def test_a_domain_that_is_a_zone_is_one_to_be_spread_over(self) -> None:
        """Lost: the deployment with its zone, where no narrower label says which nodes are near each other."""
        nodes = [hgx(f"a-{i}", "zone-a") for i in range(4)] + [hgx(f"b-{i}", "zone-b") for i in range(6)]
        wanted = need(pods=2, gpus=8, domain=ZONE)
        first = placed("a-0", "a-1")
        assert _domain(fleet(wanted, nodes, {"a-0": 8, "a-1": 8}, [first]).place()) == "zone-b"

    def test_a_domain_that_is_a_region_is_not_told_apart_by_zones(self) -> None:
        nodes = [hgx(f"a-{i}", "zone-a") for i in range(4)] + [hgx(f"b-{i}", "zone-b") for i in range(6)]
        wanted = need(pods=2, gpus=8, domain=REGION)
        assert _domain(fleet(wanted, nodes, holdings=[placed("a-0")]).place()) == "region-1"

    def test_where_a_group_was_not_taken_lately_comes_last_and_the_latest_very_last(self) -> None:
        """Lost: minutes, on the same rack again and again, whose nodes lack what the operator does not count."""
        nodes = [*rack("r1", 2), *rack("r2", 4), *rack("r3", 6)]
        assert _domain(fleet(need(), nodes).place(["r1"])) == "r2"
        assert _domain(fleet(need(), nodes).place(["r1", "r2"])) == "r3"
        assert _domain(fleet(need(), nodes).place(["r2", "r3", "r1"])) == "r2"

    def test_a_rack_in_which_another_compute_domain_is_active_comes_after_those_that_are_free_of_any(
        self,
    ) -> None:
        """Lost: requests of both, now and then, while the next rack stands empty."""
        nodes = [*rack("r1", 4), *rack("r2", 18, "zone-b"), *rack("r3", 18)]
        others = {"r1": ("research/moe-operator-nvlink",)}
        assert _domain(fleet(need(), nodes).place()) == "r1"
        assert _domain(fleet(need(), nodes, neighbours=others).place()) == "r2"
        late = fleet(need(), nodes, neighbours=others)
        assert _domain(late.place(["r2", "r3"])) == "r1", (
            "a rack that did not take a group lately is the last of all"
        )

    def test_where_every_rack_has_another_compute_domain_the_group_goes_to_one_all_the_same(self) -> None:
        """Lost: the group. It works most of the time; the status says what to do."""
        nodes = [*rack("r1", 4), *rack("r2", 18)]
        others = {"r1": ("a/d", "b/d"), "r2": ("a/d",)}
        place = fleet(need(), nodes, neighbours=others).place()
        assert _domain(place) == "r2", "the one with fewer of them"

    def test_nodes_without_the_label_are_in_no_domain(self) -> None:
        nodes = [replace(node, labels={}) for node in rack("r1")]
        assert fleet(need(), nodes).place() == Placement()

    def test_only_nodes_that_the_pods_select_count(self) -> None:
        nodes = [*rack("r1", 2), *rack("r2", 18)]
        pod = {"nodeSelector": {CLIQUE: "r2"}}
        assert _domain(fleet(need(), nodes, pod=pod).place()) == "r2"

    def test_shared_gpus_are_no_place(self) -> None:
        nodes = [replace(node, divided=True) for node in rack("r1", 2)]
        assert _domain(fleet(need(), [*nodes, *rack("r2")]).place()) == "r2"

    @pytest.mark.parametrize("inventory", [Inventory(None), Inventory(tuple(rack("r1")), held=None)])
    def test_nothing_is_chosen_of_what_is_not_known(self, inventory: Inventory) -> None:
        """Lost: groups bound to a rack that others hold, where pods may not be listed."""
        unknown = Fleet(need(), {}, inventory, ())
        assert unknown.place() == Placement()
        assert unknown.shortage() is None
        assert unknown.groups() is None


class TestOnePod:
    """Groups within a node: whole nodes stay free for wide ones."""

    def test_the_node_with_least_to_spare_is_wished_for(self) -> None:
        """Lost: the last whole node, for a group of two GPUs."""
        nodes = [hgx("a"), hgx("b"), hgx("c")]
        place = fleet(need(pods=1, gpus=2), nodes, {"b": 4, "c": 7}).place()
        assert place == Placement(node="b")

    def test_what_is_promised_to_a_group_without_a_node_is_not_free(self) -> None:
        nodes = [hgx("a"), hgx("b")]
        other = waiting(pods=1, gpus=2, node="b")
        assert fleet(need(pods=1, gpus=4), nodes, {"b": 4}, [other]).place().node == "a"

    def test_a_rack_that_is_begun_is_taken_before_a_whole_one(self) -> None:
        nodes = [*rack("r1", 18), *rack("r2", 4)]
        assert fleet(need(pods=1, gpus=2), nodes).place().node == "r2-00"

    def test_nodes_that_a_wide_group_counts_on_are_left_to_it(self) -> None:
        nodes = [*rack("r1", 2), *rack("r2", 18)]
        wide = waiting(value="r1")
        assert fleet(need(pods=1, gpus=2), nodes, holdings=[wide]).place().node == "r2-00"
        begun = {"r1-00": 2}
        place = fleet(need(pods=1, gpus=2), [*rack("r1", 3), *rack("r2", 18)], begun, [wide]).place()
        assert place.node == "r1-00", "on this one the wide group cannot count"

    def test_its_groups_are_spread_over_zones(self) -> None:
        nodes = [hgx("a", "zone-a"), hgx("b", "zone-b")]
        assert fleet(need(pods=1, gpus=2), nodes, {"a": 2}, [placed("a")]).place().node == "b"

    def test_without_room_it_waits_wherever(self) -> None:
        assert fleet(need(pods=1, gpus=8), [hgx("a")], {"a": 1}).place() == Placement()


class TestShortage:
    """What the status says."""

    def test_it_says_what_a_group_needs_and_what_the_best_domain_has(self) -> None:
        nodes = [*rack("r1", 3), *rack("r2", 3)]
        held = _full("r1-00", "r1-01", "r2-00", "r2-01", "r2-02")
        text = fleet(need(), nodes, held).shortage()
        assert text is not None
        assert "needs 4 free GPUs on each of 2 nodes of one nvidia.com/gpu.clique" in text
        assert "the clique with most room, r1, has 1 such node among its 3" in text

    def test_nodes_that_are_out_of_service_are_told(self) -> None:
        nodes = [tray("r1", 0, cordoned=True), tray("r1", 1, ready=False), tray("r1", 2)]
        assert "of which 2 are cordoned, tainted or not ready" in (fleet(need(), nodes).shortage() or "")

    def test_a_missing_label_is_told(self) -> None:
        text = fleet(need(), [hgx("a"), hgx("b")]).shortage()
        assert text is not None
        assert "of the 2 nodes that it may run on none carries that label" in text

    def test_room_is_no_shortage(self) -> None:
        made = fleet(need(), [*rack("r1", 3), *rack("r2", 5)])
        assert made.shortage() is None
        assert made.groups() == 3


class TestNodeSelection:
    """The scheduler's rules for labels, names and taints."""

    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            ({"key": "zone", "operator": "In", "values": ["a", "b"]}, True),
            ({"key": "zone", "operator": "NotIn", "values": ["a"]}, False),
            ({"key": "absent", "operator": "NotIn", "values": ["a"]}, True),
            ({"key": "absent", "operator": "In", "values": ["a"]}, False),
            ({"key": "zone", "operator": "Exists"}, True),
            ({"key": "absent", "operator": "DoesNotExist"}, True),
            ({"key": "size", "operator": "Gt", "values": ["7"]}, True),
            ({"key": "size", "operator": "Lt", "values": ["7"]}, False),
            ({"key": "zone", "operator": "Gt", "values": ["7"]}, False),
            ({"key": "zone", "operator": "Unheard"}, False),
        ],
    )
    def test_expressions(self, rule: dict[str, Any], expected: bool) -> None:
        node = replace(hgx("n"), labels={"zone": "a", "size": "8"})
        assert selects(_requiring({"matchExpressions": [rule]}), node) is expected

    def test_terms_are_alternatives_and_empty_ones_match_nothing(self) -> None:
        node = replace(hgx("n"), labels={"zone": "a"})
        other = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}
        named = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}
        assert selects(_requiring(other, named), node)
        assert not selects(_requiring(other, {}), node)

    def test_tolerated_taints_admit(self) -> None:
        node = replace(hgx("n"), taints=(Taint("nvidia.com/gpu", "present", "NoSchedule"),))
        assert not admits(node, {})
        assert admits(node, {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]})


def _requiring(*terms: dict[str, Any]) -> dict[str, Any]:
    required = {"nodeSelectorTerms": list(terms)}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}
