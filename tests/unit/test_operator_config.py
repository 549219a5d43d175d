"""What a site says of its prices, images and hardware. Unread, costs are wrong and images cannot be pulled."""

import itertools
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_operator.catalog.accelerators import load_catalog
from moe_operator.catalog.operator_config import OperatorConfigError, read_config
from moe_operator.catalog.profile import AcceleratorProfile
from moe_operator.cli import kubectl_moe
from moe_operator.planner.facts import SiteNames

NEW = """
accelerators:
  X900:
    vendor: nvidia
    gpusPerNode: 8
    nodeLabels: {nvidia.com/gpu.product: [NVIDIA-X900]}
    memoryMib: 294912
    memoryBandwidth: 13000
    tflops: {bf16: 4000, fp8: 8000, fp4: 16000}
    interconnectBandwidth: 1800
    computeCapability: "11.0"
"""


def _profile(text: str, name: str) -> AcceleratorProfile:
    found = read_config(text).catalog.accelerator(name)
    assert found is not None
    return found


def test_a_price_of_the_site_goes_before_the_catalogues() -> None:
    profile = _profile('accelerators: {B200: {price: {usdPerGpuHour: "4.10", source: contract}}}', "B200")
    assert profile.price is not None
    assert (profile.price.usd_per_gpu_hour, profile.price.source) == (Decimal("4.10"), "contract")
    shipped = load_catalog().accelerator("B200")
    assert shipped is not None
    assert profile.memory_mib == shipped.memory_mib
    assert shipped.price is not None
    assert shipped.price.usd_per_gpu_hour != Decimal("4.10")


def test_a_price_without_a_source_does_not_keep_the_catalogues() -> None:
    """Else a plan would say that a public list names the site's own price."""
    profile = _profile('accelerators: {B200: {price: {usdPerGpuHour: "4.10"}}}', "B200")
    assert profile.price is not None
    assert profile.price.source == "the operator's configuration"


def test_an_alias_finds_the_accelerator_that_it_names() -> None:
    profile = _profile("accelerators: {NVIDIA-B200: {gpusPerNode: 4}}", "B200")
    assert profile.gpus_per_node == 4


def test_hardware_that_the_catalogue_lacks_is_added() -> None:
    assert _profile(NEW, "NVIDIA-X900").memory_mib == 294912


def test_images_come_from_the_sites_registry() -> None:
    text = "vendors: {nvidia: {image: registry.example/vllm:v0.32.0}}"
    assert _profile(text, "H100").default_image == "registry.example/vllm:v0.32.0"
    assert _profile(text, "cpu").default_image != "registry.example/vllm:v0.32.0"


def test_names_of_the_site_replace_the_usual_ones() -> None:
    names = SiteNames.of(read_config("rdmaResources: ['example.com/hca*']"))
    assert names.is_rdma("example.com/hca0")
    assert not names.is_rdma("rdma/ib")
    assert names.topology_labels == SiteNames().topology_labels


def test_an_empty_file_changes_nothing() -> None:
    assert read_config("").catalog is load_catalog()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("accelerator: {}", "accelerator: Extra inputs"),
        ("accelerators: {B200: {memory: 5}}", "accelerators.B200.memory: Extra inputs"),
        ("accelerators: {B200: {memoryMib: -1}}", "accelerators.B200.memoryMib: "),
        (
            "accelerators: {B200: {price: {usdPerGpuHour: 4.1}}}",
            "accelerators.B200.price.usdPerGpuHour: write",
        ),
        ("accelerators: {B200: {name: C200}}", "accelerators.B200.name: is the key"),
        ("accelerators: {X900: {vendor: nvidia}}", "accelerators.X900.gpusPerNode: Field required"),
        ("accelerators: {X900: {vendor: nvidia, gpusPerNode: 8}}", "X900: nodes of it cannot be recognised"),
        ("accelerators: {B200: {aliases: [H200]}}", "names both"),
        ("vendors: {intel: {}}", "vendors.intel: is not one of nvidia"),
        ("topologyLabels: []", "topologyLabels: "),
        ("- a", "no mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_mistake_is_refused_with_its_path(text: str, said: str) -> None:
    with pytest.raises(OperatorConfigError) as refused:
        read_config(text)
    assert said in str(refused.value)


def test_the_operator_does_not_start_with_a_broken_file(tmp_path: Path) -> None:
    """It would plan with the wrong prices and images, and nobody would know."""
    file = tmp_path / "config.yaml"
    file.write_text("accelerators: {B200: {memory: 5}}")
    command = [sys.executable, "-m", "moe_operator.cli.operator", "run", f"--config={file}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert f"{file}: accelerators.B200.memory: " in ended.stderr


def test_kubectl_moe_plans_and_lists_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("moe_operator.cli.plan_inputs.cluster_configured", lambda: False)
    file = tmp_path / "config.yaml"
    file.write_text('accelerators: {B200: {price: {usdPerGpuHour: "4.10", source: contract}}}')
    manifest = tmp_path / "model.yaml"
    manifest.write_text(
        "apiVersion: moe-operator.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: a, namespace: b}\n"
        "spec: {model: {name: openai/gpt-oss-120b}, hardware: {accelerator: B200}}\n"
    )
    assert kubectl_moe.main(["plan", "-f", str(manifest), "--operator-config", str(file)]) == 0
    assert "$4.10 per GPU-hour (contract)" in capsys.readouterr().out
    assert kubectl_moe.main(["accelerators", "B200", "--operator-config", str(file)]) == 0
    assert "contract" in capsys.readouterr().out


CHART = Path(__file__).parents[2] / "charts" / "moe-operator"


def test_the_charts_example_is_what_the_operator_reads() -> None:
    """It stands in a comment, which nothing else reads."""
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    begin = lines.index("# config:")
    block = itertools.takewhile(lambda line: line.startswith("#"), lines[begin:])
    example = yaml.safe_load("\n".join(line[2:] for line in block))["config"]
    read_config(yaml.safe_dump(example))


def test_the_operations_pages_example_is_what_the_operator_reads() -> None:
    """A key that stands there twice, or a field that is no more, would be copied by everybody."""

    class Strict(yaml.SafeLoader):
        """YAML lets the last of two equal keys win; people do not see that."""

    def mapping(loader: Strict, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"twice: {keys}"
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    for page in ("operations.md", "security.md", "reference/gke.md"):
        text = (CHART.parents[1] / "docs" / page).read_text(encoding="utf-8")
        for block in text.split("```yaml\n")[1:]:
            data = yaml.load(block.partition("```")[0], Strict)
            if "config" in data:
                read_config(yaml.safe_dump(data["config"]))
