"""`kubectl moe plan --lock`: a manifest that plans to the same, whatever the nodes say or later defaults are."""

import copy
import dataclasses
from typing import Any

import pytest
import yaml

from factories.plans import QWEN, plan_manifest, report, report_or_refusal
from moe_operator.api.rules import violations
from moe_operator.catalog.models.catalog import load_models
from moe_operator.cli.lock import locked_manifest
from moe_operator.cli.manifest import deployment_of, the_deployment
from moe_operator.cli.plan_report import PlanReport
from moe_operator.planner.plan import Refusal


def facts(found: PlanReport) -> dict[str, Any]:
    """The plan without what is said about it."""
    data = dataclasses.asdict(found.plan)
    del data["notes"]
    return data


@pytest.mark.parametrize("accelerator", ["B200", "H100", "GB200", "MI300X", "L40S", "cpu"])
def test_a_locked_manifest_plans_to_the_same_for_every_model(accelerator: str) -> None:
    """Locked in one cluster and applied in another, the same pods must come of it."""
    compared = 0
    for name in (*load_models().names(), "org/unknown"):
        obj = plan_manifest(name, accelerator)
        first = report_or_refusal(obj)
        if isinstance(first, Refusal):
            continue
        locked = yaml.safe_load(yaml.safe_dump(locked_manifest(obj, first)))
        the_deployment([locked], "locked")
        assert violations(deployment_of(copy.deepcopy(locked))) == [], name
        again = report(locked)
        assert facts(again) == facts(first), name
        assert [one.tokens() for one in again.arguments] == [one.tokens() for one in first.arguments], name
        compared += 1
    assert compared > (30 if accelerator != "cpu" else 5)


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"precision": "nvfp4", "kvCachePrecision": "fp8"}},
        {"model": {"contextLength": 1_010_000}},
        {"hardware": {"gpusPerGroup": 32}},
        {"hardware": {"gpusPerNode": 4}, "objective": {"goal": "MostThroughput"}},
        {"parallelism": {"tensor": 2}},
        {"engine": {"args": {"max_num_seqs": "64", "enable-prefix-caching": ""}}},
        {"objective": {"inputTokens": 30000, "outputTokens": 1000, "timePerOutputToken": "20ms"}},
    ],
)
def test_what_the_user_said_stays_as_said(spec: dict[str, Any]) -> None:
    obj = plan_manifest(**spec)
    before = copy.deepcopy(obj)
    first = report(obj)
    locked = locked_manifest(obj, first)
    for part, fields in spec.items():
        for key, value in fields.items():
            said = locked["spec"][part][key]
            assert value.items() <= said.items() if isinstance(value, dict) else said == value
    assert facts(report(copy.deepcopy(locked))) == facts(first)
    assert {key: obj[key] for key in before if key != "metadata"} == {
        k: before[k] for k in before if k != "metadata"
    }


def test_a_list_to_fall_back_along_becomes_the_one_that_was_taken() -> None:
    obj = plan_manifest()
    obj["spec"]["hardware"] = {"accelerators": ["B200", "H200"]}
    hardware = locked_manifest(obj, report(obj))["spec"]["hardware"]
    assert hardware == {
        "accelerator": "B200",
        "gpusPerGroup": 8,
        "gpusPerNode": 8,
        "allocation": "ExtendedResource",
    }


def test_what_the_api_server_writes_is_left_out() -> None:
    """A manifest with a uid or a status is refused, or hides the change in noise."""
    obj = plan_manifest(QWEN)
    obj["metadata"] |= {
        "uid": "5f7d",
        "namespace": "serving",
        "resourceVersion": "7",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{}],
        "labels": {"team": "a"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }
    obj["status"] = {"revision": "x"}
    locked = locked_manifest(obj, report(obj))
    assert locked["metadata"] == {"name": "qwen", "namespace": "serving", "labels": {"team": "a"}}
    assert "status" not in locked
    fresh = plan_manifest(QWEN)
    assert locked_manifest(fresh, report(fresh))["metadata"] == {"name": "qwen"}


def test_the_network_and_the_all_to_all_are_written_out() -> None:
    """Elsewhere nodes may show another network: the group must not change to it by itself."""
    obj = plan_manifest(QWEN, "GB200", hardware={"gpusPerGroup": 16}, model={"precision": "nvfp4"})
    spec = locked_manifest(obj, report(obj))["spec"]
    assert spec["hardware"]["fabric"] == "mnnvl"
    assert spec["engine"]["args"]["all2all-backend"] == "flashinfer_nvlink_one_sided"
