"""`kubectl moe` against an API server: what it asks, and what it makes of answers that it may not have."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from factories.gpu_nodes import hgx_b200
from factories.plans import plan_manifest
from moe_operator.api import names
from moe_operator.cli import kubectl_moe
from unit.answers import Answers as Cluster
from unit.answers import listed

DEPLOYMENT = f"/apis/{names.GROUP}/{names.VERSION}/namespaces/serving/modeldeployments/qwen"
CONFIG = {
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


def applied(**spec: Any) -> dict[str, Any]:
    obj = plan_manifest(**spec)
    obj["metadata"] |= {"namespace": "serving", "uid": "2f1d", "generation": 4}
    return obj


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_plan_by_name_uses_the_cluster_s_nodes_and_says_what_is_free(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan that nothing can run is found before it is applied."""
    busy = {
        "metadata": {"name": "other", "namespace": "x", "uid": "1"},
        "spec": {
            "nodeName": "b200-a",
            "containers": [{"name": "c", "resources": {"requests": {"nvidia.com/gpu": "1"}}}],
        },
        "status": {"phase": "Running"},
    }
    cluster.answers = {
        DEPLOYMENT: applied(),
        "/api/v1/nodes": listed(hgx_b200("b200-a"), hgx_b200("b200-b")),
        "/api/v1/pods": listed(busy),
    }
    assert kubectl_moe.main(["plan", "qwen", "-o", "json"]) == 0
    data = said(capsys)
    assert data["namespace"] == "serving"
    assert data["nodes"] == {
        "source": "the cluster",
        "assumed": False,
        "groupsWithRoom": 1,
        "problems": [],
    }


def test_a_deployment_of_the_cluster_is_rendered_as_its_own(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an upgrade of the operator would make of it can be compared with what runs."""
    cluster.answers = {
        DEPLOYMENT: applied(),
        "/api/v1/nodes": listed(hgx_b200()),
        "/api/v1/pods": listed(),
    }
    assert kubectl_moe.main(["render", "qwen", "-o", "json"]) == 0
    for obj in said(capsys)["items"]:
        assert obj["metadata"]["namespace"] == "serving"
        assert obj["metadata"]["ownerReferences"][0]["uid"] == "2f1d"


def test_a_width_that_the_operator_chose_is_planned(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is printed of a deployment is what the operator does with it."""
    obj = applied()
    chosen = {"gpus": 4, "planned": 8, "before": 8, "percent": 40}
    chosen |= {"groups": 2, "groupsBefore": 1, "since": "2026-11-30T12:00:00Z"}
    scaling = {"desired": 2, "reason": "WithinObjective", "message": "", "chosenWidth": chosen}
    obj["status"] = {"scaling": scaling}
    cluster.answers = {DEPLOYMENT: obj, "/api/v1/nodes": listed(hgx_b200()), "/api/v1/pods": listed()}
    assert kubectl_moe.main(["plan", "qwen", "-o", "json"]) == 0
    assert said(capsys)["layout"]["width"] == 4


def test_without_the_right_to_read_pods_and_nodes_there_is_still_a_plan(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Most people may read their own namespace only."""
    cluster.answers = {"/api/v1/nodes": listed(hgx_b200()), "/api/v1/pods": 403}
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump(plan_manifest()))
    assert kubectl_moe.main(["plan", "-f", str(file), "-o", "json"]) == 0
    assert said(capsys)["nodes"]["groupsWithRoom"] is None
    cluster.answers = {"/api/v1/nodes": 403}
    assert kubectl_moe.main(["plan", "-f", str(file)]) == 0
    assert "nodes could not be read" in capsys.readouterr().out


def test_the_config_of_a_model_of_one_s_own_comes_from_its_config_map(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/api/v1/namespaces/serving/configmaps/own"
    obj = applied(model={"name": "acme/own", "configFrom": {"name": "own"}})
    cluster.answers = {
        DEPLOYMENT: obj,
        "/api/v1/nodes": listed(hgx_b200()),
        "/api/v1/pods": listed(),
        path: {"kind": "ConfigMap", "data": {"config.json": json.dumps(CONFIG)}},
    }
    assert kubectl_moe.main(["plan", "qwen", "-o", "json"]) == 0
    assert said(capsys)["model"]["parameters"] == 8_030_261_248
    del cluster.answers[path]
    assert kubectl_moe.main(["plan", "qwen"]) == 2
    assert "spec.model.configFrom: ConfigMap serving/own does not exist" in capsys.readouterr().err


def test_a_plan_from_files_asks_the_cluster_nothing(cluster: Cluster, tmp_path: Path) -> None:
    file, nodes = tmp_path / "m.yaml", tmp_path / "n.yaml"
    file.write_text(yaml.safe_dump(plan_manifest()))
    nodes.write_text("{nodes: [{accelerator: B200}]}")
    assert kubectl_moe.main(["plan", "-f", str(file), "--inventory", str(nodes)]) == 0
    assert cluster.asked == []


def test_what_is_not_there_is_named(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    for command, code in (["plan"], 2), (["status"], 1), (["rollout", "history"], 1):
        assert kubectl_moe.main([*command, "qwen", "-n", "serving"]) == code
        assert "there is no ModelDeployment serving/qwen" in capsys.readouterr().err


def test_a_status_is_read_from_the_cluster(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.answers = {DEPLOYMENT: applied(), "/api/v1/namespaces/serving/pods": listed()}
    assert kubectl_moe.main(["status", "qwen"]) == 0
    assert capsys.readouterr().out.startswith("serving/qwen: Qwen/Qwen3.5-397B-A17B")
