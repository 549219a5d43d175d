"""What is read of nodes. A slip here plans for hardware that is not there."""

from time import process_time
from typing import Any

import pytest

from factories.deployments import model_deployment
from factories.gpu_nodes import (
    CLIQUE,
    claim,
    container,
    dra_only,
    gb200_tray,
    hgx_b200,
    mi300x,
    mig_device,
    mig_node,
    pod,
    resource_slice,
    time_sliced,
    vfio_device,
)
from factories.nodes import gpu_nodes, node
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.catalog.accelerators import Catalog, load_catalog
from moe_operator.planner.facts import SiteNames
from moe_operator.planner.inventory import (
    Inventory,
    NodeFacts,
    Problem,
    Taint,
    inventory_from,
    inventory_from_nodes,
)
from moe_operator.planner.nodes import Hardware, hardware_options
from moe_operator.planner.plan import Refusal
from moe_operator.planner.quantities import whole

CATALOG = load_catalog()


def _hardware(spec: ModelDeploymentSpec, inventory: Inventory, catalog: Catalog) -> Hardware | Refusal:
    """The first option."""
    options = hardware_options(spec, inventory, catalog)
    return options if isinstance(options, Refusal) else options[0]


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


@pytest.mark.parametrize("amount", ["0", "", "1k", "-1", "0.5", None, "9" * 5000])
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


# --- Nodes as real clusters have them ------------------------------------------------------------


def _one(node_object: dict[str, Any], *slices: dict[str, Any]) -> tuple[NodeFacts, tuple[Problem, ...]]:
    inventory = inventory_from([node_object], resource_slices=slices)
    (facts,) = inventory.nodes or ()
    return facts, inventory.problems


def test_an_hgx_b200_is_read_whole() -> None:
    """The memory of its own label is what models are sized for; without zone and RDMA groups land far apart."""
    facts, problems = _one(hgx_b200())
    assert problems == ()
    assert facts.memory_mib == 183359
    assert (facts.gpus["nvidia.com/gpu"], facts.allocatable["nvidia.com/gpu"]) == (8, 8)
    assert facts.rdma == {"rdma/ib": 1000}, "round numbers come with a suffix"
    assert facts.topology == (
        ("topology.kubernetes.io/region", "us-east"),
        ("topology.kubernetes.io/zone", "us-east-1a"),
        ("network.topology.nvidia.com/leaf", "leaf-7"),
        ("kubernetes.io/hostname", "b200-a"),
    )
    assert facts.ready
    assert not facts.divided
    assert facts.clique is None


def test_trays_of_one_nvl72_rack_share_their_clique() -> None:
    """Ranks of a group in different racks would exchange experts over the network, at a fraction of the speed."""
    inventory = inventory_from([gb200_tray("a"), gb200_tray("b"), gb200_tray("c", clique="other.1")])
    assert inventory.problems == ()
    assert [node.clique for node in inventory.nodes or ()] == [CLIQUE, CLIQUE, "other.1"]
    assert {node.memory_mib for node in inventory.nodes or ()} == {189471}


def test_an_mi300x_says_its_memory_in_gib() -> None:
    facts, problems = _one(mi300x())
    assert problems == ()
    assert (facts.memory_mib, facts.gpus, facts.divided) == (196608, {"amd.com/gpu": 8}, False)


def test_a_node_without_a_memory_label_leaves_it_to_the_catalogue() -> None:
    facts, problems = _one(gpu_nodes("B200", 1)[0])
    assert (facts.memory_mib, problems) == (None, ())


def test_a_broken_gpu_is_not_free() -> None:
    obj = hgx_b200()
    obj["status"]["allocatable"]["nvidia.com/gpu"] = "7"
    inventory = inventory_from([obj])
    (facts,) = inventory.nodes or ()
    assert facts.gpus["nvidia.com/gpu"] == 8
    assert inventory.free(facts)["nvidia.com/gpu"] == 7


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_node_that_is_not_ready_says_so(status: str) -> None:
    obj = hgx_b200()
    obj["status"]["conditions"][1]["status"] = status
    facts, _ = _one(obj)
    assert not facts.ready


