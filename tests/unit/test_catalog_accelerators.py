"""The catalogue. A wrong entry puts a group on the wrong nodes, or on none."""

import copy
from decimal import Decimal
from importlib import resources
from typing import Any

import pytest
import yaml

from moe_operator.catalog import reference
from moe_operator.catalog.accelerators import AcceleratorProfile, is_divided, load_catalog, read_catalog

NAMED = (
    "B200", "B300", "GB200", "GB300", "H100", "H100-PCIe", "H100-NVL", "H200", "GH200", "A100", "A100-40GB",
    "L40S", "RTX-PRO-6000", "MI300X", "MI325X", "MI355X", "cpu",
)  # fmt: skip


def _data() -> dict[str, Any]:
    text = resources.files("moe_operator.catalog").joinpath("accelerators.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    assert isinstance(data, dict)
    return data


@pytest.mark.parametrize("name", NAMED)
def test_knows_the_accelerators_that_people_have(name: str) -> None:
    profile = load_catalog().accelerator(name)
    assert profile is not None
    assert profile.name == name
    assert ":v0.32.0" in profile.default_image, "the release that everything else was tested with"


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("b200", "B200"),
        ("NVIDIA-B200", "B200"),
        ("nvidia b200", "B200"),
        ("NVIDIA-B300-SXM6-AC", "B300"),
        ("NVIDIA-H100-80GB-HBM3", "H100"),
        ("NVIDIA-GH200-480GB", "GH200"),
        ("NVIDIA-GH200-144G-HBM3e", None),
        ("h100 pcie", "H100-PCIe"),
        ("NVIDIA-A100-80GB-PCIe", "A100-PCIe"),
        ("A100-80GB", "A100"),
        ("NVIDIA-A100-SXM4-40GB", "A100-40GB"),
        ("RTX PRO 6000 Blackwell", "RTX-PRO-6000"),
        ("AMD_Instinct_MI300X_OAM", "MI300X"),
        ("CPU", "cpu"),
        ("B20", None),
        ("", None),
    ],
)
def test_finds_an_accelerator_by_what_people_and_nodes_call_it(said: str, name: str | None) -> None:
    profile = load_catalog().accelerator(said)
    assert (profile.name if profile else None) == name


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ({"nvidia.com/gpu.product": "NVIDIA-B200"}, "B200"),
        ({"nvidia.com/gpu.product": "NVIDIA-GB200"}, "GB200"),
        ({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, "H100"),
        ({"nvidia.com/gpu.product": "NVIDIA-H200"}, "H200"),
        ({"nvidia.com/gpu.product": "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition"}, "RTX-PRO-6000"),
        ({"cloud.google.com/gke-accelerator": "nvidia-h100-mega-80gb"}, "H100"),
        ({"amd.com/gpu.product-name": "AMD_Instinct_MI355_OAM"}, "MI355X"),
        ({"beta.amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}, "MI300X"),
        ({"nvidia.com/gpu.product": "NVIDIA-B200-SHARED"}, None),
        ({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"}, None),
        ({"kubernetes.io/arch": "amd64"}, None),
        ({}, None),
    ],
)
def test_recognises_nodes_by_their_labels(labels: dict[str, str], name: str | None) -> None:
    profile = load_catalog().recognise(labels)
    assert (profile.name if profile else None) == name


def test_shared_and_divided_gpus_are_told_apart() -> None:
    assert is_divided("NVIDIA-B200-SHARED")
    assert is_divided("nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3-MIG-1g.10gb")
    assert not is_divided("NVIDIA-B200")


def test_no_label_names_two_accelerators() -> None:
    """A node would count for both."""
    catalog = load_catalog()
    seen: dict[tuple[str, str], str] = {}
    for name in catalog.names():
        profile = catalog.accelerator(name)
        assert profile is not None
        for key, values in profile.node_labels:
            for value in values:
                assert seen.setdefault((key, value), name) == name
                assert len(value) <= 63, "no node could carry it"


def test_a_typing_error_is_answered_with_the_closest_names_first() -> None:
    catalog = load_catalog()
    assert catalog.closest("H20")[0] in ("H200", "H100")
    assert catalog.closest("MI350X")[0] in ("MI355X", "MI300X")
    assert sorted(catalog.closest("x")) == sorted(catalog.names())


def test_gpus_are_limited_and_requested_alike() -> None:
    """Kubernetes refuses an extended resource whose request differs from its limit."""
    profile = load_catalog().accelerator("B200")
    assert profile is not None
    assert profile.pod_limits(8) == {"nvidia.com/gpu": "8"}
    assert profile.pod_requests(8) == {"cpu": "16000m", "memory": "131072Mi", "nvidia.com/gpu": "8"}


def test_cpu_asks_for_no_device_and_runs_anywhere() -> None:
    profile = load_catalog().accelerator("cpu")
    assert profile is not None
    assert profile.resource_name is None
    assert profile.node_labels == ()
    assert profile.pod_limits(2) == {}
    assert (profile.gpus_per_node, profile.default_width) == (1, 2)
    assert dict(profile.env)["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert "GLOO_SOCKET_IFNAME" not in dict(profile.env), "an interface's name holds for one cluster only"


def _known() -> list[AcceleratorProfile]:
    catalog = load_catalog()
    return [profile for name in catalog.names() if (profile := catalog.accelerator(name))]


@pytest.mark.parametrize("profile", [p for p in _known() if p.resource_name], ids=lambda p: p.name)
def test_every_gpu_can_be_sized_for(profile: AcceleratorProfile) -> None:
    """A slip of a digit would plan models onto memory that is not there, or refuse those that fit."""
    assert profile.memory_mib is not None
    assert profile.memory_bandwidth is not None
    assert profile.tflops is not None
    assert profile.interconnect_bandwidth is not None
    assert 40_000 < profile.memory_mib < 300_000
    assert 800 < profile.memory_bandwidth <= 8000
    assert 300 < profile.tflops.bf16 <= 2500
    # Halving the width of numbers doubles the products, and never halves them.
    if profile.tflops.fp8:
        assert 1.9 < profile.tflops.fp8 / profile.tflops.bf16 < 2.1
    if profile.tflops.fp4:
        assert profile.tflops.fp8
        assert 1.9 < profile.tflops.fp4 / profile.tflops.fp8 < 3.2
    assert profile.nvlink_domain in (1, 2, 4, 8, 72)
    assert (profile.nvlink_domain == 1) == (profile.interconnect_bandwidth <= 64), "PCIe, or more than PCIe"
    assert profile.architecture == ("arm64" if profile.name.startswith("G") else "amd64")
    if profile.price is not None:
        assert Decimal(1) < profile.price.usd_per_gpu_hour < Decimal(20)
        assert profile.price.source


@pytest.mark.parametrize(
    ("name", "memory", "domain", "fp4", "price"),
    [
        ("B200", 183359, 8, 9000, "8.60"),
        ("B300", 275040, 8, 14000, "7.89"),
        ("GB200", 189471, 72, 10000, "10.50"),
        ("GB300", 284208, 72, 15000, "12.32"),
        ("H100", 81559, 8, None, "6.16"),
        ("H100-PCIe", 81559, 1, None, None),
        ("H100-NVL", 95830, 2, None, "3.07"),
        ("H200", 143771, 8, None, "6.31"),
        ("MI300X", 196608, 8, None, "1.85"),
    ],
)
def test_the_figures_are_those_of_the_sources(
    name: str, memory: int, domain: int, fp4: int | None, price: str | None
) -> None:
    """Memory is what nodes report, not what is marketed: 141 GB are 143771 MiB, and 180 GB are 183359."""
    profile = load_catalog().accelerator(name)
    assert profile is not None
    assert profile.tflops is not None
    said = str(profile.price.usd_per_gpu_hour) if profile.price else None
    assert (profile.memory_mib, profile.nvlink_domain, profile.tflops.fp4, said) == (
        memory,
        domain,
        fp4,
        price,
    )


def test_cpu_has_no_figures_of_a_gpu() -> None:
    profile = load_catalog().accelerator("cpu")
    assert profile is not None
    assert (profile.memory_mib, profile.tflops, profile.price) == (None, None, None)


def test_labels_that_name_two_accelerators_are_all_reported() -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-H200", "cloud.google.com/gke-accelerator": "nvidia-b200"}
    named = {key: profile.name for key, profile in load_catalog().named_by(labels)}
    assert named == {"nvidia.com/gpu.product": "H200", "cloud.google.com/gke-accelerator": "B200"}


def test_the_page_for_users_shows_memory_speed_and_price() -> None:
    """Who plans a purchase or a bill would else have to read the source."""
    row = next(line for line in reference.render().splitlines() if line.startswith("| `GB200` | 189471 MiB"))
    assert "8000 GB/s" in row
    assert "| 72 |" in row
    assert "$10.50 | CoreWeave list, February 2026" in row


def _change(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(data)
    node: Any = changed
    *parents, last = path.split("/")
    for part in parents:
        node = node[int(part) if part.isdigit() else part]
    node[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("accelerators/0/gpusPerNode", 0, "gpusPerNode"),
        ("accelerators/0/gpusPerNode", "8", "gpusPerNode"),
        ("accelerators/0/colour", "green", "colour"),
        ("accelerators/0/vendor", "acme", "no vendor 'acme'"),
        ("accelerators/0/nodeLabels", {}, "cannot be recognised"),
        ("accelerators/1/aliases", ["b200"], "names both"),
        ("accelerators/0/name", "B 200", "name"),
        ("vendors/nvidia/image", "", "image"),
        ("accelerators/0/memoryMib", None, "B200: memoryMib missing"),
        ("accelerators/0/memoryMib", 183359.5, "memoryMib"),
        ("accelerators/0/tflops/fp8", "4500", "fp8"),
        ("accelerators/0/price/usdPerGpuHour", 8.6, "usdPerGpuHour"),
        ("accelerators/0/price/source", "", "source"),
        ("accelerators/0/architecture", "sparc", "architecture"),
    ],
)
def test_a_slip_in_the_data_file_is_named(path: str, value: Any, fault: str) -> None:
    """It would surface as a group that never starts."""
    with pytest.raises(ValueError, match=fault):
        read_catalog(_change(_data(), path, value))
