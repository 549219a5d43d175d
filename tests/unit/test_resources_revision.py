"""Revisions. A hash that moves without need restarts every group of every model on an upgrade."""

from typing import Any

import pytest

from factories.deployments import group_plan, model_deployment, revision_of
from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.resources.agent_config import agent_config_name, agent_configs_of, build_agent_config
from moe_operator.resources.revision import (
    TEMPLATE_FIELDS,
    Revision,
    build_revision,
    read_revision,
    revision_name,
    spec_hash,
)


def _revision(deployment: ModelDeployment) -> Revision:
    plan = group_plan(2)
    return revision_of(deployment, plan)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"scaling": {"minGroups": 3, "maxGroups": 9, "mode": "External"}}, id="scaling"),
        pytest.param({"replicas": 5}, id="replicas"),
        pytest.param({"objective": {"timeToFirstToken": "2s"}}, id="objective"),
        pytest.param({"rollout": {"maxSurge": 0, "maxUnavailable": 1}}, id="rollout"),
        pytest.param({"recovery": {"startDeadline": "2h", "stallLimit": "5m"}}, id="recovery"),
        pytest.param({"engine": {"args": {}, "agent": "Enabled"}}, id="defaults written out"),
    ],
)
def test_what_does_not_reach_the_pods_does_not_restart_them(spec: dict[str, Any]) -> None:
    assert spec_hash(model_deployment(**spec)) == spec_hash(model_deployment())


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"name": "org/other"}},
        {"model": {"name": "org/tiny-moe", "contextLength": 4096}},
        {"hardware": {"accelerator": "B200"}},
        {"hardware": {"accelerator": "cpu", "gpusPerGroup": 4}},
        {"parallelism": {"tensor": 2}},
        {"engine": {"image": "example.com/vllm:1"}},
        {"engine": {"args": {"max-num-seqs": "8"}}},
        {"engine": {"agent": "Disabled"}},
        {"podTemplate": {"labels": {"team": "search"}}},
        {"podTemplate": {"schedulerName": "gang"}},
    ],
    ids=str,
)
def test_what_reaches_the_pods_makes_a_revision(spec: dict[str, Any]) -> None:
    """A change that kept the hash would never roll out."""
    assert spec_hash(model_deployment(**spec)) != spec_hash(model_deployment())


def test_every_part_of_the_spec_is_on_one_side() -> None:
    """A new part of the API must be put on the side of the pods, or on the other, by a decision."""
    others = {"objective", "scaling", "replicas", "rollout", "recovery", "deletion", "cost"}
    assert set(ModelDeploymentSpec.model_fields) == {*TEMPLATE_FIELDS, *others}


def test_the_hash_of_a_spec_is_the_same_in_every_version() -> None:
    """Pinned: if this must change, every group of every user restarts with the upgrade that changes it."""
    deployment = model_deployment(
        model={"name": "Qwen/Qwen3.5-397B-A17B", "contextLength": 131072},
        hardware={"accelerator": "B200"},
        engine={"args": {"max-num-seqs": "256"}},
    )
    assert spec_hash(deployment) == "a5af11b5e9"


def test_a_revision_comes_back_as_it_was_kept() -> None:
    """A rollback must render what ran before, to the byte."""
    deployment = model_deployment()
    revision = _revision(deployment)
    assert read_revision(build_revision(deployment, revision)) == revision


def test_a_revision_is_named_by_deployment_and_hash() -> None:
    deployment = model_deployment()
    obj = build_revision(deployment, _revision(deployment), number=4)
    assert obj["metadata"]["name"] == revision_name(deployment) == f"tiny-{spec_hash(deployment)}"
    assert obj["metadata"]["labels"][names.LABEL_REVISION] == revision_name(deployment)
    assert obj["revision"] == 4


def test_a_plan_of_another_version_can_still_be_read() -> None:
    """Fields that an older or newer operator wrote must not make the history unreadable."""
    deployment = model_deployment()
    obj = build_revision(deployment, _revision(deployment))
    obj["data"]["plan"]["fabric"] = "nvlink"
    del obj["data"]["plan"]["notes"]
    assert read_revision(obj).plan == group_plan(2)


@pytest.mark.parametrize("data", [None, {}, {"plan": {}, "template": {}}, {"plan": {"width": 1}}])
def test_a_foreign_object_is_refused_by_name(data: Any) -> None:
    with pytest.raises(ValueError, match="ControllerRevision x-1 does not hold a revision"):
        read_revision({"metadata": {"name": "x-1"}, "data": data})


def test_the_agent_that_a_revision_mounts_is_known() -> None:
    """Else the ConfigMap of running groups would be deleted, and their next restart in place would hang."""
    deployment = model_deployment()
    assert agent_configs_of(_revision(deployment).template) == {agent_config_name("tiny")}
    assert build_agent_config(deployment)["metadata"]["name"] == agent_config_name("tiny")
    without = _revision(model_deployment(engine={"agent": "Disabled"}))
    assert agent_configs_of(without.template) == set()
