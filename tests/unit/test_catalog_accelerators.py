"""The catalogue. A wrong entry puts a group on the wrong nodes, or on none."""

import copy
from importlib import resources
from typing import Any

import pytest
import yaml

from moe_operator.catalog.accelerators import is_divided, load_catalog, read_catalog

NAMED = (
    "B200", "B300", "GB200", "GB300", "H100", "H200", "A100", "L40S", "RTX-PRO-6000",
    "MI300X", "MI325X", "MI355X", "cpu",
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
        ("NVIDIA-GH200-480GB", None),
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
    ],
)
def test_a_slip_in_the_data_file_is_named(path: str, value: Any, fault: str) -> None:
    """It would surface as a group that never starts."""
    with pytest.raises(ValueError, match=fault):
        read_catalog(_change(_data(), path, value))
