"""Alerts on time series, by promtool. Lost where it fails: an alert that does not come, comes for nothing, stays when
all is well again, or says nonsense."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.prometheus import promtool
from monitoring import rule_files
from monitoring.alerts import ALERTS, RUNBOOK, Alert
from monitoring.thresholds import filled

ROOT = Path(__file__).parents[2]

#: A ModelDeployment as the leader tells of it, and the operator's pods.
OF = 'namespace="serving", name="qwen"'
FROM = 'job="moe-operator-metrics", pod="operator-0", instance="10.0.0.1:9090"'
OTHER = 'job="moe-operator-metrics", pod="operator-1", instance="10.0.0.2:9090"'
OPERATOR = 'namespace="moe-system"'
FAULT, OUT_OF_RANGE = 'reason="AcceleratorFault"', 'reason="OutOfRange"'
QWEN = {"namespace": "serving", "name": "qwen"}
HERE = {"namespace": "moe-system", "job": "moe-operator-metrics"}


def one(metric: str, values: str, *matchers: str, of: str = OF, by: str = FROM) -> tuple[str, str]:
    """A series, in promtool's words: `1x9` is ten ones, `0+5x9` begins at 0 and grows by 5 a minute, `_` is missing."""
    return f"moe_operator_{metric}{{{', '.join((of, by, *matchers))}}}", values


def gpu(values: str, rank: int = 0) -> tuple[str, str]:
    """The fullest GPU of a rank."""
    pod = f'group="qwen-g0", pod="qwen-g0-0", rank="{rank}"'
    return one("hbm_rank_used_ratio", values, pod, by='job="moe-operator-metrics", instance="10.0.0.1:9090"')


def requests(beyond: str, within: str, part: str = "first_token") -> list[tuple[str, str]]:
    """Requests that count against the objective."""
    return [
        one("objective_requests_total", values, f'part="{part}"', f'outcome="{outcome}"')
        for outcome, values in (("beyond", beyond), ("within", within))
    ]


def operator(metric: str, values: str, *matchers: str, by: str = FROM) -> tuple[str, str]:
    return one(metric, values, *matchers, of=OPERATOR, by=by)


Series = list[tuple[str, str]]


@dataclass(frozen=True)
class Fires:
    """Series on which an alert is there at a time, and is not a moment before; and what it says."""

    alert: str
    series: Series
    at: str
    labels: dict[str, str]
    says: str
    not_yet: str
    over: str
    """When all is well again."""
    only: dict[str, str] = field(default_factory=dict)
    """Which of several alerts of one name."""
    step: str = "1m"
    """Between two values of a series."""


@dataclass(frozen=True)
class Silent:
    """Series on which it is not there, at any of these times."""

    alert: str
    why: str
    series: Series
    at: tuple[str, ...] = ("1h",)
    only: dict[str, str] = field(default_factory=dict)
    step: str = "1m"


