"""`kubectl moe render`: what people read, diff and check against policies before they let an operator do it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from factories.deployments import UID
from factories.plans import plan_manifest, report
from moe_operator.api import names
from moe_operator.cli import kubectl_moe
from moe_operator.cli.data_text import data_text
from moe_operator.cli.rendered import PURPOSES, rendered_objects, rendered_text
from moe_operator.cli.yaml_comments import commented
from moe_operator.controller.kube import APPLIED_KINDS, CONTROLLER_REVISION, LEADER_WORKER_SET

ORDER = [
    "ServiceAccount",
    "NetworkPolicy",
    "ConfigMap",
    "Service",
    "PodDisruptionBudget",
    "LeaderWorkerSet",
]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A manifest where no cluster is configured."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return _written(tmp_path, plan_manifest())


def _written(tmp_path: Path, obj: dict[str, Any]) -> str:
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(obj))
    return str(path)


def _out(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert kubectl_moe.main(["render", *arguments]) == 0
    return capsys.readouterr().out


def _documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


def test_objects_come_in_the_order_in_which_they_must_be_there(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A group whose ConfigMap or account comes after it does not start."""
    found = _documents(_out(capsys, "-f", file, "--groups", "3"))
    assert [obj["kind"] for obj in found] == [*ORDER, "LeaderWorkerSet", "LeaderWorkerSet"]
    assert [obj["metadata"]["name"] for obj in found[-3:]] == ["qwen-g0", "qwen-g1", "qwen-g2"]
    for obj in found:
        assert list(obj)[:3] == ["apiVersion", "kind", "metadata"]


