"""The dashboard: one page for a ModelDeployment, or some of them, from the operator's metrics alone.

It asks for metrics themselves, not for recording rules: it is to work where the rules are not switched on.
"""

import json

from monitoring import expressions as ex
from monitoring import thresholds
from monitoring.panels import DATASOURCE, Json, Panel, Query, Row, Step, placed

FILE = "charts/moe-operator/files/dashboard.json"
UID = "moe-operator"

ONLY = 'namespace=~"$namespace", name=~"$name"'
WINDOW = "$__rate_interval"
#: Where few things happen.
LONG = "1h"
_NAME = "{{namespace}}/{{name}}"
_GOOD, _FAIR, _BAD = "green", "orange", "red"


def _gauge(metric: str, *labels: str, **only: str) -> str:
    return ex.gauge(metric, _only(**only), *labels)


def _rate(metric: str, *labels: str, **only: str) -> str:
    return ex.rate(metric, WINDOW, _only(**only), *labels)


def _only(**only: str) -> str:
    return ", ".join((ONLY, *(f'{label}="{value}"' for label, value in only.items())))


def _all(expr: str, *labels: str) -> str:
    """The sum over the deployments that are chosen."""
    return f"sum by ({', '.join(labels)}) ({expr})" if labels else f"sum({expr})"


def _stat(title: str, expr: str, unit: str, **more: object) -> Panel:
    return Panel(title, [Query(expr, "")], "stat", unit, width=3, height=4, **more)  # type: ignore[arg-type]


def _below(limit: float, near: float) -> tuple[Step, ...]:
    """Good until it is near the limit."""
    return (Step(_GOOD), Step(_FAIR, near), Step(_BAD, limit))


_ALL_COST = ex.rate("cost_total", LONG, ONLY, "currency")
_ALL_TOKENS = ex.rate("tokens_total", LONG, f'{ONLY}, kind=~"input|output"')
#: Tokens of deployments that cost something, by its currency: where no price is known, there is nothing to divide.
_PRICED_TOKENS = _all(f"(sgn({_ALL_COST}) > 0) * on ({ex.OWN}) group_left () {_ALL_TOKENS}", "currency")

OVERVIEW = Row(
    "Overview",
    (
        _stat(
            "Ready",
            f"sum({_gauge('deployment_ready')}) / count({_gauge('deployment_ready')})",
            "percentunit",
            description="Share of the deployments that serve their minimum of groups.",
            steps=(Step(_BAD), Step(_GOOD, 1)),
        ),
        _stat(
            "Groups that serve",
            _all(_gauge("groups", state="ready")),
            "none",
            description="Of all deployments that are chosen.",
        ),
        _stat(
            "Groups missing",
            _all(ex.groups_missing(ONLY)),
            "none",
            description="Wanted, and not serving.",
            steps=(Step(_GOOD), Step(_FAIR, 1)),
        ),
        _stat("Output tokens", _all(_rate("tokens_total", kind="output")), "suffix: tok/s", decimals=0),
        _stat("Input tokens", _all(_rate("tokens_total", kind="input")), "suffix: tok/s", decimals=0),
        _stat(
            "HBM",
            f"{_all(_gauge('hbm_bytes', state='used'))} / {_all(_gauge('hbm_bytes', state='capacity'))}",
            "percentunit",
            description="Used of what processes may have. vLLM takes its whole KV cache when it starts.",
            decimals=1,
            steps=_below(thresholds.HBM.default, thresholds.HBM.default - 0.01),
        ),
        _stat(
            "KV cache",
            f"{_all(_gauge('hbm_bytes', state='kv_used'))} / "
            f"({_all(_gauge('hbm_bytes', state='kv_used'))} + {_all(_gauge('hbm_bytes', state='kv_free'))})",
            "percentunit",
            description="What requests use of it.",
            decimals=1,
            steps=_below(thresholds.KV.default, 0.8),
        ),
        _stat(
            "Per million tokens",
            f"1e6 * {_all(_ALL_COST, 'currency')} / ({_PRICED_TOKENS} > 0)",
            "none",
            description="All of the cost of the last hour over all of its tokens, in the deployments' currency; of"
            " those that have a price.",
            decimals=2,
        ),
        Panel(
            "Groups",
            [
                Query(_all(_gauge("groups", "state", state="ready"), "state"), "ready"),
                Query(_all(_gauge("groups", "state", state="desired"), "state"), "desired"),
                Query(_all(_gauge("groups", "state", state="draining"), "state"), "draining"),
            ],
            step_line=True,
        ),
        Panel(
            "Tokens",
            [Query(_all(_rate("tokens_total", "kind"), "kind"), "{{kind}}")],
            unit="suffix: tok/s",
            description="cached_input is the part of input that was found in a cache.",
        ),
        Panel(
            "GPUs held",
            [Query(_all(ex.gpus_held(WINDOW, ONLY), "state"), "{{state}}")],
            stacked=True,
            description="By what their groups do; idle: in traffic without a request.",
        ),
    ),
)