FIRES = [
    Fires(
        "MoEDeploymentNotReady",
        [one("deployment_ready", "0x20 1x20")],
        "15m",
        QWEN,
        "serving/qwen has had fewer groups that serve the wanted revision than it must have, for 15 minutes.",
        "14m",
        over="21m",
    ),
    Fires(
        "MoEDeploymentStalled",
        [one("deployment_stalled", "1x10 _x30", 'reason="DoesNotFit"')],
        "5m",
        {**QWEN, "reason": "DoesNotFit"},
        "serving/qwen is Stalled with reason DoesNotFit: the operator cannot go on until that changes.",
        "4m",
        over="17m",
    ),
    Fires(
        "MoEGroupsParked",
        [one("deployment_stalled", "1x10 _x30", 'reason="RestartBudgetSpent"')],
        "1m",
        {**QWEN, "reason": "RestartBudgetSpent"},
        "Groups of serving/qwen were lost more often than its restart budget allows (RestartBudgetSpent): one is tried"
        " at a time, at long intervals.",
        "0m",
        over="17m",
    ),
    # The counter is not there before its first loss.
    Fires(
        "MoEGroupsLost",
        [one("groups_lost_total", "_x10 1x4 2x4 3x4 4x90", 'reason="EngineExited"')],
        "30m",
        {**QWEN, "reason": "EngineExited"},
        "serving/qwen has lost 4 groups within an hour for the reason EngineExited (limit 3).",
        "20m",
        over="90m",
    ),
    # One loss, with which the counter begins.
    Fires(
        "MoEAcceleratorFault",
        [one("groups_lost_total", "_x5 1x160", FAULT)],
        "60m",
        QWEN | {"reason": "AcceleratorFault"},
        "serving/qwen has lost 1 groups within a day to faults of GPUs, their driver or links.",
        "50m",
        over="1520m",
        step="10m",
    ),
    Fires(
        "MoECapacityShort",
        [
            one("capacity_short", "1x30 _x30", 'reason="WaitingForGpus"'),
            one("groups", "5x60", 'state="desired"'),
            one("groups", "3x60", 'state="ready"'),
        ],
        "15m",
        {**QWEN, "reason": "WaitingForGpus"},
        "serving/qwen has lacked 2 of the groups that it wants for 15 minutes (WaitingForGpus).",
        "14m",
        over="37m",
    ),
    Fires(
        "MoEScalingAtMaximum",
        [
            one("capacity_short", "1x30 _x30", 'reason="AtMaximum"'),
            one("scaling_load_groups", "6.5x60"),
        ],
        "15m",
        QWEN,
        "serving/qwen has been at scaling.maxGroups for 15 minutes and needs more: its load is that of 6.5 groups.",
        "14m",
        over="37m",
    ),
    Fires(
        "MoEHBMPressure",
        [gpu("0.91x60", 0), gpu("0.985x30 0.9x30", 1)],
        "15m",
        {**QWEN, "group": "qwen-g0"},
        "A rank of qwen-g0 of serving/qwen holds 98.5% of what processes may have on its GPU (limit 0.98): the next"
        " allocation may end the whole group.",
        "14m",
        over="31m",
    ),
    Fires(
        "MoEKVCacheExhausted",
        [one("kv_used_ratio", "0.97x60"), one("requests_in_engines", "4x20 0x40", 'state="waiting"')],
        "5m",
        QWEN,
        "97% of the KV cache of serving/qwen is in use (limit 0.95), and requests have waited for 5 minutes.",
        "4m",
        over="21m",
    ),
    # Less than planned is an error too.
    Fires(
        "MoEPlannerError",
        [one("hbm_planner_error_ratio", "-0.08x40 0.04x20")],
        "30m",
        QWEN,
        "Beside the KV cache a GPU of serving/qwen holds 8% of its memory more or less than was planned (limit 0.05).",
        "29m",
        over="41m",
    ),
    Fires(
        "MoEHBMEstimated",
        [
            one("hbm_gpus", "0x9 16x30 0x9", 'source="estimated"'),
            one("hbm_gpus", "16x9 0x30 16x9", 'source="measured"'),
        ],
        "25m",
        QWEN,
        "Of 16 GPUs of serving/qwen no exporter has told for 15 minutes what they hold.",
        "24m",
        over="42m",
    ),
    # 20 of 100 a minute, for the first hour and a half.
    Fires(
        "MoEObjectiveBudgetBurn",
        requests("0+20x90 1800+0x90", "0+80x180"),
        "60m",
        {**QWEN, "part": "first_token", "long": "1h", "short": "5m"},
        "20% of the requests to serving/qwen were beyond the objective's first_token within 1h: more than 14.4 times"
        " what an objective of 0.99 allows.",
        "2m",
        over="96m",
        only={"long": "1h"},
    ),
    Fires(
        "MoEObjectiveBudgetBurn",
        requests("0+8x480 3840+0x180", "0+92x660", "output_token"),
        "7h",
        {**QWEN, "part": "output_token", "long": "6h", "short": "30m"},
        "8% of the requests to serving/qwen were beyond the objective's output_token within 6h: more than 6 times what"
        " an objective of 0.99 allows.",
        "10m",
        over="520m",
        only={"long": "6h"},
    ),
    Fires(
        "MoEObjectiveBudgetBurn",
        requests("0+40x180 7200+0x30", "0+960x210"),
        "1500m",
        {**QWEN, "part": "first_token", "long": "1d", "short": "2h"},
        "4% of the requests to serving/qwen were beyond the objective's first_token within 1d: more than 3 times what"
        " an objective of 0.99 allows.",
        "50m",
        over="1930m",
        only={"long": "1d"},
        step="10m",
    ),
    Fires(
        "MoEObjectiveBudgetBurn",
        requests("0+20x480 9600+0x50", "0+980x530"),
        "4500m",
        {**QWEN, "part": "first_token", "long": "3d", "short": "6h"},
        "2% of the requests to serving/qwen were beyond the objective's first_token within 3d: more than 1 times what"
        " an objective of 0.99 allows.",
        "170m",
        over="5180m",
        only={"long": "3d"},
        step="10m",
    ),
    Fires(
        "MoECostBudgetNearlySpent",
        [one("cost_budget_spent_ratio", "0.84x20 0x20")],
        "5m",
        QWEN,
        "serving/qwen has spent 84% of cost.budget (limit 0.8).",
        "4m",
        over="21m",
    ),
    Fires(
        "MoECostBudgetHeld",
        [one("cost_budget_held", "1x20 0x20")],
        "5m",
        QWEN,
        "serving/qwen has spent cost.budget, and scale-up is held until the next period, or a higher amount.",
        "4m",
        over="21m",
    ),
    # Nothing of the operator, then its first scrape.
    Fires(
        "MoEOperatorDown",
        [operator("leader", "_x29 1x30")],
        "10m",
        {},
        "No replica of moe-operator has been scraped for 10 minutes: what serves goes on, and nothing is replaced or"
        " scaled.",
        "9m",
        over="31m",
    ),
    Fires(
        "MoEOperatorWithoutLeader",
        [operator("leader", "0x20 1x20"), operator("leader", "0x40", by=OTHER)],
        "2m",
        HERE,
        "None of the operator's replicas in moe-system (job moe-operator-metrics) has held the lease for 2 minutes:"
        " nothing is replaced or scaled.",
        "1m",
        over="21m",
    ),
    Fires(
        "MoEOperatorTwoLeaders",
        [operator("leader", "1x20 0x20"), operator("leader", "1x40", by=OTHER)],
        "2m",
        HERE,
        "2 replicas of the operator in moe-system (job moe-operator-metrics) say that they hold the lease.",
        "1m",
        over="21m",
    ),
    Fires(
        "MoETelemetryStale",
        [
            operator("telemetry_age_seconds", "61+60x20 4x20"),
            operator("telemetry_age_seconds", "0x40", by=OTHER),
        ],
        "5m",
        HERE,
        "The oldest figures that the operator in moe-system (job moe-operator-metrics) has of a pod are 6m 1s old"
        " (limit 60 s).",
        "4m",
        over="21m",
    ),
    Fires(
        "MoEGroupsSilent",
        [one("scaling_silent_groups", "2x20 0x20")],
        "5m",
        QWEN,
        "2 groups of serving/qwen have served for 5 minutes without current figures.",
        "4m",
        over="21m",
    ),
    Fires(
        "MoETelemetryIgnored",
        [operator("telemetry_ignored_total", "0+120x60 7200+0x60", OUT_OF_RANGE)],
        "40m",
        {**HERE, "reason": "OutOfRange"},
        "The operator in moe-system (job moe-operator-metrics) sets aside 2 figures a second (OutOfRange).",
        "30m",
        over="80m",
    ),
    Fires(
        "MoEOperatorWatchOverdue",
        [operator("watch_overdue_seconds", "125+60x20 0x20", 'kind="Pod"')],
        "1m",
        {**HERE, "kind": "Pod"},
        "The watch of Pod of the operator in moe-system (job moe-operator-metrics) has been owing a change for 3m 5s.",
        "0m",
        over="21m",
    ),
    Fires(
        "MoEOperatorReconcileErrors",
        [operator("reconciles_total", "0+30x60 1800+0x60", 'outcome="error"')],
        "40m",
        HERE,
        "Reconciles of the operator in moe-system (job moe-operator-metrics) have failed for 30 minutes, 0.5 a second.",
        "30m",
        over="72m",
    ),
]

