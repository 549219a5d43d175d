"""What is known of networks, and what a site says of its own. A resource taken for the wrong network leaves pods
pending or adapters unused; a variable that nobody reads looks like a setting and is none."""

import re
from pathlib import Path

import pytest

from moe_operator.catalog import fabrics_reference
from moe_operator.catalog.fabric import Balanced, Count, Domain, FabricProfile, GpuInitiated, Reach
from moe_operator.catalog.fabrics import DEFAULT_BACKEND, fabrics_data, load_fabrics, read_fabrics
from moe_operator.catalog.gone_names import GONE
from moe_operator.catalog.operator_config import OperatorConfigError, read_config

ROOT = Path(__file__).parents[2]


def _fabric(name: str, text: str = "") -> FabricProfile:
    found = read_config(text).catalog.fabrics.fabric(name)
    assert found is not None
    return found


# --- The catalogue -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "fabric", "count"),
    [
        ("rdma/ib", "infiniband", Count.ONE),
        ("rdma/shared_ib", "infiniband", Count.ONE),
        ("rdma/hca_shared_devices_a", "infiniband", Count.ONE),
        ("rdma/rdma_shared_device_ib", "infiniband", Count.ONE),
        ("nvidia.com/hostdev", "infiniband", Count.PER_GPU),
        ("rdma/roce_gdr", "roce", Count.ONE),
        ("rdma/rdma_shared_device_eth", "roce", Count.ONE),
        ("vpc.amazonaws.com/efa", "efa", Count.SHARE),
    ],
)
def test_a_resource_belongs_to_one_fabric(resource: str, fabric: str, count: Count) -> None:
    owner = load_fabrics().owner(resource)
    assert owner is not None
    kind = owner.resource(resource)
    assert kind is not None
    assert (owner.name, kind.count) == (fabric, count)


@pytest.mark.parametrize("resource", ["nvidia.com/gpu", "amd.com/gpu", "example.com/hca"])
def test_what_is_no_network_belongs_to_none(resource: str) -> None:
    assert load_fabrics().owner(resource) is None


@pytest.mark.parametrize(
    ("count", "gpus", "node", "offered", "asked"),
    [
        (Count.ONE, 8, 8, 63, 1),
        (Count.PER_GPU, 4, 8, 8, 4),
        (Count.PER_GPU, 8, 8, 4, 4),
        (Count.SHARE, 8, 8, 32, 32),
        (Count.SHARE, 4, 8, 32, 16),
        (Count.SHARE, 1, 8, 4, 1),
        (Count.SHARE, 4, 8, None, 16),
    ],
)
def test_adapters_of_a_pod(count: Count, gpus: int, node: int, offered: int | None, asked: int) -> None:
    """Asking for more than a node has keeps the pod from ever being placed; for less leaves adapters unused."""
    efa = load_fabrics().fabric("efa")
    assert efa is not None
    kind = efa.resources[0].__class__("x/y", count, 32)
    assert kind.per_pod(gpus, node, offered) == asked


def test_every_fabric_between_nodes_says_how_fast_it_is() -> None:
    for profile in load_fabrics().profiles():
        assert (profile.bandwidth_per_gpu is not None) == (profile.reach is Reach.NETWORK), profile.name


def test_every_fabric_has_an_all_to_all_for_everything() -> None:
    """Else a group over it would run with what vLLM makes of nothing."""
    for profile in load_fabrics().profiles():
        last = profile.all2all[-1]
        assert last.backend.name == DEFAULT_BACKEND
        assert (last.precisions, last.capabilities, last.accelerators, last.roles) == ((), (), (), ())
        assert last.balanced is Balanced.ALLOWED
        assert not last.gpu_initiated


def test_every_variable_says_who_reads_it_and_why() -> None:
    for profile in load_fabrics().profiles():
        for setting in profile.env:
            assert setting.reason, setting.name
            assert re.search(r"\d|Toolkit", setting.reads), setting


def test_names_that_vllm_no_longer_reads_are_set_nowhere() -> None:
    """They do nothing, silently: a group then runs with the slow path that a site believes to have switched off."""
    files = [
        *ROOT.glob("operator/**/*.yaml"),
        *ROOT.glob("charts/**/*.yaml"),
        *ROOT.glob("manifests/**/*.yaml"),
    ]
    found = {name for path in files for name in GONE if name in path.read_text(encoding="utf-8")}
    assert found == set()


@pytest.mark.parametrize("name", sorted(GONE))
def test_a_site_cannot_set_them_either(name: str) -> None:
    with pytest.raises(OperatorConfigError, match=rf"^fabrics\.tcp\.env: .*{name}: use "):
        read_config(f"fabrics: {{tcp: {{env: {{{name}: x}}}}}}")


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("naive", DEFAULT_BACKEND),
        ("flashinfer-all2allv", "flashinfer_nvlink_two_sided"),
        ("deepep_v2", "deepep_v2"),
    ],
)
def test_older_names_of_backends_are_known(name: str, means: str) -> None:
    found = load_fabrics().backend(name)
    assert found is not None
    assert found.name == means