HBM = Row(
    "HBM",
    (
        Panel(
            "What it holds",
            [
                Query(_all(_gauge("hbm_bytes", "state", state=state), "state"), text)
                for state, text in (
                    ("weights", "weights (planned)"),
                    ("other", "other"),
                    ("kv_used", "KV cache, used"),
                    ("kv_free", "KV cache, free"),
                )
            ],
            unit="bytes",
            stacked=True,
            description="Of all GPUs of groups that serve. Other: activations, graphs, buffers, and what the plan did"
            " not know of.",
        ),
        Panel(
            "Used of what processes may have",
            [
                Query(ex.hbm_used_ratio(ONLY), f"{_NAME}"),
                Query(_gauge("hbm_rank_used_ratio", "group"), "{{group}}, fullest rank"),
            ],
            unit="percentunit",
            least=None,
            most=1,
            steps=_below(thresholds.HBM.default, thresholds.HBM.default - 0.01),
        ),
        Panel(
            "Measured against planned",
            [Query(_gauge("hbm_planner_error_ratio"), _NAME)],
            unit="percentunit",
            least=None,
            description="What a GPU was measured to hold beside the KV cache, less what was planned, as a share of"
            " the GPU.",
        ),
        Panel(
            "Fullest ranks",
            [
                Query(
                    f"topk(16, {ex.by('max', 'hbm_rank_used_ratio', ONLY, 'group', 'rank')})",
                    "{{group}} rank {{rank}}",
                    instant=True,
                )
            ],
            "bargauge",
            "percentunit",
            most=1,
            decimals=1,
            steps=_below(thresholds.HBM.default, thresholds.HBM.default - 0.01),
            description="Of those that were measured.",
        ),
        Panel(
            "KV cache in use",
            [
                Query(_gauge("kv_used_ratio"), _NAME),
                Query(_gauge("group_kv_used_ratio", "group"), "{{group}}, fullest rank"),
            ],
            unit="percentunit",
            most=1,
            steps=_below(thresholds.KV.default, 0.8),
        ),
        Panel(
            "Who tells",
            [Query(_all(_gauge("hbm_gpus", "source"), "source"), "{{source}}")],
            stacked=True,
            step_line=True,
            description="GPUs whose memory is measured, or estimated from the plan.",
        ),
    ),
)


def _percentiles(metric: str, title: str) -> Panel:
    return Panel(title, [Query(_gauge(metric, "quantile"), f"{_NAME} quantile {{{{quantile}}}}")], unit="s")


LATENCY = Row(
    "Throughput and latency",
    (
        _percentiles("time_to_first_token_seconds", "Time to first token"),
        _percentiles("time_per_output_token_seconds", "Time per output token"),
        Panel(
            "Beyond the objective",
            [
                Query(ex.beyond_objective(WINDOW, ONLY), f"{_NAME} {{{{part}}}}"),
                Query(ex.beyond_objective(LONG, ONLY), f"{_NAME} {{{{part}}}}, 1 h"),
            ],
            unit="percentunit",
            steps=(Step(_GOOD), Step(_BAD, round(1 - thresholds.OBJECTIVE.default, 6))),
            description="Share of requests; the line is what an objective of 99 % allows over 30 days.",
        ),
        Panel(
            "Requests in engines",
            [Query(_all(_gauge("requests_in_engines", "state"), "state"), "{{state}}")],
        ),
        Panel(
            "Requests",
            [Query(_all(_rate("requests_total", "outcome"), "outcome"), "{{outcome}}")],
            unit="reqps",
            description="That ended; preempted: times that one lost its KV cache to others.",
        ),
        Panel(
            "Prefix cache and drafts",
            [
                Query(_gauge("prefix_hit_ratio"), f"{_NAME} prefix found"),
                Query(_gauge("draft_acceptance_ratio"), f"{_NAME} drafts accepted"),
            ],
            unit="percentunit",
            most=1,
        ),
    ),
)

