"""`kubectl moe`: what people read before they apply, and when something is wrong."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_operator.api import names
from moe_operator.cli import kubectl_moe
from moe_operator.cli.tables import table

B200_NODE: dict[str, Any] = {
    "kind": "Node",
    "metadata": {"name": "gpu-1", "labels": {"nvidia.com/gpu.product": "NVIDIA-B200"}},
    "status": {"allocatable": {"nvidia.com/gpu": "8"}, "capacity": {"nvidia.com/gpu": "8"}},
}


def manifest(accelerator: str = "B200", **hardware: Any) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "qwen"},
        "spec": {"model": {"name": "org/model"}, "hardware": {"accelerator": accelerator, **hardware}},
    }


@pytest.fixture
def nodes(tmp_path: Path) -> str:
    """As `kubectl get nodes -o yaml` writes them."""
    path = tmp_path / "nodes.yaml"
    path.write_text(
        json.dumps(
            {
                "kind": "List",
                "items": [B200_NODE, {**B200_NODE, "metadata": {**B200_NODE["metadata"], "name": "gpu-2"}}],
            }
        )
    )
    return str(path)


def written(tmp_path: Path, *documents: Any) -> str:
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return str(path)


def test_a_plan_says_layout_image_and_arguments_without_a_cluster(
    tmp_path: Path, nodes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}}
    file = written(tmp_path, service, manifest(gpusPerGroup=16))
    assert kubectl_moe.main(["plan", "-f", file, "--inventory", nodes]) == 0
    out = capsys.readouterr().out
    assert "16 wide: 2 pods x 8 ranks x 1 GPU" in out
    assert "spread over 16 GPUs" in out
    assert "--enable-expert-parallel" in out
    assert "    --data-parallel-size 16 \\\n" in out


def test_a_plan_may_come_by_standard_input(
    nodes: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(manifest())))
    assert kubectl_moe.main(["plan", "-f", "-", "--inventory", nodes]) == 0
    assert "8 wide: 1 pod x 8 ranks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("obj", "says"),
    [
        (manifest("H200"), "NoNodes"),
        (manifest("no-such"), "no-such"),
        (manifest(gpusPerGroup=9), "9"),
        ({**manifest(), "metadata": {"name": "a-g1"}}, "InvalidName"),
    ],
)
def test_what_cannot_be_is_said_with_its_reason(
    tmp_path: Path, nodes: str, obj: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A CI job that plans before it applies must fail."""
    assert kubectl_moe.main(["plan", "-f", written(tmp_path, obj), "--inventory", nodes]) == 1
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(
    ("documents", "says"),
    [
        ([], "holds 0 ModelDeployments"),
        ([manifest(), manifest()], "holds 2 ModelDeployments"),
        ([{**manifest(), "metadata": {}}], "no metadata.name"),
        ([{**manifest(), "spec": {"model": {}}}], "spec.model.name"),
    ],
)
def test_a_file_that_is_no_deployment_is_explained(
    tmp_path: Path, nodes: str, documents: list[Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kubectl_moe.main(["plan", "-f", written(tmp_path, *documents), "--inventory", nodes]) == 2
    assert says in capsys.readouterr().err


def test_missing_files_and_clusters_are_explained(
    tmp_path: Path, nodes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kubectl_moe.main(["plan", "-f", "/absent", "--inventory", nodes]) == 2
    assert "/absent cannot be read" in capsys.readouterr().err
    assert kubectl_moe.main(["--kubeconfig", "/absent", "status", "qwen"]) == 2
    assert "no usable connection" in capsys.readouterr().err


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(("A", "LONG"), [("wide", "x"), ("y", "z")]).splitlines() == [
        "A      LONG",
        "wide   x",
        "y      z",
    ]