def test_a_fabric_whose_domain_has_no_label_is_refused() -> None:
    data = fabrics_data()
    data["fabrics"][0].pop("nodeLabel")
    with pytest.raises(ValueError, match="mnnvl: domain Required needs the nodeLabel"):
        read_fabrics(data)


def test_the_page_is_current() -> None:
    page = ROOT / fabrics_reference.FILE
    assert page.read_text(encoding="utf-8") == fabrics_reference.render(), "run: make generate"


# --- What a site says ----------------------------------------------------------------------------


def test_a_site_names_the_resource_of_its_adapters() -> None:
    text = "fabrics: {infiniband: {rdmaResource: example.com/hca, rdmaCount: PerGpu}}"
    kind = _fabric("infiniband", text).resource("example.com/hca")
    assert kind is not None
    assert kind.count is Count.PER_GPU
    assert _fabric("infiniband", text).resource("rdma/ib") is None
    assert _fabric("roce", text) == _fabric("roce")


def test_a_site_says_what_its_drivers_allow() -> None:
    assert _fabric("infiniband").gpu_initiated is GpuInitiated.UNKNOWN
    assert _fabric("infiniband", "fabrics: {infiniband: {gpuInitiated: Available}}").gpu_initiated is (
        GpuInitiated.AVAILABLE
    )


def test_variables_are_joined_by_name() -> None:
    before = {setting.name: setting.value for setting in _fabric("infiniband").env}
    text = "fabrics: {infiniband: {env: {NCCL_IB_HCA: ibp, NCCL_SOCKET_IFNAME: net1}}}"
    after = {setting.name: setting.value for setting in _fabric("infiniband", text).env}
    assert after == {**before, "NCCL_IB_HCA": "ibp", "NCCL_SOCKET_IFNAME": "net1"}


def test_a_fabric_of_the_sites_own_goes_first() -> None:
    text = """
    fabrics:
      slingshot:
        about: HPE Slingshot
        resources: [{pattern: beta.hpe.com/cxi, count: PerGpu}]
        bandwidthPerGpu: 25000000000
    """
    fabrics = read_config(text).catalog.fabrics
    assert fabrics.names()[0] == "slingshot"
    own = fabrics.fabric("slingshot")
    assert own is not None
    assert own.domain is Domain.PREFERRED
    assert [one.name for one in own.capabilities] == ["IPC_LOCK"]
    assert own.all2all[0].backend.name == DEFAULT_BACKEND


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{tcp: {bandwith: 1}}", r"^fabrics\.tcp\.bandwith: Extra inputs"),
        ("{tcp: {bandwidthPerGpu: fast}}", r"^fabrics\.tcp\.bandwidthPerGpu: "),
        ("{tcp: {name: x}}", r"^fabrics\.tcp\.name: is the key itself"),
        ("{mine: {about: x}}", r"^fabrics\.mine: bandwidthPerGpu missing"),
        ("{mine: {bandwidthPerGpu: 1}}", r"^fabrics\.mine\.about: Field required"),
        (
            "{tcp: {allToAll: [{backend: deepp}]}}",
            r"^fabrics\.tcp: no all-to-all backend 'deepp'; vLLM 0\.32 has",
        ),
        ("{tcp: {rdmaCount: One}}", r"^fabrics\.tcp\.rdmaCount: .*add its name"),
        ("{tcp: {rdmaResource: 'rdma/*'}}", r"^fabrics\.tcp\.rdmaResource: is one resource's full name"),
        ("{tcp: {rdmaResource: hca}}", r"^fabrics\.tcp\.resources\.0\.pattern: "),
        ("{tcp: {rdmaResource: a/b, resources: []}}", r"^fabrics\.tcp\.rdmaResource: leave it out"),
        ("{tcp: {rdmaResource: a/b, rdmaCount: Two}}", r"^fabrics\.tcp\.resources\.0\.count: "),
        ("{tcp: {env: {A: {value: 3}}}}", r"^fabrics\.tcp\.env\.A\.value: "),
        ("{tcp: {env: {'A B': x}}}", r"^fabrics\.tcp\.env\.A B"),
        ("{tcp: {hugePages: {memory: 1Gi}}}", r"^fabrics\.tcp\.hugePages"),
        ("{tcp: 3}", r"^fabrics\.tcp: "),
        ("[tcp]", r"^fabrics: "),
        ("{Bad_Name: {about: x, bandwidthPerGpu: 1}}", r"^fabrics\.Bad_Name\.name: "),
    ],
)
def test_a_fault_is_named_with_its_field(text: str, message: str) -> None:
    with pytest.raises(OperatorConfigError, match=message):
        read_config(f"fabrics: {text}")
