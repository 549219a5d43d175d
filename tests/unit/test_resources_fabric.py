"""What pods get for their network. Without it a group goes over TCP though adapters are there, or does not start."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from factories.deployments import group_plan, model_deployment, rendering, revision_of
from factories.golden import check_golden
from factories.nodes import gpu_nodes
from moe_operator.api import names
from moe_operator.catalog.gone_names import GONE
from moe_operator.catalog.operator_config import (
    OperatorConfig,
    OperatorConfigError,
    default_config,
    read_config,
)
from moe_operator.catalog.policy import PodAddition, PodSecurityLevel
from moe_operator.catalog.policy_check import Subject, policy_violations
from moe_operator.planner.inventory import inventory_from
from moe_operator.planner.plan import Plan, Refusal, Transport
from moe_operator.planner.planning import plan
from moe_operator.resources.engine_args import engine_arguments, explained_arguments
from moe_operator.resources.fabric import fabric_additions, fabric_parts
from moe_operator.resources.pod_security import template_security
from moe_operator.resources.revision import engine_container
from moe_operator.resources.security_notes import security_notes

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


# --- What a site's own fabric takes of its nodes -------------------------------------------------

GKE = Path(__file__).parents[2] / "docs" / "reference" / "gke.md"
GKE_NETWORK = {"networking.gke.io.networks/rdma-0": "1"}


def _gke() -> OperatorConfig:
    """The configuration that the page tells people to copy."""
    block = GKE.read_text(encoding="utf-8").split("```yaml\n")[1].partition("```")[0]
    return read_config(yaml.safe_dump(yaml.safe_load(block)["config"]))


def _template(site: OperatorConfig, nodes: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    hardware = {"accelerator": "B200", "gpusPerGroup": 16}
    deployment = model_deployment("r1", model={"name": R1}, hardware=hardware, **spec)
    found = plan(deployment, inventory_from(nodes, catalog=site.catalog), site.catalog)
    assert isinstance(found, Plan), found
    return revision_of(deployment, found, site).template


def test_pods_on_google_have_what_googles_own_manifests_have() -> None:
    """Lost: 3.2 Tbit/s of a node, to TCP over the pod network, or pods without libraries.

    Against gpudirect-rdma/nccl-test-a4.yaml of GoogleCloudPlatform/container-engine-accelerators.
    """
    template = _template(_gke(), gpu_nodes("B200", 2, rdma=GKE_NETWORK))
    for kind in ("leaderTemplate", "workerTemplate"):
        pod = template["leaderWorkerTemplate"][kind]
        annotations = pod["metadata"]["annotations"]
        assert annotations["networking.gke.io/default-interface"] == "eth0"
        assert json.loads(annotations["networking.gke.io/interfaces"]) == [
            {"interfaceName": "eth0", "network": "default"},
            *({"interfaceName": f"eth{2 + n}", "network": f"rdma-{n}"} for n in range(8)),
        ]
        folders = {v["name"]: v["hostPath"] for v in pod["spec"]["volumes"] if "hostPath" in v}
        engine = engine_container(template)
        mounted = {folders[m["name"]]["path"]: m for m in engine["volumeMounts"] if m["name"] in folders}
        assert {path: mount["mountPath"] for path, mount in mounted.items()} == {
            "/home/kubernetes/bin/nvidia": "/usr/local/nvidia",
            "/home/kubernetes/bin/gib": "/usr/local/gib",
        }
        assert all(mount["readOnly"] for mount in mounted.values())
        assert all(folder["type"] == "Directory" for folder in folders.values()), (
            "none is made where it is missing"
        )
    assert _env(engine)["NCCL_NET"] == "gIB"
    assert "/usr/local/nvidia/lib64" in _env(engine)["LD_LIBRARY_PATH"]
    assert engine["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert engine["resources"]["limits"]["networking.gke.io.networks/rdma-0"] == "1"


def test_a_group_within_a_node_gets_nothing_of_the_nodes() -> None:
    """Lost: the Pod Security Standard, to folders that nobody reads."""
    site = _gke()
    deployment = model_deployment(hardware={"accelerator": "B200", "gpusPerGroup": 8}, model={"name": R1})
    found = plan(
        deployment, inventory_from(gpu_nodes("B200", 2, rdma=GKE_NETWORK), catalog=site.catalog), site.catalog
    )
    assert isinstance(found, Plan)
    assert template_security(revision_of(deployment, found, site).template).level is PodSecurityLevel.BASELINE


def test_folders_of_nodes_are_told_where_pod_security_is() -> None:
    """Lost: a namespace that refuses the pods, and nobody who knows why."""
    site = _gke()
    deployment = model_deployment(hardware={"accelerator": "B200"})
    made = replace(group_plan(2, 8, accelerator="B200"), transport=Transport("gke-rdma", None, "n/r", 1))
    revision = revision_of(deployment, made, site)
    (note,) = [n for n in security_notes(deployment, revision, default_config()) if "privileged" in n]
    assert "(/home/kubernetes/bin/gib)" in note
    engine = engine_container(revision.template)
    assert not engine["securityContext"].get("privileged")


def test_devices_of_nodes_take_a_privileged_engine() -> None:
    """Lost: engines that see /dev/infiniband and may not open it."""
    site = read_config("fabrics: {infiniband: {hostDevices: [{path: /dev/infiniband, reason: verbs}]}}")
    deployment = model_deployment(hardware={"accelerator": "H200"})
    made = replace(
        group_plan(2, 8, accelerator="H200"), transport=Transport("infiniband", None, "rdma/ib", 1)
    )
    revision = revision_of(deployment, made, site)
    engine = engine_container(revision.template)
    assert engine["securityContext"] == {"privileged": True}
    assert {"name": "moe-device-0", "mountPath": "/dev/infiniband"} in engine["volumeMounts"]
    assert "privileged container engine" in template_security(revision.template).reasons
    assert fabric_additions(revision.template) == (
        (PodAddition.PRIVILEGED, "the fabric opens /dev/infiniband of its nodes, by privileged engines"),
    )


def test_a_restricted_engine_is_not_given_files_of_its_node() -> None:
    """Lost: either the standard that was asked for, or silently the network."""
    site = _gke()
    spec = {"hardware": {"accelerator": "B200", "gpusPerGroup": 16}, "engine": {"podSecurity": "Restricted"}}
    nodes = gpu_nodes("B200", 2, rdma=GKE_NETWORK)

    def planned(**hardware: Any) -> Plan | Refusal:
        wanted = {**spec, "hardware": {**spec["hardware"], **hardware}}
        deployment = model_deployment("r1", model={"name": R1}, **wanted)
        return plan(deployment, inventory_from(nodes, catalog=site.catalog), site.catalog)

    refusal = planned()
    assert isinstance(refusal, Refusal)
    assert (
        "over gke-rdma engines get /home/kubernetes/bin/nvidia, /home/kubernetes/bin/gib" in refusal.message
    )
    assert isinstance(planned(fabric="tcp"), Plan), "the way out that the message names"


@pytest.mark.parametrize(
    ("pods", "refused"),
    [("[]", True), ("[containers]", True), ("[hostPath]", False), ("[fabric]", False)],
)
def test_a_policy_says_whether_pods_get_folders_of_nodes(pods: str, refused: bool) -> None:
    """Lost: the rule's word, to whoever configures networks; or users' own host paths, let in with the network's."""
    revision = _template(_gke(), gpu_nodes("B200", 2, rdma=GKE_NETWORK))
    policy = read_config(f"policy: {{rules: [{{name: r, pods: {pods}}}]}}").policy
    subject = Subject(model_deployment(), None, fabric_additions=fabric_additions(revision))
    found = policy_violations(policy, subject)
    assert bool(found) is refused
    if refused:
        assert "the fabric mounts /home/kubernetes/bin/nvidia of its nodes" in found[0]
    mine = {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}
    users = policy_violations(policy, Subject(model_deployment(podTemplate=mine), None))
    assert bool(users) is (pods != "[hostPath]"), "`fabric` lets users mount nothing"


