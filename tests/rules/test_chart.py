"""The chart rendered by Helm: its rules and the dashboard. Lost where it fails: what runs is not what was tested."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import render_manifests
from harness.prometheus import promtool
from monitoring import rule_files
from monitoring.dashboard import dashboard

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "moe-operator"


def rendered(*settings: str) -> list[dict[str, Any]]:
    """All objects. Raises CalledProcessError where Helm refuses. `--set` takes 0.9 for a text."""
    options = [word for one in settings for word in ("--set-json" if _is_json(one) else "--set", one)]
    command = [str(render_manifests.helm()), "template", "moe-operator", str(CHART), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [obj for obj in yaml.safe_load_all(done.stdout) if obj]


def _is_json(setting: str) -> bool:
    return setting.startswith("metrics.rules.thresholds")


def only(kind: str, *settings: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = [obj for obj in rendered(*settings) if obj["kind"] == kind]
    return found


def rules(*settings: str) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = only("PrometheusRule", "metrics.rules.enabled=true", *settings)["spec"][
        "groups"
    ]
    return groups


def alert(groups: list[dict[str, Any]], name: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = [rule for group in groups for rule in group["rules"] if rule.get("alert") == name]
    return found


def test_nothing_of_it_is_there_unless_switched_on() -> None:
    assert {obj["kind"] for obj in rendered()} & {
        "PrometheusRule",
        "ConfigMap",
        "ServiceMonitor",
        "PodMonitor",
    } == set()


def test_the_charts_rules_are_those_that_were_tested() -> None:
    plain = yaml.safe_load((ROOT / rule_files.PLAIN_FILE).read_text(encoding="utf-8"))
    assert rules() == plain["groups"]


def test_what_a_site_sets_is_in_the_rules(tmp_path: Path) -> None:
    groups = rules(
        "metrics.rules.thresholds.hbmUsedRatio=0.9",
        "metrics.rules.thresholds.objectiveRatio=0.95",
        "metrics.rules.thresholds.groupsLostPerHour=10",
        "metrics.rules.disabled={MoEHBMEstimated,MoEPlannerError}",
        "metrics.rules.alertLabels.team=serving",
        "metrics.rules.runbookUrl=https://wiki.example/alerts",
    )
    pressure = alert(groups, "MoEHBMPressure")
    assert pressure["expr"].endswith("> 0.9")
    assert "(limit 0.9)" in pressure["annotations"]["description"]
    assert pressure["annotations"]["runbook_url"] == "https://wiki.example/alerts#moehbmpressure"
    assert pressure["labels"] == {"severity": "warning", "team": "serving"}
    assert alert(groups, "MoEGroupsLost")["expr"].endswith("> 10")
    names = {rule.get("alert") for group in groups for rule in group["rules"]}
    assert not names & {"MoEHBMEstimated", "MoEPlannerError"}
    burning = [
        rule["expr"]
        for group in groups
        for rule in group["rules"]
        if rule.get("alert") == "MoEObjectiveBudgetBurn"
    ]
    assert len(burning) == 4
    assert all("(1 - 0.95)" in expr for expr in burning)
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups}))
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))


@pytest.mark.parametrize(
    "setting",
    [
        "metrics.rules.thresholds.hbmUsed=0.9",
        "metrics.rules.thresholds.objectiveRatio=1",
        "metrics.rules.thresholds.hbmUsedRatio=98",
        "metrics.rules.thresholds.hbmUsedRatio=0",
        "metrics.rules.disabled={HBMPressure}",
        "metrics.rule.enabled=true",
        "metrics.dashboard.label.a=b",
    ],
)
def test_what_means_nothing_is_refused(setting: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        rendered(setting)
    assert "schema" in refused.value.stderr


def test_the_dashboard_is_for_grafanas_sidecar() -> None:
    found = only(
        "ConfigMap", "metrics.dashboard.enabled=true", "metrics.dashboard.annotations.grafana_folder=Models"
    )
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == {"grafana_folder": "Models"}
    assert json.loads(found["data"]["moe-operator.json"]) == dashboard()
