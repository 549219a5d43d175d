"""`kubectl moe rollout`: history, the wait, the way back. Lost otherwise: a bad change that stays, or a worse one."""

import asyncio
import json
import random
from typing import Any

import pytest

from factories.cluster_objects import NOW, condition, deployment_object, revision_object
from factories.merging import json_merged
from moe_operator.api.deployment import parse
from moe_operator.api.times import format_time
from moe_operator.cli import kubectl_moe
from moe_operator.cli.errors import ClusterError, UsageError
from moe_operator.cli.revision_history import KeptRevision, history, wanted_revision
from moe_operator.cli.rollout_progress import POLL, follow, progress
from moe_operator.cli.rollout_text import owners_text
from moe_operator.cli.spec_changes import Change, change_text, changes, merge_patch, one_line
from moe_operator.cli.undo import Owner, owners, undo
from moe_operator.resources.revision import revision_name, spec_hash, written_parts
from unit.answers import Answers, listed

NAMESPACED = "/apis/moe-operator.dev/v1alpha1/namespaces/serving/modeldeployments/tiny"
REVISIONS = "/apis/apps/v1/namespaces/serving/controllerrevisions"


def spec(tag: str, **engine: Any) -> dict[str, Any]:
    return {"engine": {"image": f"vllm/vllm-openai:{tag}", **engine}}


FIRST, SECOND, THIRD = (
    deployment_object(one) for one in (spec("v1"), spec("v2", args={"max-num-seqs": "64"}), spec("v3"))
)


def three() -> list[KeptRevision]:
    objects = [revision_object(one, n, 1000.0 - n) for n, one in enumerate((FIRST, SECOND, THIRD), start=1)]
    return history(reversed(objects), parse(FIRST))


# --- what differs ---------------------------------------------------------------------------------


def _random(rng: random.Random, depth: int = 3) -> Any:
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(["a", "b", 1, 2, ["x"], ["x", "y"]])
    return {key: _random(rng, depth - 1) for key in "pqrs" if rng.random() < 0.6}


def test_a_patch_leads_from_any_spec_to_any_other() -> None:
    """Lost: a flag that the former spec did not have stays, and the kept revision is not found."""
    rng = random.Random(7)
    for _ in range(2000):
        before, after = ({"k": _random(rng)} for _ in range(2))
        patch = merge_patch(before, after)
        assert json_merged(before, patch) == after
        assert bool(patch) == (before != after)


def test_changes_are_named_by_field_and_by_name_in_lists() -> None:
    before = {
        "engine": {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "args": {"x": "1"}}
    }
    after = {
        "engine": {"env": [{"name": "B", "value": "3"}], "args": {"x": "1", "bare": ""}, "image": "r/i:2"}
    }
    assert [change_text(one) for one in changes(before, after)] == [
        "engine.args.bare: (not set) -> (bare)",
        "engine.env[A].name: A -> (not set)",
        "engine.env[A].value: 1 -> (not set)",
        "engine.env[B].value: 2 -> 3",
        "engine.image: (not set) -> r/i:2",
    ]


def test_one_line_has_the_image_first_and_counts_what_is_left_out() -> None:
    found = [
        Change("podTemplate.labels.team", None, "search"),
        Change("model.precision", "fp8", None),
        Change("engine.args.max-num-seqs", "64", "128"),
        Change("engine.image", "vllm/vllm-openai:v1", "vllm/vllm-openai:v2"),
    ]
    assert one_line(found, 200) == (
        "image v1 -> v2; args.max-num-seqs 64 -> 128; no model.precision; podTemplate.labels.team = search"
    )
    assert one_line(found, 40) == "image v1 -> v2; +3 more"
    assert one_line(found, 14) == "image; +3 more"
    assert one_line(found, 8) == "4 fields"


# --- history and undo -----------------------------------------------------------------------------


