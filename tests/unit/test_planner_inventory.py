"""What is read of nodes. A slip here plans for hardware that is not there."""

import pytest

from factories.nodes import gpu_nodes, node
from moe_operator.planner.inventory import Taint, inventory_from_nodes


def test_reads_devices_labels_and_what_keeps_pods_away() -> None:
    taint = {"key": "team", "value": "x", "effect": "NoSchedule"}
    (facts,) = inventory_from_nodes(gpu_nodes("B200", 1, taints=[taint], cordoned=True)).nodes or ()
    assert facts.gpus == {"nvidia.com/gpu": 8}
    assert facts.labels["nvidia.com/gpu.product"] == "NVIDIA-B200"
    assert facts.cordoned
    assert facts.taints == (Taint("team", "x", "NoSchedule"),)


def test_a_broken_gpu_does_not_change_what_kind_of_node_it_is() -> None:
    """Else one broken device would change the layout of every group that is planned that day."""
    obj = node("a", capacity={"nvidia.com/gpu": "8"})
    obj["status"]["allocatable"] = {"nvidia.com/gpu": "7"}
    (facts,) = inventory_from_nodes([obj]).nodes or ()
    assert facts.gpus == {"nvidia.com/gpu": 8}


@pytest.mark.parametrize("amount", ["0", "", "1k", "-1", "0.5", None])
def test_amounts_that_are_no_number_of_devices_count_as_none(amount: object) -> None:
    (facts,) = inventory_from_nodes([node("a", capacity={"nvidia.com/gpu": amount})]).nodes or ()
    assert facts.gpus == {}


def test_a_bare_node_is_no_error() -> None:
    (facts,) = inventory_from_nodes([{"metadata": {"name": "new"}}]).nodes or ()
    assert (facts.gpus, facts.labels, facts.cordoned, facts.taints) == ({}, {}, False, ())


def test_passing_taints_and_preferences_do_not_count() -> None:
    taints = [
        {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"},
        {"key": "node.cloudprovider.kubernetes.io/uninitialized", "effect": "NoSchedule"},
        {"key": "cheap", "effect": "PreferNoSchedule"},
    ]
    (facts,) = inventory_from_nodes([node("a", taints=taints)]).nodes or ()
    assert facts.taints == ()


def test_the_order_of_nodes_does_not_matter() -> None:
    nodes = gpu_nodes("B200", 3)
    assert inventory_from_nodes(nodes) == inventory_from_nodes(reversed(nodes))


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": "team", "operator": "Equal", "value": "x", "effect": "NoSchedule"}, True),
        ({"key": "team", "value": "x"}, True),
        ({"key": "team", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "team", "value": "y"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "team", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"value": "x"}, False),
    ],
)
def test_tolerations_match_as_the_scheduler_matches_them(toleration: dict[str, str], tolerated: bool) -> None:
    assert Taint("team", "x", "NoSchedule").tolerated_by([toleration]) is tolerated
