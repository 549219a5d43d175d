"""Alerts. Each has a section in docs/alerts.md, by its name, which a test holds to."""

from dataclasses import dataclass, field
from enum import StrEnum

from monitoring import expressions as ex
from monitoring import recording, thresholds

RUNBOOK = "docs/alerts.md"


class Severity(StrEnum):
    """As the Prometheus mixins have them: now, in working hours, for the record."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Alert:
    """One alerting rule."""

    name: str
    expr: str
    lasting: str
    """For how long before it fires."""
    severity: Severity
    summary: str
    description: str
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def anchor(self) -> str:
        return self.name.lower()


_IT = "{{ $labels.namespace }}/{{ $labels.name }}"
_OPERATOR = "{{ $labels.namespace }} (job {{ $labels.job }})"
_PERCENT = "{{ $value | humanizePercentage }}"
_COUNT = '{{ printf "%.0f" $value }}'
_FIGURE = '{{ printf "%.2g" $value }}'
_PARKED = 'reason=~"RestartBudgetSpent|RolloutStopped"'
_NOT_PARKED = _PARKED.replace("=~", "!~")
_AT_MAXIMUM = 'reason="AtMaximum"'
_NOT_AT_MAXIMUM = _AT_MAXIMUM.replace("=", "!=")
_WAITING = ex.gauge("requests_in_engines", 'state="waiting"')
_FAULTS = ex.groups_lost("1d", 'reason="AcceleratorFault"')
_ESTIMATED = ex.gauge("hbm_gpus", 'source="estimated"')
_ONCE_MEASURED = 'max_over_time(moe_operator_hbm_gpus{source="measured"}[1d])'
_FAILED = 'rate(moe_operator_reconciles_total{outcome=~"error|timeout"}[10m])'


DEPLOYMENTS = (
    Alert(
        "MoEDeploymentNotReady",
        f"{ex.gauge('deployment_ready')} == 0",
        "15m",
        Severity.CRITICAL,
        "A ModelDeployment is below its minimum of groups.",
        f"{_IT} has had fewer groups that serve the wanted revision than it must have, for 15 minutes.",
    ),
    Alert(
        "MoEDeploymentStalled",
        f"{ex.gauge('deployment_stalled', _NOT_PARKED, 'reason')} == 1",
        "5m",
        Severity.WARNING,
        "A ModelDeployment waits for its owner.",
        f"{_IT} is Stalled with reason {{{{ $labels.reason }}}}: the operator cannot go on until that changes.",
    ),
    Alert(
        "MoEGroupsParked",
        f"{ex.gauge('deployment_stalled', _PARKED, 'reason')} == 1",
        "1m",
        Severity.CRITICAL,
        "New groups of a ModelDeployment do not come up, and no more are made for now.",
        f"Groups of {_IT} were lost more often than its restart budget allows ({{{{ $labels.reason }}}}): one is tried"
        " at a time, at long intervals.",
    ),
    Alert(
        "MoEGroupsLost",
        f"{recording.LOST.name} > {thresholds.LOSSES.mark}",
        "1m",
        Severity.WARNING,
        "Groups of a ModelDeployment are lost again and again.",
        f"{_IT} has lost {_COUNT} groups within an hour for the reason {{{{ $labels.reason }}}}"
        f" (limit {thresholds.LOSSES.mark}).",
    ),
    Alert(
        "MoEAcceleratorFault",
        f"{_FAULTS} > 0",
        "0m",
        Severity.WARNING,
        "A GPU failed.",
        f"{_IT} has lost {_COUNT} groups within a day to faults of GPUs, their driver or links.",
    ),
    Alert(
        "MoECapacityShort",
        f"{ex.gauge('capacity_short', _NOT_AT_MAXIMUM, 'reason')}"
        f" * on ({ex.OWN}) group_left () {recording.MISSING.name} > 0",
        "15m",
        Severity.WARNING,
        "A ModelDeployment wants more groups than there are GPUs for.",
        f"{_IT} has lacked {_COUNT} of the groups that it wants for 15 minutes ({{{{ $labels.reason }}}}).",
    ),
    Alert(
        "MoEScalingAtMaximum",
        f"{ex.gauge('scaling_load_groups')} and on ({ex.OWN}) {ex.gauge('capacity_short', _AT_MAXIMUM)} == 1",
        "15m",
        Severity.WARNING,
        "A ModelDeployment needs more groups than scaling.maxGroups allows.",
        f"{_IT} has been at scaling.maxGroups for 15 minutes and needs more: its load is that of"
        f" {_FIGURE} groups.",
    ),
)

MEMORY = (
    Alert(
        "MoEHBMPressure",
        f"{recording.FULLEST_RANK.name} > {thresholds.HBM.mark}",
        "15m",
        Severity.WARNING,
        "GPU memory of a group is nearly full.",
        f"A rank of {{{{ $labels.group }}}} of {_IT} holds {_PERCENT} of what processes may have on its GPU"
        f" (limit {thresholds.HBM.mark}): the next allocation may end the whole group.",
    ),
    Alert(
        "MoEKVCacheExhausted",
        f"{ex.gauge('kv_used_ratio')} > {thresholds.KV.mark} and on ({ex.OWN}) {_WAITING} > 0",
        "5m",
        Severity.WARNING,
        "Requests wait because the KV cache is full.",
        f"{_PERCENT} of the KV cache of {_IT} is in use (limit {thresholds.KV.mark}), and requests have waited for 5"
        " minutes.",
    ),
    Alert(
        "MoEPlannerError",
        f"abs({ex.gauge('hbm_planner_error_ratio')}) > {thresholds.PLANNER.mark}",
        "30m",
        Severity.INFO,
        "GPUs hold other than was planned.",
        f"Beside the KV cache a GPU of {_IT} holds {_PERCENT} of its memory more or less than was planned (limit"
        f" {thresholds.PLANNER.mark}).",
    ),
    Alert(
        "MoEHBMEstimated",
        f"{_ESTIMATED} > 0 and on ({ex.OWN}) {_ONCE_MEASURED} > 0",
        "15m",
        Severity.INFO,
        "Memory of GPUs that was measured is only estimated now.",
        f"Of {_COUNT} GPUs of {_IT} no exporter has told for 15 minutes what they hold.",
    ),
)

#: (factor, long window, short window, for, severity). At these factors 2 %, 5 %, 10 % and 10 % of the budget of 30 days
#: are gone by the end of the long window (SRE workbook, chapter 5); names and pauses as in the Kubernetes mixin.
BURN = (
    ("14.4", "1h", "5m", "2m", Severity.CRITICAL),
    ("6", "6h", "30m", "15m", Severity.CRITICAL),
    ("3", "1d", "2h", "1h", Severity.WARNING),
    ("1", "3d", "6h", "3h", Severity.WARNING),
)


def _burning(window: str, factor: str) -> str:
    return f"{recording.beyond(window)} > ({factor} * (1 - {thresholds.OBJECTIVE.mark}))"


OBJECTIVES = tuple(
    Alert(
        "MoEObjectiveBudgetBurn",
        f"{_burning(long, factor)}\nand\n{_burning(short, factor)}\n"
        f"and\n{recording.counted(long)} > {thresholds.REQUESTS.mark}",
        lasting,
        severity,
        "Too many requests are beyond the latency objective.",
        f"{_PERCENT} of the requests to {_IT} were beyond the objective's {{{{ $labels.part }}}} within {long}:"
        f" more than {factor} times what an objective of {thresholds.OBJECTIVE.mark} allows.",
        {"long": long, "short": short},
    )
    for factor, long, short, lasting, severity in BURN
)

COST = (
    Alert(
        "MoECostBudgetNearlySpent",
        f"{ex.gauge('cost_budget_spent_ratio')} > {thresholds.BUDGET.mark}",
        "5m",
        Severity.WARNING,
        "The cost budget of a ModelDeployment is nearly spent, or is spent.",
        f"{_IT} has spent {_PERCENT} of cost.budget (limit {thresholds.BUDGET.mark}).",
    ),
    Alert(
        "MoECostBudgetHeld",
        f"{ex.gauge('cost_budget_held')} == 1",
        "5m",
        Severity.WARNING,
        "A ModelDeployment gets no more groups, because its budget is spent.",
        f"{_IT} has spent cost.budget, and scale-up is held until the next period, or a higher amount.",
    ),
)

_BY_OPERATOR = "(namespace, job)"

OPERATOR = (
    Alert(
        "MoEOperatorDown",
        "absent(moe_operator_leader)",
        "10m",
        Severity.CRITICAL,
        "No replica of the operator is scraped.",
        "No replica of moe-operator has been scraped for 10 minutes: what serves goes on, and nothing is replaced or"
        " scaled.",
    ),
    Alert(
        "MoEOperatorWithoutLeader",
        f"sum by {_BY_OPERATOR} (moe_operator_leader) == 0",
        "2m",
        Severity.CRITICAL,
        "No replica of the operator leads.",
        f"None of the operator's replicas in {_OPERATOR} has held the lease for 2 minutes: nothing is replaced or"
        " scaled.",
    ),
    Alert(
        "MoEOperatorTwoLeaders",
        f"sum by {_BY_OPERATOR} (moe_operator_leader) > 1",
        "2m",
        Severity.CRITICAL,
        "Several replicas of the operator say that they lead.",
        f"{_COUNT} replicas of the operator in {_OPERATOR} say that they hold the lease.",
    ),
    Alert(
        "MoETelemetryStale",
        f"max by {_BY_OPERATOR} (moe_operator_telemetry_age_seconds) > {thresholds.TELEMETRY.mark}",
        "5m",
        Severity.WARNING,
        "The operator gets no current figures of an engine.",
        f"The oldest figures that the operator in {_OPERATOR} has of a pod are {{{{ $value | humanizeDuration }}}} old"
        f" (limit {thresholds.TELEMETRY.mark} s).",
    ),
    Alert(
        "MoEGroupsSilent",
        f"{ex.gauge('scaling_silent_groups')} > 0",
        "5m",
        Severity.WARNING,
        "Groups that serve give no figures, so their deployment is not scaled down.",
        f"{_COUNT} groups of {_IT} have served for 5 minutes without current figures.",
    ),
    Alert(
        "MoETelemetryIgnored",
        "sum by (namespace, job, reason) (rate(moe_operator_telemetry_ignored_total[15m])) > 0",
        "30m",
        Severity.INFO,
        "Somebody sends figures that are not used.",
        f"The operator in {_OPERATOR} sets aside {_FIGURE} figures a second ({{{{ $labels.reason }}}}).",
    ),
    Alert(
        "MoEOperatorWatchOverdue",
        "max by (namespace, job, kind) (moe_operator_watch_overdue_seconds) > 120",
        "1m",
        Severity.WARNING,
        "The operator does not hear of changes.",
        f"The watch of {{{{ $labels.kind }}}} of the operator in {_OPERATOR} has been owing a change for"
        " {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "MoEOperatorReconcileErrors",
        f"sum by {_BY_OPERATOR} ({_FAILED}) > 0",
        "30m",
        Severity.WARNING,
        "Reconciles keep failing.",
        f"Reconciles of the operator in {_OPERATOR} have failed for 30 minutes, {_FIGURE} a second.",
    ),
)

ALERTS = (*DEPLOYMENTS, *MEMORY, *OBJECTIVES, *COST, *OPERATOR)
