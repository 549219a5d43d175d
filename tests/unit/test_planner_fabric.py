"""What a group's GPUs talk over. On the wrong network a group is many times slower, waits for adapters that no node
has, or never starts."""

from typing import Any

import pytest

from factories.deployments import model_deployment
from factories.nodes import gpu_nodes
from moe_operator.api import reasons
from moe_operator.catalog.operator_config import read_config
from moe_operator.planner.facts import SiteNames
from moe_operator.planner.inventory import Inventory, inventory_from
from moe_operator.planner.plan import Plan, Refusal, Transport, plan_from_data, plan_to_data
from moe_operator.planner.planning import plan

R1, SMALL, DENSE = "deepseek-ai/DeepSeek-R1", "Qwen/Qwen3-30B-A3B", "meta-llama/Llama-3.3-70B-Instruct"
IB, EFA = {"rdma/ib": "1"}, {"vpc.amazonaws.com/efa": "32"}


def _clique(name: str) -> dict[str, str]:
    return {"nvidia.com/gpu.clique": f"7b968a6d-c8aa-45e1-9e07-e1e51be99c31.{name}"}


def _decide(
    nodes: list[dict[str, Any]] | None,
    model: str = R1,
    config: str = "",
    precision: str | None = None,
    **spec: Any,
) -> Plan | Refusal:
    site = read_config(config)
    names = SiteNames.of(site)
    inventory = Inventory(None) if nodes is None else inventory_from(nodes, catalog=site.catalog, site=names)
    wanted: dict[str, Any] = {"name": model, **({"precision": precision} if precision else {})}
    return plan(model_deployment(model=wanted, **spec), inventory, site.catalog)


def _plan(nodes: list[dict[str, Any]] | None, *args: Any, **more: Any) -> Plan:
    found = _decide(nodes, *args, **more)
    assert isinstance(found, Plan), found
    return found


def _refused(nodes: list[dict[str, Any]] | None, *args: Any, **more: Any) -> Refusal:
    found = _decide(nodes, *args, **more)
    assert isinstance(found, Refusal)
    return found


def _transport(found: Plan) -> Transport:
    assert found.transport is not None
    return found.transport


def _on(accelerator: str, width: int | None = None, **fields: Any) -> dict[str, Any]:
    wide = {"gpusPerGroup": width} if width else {}
    return {"hardware": {"accelerator": accelerator, **wide, **fields}}


def _flag(backend: str, **more: str) -> dict[str, Any]:
    return {"engine": {"args": {"all2all-backend": backend, **more}}}


# --- Which fabric --------------------------------------------------------------------------------


def test_within_a_node_it_is_the_nodes_own() -> None:
    found = _transport(_plan(gpu_nodes("B200", 2, rdma=IB), **_on("B200", 8)))
    assert found == Transport("nvlink", "allgather_reducescatter")
    assert _transport(_plan(gpu_nodes("MI300X", 2), SMALL, **_on("MI300X", 8))).fabric == "xgmi"


def test_who_is_alone_talks_to_nobody() -> None:
    assert _plan(gpu_nodes("B200", 1), SMALL, **_on("B200", 1)).transport is None
    assert _plan(None, "org/tiny", **_on("cpu")).transport is None


def test_a_dense_model_has_no_all_to_all() -> None:
    assert _transport(_plan(gpu_nodes("H100", 1), DENSE, **_on("H100", 4))).all2all is None


def test_a_group_within_a_clique_uses_nvlink_between_nodes() -> None:
    found = _transport(_plan(gpu_nodes("GB200", 18, 4, labels=_clique("1")), **_on("GB200", 32)))
    assert found.fabric == "mnnvl"
    assert (found.domain, found.domain_required, found.compute_domain) == (
        "nvidia.com/gpu.clique",
        True,
        True,
    )
    assert found.rdma_resource is None


def test_a_group_wider_than_any_clique_takes_the_network() -> None:
    nodes = [
        node
        for clique in ("1", "2")
        for node in gpu_nodes("GB200", 4, 4, prefix=f"c{clique}", labels=_clique(clique), rdma=IB)
    ]
    inside, outside = _plan(nodes, **_on("GB200", 16)), _plan(nodes, **_on("GB200", 32))
    assert _transport(inside).fabric == "mnnvl"
    assert _transport(outside).fabric == "infiniband"
    assert not _transport(outside).compute_domain


