"""The layout of a group. A wrong one leaves GPUs idle, or pods that no node can take."""

from typing import Any

import pytest

from factories.deployments import model_deployment
from factories.nodes import gpu_nodes, node
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.planner.inventory import Inventory, inventory_from_nodes
from moe_operator.planner.plan import Plan, Refusal
from moe_operator.planner.planning import plan

UNREADABLE = Inventory(nodes=None)
CONTROL_PLANE = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}


def _plan(nodes: list[dict[str, Any]] | None, **spec: Any) -> Plan | Refusal:
    inventory = UNREADABLE if nodes is None else inventory_from_nodes(nodes)
    return plan(model_deployment(**spec), inventory, load_catalog())


def _planned(nodes: list[dict[str, Any]] | None, **spec: Any) -> Plan:
    found = _plan(nodes, **spec)
    assert isinstance(found, Plan), found
    return found


def _refused(nodes: list[dict[str, Any]] | None, **spec: Any) -> Refusal:
    found = _plan(nodes, **spec)
    assert isinstance(found, Refusal), found
    return found


def _shape(found: Plan) -> tuple[int, int, int, int]:
    """(width, pods, ranks per pod, GPUs per rank)"""
    return found.width, found.pods_per_group, found.ranks_per_pod, found.tensor


def _b200(**fields: Any) -> dict[str, Any]:
    return {"hardware": {"accelerator": "B200", **fields}}


@pytest.mark.parametrize(
    ("gpus", "spec", "shape"),
    [
        pytest.param(8, _b200(), (8, 1, 8, 1), id="one node by default"),
        pytest.param(4, _b200(), (4, 1, 4, 1), id="of the nodes that are there"),
        pytest.param(8, _b200(gpusPerGroup=16), (16, 2, 8, 1), id="two nodes"),
        pytest.param(8, _b200(gpusPerGroup=4), (4, 1, 4, 1), id="half a node is one pod"),
        pytest.param(8, _b200(gpusPerGroup=3), (3, 1, 3, 1), id="an odd part of a node"),
        pytest.param(8, _b200(gpusPerGroup=1), (1, 1, 1, 1), id="one GPU"),
        pytest.param(
            8, _b200(gpusPerGroup=12, gpusPerNode=6), (12, 2, 6, 1), id="part of every node, as pinned"
        ),
        pytest.param(8, _b200(gpusPerGroup=8, gpusPerNode=4), (8, 2, 4, 1), id="two halves, as pinned"),
        pytest.param(8, {**_b200(), "parallelism": {"tensor": 2}}, (8, 1, 4, 2), id="ranks of two"),
        pytest.param(8, {**_b200(), "parallelism": {"tensor": 8}}, (8, 1, 1, 8), id="one rank"),
        pytest.param(
            8, {**_b200(gpusPerGroup=32), "parallelism": {"tensor": 4}}, (32, 4, 2, 4), id="ranks of four"
        ),
        pytest.param(8, {**_b200(), "parallelism": {"data": 16}}, (16, 2, 8, 1), id="sixteen ranks"),
        pytest.param(8, {**_b200(), "parallelism": {"data": 4, "tensor": 4}}, (16, 2, 2, 4), id="both"),
        pytest.param(
            8, {**_b200(gpusPerGroup=16), "parallelism": {"data": 4}}, (16, 2, 2, 4), id="data and width"
        ),
        pytest.param(
            4, {"hardware": {"accelerator": "GB200", "gpusPerGroup": 32}}, (32, 8, 4, 1), id="NVL72"
        ),
    ],
)
def test_lays_a_group_out(gpus: int, spec: dict[str, Any], shape: tuple[int, int, int, int]) -> None:
    found = _planned(gpu_nodes(spec["hardware"]["accelerator"], 2, gpus), **spec)
    assert _shape(found) == shape
    assert found.gpus_per_pod * found.pods_per_group == found.width
    assert found.data == found.pods_per_group * found.ranks_per_pod
    assert found.expert_parallel == (found.width > 1)
    assert ["not sized" in note for note in found.notes].count(True) == 1


@pytest.mark.parametrize(
    ("hardware", "shape"),
    [
        ({}, (2, 2, 1, 1)),
        ({"gpusPerGroup": 4, "gpusPerNode": 2}, (4, 2, 2, 1)),
        ({"gpusPerGroup": 3}, (3, 3, 1, 1)),
        ({"gpusPerGroup": 1}, (1, 1, 1, 1)),
        ({"gpusPerNode": 2}, (2, 1, 2, 1)),
    ],
)
def test_cpu_counts_ranks_for_gpus(hardware: dict[str, int], shape: tuple[int, int, int, int]) -> None:
    found = _planned([node("laptop")], hardware={"accelerator": "cpu", **hardware})
    assert _shape(found) == shape
    assert any("laptops and CI" in note for note in found.notes)