@pytest.mark.parametrize(
    "obj",
    [
        mig_node(),
        time_sliced(),
        time_sliced(suffix=False),
        mi300x(**{"amd.com/compute-memory-partition": "cpx_nps4"}),
        hgx_b200(**{"cloud.google.com/gke-gpu-sharing-strategy": "time-sharing"}),
        hgx_b200(**{"cloud.google.com/gke-gpu-partition-size": "1g.23gb"}),
    ],
    ids=["MIG", "time-sliced", "time-sliced without suffix", "AMD partitions", "GKE shared", "GKE MIG"],
)
def test_shared_and_divided_gpus_are_planned_for_by_nobody(obj: dict[str, Any]) -> None:
    """vLLM would find a tenth of the memory, or another tenant's engine in it."""
    inventory = inventory_from([obj])
    (facts,) = inventory.nodes or ()
    assert facts.divided
    assert inventory.problems == (), "their figures are those of slices, not wrong"
    accelerator = "MI300X" if "amd.com/gpu" in facts.gpus else "H100" if "MIG" in str(obj) else "B200"
    deployment = model_deployment(hardware={"accelerator": accelerator})
    refused = _hardware(deployment.spec, inventory, load_catalog())
    assert isinstance(refused, Refusal)
    assert "shared or divided GPUs do not count" in refused.message


def test_the_smallest_gpu_of_a_kind_bounds_the_plan() -> None:
    """All pods of a group are alike: sized for the larger, they would run out of memory on the smaller."""
    nodes = [hgx_b200("a"), hgx_b200("b", **{"nvidia.com/gpu.memory": "182642"}), gpu_nodes("B200", 1)[0]]
    found = _hardware(model_deployment(hardware={"accelerator": "B200"}).spec, inventory_from(nodes), CATALOG)
    assert isinstance(found, Hardware)
    assert found.memory_mib == 182642
    assert len(found.nodes) == 3


def test_a_node_that_contradicts_itself_does_not_shrink_everyones_plan() -> None:
    nodes = [hgx_b200("a"), hgx_b200("b", **{"nvidia.com/gpu.memory": "81559"})]
    found = _hardware(model_deployment(hardware={"accelerator": "B200"}).spec, inventory_from(nodes), CATALOG)
    assert isinstance(found, Hardware)
    assert found.memory_mib == 183359


# --- What cannot be right ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "key", "words"),
    [
        (
            {"nvidia.com/gpu.memory": "81559"},
            "nvidia.com/gpu.memory",
            ["81559 MiB", "nvidia.com/gpu.product=NVIDIA-B200 has 183359 MiB", "correct"],
        ),
        (
            {"nvidia.com/gpu.memory": "180Gi"},
            "nvidia.com/gpu.memory",
            ["'180Gi'", "whole number", "catalogue"],
        ),
        ({"nvidia.com/gpu.memory": "183359.5"}, "nvidia.com/gpu.memory", ["whole number"]),
        ({"nvidia.com/gpu.memory": "-1"}, "nvidia.com/gpu.memory", ["whole number"]),
        ({"nvidia.com/gpu.count": "7"}, "nvidia.com/gpu.count", ["is 7", "offers 8", "device plugin"]),
        (
            {"nvidia.com/gpu.count": "eight"},
            "nvidia.com/gpu.count",
            ["'eight' is no number", "8 GPUs are counted"],
        ),
        (
            {"cloud.google.com/gke-accelerator": "nvidia-h200-141gb"},
            "cloud.google.com/gke-accelerator",
            ["NVIDIA-B200", "nvidia-h200-141gb", "correct the wrong label"],
        ),
    ],
)
def test_a_label_that_cannot_be_right_is_named_with_what_to_do(
    labels: dict[str, str], key: str, words: list[str]
) -> None:
    """Else a group is sized for memory that is not there, and the engine dies while it loads."""
    _, problems = _one(hgx_b200("gpu-17", **labels))
    (problem,) = problems
    assert (problem.node, problem.key) == ("gpu-17", key)
    for word in words:
        assert word in problem.message
    assert str(problem).startswith(f"node gpu-17: {key}: ")


def test_small_differences_between_drivers_are_no_problem() -> None:
    _, problems = _one(hgx_b200(**{"nvidia.com/gpu.memory": "178000"}))
    assert problems == ()


def test_amds_memory_label_is_checked_in_its_own_form() -> None:
    _, problems = _one(mi300x(**{"amd.com/gpu.vram": "196608"}))
    (problem,) = problems
    assert "whole GiB such as 192G" in problem.message


