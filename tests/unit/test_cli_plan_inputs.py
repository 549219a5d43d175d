"""What `kubectl moe plan` reads: a mistake in a file must be found by its path, before it is applied."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from factories.gpu_nodes import hgx_b200
from factories.plans import QWEN, plan_manifest
from moe_operator.cli import kubectl_moe
from moe_operator.cli.inventory_source import cluster_configured

CUSTOM: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}

#: Eight values, eight times, and so on: two million of them in a few lines.
BOMB = "a: &a [1,1,1,1,1,1,1,1]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 8)}]\n" for a, b in pairwise("abcdefg")
)


@pytest.fixture(autouse=True)
def _no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def written(tmp_path: Path, *documents: Any, name: str = "model.yaml") -> str:
    path = tmp_path / name
    path.write_text(yaml.safe_dump_all(documents))
    return str(path)


def spelled(**spec: Any) -> dict[str, Any]:
    return plan_manifest(**spec)


@pytest.mark.parametrize(
    ("obj", "says"),
    [
        (
            spelled(hardware={"gpus_per_group": 8}),
            "spec.hardware.gpus_per_group: there is no such field; did you mean",
        ),
        (spelled(modell={"name": "x"}), "spec.modell: there is no such field; did you mean model?"),
        (spelled(hardware={"gpusPerGroup": "many"}), "spec.hardware.gpusPerGroup: "),
        (spelled(objective={"timeToFirstToken": "soon"}), "spec.objective.timeToFirstToken: "),
        ({**spelled(), "apiVersion": "moe-operator.dev/v9"}, "apiVersion: is 'moe-operator.dev/v9'"),
        ({**spelled(), "spec": ["model"]}, "spec: is not an object"),
        ({**spelled(), "metadata": {"name": 5}}, "metadata.name: 5 is not a text"),
        ({**spelled(), "status": {}, "statu": {}}, "statu: there is no such field; did you mean status?"),
    ],
)
def test_a_field_that_does_not_exist_or_fit_is_named(
    tmp_path: Path, obj: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The API server drops unknown fields silently: the wish would be lost."""
    assert kubectl_moe.main(["plan", "-f", written(tmp_path, obj)]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a" * (5 * 2**20), "more than 4 MiB"),
        ("kind: [", "cannot be read"),
        ("[" * 500 + "]" * 500, "nests deeper"),
        (BOMB, "unfold"),
        ("&a [*a]", "unfold"),
        ("d: 2020-13-45", "cannot be read"),
    ],
)
def test_files_that_are_no_manifests_end_in_a_sentence(
    tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in a traceback, a crash of the parser, or a machine out of memory."""
    path = tmp_path / "m.yaml"
    path.write_text(text)
    assert kubectl_moe.main(["plan", "-f", str(path)]) == 2
    assert says in capsys.readouterr().err


def test_aliases_that_people_write_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """kubectl takes anchors too."""
    path = tmp_path / "m.yaml"
    path.write_text(
        "x: &n qwen\n---\n" + yaml.safe_dump(plan_manifest()).replace("name: qwen", "name: &n qwen")
    )
    assert kubectl_moe.main(["plan", "-f", str(path)]) == 0
    assert capsys.readouterr().out.startswith("qwen: ")


def test_a_model_of_one_s_own_is_sized_by_its_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CUSTOM))
    file = written(tmp_path, plan_manifest("acme/own-8b", "H100"))
    assert kubectl_moe.main(["plan", "-f", file, "--config", str(config), "-o", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["model"]["parameters"] == 8_030_261_248
    assert said["checkpoint"]["precision"] == "bf16"
    assert kubectl_moe.main(["plan", "-f", file, "--config", str(config), "--compare"]) == 0
    assert "B200 " in capsys.readouterr().out


def test_a_config_map_beside_the_manifest_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file that will be applied has all that is needed."""
    obj = plan_manifest("acme/own-8b", "H100", model={"configFrom": {"name": "own"}})
    config_map = {
        "kind": "ConfigMap",
        "metadata": {"name": "own"},
        "data": {"config.json": json.dumps(CUSTOM)},
    }
    assert kubectl_moe.main(["plan", "-f", written(tmp_path, config_map, obj)]) == 0
    assert "8.0B parameters, dense" in capsys.readouterr().out
    assert kubectl_moe.main(["plan", "-f", written(tmp_path, obj)]) == 2
    assert "spec.model.configFrom: ConfigMap own is not in the file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps(CUSTOM)[:60], "is not JSON: line 1, column "),
        (" " * (2 * 2**20), "more than 1 MiB"),
        (json.dumps({**CUSTOM, "hidden_size": "big"}), "hidden_size: 'big' is not a whole number"),
        (json.dumps({**CUSTOM, "architectures": ["LlamaForCausalLLM"]}), "architectures[0]: "),
    ],
)
def test_a_config_that_is_cut_off_or_wrong_is_refused_by_path(
    tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_text(text)
    file = written(tmp_path, plan_manifest("acme/own-8b", "H100"))
    assert kubectl_moe.main(["plan", "-f", file, "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert f"{config}: " in said or f"{config} has" in said
    assert says in said


@pytest.mark.parametrize(
    ("label", "value", "says"),
    [
        (
            "nvidia.com/gpu.memory",
            "81559",
            "is 81559 MiB, but nvidia.com/gpu.product=NVIDIA-B200 has 183359 MiB",
        ),
        ("nvidia.com/gpu.memory", "much", "'much' is not"),
        ("cloud.google.com/gke-accelerator", "nvidia-h100-80gb", "says another accelerator"),
    ],
)
def test_a_file_whose_labels_contradict_each_other_is_refused(
    label: str, value: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan on a wrong label starts an engine that runs out of memory."""
    nodes = written(
        tmp_path, {"kind": "List", "items": [hgx_b200("b200-a", **{label: value})]}, name="nodes.yaml"
    )
    assert kubectl_moe.main(["plan", "-f", written(tmp_path, plan_manifest()), "--inventory", nodes]) == 2
    said = capsys.readouterr()
    assert f"{nodes}: node b200-a: {label}: " in said.err
    assert says in said.err
    assert said.out == ""


def test_a_node_that_lacks_a_gpu_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that fell off the bus keeps nobody from planning for the others."""
    node = hgx_b200("b200-a")
    for amounts in ("capacity", "allocatable"):
        node["status"][amounts]["nvidia.com/gpu"] = "7"
    nodes = written(tmp_path, {"kind": "List", "items": [node, hgx_b200("b200-b")]}, name="nodes.yaml")
    assert kubectl_moe.main(["plan", "-f", written(tmp_path, plan_manifest()), "--inventory", nodes]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("warning: node b200-a: nvidia.com/gpu.count: is 8, but the node offers 7")
    assert "warning" not in said.out


def test_nodes_may_be_described_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To plan for hardware that is not bought yet."""
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text("{nodes: [{accelerator: B200, count: 4, gpus: 4}]}")
    file = written(tmp_path, plan_manifest())
    assert kubectl_moe.main(["plan", "-f", file, "--inventory", str(nodes), "-o", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["accelerator"]["gpusPerNode"] == 4
    assert not said["nodes"]["assumed"]
    nodes.write_text("{nodes: [{accelerator: B2000}]}")
    assert kubectl_moe.main(["plan", "-f", file, "--inventory", str(nodes)]) == 2
    assert "nodes[0].accelerator: the catalogue has no 'B2000'" in capsys.readouterr().err


def test_usual_nodes_carry_what_the_spec_selects_and_pins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a cluster a nodeSelector must not read as "no node"."""
    obj = plan_manifest(podTemplate={"nodeSelector": {"pool": "a"}}, hardware={"gpusPerNode": 16})
    assert kubectl_moe.main(["plan", "-f", written(tmp_path, obj), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["accelerator"]["gpusPerNode"] == 16


def test_an_unreachable_cluster_is_an_error_only_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A laptop with an old kubeconfig still plans; `--kubeconfig` means that cluster and no other."""
    cluster = {"name": "a", "cluster": {"server": "https://127.0.0.1:9"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "users": [{"name": "a", "user": {}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
    old = written(tmp_path, config, name="kubeconfig")
    monkeypatch.setenv("KUBECONFIG", old)
    monkeypatch.setattr("moe_operator.cli.plan_inputs._PATIENCE", 0.2)
    file = written(tmp_path, plan_manifest())
    assert kubectl_moe.main(["plan", "-f", file]) == 0
    said = capsys.readouterr()
    assert "warning: the cluster was not asked: " in said.err
    assert f"qwen: {QWEN} on B200" in said.out
    missing = str(tmp_path / "absent")
    assert kubectl_moe.main(["--kubeconfig", missing, "plan", "-f", file]) == 2
    assert "no usable connection" in capsys.readouterr().err


def test_a_cluster_counts_as_configured_by_kubectl_s_own_rules(tmp_path: Path) -> None:
    assert not cluster_configured({}, tmp_path)
    assert cluster_configured({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path)
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text("{}")
    assert cluster_configured({}, tmp_path)
    assert not cluster_configured({"KUBECONFIG": str(tmp_path / "absent")}, tmp_path)
    assert cluster_configured(
        {"KUBECONFIG": f"{tmp_path / 'absent'}:{tmp_path / '.kube' / 'config'}"}, tmp_path
    )