SCALING = Row(
    "Scaling",
    (
        Panel(
            "Load and groups",
            [
                Query(_gauge("scaling_load_groups"), f"{_NAME} load"),
                Query(_gauge("scaling_forecast_groups"), f"{_NAME} forecast"),
                Query(_gauge("groups", state="ready"), f"{_NAME} ready"),
                Query(_gauge("scaling_recommended_groups"), f"{_NAME} recommended"),
            ],
            width=12,
            description="Load and forecast in full groups; the forecast is for when a group would serve that is"
            " ordered now.",
        ),
        Panel(
            "Late",
            [Query(_gauge("scaling_late_ratio"), _NAME)],
            unit="percentunit",
            width=6,
            description="Share of requests beyond the objective, decaying over hours.",
        ),
        Panel(
            "Cold start and lead",
            [
                Query(_gauge("cold_start_seconds", phase="total"), f"{_NAME} last start"),
                Query(_gauge("scaling_lead_seconds"), f"{_NAME} lead"),
            ],
            unit="s",
            width=6,
        ),
        Panel(
            "Short of room",
            [Query(_gauge("capacity_short", "reason"), f"{_NAME} {{{{reason}}}}")],
            step_line=True,
            description="1 while more groups are needed than can be had.",
        ),
        Panel(
            "Lost groups",
            [Query(ex.groups_lost(LONG, ONLY), f"{_NAME} {{{{reason}}}}")],
            description="Within an hour.",
            step_line=True,
        ),
        Panel(
            "Last cold start",
            [Query(_gauge("cold_start_seconds", "phase"), f"{_NAME} {{{{phase}}}}", instant=True)],
            "bargauge",
            "s",
        ),
    ),
)

COST = Row(
    "Cost",
    (
        Panel(
            "Per hour",
            [Query(_all(ex.cost_per_hour(WINDOW, ONLY), "currency", "state"), "{{state}} {{currency}}")],
            stacked=True,
            description="By what the groups that held the GPUs did.",
        ),
        Panel(
            "Per million tokens",
            [Query(_gauge("cost_per_million_tokens", "currency"), f"{_NAME} {{{{currency}}}}")],
            description="All of the cost over all tokens, of the last hour.",
        ),
        Panel(
            "Idle share of the cost",
            [
                Query(
                    f"{_all(ex.rate('cost_total', LONG, _only(state='idle'), 'currency'), 'currency')}"
                    f" / ({_all(_ALL_COST, 'currency')} > 0)",
                    "{{currency}}",
                )
            ],
            unit="percentunit",
            most=1,
        ),
        Panel(
            "Budget spent",
            [Query(_gauge("cost_budget_spent_ratio"), _NAME)],
            unit="percentunit",
            steps=_below(1, thresholds.BUDGET.default),
        ),
        Panel(
            "Scale-up held",
            [Query(_gauge("cost_budget_held"), _NAME)],
            step_line=True,
            most=1,
            description="1 while the budget is spent and holds.",
        ),
        Panel(
            "GPUs without a price",
            [Query(_rate("unpriced_gpu_seconds_total"), _NAME)],
        ),
    ),
)

ENERGY = Row(
    "Energy",
    (
        Panel("Power", [Query(_gauge("gpu_power_watts"), _NAME)], unit="watt"),
        Panel("For each output token", [Query(ex.joules_per_token(WINDOW, ONLY), _NAME)], unit="joule"),
        Panel(
            "Memory's bandwidth in use",
            [Query(_gauge("hbm_bandwidth_ratio"), _NAME)],
            unit="percentunit",
            most=1,
            description="Share of the time in which memory is read or written.",
        ),
    ),
)