def test_the_users_annotation_goes_before_the_fabrics() -> None:
    own = {"annotations": {"networking.gke.io/default-interface": "eth1"}}
    template = _template(_gke(), gpu_nodes("B200", 2, rdma=GKE_NETWORK), podTemplate=own)
    annotations = template["leaderWorkerTemplate"]["leaderTemplate"]["metadata"]["annotations"]
    assert annotations["networking.gke.io/default-interface"] == "eth1"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("hostPaths: [{path: ../etc, mountPath: /a, reason: r}]", "hostPaths.0.path"),
        ("hostPaths: [{path: /a/../etc, mountPath: /a, reason: r}]", "hostPaths.0.path"),
        ("hostPaths: [{path: /a, mountPath: /dev/shm, reason: r}]", "the operator mounts /dev/shm itself"),
        ("hostPaths: [{path: /a, mountPath: /models/x, reason: r}]", "the operator mounts /models itself"),
        ("hostPaths: [{path: /a, mountPath: /opt, reason: r}]", "the operator mounts /opt/moe-agent itself"),
        ("hostPaths: [{path: /a, mountPath: /b}]", "hostPaths.0.reason: Field required"),
        ("hostDevices: [{path: /etc/passwd, reason: r}]", "hostDevices.0.path"),
        ("podAnnotations: {moe-operator.dev/traffic: on}", "podAnnotations"),
        ("podAnnotations: {moe-operator.dev/domain: a}", "is the operator's own"),
        ("podAnnotations: {a b: c}", "podAnnotations"),
    ],
)
def test_what_a_site_may_not_take_of_its_nodes(fields: str, said: str) -> None:
    with pytest.raises(OperatorConfigError) as refused:
        read_config(f"fabrics: {{infiniband: {{{fields}}}}}")
    assert said in str(refused.value)
    assert str(refused.value).startswith("fabrics.infiniband.")