BURNS = ("1h", "6h", "1d", "3d")

SILENT = [
    Silent("MoEDeploymentNotReady", "below the minimum for a moment", [one("deployment_ready", "0x14 1x60")]),
    # The last leader's word is not yet forgotten.
    Silent(
        "MoEDeploymentNotReady",
        "one of two that tell says that it is",
        [one("deployment_ready", "0x60"), one("deployment_ready", "1x60", by=OTHER)],
    ),
    Silent(
        "MoEDeploymentStalled",
        "parked, which has its own",
        [one("deployment_stalled", "1x60", 'reason="RolloutStopped"')],
    ),
    Silent(
        "MoEGroupsParked",
        "stalled for another reason",
        [one("deployment_stalled", "1x60", 'reason="Forbidden"')],
    ),
    Silent(
        "MoEGroupsLost",
        "as many as are allowed",
        [one("groups_lost_total", "_x10 1x4 2x90", 'reason="EngineExited"')],
        ("20m", "40m", "1h"),
    ),
    Silent(
        "MoEGroupsLost",
        "a new leader counts from the begin",
        [
            one("groups_lost_total", "_x10 1x9 2x9 _x90", 'reason="PodLost"'),
            one("groups_lost_total", "_x30 1x90", 'reason="PodLost"', by=OTHER),
        ],
        ("20m", "35m", "1h", "90m"),
    ),
    # A failed scrape ends a series at once, a Prometheus that was away leaves it open for 5 minutes.
    *(
        Silent(
            "MoEGroupsLost",
            f"long ago, and an hour ago nobody scraped: {away}",
            [one("groups_lost_total", f"5x149 {away} 5x160", 'reason="EngineExited"')],
            ("149m", "155m", "195m", "209m", "211m", "217m", "230m", "249m", "252m", "5h"),
        )
        for away in ("stale _x2", "stale _x40", "_x10", "_x40")
    ),
    Silent("MoEAcceleratorFault", "lost otherwise", [one("groups_lost_total", "0+1x60", 'reason="PodLost"')]),
    Silent(
        "MoEAcceleratorFault",
        "two days ago",
        [one("groups_lost_total", "1x300", FAULT)],
        ("48h",),
        step="10m",
    ),
    Silent(
        "MoEAcceleratorFault",
        "long ago, and a day ago nobody scraped",
        [one("groups_lost_total", "1x143 stale _x11 1x300", FAULT)],
        ("24h", "26h", "47h", "48h", "2890m", "49h", "50h", "60h"),
        step="10m",
    ),
    Silent(
        "MoECapacityShort",
        "at its limit, with all groups there",
        [
            one("capacity_short", "1x60", 'reason="AtMaximum"'),
            one("groups", "5x60", 'state="desired"'),
            one("groups", "4x60", 'state="ready"'),
        ],
    ),
    Silent(
        "MoECapacityShort",
        "every group serves",
        [
            one("capacity_short", "1x60", 'reason="Unschedulable"'),
            one("groups", "5x60", 'state="desired"'),
            one("groups", "5x60", 'state="ready"'),
        ],
    ),
    Silent("MoEScalingAtMaximum", "not at its limit", [one("scaling_load_groups", "6x60")]),
    Silent("MoEHBMPressure", "at the limit", [gpu("0.98x60")]),
    Silent("MoEHBMPressure", "for a moment", [gpu("0.9x20 0.99x14 0.9x60")], ("30m", "35m", "1h")),
    Silent(
        "MoEKVCacheExhausted",
        "full, and nobody waits",
        [one("kv_used_ratio", "0.99x60"), one("requests_in_engines", "0x60", 'state="waiting"')],
    ),
    Silent(
        "MoEKVCacheExhausted",
        "requests wait, with room",
        [one("kv_used_ratio", "0.95x60"), one("requests_in_engines", "9x60", 'state="waiting"')],
    ),
    Silent(
        "MoEKVCacheExhausted",
        "running is not waiting",
        [one("kv_used_ratio", "0.99x60"), one("requests_in_engines", "9x60", 'state="running"')],
    ),
    Silent(
        "MoEKVCacheExhausted",
        "another deployment's requests wait",
        [
            one("kv_used_ratio", "0.99x60"),
            one("requests_in_engines", "9x60", 'state="waiting"', of='namespace="serving", name="glm"'),
        ],
    ),
    Silent("MoEPlannerError", "as much as may be", [one("hbm_planner_error_ratio", "0.05x60")]),
    Silent(
        "MoEHBMEstimated",
        "never measured: there is no exporter",
        [one("hbm_gpus", "16x60", 'source="estimated"'), one("hbm_gpus", "0x60", 'source="measured"')],
    ),
    *(
        Silent(
            "MoEObjectiveBudgetBurn",
            f"just as many as the objective allows, {window}",
            series,
            at,
            {"long": window},
            step,
        )
        for window, series, at, step in (
            ("1h", requests("0+1x120", "0+99x120"), ("1h", "2h"), "1m"),
            ("6h", requests("0+1x500", "0+99x500"), ("6h", "8h"), "1m"),
            ("1d", requests("0+10x200", "0+990x200"), ("24h", "30h"), "10m"),
            ("3d", requests("0+10x600", "0+990x600"), ("72h", "90h"), "10m"),
        )
    ),
    *(
        Silent(
            "MoEObjectiveBudgetBurn",
            f"no requests at all, {window}",
            requests("5x99", "5x99"),
            ("30m", "90m"),
            {"long": window},
        )
        for window in BURNS
    ),
    # 14 times what is allowed is not 14.4 times.
    Silent(
        "MoEObjectiveBudgetBurn",
        "just below the factor",
        requests("0+14x120", "0+86x120"),
        ("1h", "2h"),
        {"long": "1h"},
    ),
    Silent(
        "MoEObjectiveBudgetBurn",
        "a quarter of a dozen requests",
        requests("0x9 3x120", "0+1x9 9x120"),
        ("12m", "13m", "14m", "1h"),
        {"long": "1h"},
    ),
    Silent(
        "MoEObjectiveBudgetBurn",
        "an operator that begins anew is no burst",
        requests("0+1x60 0+1x60", "0+99x60 0+99x60"),
        ("62m", "65m", "2h"),
        {"long": "1h"},
    ),
    Silent("MoECostBudgetNearlySpent", "at the limit", [one("cost_budget_spent_ratio", "0.8x60")]),
    Silent(
        "MoECostBudgetHeld",
        "spent, and not held",
        [one("cost_budget_held", "0x60"), one("cost_budget_spent_ratio", "1.2x60")],
    ),
    Silent("MoEOperatorDown", "there, and not the leader", [operator("leader", "0x60")]),
    Silent(
        "MoEOperatorWithoutLeader",
        "handed over",
        [operator("leader", "1x10 0x50"), operator("leader", "0x11 1x50", by=OTHER)],
        ("11m", "12m", "14m", "1h"),
    ),
    Silent("MoEOperatorWithoutLeader", "nothing is scraped, which has its own", []),
    Silent(
        "MoEOperatorTwoLeaders",
        "one each of two operators",
        [
            operator("leader", "1x60"),
            operator("leader", "1x60", by='job="other-metrics", pod="other-0", instance="10.0.0.9:9090"'),
        ],
    ),
    Silent("MoETelemetryStale", "at the limit", [operator("telemetry_age_seconds", "60x60")]),
    Silent("MoEGroupsSilent", "for a moment", [one("scaling_silent_groups", "1x4 0x60")], ("4m", "5m", "1h")),
    Silent(
        "MoETelemetryIgnored",
        "once",
        [operator("telemetry_ignored_total", "0x9 5x60", OUT_OF_RANGE)],
        ("12m", "30m", "1h"),
    ),
    Silent(
        "MoETelemetryIgnored",
        "an operator that begins anew",
        [operator("telemetry_ignored_total", "5x30 0x60", OUT_OF_RANGE)],
        ("35m", "1h"),
    ),
    Silent(
        "MoEOperatorWatchOverdue",
        "a watch that catches up",
        [operator("watch_overdue_seconds", "120x60", 'kind="Pod"')],
    ),
    Silent(
        "MoEOperatorReconcileErrors",
        "all well",
        [operator("reconciles_total", "0+30x60", 'outcome="success"')],
    ),
    Silent(
        "MoEOperatorReconcileErrors",
        "failed for a moment",
        [operator("reconciles_total", "0x5 30x60", 'outcome="error"')],
        ("8m", "15m", "1h"),
    ),
]

