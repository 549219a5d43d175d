"""Every query of rules and dashboard, by Prometheus's own parser. Lost where it fails: an alert that never fires and a
panel that stays empty, because a metric or a label has another name."""

import re
from typing import Any

import pytest

from harness.prometheus import PrometheusError, Server
from monitoring import rule_files
from monitoring.dashboard import ROWS
from monitoring.thresholds import filled
from rules.metric_labels import PENDING, QueryError, known, labels, page, selectors

RULES = [rule for group in rule_files.groups() for rule in group["rules"]]
QUERIES = [
    (f"{row.title}/{panel.title}/{at}", query)
    for row in ROWS
    for panel in row.panels
    for at, query in enumerate(panel.queries)
]


def parsed(prometheus: Server, expr: str) -> dict[str, Any]:
    tree: dict[str, Any] = prometheus.ask("parse_query", query=filled(expr))
    return tree


def _plain(expr: str) -> str:
    """Grafana's variables as it would put them in."""
    return expr.replace("$__rate_interval", "2m").replace("$namespace", ".+").replace("$name", ".+")


def _named(text: str, form: str) -> set[str]:
    return set(re.findall(form, text))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_ask_for_what_is_there(prometheus: Server, rule: dict[str, Any]) -> None:
    found = labels(parsed(prometheus, rule["expr"]), known())
    assert found is not None, "a number, not a vector"
    if "record" in rule:
        level = rule["record"].partition(":")[0]
        assert found == set(level.split("_")), "the name says other labels"
    else:
        said = " ".join(rule["annotations"].values())
        assert _named(said, r"\$labels\.(\w+)") <= found


@pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=[name for name, _ in QUERIES])
def test_the_dashboard_asks_for_what_is_there(prometheus: Server, query: Any) -> None:
    tree = parsed(prometheus, _plain(query.expr))
    found = labels(tree, known())
    assert found is not None
    assert _named(query.legend, r"\{\{(\w+)\}\}") <= found, "the legend would be empty"
    assert not any(":" in name for name in selectors(tree)), (
        "it must work where the rules are not switched on"
    )


def test_panels_of_deployments_are_of_those_that_are_chosen() -> None:
    """All but the operator's own health."""
    own = {panel.title for row in ROWS if row.title == "Health of the operator" for panel in row.panels}
    assert own
    for name, query in QUERIES:
        if name.split("/")[1] not in own:
            braces = re.findall(r"moe_operator_\w+(\{[^}]*\})?", query.expr)
            assert all('name=~"$name"' in brace for brace in braces), name


def test_every_metric_of_a_deployment_is_on_the_dashboard(prometheus: Server) -> None:
    """What is not looked at anywhere is said here."""
    shown = {name for _, query in QUERIES for name in selectors(parsed(prometheus, _plain(query.expr)))}
    told = {name for name, (_, _, labels) in page().items() if {"namespace", "name"} <= set(labels)}
    assert told - shown == {
        # The alerts are about them.
        "moe_operator_deployment_stalled",
        "moe_operator_scaling_silent_groups",
        # For a few minutes of a deployment's life.
        "moe_operator_weights_bytes",
    }


def test_what_is_agreed_on_is_still_to_come() -> None:
    """Once the page has a metric, it is not pending, and its labels are read from there."""
    assert set(PENDING) & set(page()) == set()


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ("max by (namespace, name) (moe_operator_no_such_metric)", "no metric"),
        ('max by (namespace) (moe_operator_groups{stat="ready"})', "no label stat"),
        ("max by (nam) (moe_operator_groups)", "no label nam"),
        ("max by (name) (moe_operator_groups) / max by (namespace) (moe_operator_groups)", "never the same"),
        ("max by (name) (moe_operator_groups) and on (reason) moe_operator_groups", "no label reason"),
        ("histogram_quantile(0.5, sum (rate(moe_operator_reconcile_seconds_bucket[5m])))", "no label le"),
    ],
)
def test_a_mistake_would_be_found(prometheus: Server, expr: str, fault: str) -> None:
    with pytest.raises(QueryError, match=fault):
        labels(parsed(prometheus, expr), known())


def test_a_query_that_is_none_would_be_found(prometheus: Server) -> None:
    with pytest.raises(PrometheusError, match="parse error"):
        parsed(prometheus, "max by (name (moe_operator_groups)")