def test_an_alias_plans_the_accelerator_that_it_names() -> None:
    assert _planned(gpu_nodes("B200", 1), hardware={"accelerator": "nvidia-b200"}).accelerator == "B200"


def test_an_unknown_accelerator_is_answered_with_the_known_ones_closest_first() -> None:
    refusal = _refused(gpu_nodes("B200", 1), hardware={"accelerator": "H201"})
    assert refusal.reason == "UnknownAccelerator"
    assert not refusal.retry
    assert refusal.message.startswith("the catalogue has no accelerator 'H201'; it has H200, ")
    assert "MI300X" in refusal.message


# --- Which nodes ---------------------------------------------------------------------------------


def test_falls_back_along_the_list_to_what_the_cluster_has() -> None:
    found = _planned(gpu_nodes("H200", 2), hardware={"accelerators": ["B200", "GB200", "H200"]})
    assert found.accelerator == "H200"
    assert found.notes[:1] == ("H200 was taken because no node has B200 or GB200",)
    first = _planned(gpu_nodes("H200", 2) + gpu_nodes("B200", 1), hardware={"accelerators": ["B200", "H200"]})
    assert first.accelerator == "B200"


def test_an_unknown_name_in_the_list_is_refused_though_another_would_do() -> None:
    """A typing error would otherwise show on the day on which the fallback is needed."""
    refusal = _refused(gpu_nodes("H200", 2), hardware={"accelerators": ["H200", "B2000"]})
    assert refusal.reason == "UnknownAccelerator"


def test_no_nodes_says_what_was_looked_for_what_is_there_and_waits() -> None:
    nodes = [*gpu_nodes("H100", 3), node("cpu-0")]
    refusal = _refused(nodes, **_b200())
    assert refusal.reason == "NoNodes"
    assert refusal.retry, "nodes may be added"
    assert "4 nodes were looked at" in refusal.message
    assert "nvidia.com/gpu.product NVIDIA-B200" in refusal.message
    assert "nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3 (3)" in refusal.message
    assert "pin hardware.gpusPerNode" in refusal.message
    assert "device plugin" not in refusal.message, "no advice about what is in order"
    assert "without saying which" not in refusal.message
    assert "shared" not in refusal.message


def test_no_nodes_tells_a_missing_device_plugin_from_missing_hardware() -> None:
    refusal = _refused([node("gpu-0", labels={"nvidia.com/gpu.product": "NVIDIA-B200"})], **_b200())
    assert "gpu-0 carry the label of B200 but offer no nvidia.com/gpu" in refusal.message


def test_no_nodes_tells_missing_labels_from_missing_hardware() -> None:
    refusal = _refused([node(f"gpu-{i}", capacity={"nvidia.com/gpu": "8"}) for i in range(5)], **_b200())
    assert "gpu-0, gpu-1, gpu-2 and 2 more nodes offer nvidia.com/gpu without saying which" in refusal.message
    assert "nvidia.com/gpu.product=NVIDIA-B200" in refusal.message


def test_shared_gpus_are_no_gpus_for_a_rank() -> None:
    shared = node(
        "a", labels={"nvidia.com/gpu.product": "NVIDIA-B200-SHARED"}, capacity={"nvidia.com/gpu": "32"}
    )
    refusal = _refused([shared], **_b200())
    assert "shared or divided GPUs do not count" in refusal.message


def test_a_pin_plans_for_nodes_that_come_only_when_pods_ask_for_them() -> None:
    """With a cluster that scales nodes from zero, waiting for a node would wait for ever."""
    found = _planned([node("cpu-0")], **_b200(gpusPerNode=8, gpusPerGroup=16))
    assert _shape(found) == (16, 2, 8, 1)
    assert found.notes[:1] == ("no node has B200 yet; planned for nodes of 8 GPUs as pinned",)


def test_a_pin_above_what_the_nodes_have_is_refused_with_what_they_have() -> None:
    refusal = _refused(gpu_nodes("B200", 2, 4), **_b200(gpusPerNode=8))
    assert refusal.reason == "InvalidLayout"
    assert refusal.retry, "larger nodes may be added"
    assert "the B200 nodes have 4 GPUs" in refusal.message
    assert "at most 4" in refusal.message