#: Of nothing, nothing follows, but that the operator is not there.
SILENT += [
    Silent(name, "of absent figures", [], ("1h", "5h"))
    for name in sorted({alert.name for alert in ALERTS} - {"MoEOperatorDown"})
]


def test_every_alert_is_shown_to_fire_and_to_keep_silent() -> None:
    wanted = sorted((alert.name, alert.labels.get("long", "")) for alert in ALERTS)
    assert sorted((case.alert, case.only.get("long", "")) for case in FIRES) == wanted
    absent = {case.alert for case in SILENT if case.why == "of absent figures"} | {"MoEOperatorDown"}
    otherwise = {case.alert for case in SILENT if case.why != "of absent figures"}
    assert absent == otherwise == {alert.name for alert in ALERTS}


def _rules(rule: Alert) -> list[dict[str, Any]]:
    """The groups as they are shipped, but for the rules that this one does not need: thousands of steps are played."""
    shipped = yaml.safe_load((ROOT / rule_files.PLAIN_FILE).read_text())["groups"]
    for group in shipped:
        group["rules"] = [
            each
            for each in group["rules"]
            if (each["record"] in rule.expr if "record" in each else _is(each, rule))
        ]
    return [group for group in shipped if group["rules"]]


def _is(written: dict[str, Any], rule: Alert) -> bool:
    return bool(written["alert"] == rule.name) and rule.labels.items() <= written["labels"].items()


