"""The dashboard's queries on time series, by promtool. Lost where it fails: a figure of several deployments that is
none of any of them, and an alert that fires unseen."""

from pathlib import Path

import pytest
import yaml

from harness.prometheus import Server, promtool
from monitoring.alerts import ALERTS, Alert
from monitoring.dashboard import ROWS, dashboard
from monitoring.thresholds import filled
from rules.metric_labels import known, labels

#: By how many of the annotations' queries an alert is found.
MARKED = " + ".join(f"(count({each['expr']}) or vector(0))" for each in dashboard()["annotations"]["list"])


def _asked(folder: Path, series: dict[str, str], expr: str, wanted: dict[str, float]) -> None:
    """Have promtool ask after 2 hours, as Grafana would. Raises PrometheusError with the difference."""
    expr = expr.replace("$__rate_interval", "2m").replace("$namespace", ".+").replace("$name", ".+")
    told = [{"labels": metric, "value": value} for metric, value in wanted.items()]
    story = {
        "interval": "1m",
        "input_series": [{"series": metric, "values": values} for metric, values in series.items()],
        "promql_expr_test": [{"expr": expr, "eval_time": "2h", "exp_samples": told}],
    }
    path = folder / "stories.yaml"
    path.write_text(yaml.safe_dump({"tests": [story]}))
    promtool("test", "rules", str(path))


def _panel(row: str, title: str) -> str:
    (panel,) = [each for one in ROWS if one.title == row for each in one.panels if each.title == title]
    (query,) = panel.queries
    return query.expr


def _cost(name: str, currency: str, values: str) -> tuple[str, str]:
    of = f'namespace="serving", name="{name}", currency="{currency}", state="serving"'
    return f"moe_operator_cost_total{{{of}}}", values


def _tokens(name: str, kind: str, values: str) -> tuple[str, str]:
    return f'moe_operator_tokens_total{{namespace="serving", name="{name}", kind="{kind}"}}', values


#: 2 dollars for a million tokens, most of them of prompts; cached ones are among these.
QWEN = [
    _cost("qwen", "USD", "0+2x180"),
    _tokens("qwen", "input", "0+600000x180"),
    _tokens("qwen", "cached_input", "0+300000x180"),
    _tokens("qwen", "output", "0+400000x180"),
]
WORK = _tokens("glm", "output", "0+3000000x180")


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ([], {"USD": 2.0}),
        ([WORK], {"USD": 2.0}),
        # As an account tells it whose GPUs have no price.
        ([WORK, _cost("glm", "USD", "0x180")], {"USD": 2.0}),
        ([WORK, _cost("glm", "USD", "0+2x180")], {"USD": 1.0}),
        ([WORK, _cost("glm", "EUR", "0+3x180")], {"USD": 2.0, "EUR": 1.0}),
        # What waits for work costs too.
        ([_cost("glm", "USD", "0+1x180")], {"USD": 3.0}),
    ],
    ids=["alone", "no account", "no price", "two priced", "two currencies", "idle"],
)
def test_a_million_tokens_cost_what_those_with_a_price_took(
    others: list[tuple[str, str]], wanted: dict[str, float], tmp_path: Path
) -> None:
    told = {f'{{currency="{currency}"}}': value for currency, value in wanted.items()}
    _asked(tmp_path, dict([*QWEN, *others]), _panel("Overview", "Per million tokens"), told)


def _firing(prometheus: Server, alert: Alert) -> str:
    """Prometheus's own series of it."""
    there = labels(prometheus.ask("parse_query", query=filled(alert.expr)), known())
    assert there is not None
    own = {"alertname": alert.name, "alertstate": "firing", "severity": alert.severity.value, **alert.labels}
    inner = ", ".join(
        f'{key}="{value}"' for key, value in sorted({**dict.fromkeys(there, "x"), **own}.items())
    )
    return f"ALERTS{{{inner}}}"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: "-".join((alert.name, *alert.labels.values())))
def test_every_alert_that_fires_is_marked_once(prometheus: Server, alert: Alert, tmp_path: Path) -> None:
    fires = _firing(prometheus, alert)
    _asked(tmp_path, {fires: "1x180"}, MARKED, {"{}": 1.0})


@pytest.mark.parametrize(
    "of", ['alertname="MoEOperatorDown", alertstate="pending"', 'alertname="Watchdog", alertstate="firing"']
)
def test_others_and_those_that_wait_are_not_marked(of: str, tmp_path: Path) -> None:
    _asked(tmp_path, {f"ALERTS{{{of}}}": "1x180"}, MARKED, {"{}": 0.0})
