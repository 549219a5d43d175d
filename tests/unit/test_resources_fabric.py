"""What pods get for their network. Without it a group goes over TCP though adapters are there, or does not start."""

from dataclasses import replace
from typing import Any

import pytest

from factories.deployments import group_plan, model_deployment, rendering, revision_of
from factories.golden import check_golden
from factories.nodes import gpu_nodes
from moe_operator.api import names
from moe_operator.catalog.gone_names import GONE
from moe_operator.catalog.operator_config import OperatorConfig, default_config, read_config
from moe_operator.planner.inventory import inventory_from
from moe_operator.planner.plan import Plan, Transport
from moe_operator.planner.planning import plan
from moe_operator.resources.engine_args import engine_arguments, explained_arguments
from moe_operator.resources.fabric import fabric_parts
from moe_operator.resources.revision import engine_container

R1 = "deepseek-ai/DeepSeek-R1"


def _planned(
    accelerator: str,
    width: int,
    nodes: list[dict[str, Any]],
    config: OperatorConfig | None = None,
    **spec: Any,
) -> tuple[dict[str, Any], tuple[str, ...], Plan]:
    """(engine container, arguments, plan)."""
    site = config or default_config()
    model = {"name": R1, **spec.pop("model", {})}
    deployment = model_deployment(
        "r1", model=model, hardware={"accelerator": accelerator, "gpusPerGroup": width}, **spec
    )
    found = plan(deployment, inventory_from(nodes, catalog=site.catalog), site.catalog)
    assert isinstance(found, Plan), found
    revision = revision_of(deployment, found, site)
    return engine_container(revision.template), revision.engine_arguments, found


def _env(engine: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in engine["env"]}


def _network(engine: dict[str, Any]) -> dict[str, Any]:
    """What of the container is the network's."""
    known = ("NCCL_", "GLOO_", "FI_", "NVSHMEM_", "NVIDIA_", "VLLM_DEEPEP_", "UCX_")
    return {
        "env": {name: value for name, value in _env(engine).items() if name.startswith(known)},
        "limits": engine["resources"]["limits"],
        "capabilities": engine["securityContext"]["capabilities"],
        "args": [a for a in engine["args"] if a.startswith(("--all2all", "--enable-dbo", "--dbo"))],
    }


CLIQUE = {"nvidia.com/gpu.clique": "7b968a6d.1"}
IB = {"rdma/ib": "1"}


def test_every_network_is_rendered_as_reviewed() -> None:
    """One line of difference here is a difference in every wide group of every user."""
    capable = read_config("fabrics: {infiniband: {gpuInitiated: Available}}")
    low_latency = {"engine": {"args": {"all2all-backend": "deepep_low_latency"}}}
    cases = {
        "mnnvl": _planned("GB200", 16, gpu_nodes("GB200", 4, 4, labels=CLIQUE), model={"precision": "nvfp4"}),
        "infiniband": _planned("H200", 16, gpu_nodes("H200", 2, rdma=IB)),
        "infiniband, GPUs drive adapters": _planned("H200", 16, gpu_nodes("H200", 2, rdma=IB), capable),
        "infiniband, low latency asked for": _planned(
            "H200", 16, gpu_nodes("H200", 2, rdma=IB), **low_latency
        ),
        "roce": _planned("H200", 16, gpu_nodes("H200", 2, rdma={"rdma/roce_gdr": "100"})),
        "efa": _planned("H200", 16, gpu_nodes("H200", 2, rdma={"vpc.amazonaws.com/efa": "32"})),
        "tcp": _planned("H200", 16, gpu_nodes("H200", 2)),
        "nvlink": _planned("H200", 8, gpu_nodes("H200", 1)),
        "xgmi": _planned("MI300X", 8, gpu_nodes("MI300X", 1)),
    }
    check_golden("fabrics", {name: _network(engine) for name, (engine, _, _) in cases.items()})


def test_nothing_is_set_for_who_has_no_network() -> None:
    """On `cpu` the interface's name differs between clusters: a wrong one keeps ranks from finding each other."""
    assert fabric_parts(rendering(model_deployment(), group_plan(2))) == fabric_parts(
        rendering(model_deployment(hardware={"accelerator": "H100"}), group_plan(1, accelerator="H100"))
    )
    engine = engine_container(revision_of(model_deployment(), group_plan(2)).template)
    assert "GLOO_SOCKET_IFNAME" not in _env(engine)
    assert not [a for a in engine["args"] if "all2all" in a]


def test_no_name_is_set_that_vllm_no_longer_reads() -> None:
    capable = read_config("fabrics: {infiniband: {gpuInitiated: Available}}")
    engine, _, _ = _planned("H200", 16, gpu_nodes("H200", 2, rdma=IB), capable)
    assert set(_env(engine)) & set(GONE) == set()