def _played(folder: Path, rule: Alert, step: str, *stories: dict[str, Any]) -> None:
    """Have promtool play them, looking every `step`. Raises PrometheusError with the difference."""
    rules, path = folder / "rules.yaml", folder / "stories.yaml"
    groups = _rules(rule)
    rules.write_text(yaml.safe_dump({"groups": groups}))
    asked: dict[str, Any] = {"rule_files": [str(rules)], "evaluation_interval": step, "tests": list(stories)}
    # What is recorded is there for the alerts of the same moment; without an order promtool draws one.
    asked["group_eval_order"] = [group["name"] for group in groups]
    path.write_text(yaml.safe_dump(asked))
    promtool("test", "rules", str(path))


def _story(name: str, series: Series, step: str, **asked: Any) -> dict[str, Any]:
    written = [{"series": metric, "values": values} for metric, values in series]
    return {"name": name, "interval": step, "input_series": written, **asked}


def _fires(case: Fires, rule: Alert) -> dict[str, Any]:
    wanted = {
        "exp_labels": {"severity": rule.severity.value, **case.labels},
        "exp_annotations": {
            "summary": rule.summary,
            "description": case.says,
            "runbook_url": f"{RUNBOOK}#{rule.anchor}",
        },
    }
    return _story(
        "it fires",
        case.series,
        case.step,
        alert_rule_test=[
            {"alertname": case.alert, "eval_time": case.at, "exp_alerts": [wanted]},
            *_none(case.alert, case.not_yet, case.over),
        ],
    )