def test_the_record_of_a_rollback_is_printed_when_it_is_asked_for(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It repeats the template, which nobody wants to read twice; a quota or a policy may count it."""
    kinds = [obj["kind"] for obj in _documents(_out(capsys, "-f", file, "--revision"))]
    assert kinds == [*ORDER[:-1], "ControllerRevision", "LeaderWorkerSet"]


def test_explained_or_not_in_yaml_or_json_it_is_the_same(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comment that ends up in an argument starts another engine."""
    plain = _documents(_out(capsys, "-f", file))
    explained = _out(capsys, "-f", file, "--explain")
    assert _documents(explained) == plain
    data = json.loads(_out(capsys, "-f", file, "-o", "json"))
    assert (data["apiVersion"], data["kind"]) == ("v1", "List"), "kubectl apply takes it"
    assert data["items"] == plain


def test_every_argument_and_variable_has_its_reason(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A line without a reason is one that a reviewer must ask about."""
    lines = _out(capsys, "-f", file, "--explain").splitlines()
    begin = lines.index("    leaderTemplate:")
    end = next(i for i, line in enumerate(lines) if line.startswith("    workerTemplate:"))
    engine = lines[begin:end]
    unexplained = []
    for number, line in enumerate(engine):
        words = line.split("#")[0].split()
        flag = line.startswith("          - --")
        variable = words[:2] == ["-", "name:"] and "env:" in (part.strip() for part in engine[:number])
        if (flag or variable) and "#" not in line and not engine[number - 1].lstrip().startswith("# "):
            unexplained.append(line.strip())
    # Ports and volumes have names too; what mounts a volume says why.
    assert unexplained == ["- name: http", *(line.strip() for line in _volumes(engine))]
    assert any("nvidia.com/gpu: '8'  # ranks in the pod" in line for line in engine)
    assert lines[end].endswith("# the same as leaderTemplate")


def _volumes(engine: list[str]) -> list[str]:
    begin = engine.index("        volumes:")
    return [line for line in engine[begin:] if line.startswith("        - name: ")]


def test_a_group_may_be_applied_where_its_deployment_is_not(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The garbage collector deletes objects at once whose owner it does not find."""
    for obj in _documents(_out(capsys, "-f", file, "--revision")):
        assert "ownerReferences" not in obj["metadata"]
        assert "namespace" not in obj["metadata"], "the manifest says none: kubectl's own holds"


def test_the_namespace_is_the_manifest_s_or_the_option_s(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {o["metadata"]["namespace"] for o in _documents(_out(capsys, "-f", file, "-n", "a"))} == {"a"}
    placed = plan_manifest()
    placed["metadata"]["namespace"] = "default"
    placed_file = _written(tmp_path, placed)
    assert {o["metadata"]["namespace"] for o in _documents(_out(capsys, "-f", placed_file))} == {"default"}
    assert kubectl_moe.main(["render", "-f", placed_file, "-n", "b"]) == 2
    assert "metadata.namespace: is 'default', but -n says 'b'" in capsys.readouterr().err


def test_of_an_applied_deployment_the_objects_are_its_own() -> None:
    obj = plan_manifest()
    obj["metadata"] |= {"uid": UID, "namespace": "serving"}
    for made in rendered_objects(report(obj), placed=True, revision=True):
        assert made["metadata"]["ownerReferences"][0]["uid"] == UID


def test_groups_are_put_where_the_operator_would_put_them(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is reviewed names the nodes or the rack; without nodes nothing is made up."""
    small = _written(tmp_path, plan_manifest("openai/gpt-oss-120b", hardware={"gpusPerGroup": 4}))
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text("nodes: [{accelerator: B200, count: 2}]")
    options = ["-f", small, "--inventory", str(nodes), "--groups", "5"]
    groups = [d for d in _documents(_out(capsys, *options)) if d["kind"] == "LeaderWorkerSet"]
    where = [group["metadata"]["annotations"].get(names.ANNOTATION_NODE) for group in groups]
    assert where == ["b200-0", "b200-0", "b200-1", "b200-1", None], "one node is filled before the next"
    for group in _documents(_out(capsys, "-f", small)):
        assert names.ANNOTATION_NODE not in group["metadata"].get("annotations", {})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--groups", "0"], "'0' is not a number from 1 to 256"),
        (["--groups", "257"], "'257' is not a number"),
        (["--groups", "99999"], "'99999' is not a number"),
        (["--groups", "many"], "'many' is not a number"),
        (["-o", "text"], "invalid choice"),
        (["--explain", "-o", "json"], "--explain writes comments"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: list[str], says: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = kubectl_moe.main(["render", "-f", file, *options])
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr()
    assert code == 2
    assert says in said.err
    assert said.out == ""


def test_every_kind_says_what_it_is_for() -> None:
    """The line above an object is what a reader of forty objects finds it by."""
    kinds = {kind.kind for kind in (*APPLIED_KINDS, CONTROLLER_REVISION, LEADER_WORKER_SET)}
    assert kinds <= set(PURPOSES)


def test_the_heading_says_what_was_planned_on_what() -> None:
    found = report()
    lines = rendered_text(found, rendered_objects(found)).splitlines()
    heading = lines[: lines.index("---")]
    assert all(line.startswith("# ") and len(line) <= 110 for line in heading)
    assert " ".join(line[2:] for line in heading).startswith(
        "ModelDeployment qwen on B200, planned for the catalogue's usual nodes: 8 wide, 1 pod x 8 ranks x 1 GPU"
        " Qwen/Qwen3.5-397B-A17B-FP8, fp8 note: no node was seen"
    )
    assert names.KIND not in {d["kind"] for d in _documents("\n".join(lines))}, "that is what it is made of"


def test_comments_stand_where_they_change_nothing() -> None:
    """Also at values of several lines, at a list's first key and at text that looks like a comment."""
    data = {
        "args": ["--a", "x # y", "word " * 40, "l1\nl2\n", ""],
        "env": [{"name": "A", "value": "1"}, {"name": "word " * 40, "value": "2"}, {}],
        "deep": {"a.b/c": "8", "empty": {}, "list": []},
    }
    text = data_text(data, "yaml")
    paths: list[tuple[str | int, ...]] = [
        *(("args", i) for i in range(5)),
        *(("env", i) for i in range(3)),
        ("env", 0, "value"),
        ("deep",),
        *(("deep", key) for key in data["deep"]),
    ]
    made = commented(text, {path: f"why {i}" for i, path in enumerate(paths)})
    assert yaml.safe_load(made) == data
    for i in range(len(paths)):
        assert f"{made}\n".count(f"# why {i}\n") == 1, made
    assert "- --a  # why 0\n" in made
    assert "- name: A  # why 5\n" in made
    assert "\n# why 2\n- 'word" in made
    assert "deep:  # why 9\n" in made
    long = commented(text, {("env", 1, "value"): "why " * 50}).splitlines()
    assert [line for line in long if line.startswith("  # why why")] == [
        line for line in long if "why" in line
    ]
    assert all(len(line) <= 110 for line in long if "why" in line)
    with pytest.raises(KeyError):
        commented(text, {("args", 9): "x"})
    with pytest.raises(KeyError):
        commented(text, {("args", "a"): "x"})


def test_data_is_written_for_readers() -> None:
    """Texts as blocks, and no `&id001` where the same object stands twice."""
    shared = {"a": "1\n2\n"}
    text = data_text([shared, shared], "yaml")
    assert text == "- a: |\n    1\n    2\n- a: |\n    1\n    2"