def test_unequal_nodes_are_planned_for_by_the_size_that_holds_most_gpus() -> None:
    """One odd node must not decide the layout of all groups."""
    nodes = gpu_nodes("B200", 1, 4, prefix="small") + gpu_nodes("B200", 3, 8, prefix="large")
    found = _planned(nodes, **_b200())
    assert _shape(found) == (8, 1, 8, 1)
    assert "B200 nodes have 4 or 8 GPUs; planned for 8" in found.notes[0]
    many_small = gpu_nodes("B200", 9, 4, prefix="small") + gpu_nodes("B200", 1, 8, prefix="large")
    assert _planned(many_small, **_b200()).width == 4
    assert _planned(many_small, **_b200(gpusPerNode=8)).width == 8


def test_nodes_outside_the_node_selector_do_not_count() -> None:
    nodes = gpu_nodes("B200", 4, 8, prefix="a") + gpu_nodes("B200", 1, 4, prefix="b", labels={"pool": "mine"})
    spec = {**_b200(), "podTemplate": {"nodeSelector": {"pool": "mine"}}}
    assert _planned(nodes, **spec).width == 4
    spec["podTemplate"] = {"nodeSelector": {"pool": "other"}}
    assert "0 nodes among those with pool=other were looked at" in _refused(nodes, **spec).message


def test_a_cordoned_or_full_node_still_says_what_its_kind_has() -> None:
    """A drain during maintenance must not make a new revision wait or shrink."""
    assert _planned(gpu_nodes("B200", 2, cordoned=True), **_b200()).width == 8


@pytest.mark.parametrize(
    ("nodes", "tolerations", "planned"),
    [
        pytest.param([node("a")], [], True, id="an open node"),
        pytest.param([node("a", cordoned=True)], [], False, id="a cordoned node"),
        pytest.param([node("a", taints=[CONTROL_PLANE])], [], False, id="a control plane"),
        pytest.param([node("a", taints=[CONTROL_PLANE])], [{"operator": "Exists"}], True, id="tolerated"),
        pytest.param([], [], False, id="none"),
    ],
)
def test_cpu_runs_on_nodes_that_take_ordinary_pods(
    nodes: list[dict[str, Any]], tolerations: list[dict[str, str]], planned: bool
) -> None:
    found = _plan(nodes, podTemplate={"tolerations": tolerations})
    assert isinstance(found, Plan) == planned
    if isinstance(found, Refusal):
        assert (found.reason, found.retry) == ("NoNodes", True)
        assert ("tolerations" if nodes else "pin hardware.gpusPerNode") in found.message


def test_unreadable_nodes_are_replaced_by_the_catalogue_or_the_pin_and_said_so() -> None:
    """Clusters that give no rights on nodes must still get a plan."""
    found = _planned(None, **_b200())
    assert _shape(found) == (8, 1, 8, 1)
    assert "nodes could not be read: planned for B200 nodes of 8 GPUs as the catalogue says" in found.notes[0]
    pinned = _planned(None, **_b200(gpusPerNode=4, gpusPerGroup=8))
    assert _shape(pinned) == (8, 2, 4, 1)
    assert "4 GPUs as pinned" in pinned.notes[0]
    assert _planned(None, hardware={"accelerators": ["GB300", "H200"]}).width == 4
    assert _shape(_planned(None)) == (2, 2, 1, 1)


# --- What does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (_b200(gpusPerGroup=12), "widths that do are 8 and 16"),
        (_b200(gpusPerGroup=12), "or pin hardware.gpusPerNode to 6, 4 or 3"),
        (_b200(gpusPerGroup=13), "widths that do are 8 and 16"),
        ({**_b200(), "parallelism": {"tensor": 16}}, "set parallelism.tensor to 1, 2, 4 or 8"),
        ({**_b200(), "parallelism": {"tensor": 3}}, "set parallelism.tensor to 1, 2, 4 or 8"),
        ({**_b200(gpusPerGroup=6), "parallelism": {"tensor": 4}}, "set parallelism.tensor to 1, 2, 3 or 6"),
        ({**_b200(), "parallelism": {"data": 12}}, "widths that do are 8 and 16"),
        ({**_b200(gpusPerGroup=8), "parallelism": {"data": 4, "tensor": 4}}, "is 16 GPUs, not the group's 8"),
        ({**_b200(gpusPerGroup=8), "parallelism": {"data": 3}}, "is 3 GPUs, not the group's 8"),
        ({"parallelism": {"tensor": 2}}, "have no tensor parallelism"),
        ({"hardware": {"accelerator": "cpu", "gpusPerGroup": 3, "gpusPerNode": 2}}, "over pods of 2 ranks"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(spec: dict[str, Any], message: str) -> None:
    refusal = _refused([*gpu_nodes("B200", 4), node("cpu-0")], **spec)
    assert refusal.reason == "InvalidLayout"
    assert not refusal.retry, "only the spec can change it"
    assert message in refusal.message