def _none(name: str, *times: str) -> list[dict[str, Any]]:
    return [{"alertname": name, "eval_time": time, "exp_alerts": []} for time in times]


def _silent(case: Silent) -> dict[str, Any]:
    return _story(case.why, case.series, case.step, alert_rule_test=_none(case.alert, *case.at))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: "-".join((rule.name, *rule.labels.values())))
def test_it_fires_when_it_should_and_only_then(rule: Alert, tmp_path: Path) -> None:
    """promtool compares labels and texts too; what it finds is named by the story."""
    own = [case for case in FIRES if case.alert == rule.name and case.only.items() <= rule.labels.items()]
    quiet = [case for case in SILENT if case.alert == rule.name and case.only.items() <= rule.labels.items()]
    stories = [*(_fires(case, rule) for case in own), *(_silent(case) for case in quiet)]
    _played(tmp_path, rule, own[0].step, *stories)


def test_the_rules_have_no_fault() -> None:
    """Duplicates and the like included."""
    text = promtool("check", "rules", "--lint=all", "--lint-fatal", str(ROOT / rule_files.PLAIN_FILE))
    assert "SUCCESS" in text


def test_texts_have_the_numbers() -> None:
    """Who is woken wants to know how bad it is."""
    without = {"MoEDeploymentNotReady", "MoEDeploymentStalled", "MoEGroupsParked", "MoECostBudgetHeld"}
    without |= {"MoEOperatorDown", "MoEOperatorWithoutLeader"}
    found = {one.name for one in ALERTS if "$value" not in one.description}
    assert found == without
    assert not [one.name for one in ALERTS if re.search(r"\$\{\w+\}", filled(one.description + one.expr))]