@pytest.mark.parametrize(
    ("rdma", "transport"),
    [
        (IB, ("infiniband", "rdma/ib", 1)),
        ({"rdma/ib": "1k"}, ("infiniband", "rdma/ib", 1)),
        ({"rdma/hca_shared_devices_a": "63"}, ("infiniband", "rdma/hca_shared_devices_a", 1)),
        ({"nvidia.com/hostdev": "8"}, ("infiniband", "nvidia.com/hostdev", 8)),
        ({"rdma/roce_gdr": "100"}, ("roce", "rdma/roce_gdr", 1)),
        (EFA, ("efa", "vpc.amazonaws.com/efa", 32)),
        ({}, ("tcp", None, 0)),
        ({"example.com/hca": "8"}, ("tcp", None, 0)),
    ],
)
def test_the_network_is_read_from_what_nodes_offer(
    rdma: dict[str, str], transport: tuple[str, str | None, int]
) -> None:
    found = _transport(_plan(gpu_nodes("H200", 4, rdma=rdma), **_on("H200", 16)))
    assert (found.fabric, found.rdma_resource, found.rdma_count) == transport
    assert not found.domain_required


def test_adapters_of_too_few_nodes_are_none() -> None:
    """Pods that ask for them would wait for ever for a second such node."""
    nodes = [*gpu_nodes("H200", 1, prefix="a", rdma=IB), *gpu_nodes("H200", 3, prefix="b")]
    assert _transport(_plan(nodes, **_on("H200", 16))).fabric == "tcp"


def test_a_pod_with_part_of_a_node_asks_for_its_part() -> None:
    found = _plan(gpu_nodes("H200", 4, rdma=EFA), **_on("H200", 16, gpusPerNode=4))
    assert (found.gpus_per_pod, _transport(found).rdma_count) == (4, 16)


def test_nodes_near_each_other_are_preferred() -> None:
    """The narrowest label under which a group finds room: a narrower one would never be met, a wider one is far."""
    labels = {"topology.kubernetes.io/zone": "a", "network.topology.nvidia.com/spine": "s1"}
    nodes = [
        node
        for leaf in ("l1", "l2", "l3", "l4")
        for node in gpu_nodes(
            "H200", 1, prefix=leaf, rdma=IB, labels={**labels, "network.topology.nvidia.com/leaf": leaf}
        )
    ]
    found = _transport(_plan(nodes, **_on("H200", 16)))
    assert (found.domain, found.domain_required) == ("network.topology.nvidia.com/spine", False)


def test_without_nodes_nothing_is_asked_for_that_none_may_have() -> None:
    found = _plan(None, **_on("H200", 16))
    assert _transport(found).fabric == "tcp"
    assert any("assumed as there are no nodes to read" in note for note in found.notes)
    assert _transport(_plan(None, **_on("GB200", 16))).fabric == "mnnvl"


def test_a_named_network_is_taken_without_nodes_too() -> None:
    found = _transport(_plan(None, **_on("H200", 16, fabric="efa")))
    assert (found.fabric, found.rdma_count) == ("efa", 32)
    assert _transport(_plan(None, **_on("H200", 16, fabric="infiniband"))).rdma_resource == "rdma/ib"


def test_a_network_may_be_named_against_what_would_be_chosen() -> None:
    found = _transport(_plan(gpu_nodes("H200", 4, rdma=IB), **_on("H200", 16, fabric="tcp")))
    assert (found.fabric, found.rdma_resource) == ("tcp", None)


def test_a_group_within_a_node_does_not_need_the_named_network() -> None:
    found = _plan(gpu_nodes("B200", 2), SMALL, **_on("B200", 4, fabric="infiniband"))
    assert _transport(found).fabric == "nvlink"


# --- Refusals ------------------------------------------------------------------------------------


def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    found = _refused(gpu_nodes("H200", 4), **_on("H200", 16, fabric="token-ring"))
    assert found.reason == reasons.UNKNOWN_FABRIC
    assert "infiniband" in found.message
    assert not found.retry