def test_mixed_mig_offers_part_of_its_gpus_whole_and_that_is_right() -> None:
    obj = hgx_b200()
    obj["status"]["capacity"] |= {"nvidia.com/gpu": "6", "nvidia.com/mig-1g.23gb": "14"}
    facts, problems = _one(obj)
    assert (facts.gpus["nvidia.com/gpu"], problems) == (6, ())


# --- Dynamic resource allocation -----------------------------------------------------------------


def test_gpus_of_resource_slices_count_where_there_is_no_device_plugin() -> None:
    """Else a cluster that has moved to dynamic resource allocation would seem to have no GPUs."""
    facts, problems = _one(dra_only(), resource_slice("dra-0"))
    assert problems == ()
    assert facts.from_slices
    assert (facts.gpus, facts.allocatable) == ({"nvidia.com/gpu": 8}, {"nvidia.com/gpu": 8})
    assert facts.memory_mib == 183359
    inventory = inventory_from([dra_only()], resource_slices=[resource_slice("dra-0")])
    found = _hardware(model_deployment(hardware={"accelerator": "B200"}).spec, inventory, CATALOG)
    assert isinstance(found, Hardware)
    assert (found.gpus_per_node, found.claims) == (8, True)


def test_partitions_and_passed_through_gpus_of_slices_do_not_count() -> None:
    extra = (mig_device(0), mig_device(1), vfio_device(8))
    facts, _ = _one(dra_only(), resource_slice("dra-0", gpus=8, more=extra))
    assert facts.gpus == {"nvidia.com/gpu": 8}


def test_only_the_newest_generation_of_a_pool_counts() -> None:
    """Old slices linger while a driver publishes anew: GPUs would count twice."""
    slices = [resource_slice("dra-0", 8, generation=1), resource_slice("dra-0", 7, generation=2)]
    facts, problems = _one(dra_only(), *slices)
    assert facts.gpus == {"nvidia.com/gpu": 7}
    assert [problem.key for problem in problems] == ["nvidia.com/gpu.count"]


def test_a_pool_in_several_slices_adds_up_and_a_missing_slice_is_named() -> None:
    halves = [resource_slice("dra-0", 4, of=2), resource_slice("dra-0", 4, of=2, first=4)]
    assert _one(dra_only(), *halves)[0].gpus == {"nvidia.com/gpu": 8}
    _, problems = _one(dra_only(), halves[0])
    assert any("1 of its pool's slices are missing" in str(problem) for problem in problems)


def test_a_tainted_device_is_counted_but_not_free() -> None:
    piece = resource_slice("dra-0")
    piece["spec"]["devices"][3]["taints"] = [{"key": "xid", "effect": "NoSchedule"}]
    facts, _ = _one(dra_only(), piece)
    assert (facts.gpus, facts.allocatable) == ({"nvidia.com/gpu": 8}, {"nvidia.com/gpu": 7})


def test_slices_of_older_api_versions_are_read_alike() -> None:
    piece = resource_slice("dra-0", 2)
    for device in piece["spec"]["devices"]:
        device["basic"] = {"attributes": device.pop("attributes"), "capacity": device.pop("capacity")}
    facts, _ = _one(dra_only(), piece)
    assert (facts.gpus, facts.memory_mib) == ({"nvidia.com/gpu": 2}, 183359)


def test_beside_a_device_plugin_slices_do_not_count_twice() -> None:
    facts, problems = _one(hgx_b200("dra-0"), resource_slice("dra-0"))
    assert (facts.gpus["nvidia.com/gpu"], facts.from_slices, problems) == (8, False, ())


def test_a_node_of_slices_without_a_product_label_is_told_which_to_set() -> None:
    """Pods find nodes by the label: without it a planned group would stay pending."""
    _, problems = _one(dra_only(labelled=False), resource_slice("dra-0"))
    (problem,) = problems
    assert "label the node nvidia.com/gpu.product=NVIDIA-B200" in problem.message


def test_labels_that_contradict_the_driver_are_named() -> None:
    _, problems = _one(dra_only(), resource_slice("dra-0", product="NVIDIA H200", memory="143771Mi"))
    assert any("the labels say B200, but its ResourceSlices say NVIDIA H200" in str(p) for p in problems)