def test_history_is_in_the_order_of_making_and_leaves_out_what_is_not_ours() -> None:
    """Lost: StatefulSets of groups hand our labels on to revisions of theirs."""
    foreign = revision_object(FIRST, 9, 1.0)
    foreign["metadata"]["ownerReferences"][0]["uid"] = "a StatefulSet"
    leaving = revision_object(FIRST, 8, 1.0)
    leaving["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z"
    broken = revision_object(FIRST, 4, 0.5)
    broken["data"] = {"what": "ever"}
    objects = [
        foreign,
        leaving,
        broken,
        *(revision_object(o, n, 99.0 - n) for n, o in ((2, SECOND), (1, FIRST))),
    ]
    kept = history(objects, parse(FIRST))
    assert [one.number for one in kept] == [1, 2, 4]
    assert kept[2].rendered is None


def test_undo_goes_to_the_one_before_the_wanted_one() -> None:
    found = undo(parse(THIRD), three(), None)
    assert found.target.number == 2
    assert found.patch == {
        "spec": {"engine": {"args": {"max-num-seqs": "64"}, "image": "vllm/vllm-openai:v2"}}
    }
    assert undo(parse(SECOND), three(), None).target.number == 1, "and not to the newest"


@pytest.mark.parametrize("to", ["1", revision_name(parse(FIRST)), spec_hash(parse(FIRST))])
def test_a_revision_is_called_by_number_name_or_hash(to: str) -> None:
    found = undo(parse(SECOND), three(), to)
    assert found.target.number == 1
    assert found.patch == {"spec": {"engine": {"args": None, "image": "vllm/vllm-openai:v1"}}}
    restored = parse(SECOND | {"spec": json_merged(SECOND["spec"], found.patch["spec"])})
    assert revision_name(restored) == found.target.name


def test_a_revision_keeps_what_its_user_wrote_and_no_more() -> None:
    """Lost: the way back, if the hash of what is kept were another than its name."""
    deployment = parse(
        deployment_object(
            {
                **spec("v1", env=[{"name": "A", "value": "b"}], agent="Enabled"),
                "scaling": {"maxGroups": 3},
                "weights": {"cache": {"storageClassName": "fast", "size": "2Ti"}},
            }
        )
    )
    written = written_parts(deployment.spec)
    assert written == {
        "model": {"name": "org/tiny-moe"},
        "hardware": {"accelerator": "B200"},
        "engine": {"image": "vllm/vllm-openai:v1", "env": [{"name": "A", "value": "b"}]},
        "weights": {"cache": {"storageClassName": "fast", "size": "2Ti"}},
    }
    assert spec_hash(parse(deployment_object(written))) == spec_hash(deployment)


def test_a_claim_is_never_made_smaller_by_going_back() -> None:
    def cached(size: str, tag: str) -> dict[str, Any]:
        return deployment_object(
            {**spec(tag), "weights": {"cache": {"storageClassName": "fast", "size": size}}}
        )

    kept = history([revision_object(cached("1Ti", "v1"), 1, 50.0)], parse(FIRST))
    found = undo(parse(cached("4Ti", "v2")), kept, "1")
    assert found.patch == {"spec": {"engine": {"image": "vllm/vllm-openai:v1"}}}
    same = undo(parse(cached("4Ti", "v1")), kept, "1")
    assert same.patch == {}


def test_what_cannot_be_undone_is_explained() -> None:
    kept = three()
    with pytest.raises(UsageError, match=r"there is no revision 7; kept are 1 \(tiny-\w+\), 2"):
        undo(parse(THIRD), kept, "7")
    with pytest.raises(UsageError, match="is the oldest that is kept; choose with --to-revision"):
        undo(parse(FIRST), kept, None)
    early = history(
        [revision_object(FIRST, 1, 30.0, with_spec=False), revision_object(SECOND, 1, 20.0)], parse(FIRST)
    )
    with pytest.raises(UsageError, match="2 revisions have the number 1"):
        undo(parse(SECOND), early, "1")
    with pytest.raises(UsageError, match="kept by an earlier version of the operator, without the spec"):
        undo(parse(SECOND), early, None)
    with pytest.raises(UsageError, match="no revision yet, and no other is in effect"):
        undo(parse(deployment_object(spec("v9"))), kept, None)
    assert wanted_revision(parse(FIRST), early) is early[0], "one without a spec is known by its name"


def test_whose_fields_the_patch_changes_is_said() -> None:
    """Lost: a way back that a GitOps controller undoes within minutes, in the middle of the night."""
    managed = [
        {
            "manager": "argocd-controller",
            "operation": "Apply",
            "fieldsV1": {"f:spec": {"f:engine": {"f:image": {}}}},
        },
        {
            "manager": "kubectl-client-side-apply",
            "operation": "Update",
            "fieldsV1": {"f:spec": {"f:engine": {"f:args": {".": {}, "f:max-num-seqs": {}}}}},
        },
        {
            "manager": "kubectl-edit",
            "operation": "Update",
            "fieldsV1": {"f:spec": {"f:engine": {"f:image": {}}}},
        },
        {"manager": "helm", "operation": "Update", "fieldsV1": {"f:spec": {"f:scaling": {}}}},
        {
            "manager": "kubectl-moe",
            "operation": "Update",
            "fieldsV1": {"f:spec": {"f:engine": {"f:image": {}}}},
        },
        {
            "manager": "moe-operator-status",
            "operation": "Apply",
            "subresource": "status",
            "fieldsV1": {"f:status": {}},
        },
    ]
    found = owners(managed, {"spec": {"engine": {"image": "x", "args": None}}})
    assert found == [
        Owner("argocd-controller", True, ("spec.engine.image",)),
        Owner("kubectl-client-side-apply", True, ("spec.engine.args",)),
        Owner("kubectl-edit", False, ("spec.engine.image",)),
    ]
    warning, note = owners_text(found)
    assert warning.startswith(
        "warning: spec.engine.image is written by argocd-controller: if that is a GitOps"
    )
    assert note.startswith("note: spec.engine.args came by kubectl apply")
    # A whole part that goes takes along what others own below it.
    assert owners(managed, {"spec": {"engine": None}})[0].paths == ("spec.engine",)


# --- the wait -------------------------------------------------------------------------------------


def rolling(message: str = "1 of 2 groups serve the wanted revision, 1 are older") -> dict[str, Any]:
    obj = deployment_object()
    obj["status"] |= {
        "conditions": [condition("Reconciling", "True", "RollingOut", message)],
        "groups": {"unhealthy": [{"name": "tiny-g1", "reason": "Starting", "message": "1 of 2 pods exist"}]},
    }
    return obj


def finished() -> dict[str, Any]:
    obj = deployment_object(revision="tiny-abc", groups={"desired": 2, "updated": 2})
    obj["status"]["conditions"] = [condition("Ready", "True", "Serving", "2 groups serve")]
    return obj


def stalled() -> dict[str, Any]:
    obj = deployment_object()
    obj["status"]["conditions"] = [condition("Stalled", "True", "DoesNotFit", "needs 412 GiB")]
    return obj


def test_progress_tells_a_stale_status_from_an_end() -> None:
    """Lost: a pipeline that goes on before the operator has even looked."""
    stale = finished()
    stale["metadata"]["generation"] = 2
    assert progress(parse(stale)).text == "the operator has not looked at generation 2 of the spec yet"
    assert not progress(parse(stale)).over
    assert progress(parse(rolling())).text == (
        "RollingOut: 1 of 2 groups serve the wanted revision, 1 are older; tiny-g1: 1 of 2 pods exist"
    )
    cause = {"reason": "EngineExited", "message": "code 1: CUDA error"}
    for ago, told in (100, True), (4000, False):
        lossy = rolling()
        at = format_time(NOW - ago)
        lossy["status"]["recovery"] = {"lastGroup": "tiny-g1", "lastFailureTime": at, "lastCause": cause}
        assert ("last lost: tiny-g1: code 1: CUDA error" in progress(parse(lossy)).text) is told
    assert progress(parse(finished())).text == "revision tiny-abc serves: 2 of 2 groups"
    unready = finished()
    unready["status"]["conditions"] = [condition("Ready", "False", "GroupsUnhealthy", "0 of 1 groups serve")]
    assert not progress(parse(unready)).over, "done is what serves"


def _follow(looks: list[Any], patience: float = 60.0) -> tuple[bool, list[str], float]:
    """Whether it ended well, what was said, and the seconds that it took."""
    said: list[str] = []
    clock = [0.0]

    async def look() -> Any:
        found = looks.pop(0) if len(looks) > 1 else looks[0]
        if isinstance(found, Exception):
            raise found
        return parse(found)

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    well = asyncio.run(follow(look, patience=patience, now=lambda: clock[0], sleep=sleep, say=said.append))
    return well, said, clock[0]


def test_the_wait_speaks_when_something_changes_and_ends_with_the_rollout() -> None:
    well, said, took = _follow([rolling(), rolling(), rolling("2 of 2"), finished()])
    assert well
    assert [line.split(":")[0] for line in said] == ["RollingOut", "RollingOut", "revision tiny-abc serves"]
    assert took == 3 * POLL


def test_the_wait_fails_on_stalled_and_at_its_deadline() -> None:
    assert _follow([rolling(), stalled()])[:2] == (
        False,
        [progress(parse(rolling())).text, "Stalled: DoesNotFit: needs 412 GiB"],
    )
    well, said, took = _follow([rolling()], patience=9)
    assert not well
    assert said[-1].startswith("not over after 9 s: RollingOut")
    assert took <= 9


def test_an_api_server_that_is_away_for_a_moment_does_not_end_the_wait() -> None:
    well, said, _ = _follow([rolling(), ClusterError("no answer", final=False), finished()])
    assert well
    assert said[1] == "the API server does not answer: no answer"
    with pytest.raises(ClusterError):
        _follow([ClusterError("no answer", final=False)])
    with pytest.raises(ClusterError, match="there is no"):
        _follow([rolling(), ClusterError("there is no ModelDeployment")])


# --- the commands ---------------------------------------------------------------------------------


@pytest.fixture
def kept(cluster: Answers) -> Answers:
    """A cluster with two revisions, the second one wanted."""
    live = json.loads(json.dumps(SECOND))
    live["metadata"]["managedFields"] = [
        {"manager": "flux", "operation": "Apply", "fieldsV1": {"f:spec": {"f:engine": {"f:image": {}}}}}
    ]
    live["status"]["revision"] = revision_name(parse(SECOND))
    cluster.answers = {
        NAMESPACED: live,
        REVISIONS: listed(revision_object(FIRST, 1, 500.0), revision_object(SECOND, 2, 400.0)),
        "/apis/leaderworkerset.x-k8s.io/v1/namespaces/serving/leaderworkersets": listed(),
        "/api/v1/namespaces/serving/pods": 403,
        "/apis/events.k8s.io/v1/namespaces/serving/events": listed(),
    }
    return cluster


def test_undo_prints_the_patch_alone_on_standard_output(
    kept: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost: `kubectl moe rollout undo NAME > patch.json`."""
    assert kubectl_moe.main(["rollout", "undo", "tiny"]) == 0
    printed = capsys.readouterr()
    patch = {"spec": {"engine": {"args": None, "image": "vllm/vllm-openai:v1"}}}
    assert json.loads(printed.out) == patch
    assert "warning: spec.engine.image is written by flux" in printed.err
    command = printed.err.splitlines()[-1].strip()
    assert command.startswith("kubectl patch modeldeployment tiny -n serving --type=merge -p '{")
    assert kept.patches == []


def test_undo_is_sent_under_a_name_of_its_own_and_to_what_was_read(
    kept: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost: the operator would seem to have written a spec; a change of somebody else would be overwritten."""
    assert kubectl_moe.main(["rollout", "undo", "tiny", "--to-revision", "1", "--apply"]) == 0
    assert capsys.readouterr().out == ""
    ((path, body),) = kept.patches
    assert path == f"{NAMESPACED}?fieldManager=kubectl-moe"
    assert body["metadata"] == {"uid": SECOND["metadata"]["uid"], "resourceVersion": "7"}
    assert body["spec"] == {"engine": {"args": None, "image": "vllm/vllm-openai:v1"}}


def test_undo_goes_on_while_only_the_status_changes(
    kept: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost: the way back in the busy moments in which it is needed, or somebody's change of the spec."""
    undo_now = ["rollout", "undo", "tiny", "--apply"]
    live = kept.answers[NAMESPACED]

    def later(generation: int) -> Any:
        return live | {"metadata": live["metadata"] | {"resourceVersion": "8", "generation": generation}}

    kept.answers["PATCH"] = [(409, later(1)), (200, live)]
    assert kubectl_moe.main(undo_now) == 0
    assert [body["metadata"]["resourceVersion"] for _, body in kept.patches] == ["7", "8"]
    kept.patches.clear()
    kept.answers[NAMESPACED] = live
    kept.answers["PATCH"] = [(409, later(2))]
    assert kubectl_moe.main(undo_now) == 1
    assert "changed meanwhile, nothing was written: run it again" in capsys.readouterr().err
    assert len(kept.patches) == 1


def test_undo_to_what_is_there_already_changes_nothing(
    kept: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kubectl_moe.main(["rollout", "undo", "tiny", "--to-revision", "2", "--apply"]) == 0
    assert "already" in capsys.readouterr().err
    assert kept.patches == []
    assert kubectl_moe.main(["rollout", "undo", "tiny", "--to-revision", "5"]) == 2


def test_history_shows_every_change(kept: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    assert kubectl_moe.main(["rollout", "history", "tiny"]) == 0
    out = capsys.readouterr().out
    assert "2        wanted   0 " in out
    assert "1 -> 2 (tiny-" in out
    assert "  engine.args.max-num-seqs: (not set) -> 64\n" in out
    assert kubectl_moe.main(["rollout", "history", "tiny", "-o", "json"]) == 0
    assert [one["number"] for one in json.loads(capsys.readouterr().out)] == [1, 2]
    kept.answers[REVISIONS] = 403
    for command in (["history"], ["undo"]):
        assert kubectl_moe.main(["rollout", *command, "tiny"]) == 1
        assert "revisions may not be read" in capsys.readouterr().err


def test_a_status_says_what_it_may_not_read(kept: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    assert kubectl_moe.main(["status", "tiny"]) == 0
    out = capsys.readouterr().out
    assert "NOT SHOWN\n  pods may not be read" in out
    assert "revision 2 was made" in out
    assert kubectl_moe.main(["status", "tiny", "-o", "json", "--last", "1"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data["events"]) == 1
    assert data["unread"][0].startswith("pods may not be read")


def test_rollout_status_ends_with_its_exit_code(kept: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    kept.answers[NAMESPACED] = finished()
    assert kubectl_moe.main(["rollout", "status", "tiny"]) == 0
    assert capsys.readouterr().out == "revision tiny-abc serves: 2 of 2 groups\n"
    kept.answers[NAMESPACED] = stalled()
    assert kubectl_moe.main(["rollout", "status", "tiny"]) == 1
    kept.answers[NAMESPACED] = rolling()
    assert kubectl_moe.main(["rollout", "status", "tiny", "--timeout", "1s"]) == 1
    assert "not over after 1 s" in capsys.readouterr().out


def test_options_that_make_no_sense_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["status", "x", "--last", "-1"],
        ["rollout", "status", "x", "--timeout", "soon"],
        ["rollout"],
    ):
        with pytest.raises(SystemExit) as ended:
            kubectl_moe.main(words)
        assert ended.value.code == 2
    assert "'soon' is not a duration" in capsys.readouterr().err