def test_a_network_of_another_vendor_is_refused() -> None:
    found = _refused(gpu_nodes("MI300X", 4), **_on("MI300X", 16, fabric="mnnvl"))
    assert found.reason == reasons.UNKNOWN_FABRIC
    assert "MI300X has no mnnvl" in found.message


def test_a_network_that_no_node_has_is_refused_with_what_they_offer() -> None:
    found = _refused(
        gpu_nodes("H200", 4, rdma={"example.com/hca": "8"}), **_on("H200", 16, fabric="infiniband")
    )
    assert found.reason == reasons.FABRIC_MISSING
    assert found.retry, "nodes may come to have it"
    assert "fewer than 2 of the 4 H200 nodes" in found.message
    assert "example.com/hca (4 nodes)" in found.message
    assert "fabrics.infiniband.rdmaResource" in found.message


def test_the_way_out_of_the_refusal_works() -> None:
    """What the message tells to write is written, and the group gets its adapters."""
    config = "fabrics: {infiniband: {rdmaResource: example.com/hca, rdmaCount: PerGpu}}"
    nodes = gpu_nodes("H200", 4, rdma={"example.com/hca": "8"})
    found = _transport(_plan(nodes, R1, config, **_on("H200", 16, fabric="infiniband")))
    assert (found.rdma_resource, found.rdma_count) == ("example.com/hca", 8)


def test_cliques_too_small_for_a_named_domain_are_refused() -> None:
    found = _refused(
        gpu_nodes("GB200", 2, 4, labels=_clique("1")) + gpu_nodes("GB200", 6, 4, prefix="x"),
        **_on("GB200", 32, fabric="mnnvl"),
    )
    assert found.reason == reasons.FABRIC_MISSING
    assert "1 NVLink domains of at most 2 nodes" in found.message


def test_a_network_that_does_not_leave_a_node_is_refused_for_a_wide_group() -> None:
    found = _refused(gpu_nodes("H200", 4), **_on("H200", 16, fabric="nvlink"))
    assert found.reason == reasons.FABRIC_MISSING
    assert "hardware.gpusPerGroup to at most 8" in found.message


# --- All-to-all ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "width", "backend"),
    [
        ("nvfp4", 16, "flashinfer_nvlink_one_sided"),
        ("nvfp4", 32, "flashinfer_nvlink_one_sided"),
        ("fp8", 8, "flashinfer_nvlink_one_sided"),
        # Of 16 GPUs and more experts are moved (EPLB): no expert kernel for FP8 goes with both.
        ("fp8", 16, "allgather_reducescatter"),
    ],
)
def test_in_an_nvlink_domain_gpus_write_to_each_other(precision: str, width: int, backend: str) -> None:
    nodes = gpu_nodes("GB200", 18, 4, labels=_clique("1"))
    assert _transport(_plan(nodes, precision=precision, **_on("GB200", width))).all2all == backend


def test_what_stands_against_the_better_one_is_said_with_numbers() -> None:
    nodes = gpu_nodes("GB200", 18, 4, labels=_clique("1"))
    found = _plan(nodes, precision="fp8", **_on("GB200", 32))
    assert any("flashinfer_nvlink_one_sided would be" in n and "moved experts" in n for n in found.notes)


def test_over_rdma_deepep_is_taken_where_the_site_says_that_gpus_drive_adapters() -> None:
    nodes, config = gpu_nodes("H200", 4, rdma=IB), "fabrics: {infiniband: {gpuInitiated: Available}}"
    before, after = _plan(nodes, **_on("H200", 16)), _plan(nodes, R1, config, **_on("H200", 16))
    assert _transport(before).all2all == "allgather_reducescatter"
    assert any("fabrics.infiniband.gpuInitiated: Available" in note for note in before.notes)
    assert _transport(after).all2all == "deepep_v2"
    assert before.sizing is not None
    assert after.sizing is not None
    assert after.sizing.output_tokens_per_second > before.sizing.output_tokens_per_second
    assert after.sizing.buffer_bytes > before.sizing.buffer_bytes


