"""The other children of a ModelDeployment."""

import pytest

from factories.deployments import UID, model_deployment
from factories.golden import check_golden
from moe_operator.api import names
from moe_operator.resources.agent_bundle import agent_files
from moe_operator.resources.agent_config import (
    MOUNT_PATH,
    agent_config_name,
    agent_parts,
    build_agent_config,
)
from moe_operator.resources.disruption_budget import build_disruption_budget
from moe_operator.resources.service import build_service
from moe_operator.resources.service_account import build_service_account

_BUILDERS = {
    "service": build_service,
    "service-account": build_service_account,
    "disruption-budget": build_disruption_budget,
}


@pytest.mark.parametrize("name", sorted(_BUILDERS))
def test_children_are_rendered_as_reviewed(name: str) -> None:
    check_golden(name, _BUILDERS[name](model_deployment()))


@pytest.mark.parametrize("build", [*_BUILDERS.values(), build_agent_config])
def test_every_child_is_found_and_collected(build) -> None:  # type: ignore[no-untyped-def]
    """Without the label the operator does not see its own child; without the owner nobody deletes it."""
    meta = build(model_deployment())["metadata"]
    assert meta["namespace"] == "serving"
    assert meta["labels"][names.LABEL_DEPLOYMENT] == "tiny"
    assert meta["ownerReferences"][0]["uid"] == UID
    assert meta["ownerReferences"][0]["controller"] is True


def test_the_service_sends_no_one_to_a_group_that_is_not_admitted() -> None:
    selector = build_service(model_deployment())["spec"]["selector"]
    assert selector == {names.LABEL_DEPLOYMENT: "tiny", names.LABEL_TRAFFIC: "on"}, (
        "no revision: a rollout has two"
    )


def test_no_eviction_is_allowed() -> None:
    spec = build_disruption_budget(model_deployment())["spec"]
    assert spec["maxUnavailable"] == 0
    assert "unhealthyPodEvictionPolicy" not in spec


def test_every_file_of_the_agent_is_mounted_where_python_looks() -> None:
    deployment = model_deployment()
    data = build_agent_config(deployment)["data"]
    volume = agent_parts("tiny").volumes[0]
    assert volume["configMap"]["name"] == agent_config_name("tiny")
    mounted = {item["path"]: data[item["key"]] for item in volume["configMap"]["items"]}
    assert mounted == agent_files()
    assert all(
        len(key) <= 253 and key.replace("-", "").replace("_", "").replace(".", "").isalnum() for key in data
    )
    assert MOUNT_PATH.startswith("/")


def test_another_agent_is_another_config_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods restart in place with the files they were made with: the ConfigMap must never change."""
    before = build_agent_config(model_deployment())
    assert before["immutable"] is True
    files = {**agent_files(), "moe_agent/new.py": "x = 1\n"}
    monkeypatch.setattr("moe_operator.resources.agent_config.agent_files", lambda: files)
    assert agent_config_name("tiny") != before["metadata"]["name"]