FABRIC = Row(
    "Groups and their fabric",
    (
        Panel(
            "Imbalance of ranks",
            [Query(_gauge("group_imbalance_ratio", "group"), "{{group}}")],
            least=1,
            description="The busiest rank's tokens over the mean of the ranks; 1: even. Ranks run in lockstep, so"
            " all wait for the busiest.",
        ),
        Panel(
            "Output tokens by group",
            [Query(_gauge("group_tokens_per_second", "group", kind="output"), "{{group}}")],
            unit="suffix: tok/s",
        ),
        Panel(
            "Requests by group",
            [Query(_gauge("group_requests", "group", "state"), "{{group}} {{state}}")],
        ),
    ),
)

_OPERATORS = "(namespace, pod)"
HEALTH = Row(
    "Health of the operator",
    (
        Panel(
            "Leader",
            [Query(f"max by {_OPERATORS} (moe_operator_leader)", "{{pod}}")],
            step_line=True,
            width=6,
        ),
        Panel(
            "Reconciles",
            [Query(f"sum by (outcome) (rate(moe_operator_reconciles_total[{WINDOW}]))", "{{outcome}}")],
            unit="ops",
            width=6,
        ),
        Panel(
            "Duration of a reconcile",
            [
                Query(
                    f"histogram_quantile({q}, sum by (le) (rate(moe_operator_reconcile_seconds_bucket[{WINDOW}])))",
                    f"p{100 * q:.0f}",
                )
                for q in (0.5, 0.99)
            ],
            unit="s",
            width=6,
        ),
        Panel("Waiting to be reconciled", [Query("max(moe_operator_queue_depth)", "deployments")], width=6),
        Panel(
            "Age of figures",
            [
                Query("max(moe_operator_telemetry_age_seconds)", "oldest figures"),
                Query("max by (kind) (moe_operator_watch_overdue_seconds) > 0", "watch of {{kind}} overdue"),
            ],
            unit="s",
            width=6,
        ),
        Panel(
            "Pods that are scraped",
            [Query("max by (state) (moe_operator_telemetry_pods)", "{{state}}")],
            width=6,
            step_line=True,
        ),
        Panel(
            "Requests to the API server",
            [Query(f"sum by (code) (rate(moe_operator_api_requests_total[{WINDOW}]))", "{{code}}")],
            unit="reqps",
            width=6,
        ),
        Panel(
            "Figures set aside",
            [Query(f"sum by (reason) (rate(moe_operator_telemetry_ignored_total[{WINDOW}]))", "{{reason}}")],
            unit="ops",
            width=6,
        ),
    ),
)

ROWS = (OVERVIEW, HBM, LATENCY, SCALING, COST, ENERGY, FABRIC, HEALTH)


def _variable(name: str, label: str, query: str) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _alerts(name: str, only: str, text: str) -> Json:
    """Marks in all panels while an alert fires."""
    return {
        "name": name,
        "enable": True,
        "iconColor": "red",
        "datasource": DATASOURCE,
        "expr": f'ALERTS{{alertname=~"MoE.+", alertstate="firing", {only}}}',
        "titleFormat": "{{alertname}}",
        "textFormat": text,
        "step": "60s",
    }


def dashboard() -> Json:
    """The whole dashboard, as Grafana imports it."""
    ready = "moe_operator_deployment_ready"
    return {
        "uid": UID,
        "title": "moe-operator",
        "description": "ModelDeployments: groups, GPU memory, latency, scaling and cost.",
        "tags": ["moe-operator", "vllm"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "links": [],
        "annotations": {
            "list": [
                _alerts("Alerts", ONLY, _NAME),
                # A label that is absent is empty; not all of these have a namespace to be told.
                _alerts("Alerts of the operator", 'name=""', "the operator"),
            ]
        },
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                    "refresh": 1,
                    "regex": "",
                },
                _variable("namespace", "Namespace", f"label_values({ready}, namespace)"),
                _variable(
                    "name", "ModelDeployment", f'label_values({ready}{{namespace=~"$namespace"}}, name)'
                ),
            ]
        },
        "panels": placed(ROWS),
    }


def render() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