def test_other_drivers_and_devices_on_no_node_are_passed_over() -> None:
    other, nowhere = resource_slice("dra-0"), resource_slice("dra-0")
    other["spec"]["driver"] = "compute-domain.nvidia.com"
    del nowhere["spec"]["nodeName"]
    assert _one(dra_only(), other, nowhere)[0].gpus == {}


# --- What is in use ------------------------------------------------------------------------------


def _free(*pods: dict[str, Any]) -> int:
    inventory = inventory_from([hgx_b200()], pods)
    (facts,) = inventory.nodes or ()
    return inventory.free(facts)["nvidia.com/gpu"]


def test_gpus_of_running_pods_are_not_free() -> None:
    """Else a plan would promise room that another team holds."""
    assert _free(pod("b200-a", container(2), container(1))) == 5
    assert _free(pod("b200-a", container(2), phase="Pending")) == 6, "bound, and still starting"
    assert (
        _free(pod("b200-a", container(2), phase="Succeeded"), pod("b200-a", container(2), phase="Failed"))
        == 8
    )
    assert _free(pod(None, container(2)), pod("elsewhere", container(2))) == 8
    assert _free(pod("b200-a", container(8)), pod("b200-a", container(8))) == 0


def test_init_containers_hold_the_most_that_is_needed_at_one_time() -> None:
    assert _free(pod("b200-a", container(1), init=(container(4), container(2)))) == 4
    assert _free(pod("b200-a", container(4), init=(container(2),))) == 4
    sidecar = container(1, always=True)
    assert _free(pod("b200-a", container(2), init=(sidecar, container(3)))) == 4
    assert _free(pod("b200-a", container(2), init=(container(3), sidecar))) == 5


def test_without_pods_nothing_is_said_of_use() -> None:
    inventory = inventory_from_nodes([hgx_b200()])
    assert inventory.held is None
    assert inventory_from([hgx_b200()], []).held == {}


def test_claims_hold_gpus_each_once() -> None:
    """A claim of two pods, and a partition, hold one GPU; looking with admin access holds none."""
    slices = [resource_slice("dra-0", more=(mig_device(5),))]
    claims = [
        claim("dra-0", "gpu-0", "gpu-1"),
        claim("dra-0", "gpu-1"),
        claim("dra-0", mig_device(5)["name"]),
        claim("dra-0", "gpu-7", admin=True),
        claim("dra-0", "gone"),
    ]
    inventory = inventory_from([dra_only()], [], slices, claims)
    (facts,) = inventory.nodes or ()
    assert inventory.free(facts) == {"nvidia.com/gpu": 5}


def test_a_request_that_the_scheduler_made_a_claim_for_counts_once() -> None:
    claims = [claim("dra-0", *(f"gpu-{i}" for i in range(4)))]
    inventory = inventory_from([dra_only()], [pod("dra-0", container(4))], [resource_slice("dra-0")], claims)
    (facts,) = inventory.nodes or ()
    assert inventory.free(facts) == {"nvidia.com/gpu": 4}


def test_sites_name_their_racks_and_networks_themselves() -> None:
    site = SiteNames(topology_labels=("example.com/rack",), rdma_resources=("example.com/nic",))
    obj = hgx_b200(**{"example.com/rack": "r7"})
    obj["status"]["allocatable"]["example.com/nic"] = "8"
    (facts,) = inventory_from([obj], site=site).nodes or ()
    assert (facts.topology, facts.rdma) == ((("example.com/rack", "r7"),), {"example.com/nic": 8})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("8", 8),
        ("1k", 1000),
        ("2Ki", 2048),
        ("183359Mi", 183359 * 2**20),
        ("1.5Gi", 3 * 2**29),
        ("1e3", 1000),
        ("1E", 10**18),
        ("500m", None),
        ("-1", None),
        ("", None),
        (None, None),
        ("9" * 99, None),
    ],
)
def test_quantities_mean_what_kubernetes_means(text: object, number: int | None) -> None:
    assert whole(text) == number


def test_facts_of_a_thousand_nodes_are_read_fast_enough_for_every_reconcile() -> None:
    nodes = [hgx_b200(f"n-{i}") for i in range(1000)]
    started = process_time()
    inventory_from_nodes(nodes)
    assert process_time() - started < 1