def test_the_users_word_goes_before_the_fabrics() -> None:
    engine, _, _ = _planned(
        "H200",
        16,
        gpu_nodes("H200", 2, rdma=IB),
        engine={"env": [{"name": "NCCL_SOCKET_IFNAME", "value": "net1"}]},
    )
    assert _env(engine)["NCCL_SOCKET_IFNAME"] == "net1"
    assert len([e for e in engine["env"] if e["name"] == "NCCL_SOCKET_IFNAME"]) == 1


def test_the_sites_word_reaches_the_pods() -> None:
    site = read_config(
        "fabrics: {infiniband: {env: {NCCL_IB_HCA: ibp}, hugePages: {hugepages-2Mi: 5Gi}, sharedMemoryMib: 65536}}"
    )
    deployment = model_deployment(hardware={"accelerator": "H200"})
    made = replace(
        group_plan(2, 8, accelerator="H200"), transport=Transport("infiniband", None, "rdma/ib", 1)
    )
    revision = revision_of(deployment, made, site)
    engine = engine_container(revision.template)
    assert _env(engine)["NCCL_IB_HCA"] == "ibp"
    for kind in ("requests", "limits"):
        assert engine["resources"][kind]["hugepages-2Mi"] == "5Gi"
        assert engine["resources"][kind]["rdma/ib"] == "1"
    volumes = revision.template["leaderWorkerTemplate"]["workerTemplate"]["spec"]["volumes"]
    assert next(v for v in volumes if v["name"] == "shm")["emptyDir"]["sizeLimit"] == "65536Mi"


@pytest.mark.parametrize(
    ("accelerator", "architecture", "added"), [("B200", "amd64", ["SYS_PTRACE"]), ("GB200", "arm64", None)]
)
def test_flashinfer_gets_ptrace_on_x86_only(
    accelerator: str, architecture: str, added: list[str] | None
) -> None:
    """With it everywhere, pods are refused where nothing needs it; without, x86 engines end at start (flashinfer
    2394)."""
    made = replace(
        group_plan(1, 4, accelerator=accelerator),
        transport=Transport("nvlink", "flashinfer_nvlink_one_sided"),
    )
    ready = rendering(model_deployment(hardware={"accelerator": accelerator}), made)
    assert ready.profile.architecture == architecture
    engine = engine_container(revision_of(ready.deployment, made).template)
    assert engine["securityContext"]["capabilities"].get("add") == added


def test_a_long_step_gets_a_deep_queue() -> None:
    """DeepEP's kernels assert it: else every rank ends on the first long prompt."""
    args = {"all2all-backend": "deepep_low_latency", "max-num-batched-tokens": "1024"}
    engine, _, _ = _planned("H200", 16, gpu_nodes("H200", 2, rdma=IB), engine={"args": args})
    assert _env(engine)["NVSHMEM_QP_DEPTH"] == "2050"


def test_steps_are_cut_in_two_only_over_a_network_and_where_vllm_can() -> None:
    def flags(transport: Transport, pods: int) -> list[str]:
        made = replace(group_plan(pods, 8, accelerator="H200"), transport=transport)
        ready = rendering(model_deployment(hardware={"accelerator": "H200"}), made)
        return [token for token in engine_arguments(ready) if "dbo" in token]

    low = Transport("infiniband", "deepep_low_latency")
    assert flags(low, 2) == ["--dbo-decode-token-threshold=32", "--enable-dbo"]
    assert flags(low, 1) == []
    assert flags(Transport("infiniband", "deepep_v2"), 2) == []


def test_every_flag_says_why() -> None:
    made = replace(
        group_plan(2, 8, accelerator="H200"), transport=Transport("infiniband", "deepep_low_latency")
    )
    ready = rendering(model_deployment(hardware={"accelerator": "H200"}), made)
    why = {one.flag: one.reason for one in explained_arguments(ready)}
    assert why["all2all-backend"] == "sends tokens to the GPUs of their experts only, over infiniband"
    assert why["enable-dbo"]


def test_a_transport_of_another_catalogue_is_said_to_be() -> None:
    made = replace(group_plan(2, 8, accelerator="H200"), transport=Transport("slingshot"))
    with pytest.raises(KeyError, match="the catalogue has no fabric slingshot"):
        fabric_parts(rendering(model_deployment(hardware={"accelerator": "H200"}), made))


def test_leader_and_workers_get_the_same() -> None:
    made = replace(
        group_plan(2, 8, accelerator="H200"), transport=Transport("infiniband", None, "rdma/ib", 1)
    )
    template = revision_of(model_deployment(hardware={"accelerator": "H200"}), made).template
    workers = template["leaderWorkerTemplate"]
    leader = workers.get("leaderTemplate") or workers["workerTemplate"]
    containers = [
        next(c for c in pod["spec"]["containers"] if c["name"] == names.ENGINE_CONTAINER)
        for pod in (leader, workers["workerTemplate"])
    ]
    assert containers[0]["resources"] == containers[1]["resources"]