def test_an_image_of_which_nothing_is_known_gets_what_works_everywhere() -> None:
    nodes, config = gpu_nodes("H200", 4, rdma=IB), "fabrics: {infiniband: {gpuInitiated: Available}}"
    found = _plan(nodes, R1, config, **_on("H200", 16), engine={"image": "registry.example/vllm:v0.32.0"})
    assert _transport(found).all2all == "allgather_reducescatter"
    assert any("is not known to have deepep_v2" in note for note in found.notes)


def test_what_needs_rights_is_not_chosen_for_engines_without_them() -> None:
    nodes, config = gpu_nodes("H200", 4, rdma=IB), "fabrics: {infiniband: {gpuInitiated: Available}}"
    found = _plan(nodes, R1, config, **_on("H200", 16), engine={"podSecurity": "Restricted"})
    assert _transport(found).all2all == "allgather_reducescatter"
    assert any("needs SYS_RAWIO, which engine.podSecurity Restricted does not give" in n for n in found.notes)
    assert any("the nodes must let them lock memory" in note for note in found.notes)


def test_adapters_on_experts_go_with_the_default_only() -> None:
    nodes = gpu_nodes("GB200", 18, 4, labels=_clique("1"))
    found = _plan(nodes, precision="nvfp4", **_on("GB200", 16), engine={"args": {"enable-lora": ""}})
    assert _transport(found).all2all == "allgather_reducescatter"


def test_a_users_backend_is_planned_with() -> None:
    nodes = gpu_nodes("H200", 4, rdma=IB)
    found = _plan(nodes, **_on("H200", 16), **_flag("deepep_low_latency"))
    assert _transport(found).all2all == "deepep_low_latency"
    assert found.sizing is not None
    # Each expert has room for every token of a step: 256 of them already take 4.5 GiB.
    assert found.sizing.max_batched_tokens == 256
    plain = _plan(nodes, **_on("H200", 16))
    assert plain.sizing is not None
    assert 4 < (found.sizing.buffer_bytes - plain.sizing.buffer_bytes) / 2**30 < 5


def test_so_small_a_step_bounds_what_runs() -> None:
    """Of 256 tokens of a step four fifths are prompts, with requests of 2048 + 512."""
    found = _plan(gpu_nodes("H200", 4, rdma=IB), **_on("H200", 16), **_flag("deepep_low_latency"))
    assert found.sizing is not None
    assert found.sizing.sequences_per_rank <= 256 // 5


def test_a_backend_that_does_not_reach_far_enough_is_refused() -> None:
    found = _refused(gpu_nodes("H200", 4, rdma=IB), **_on("H200", 16), **_flag("flashinfer_nvlink_one_sided"))
    assert "works within an NVLink domain" in found.message
    assert "hardware.gpusPerGroup to at most 8" in found.message


def test_an_unknown_backend_is_refused_before_there_is_a_pod() -> None:
    found = _refused(gpu_nodes("H200", 1), **_on("H200", 8), **_flag("deepp"))
    assert found.reason == reasons.INVALID_SPEC
    assert "deepep_v2" in found.message


def test_on_arm64_flashinfer_needs_a_channel_even_within_a_node() -> None:
    found = _transport(
        _plan(
            gpu_nodes("GB200", 2, 4, labels=_clique("1")),
            SMALL,
            **_on("GB200", 4),
            **_flag("flashinfer_nvlink_one_sided"),
        )
    )
    assert (found.fabric, found.compute_domain, found.domain) == ("nvlink", True, None)


def test_without_rdma_the_plan_says_what_that_costs() -> None:
    found = _plan(gpu_nodes("H200", 4, rdma={"rdma-x.example/hca": "8"}), **_on("H200", 16))
    note = next(note for note in found.notes if "tcp" in note)
    assert "1.56 GB/s per GPU" in note
    assert "over infiniband at 50 GB/s it would be" in note
    assert "fabrics.infiniband.rdmaResource" in note


def test_a_model_that_nobody_described_gets_a_fabric_too() -> None:
    found = _transport(_plan(gpu_nodes("H200", 4, rdma=IB), "org/unknown", **_on("H200", 16)))
    assert (found.fabric, found.all2all) == ("infiniband", "allgather_reducescatter")


def test_the_transport_is_kept_with_the_plan() -> None:
    found = _plan(gpu_nodes("H200", 4, rdma=IB), **_on("H200", 16))
    assert plan_from_data(plan_to_data(found)) == found
