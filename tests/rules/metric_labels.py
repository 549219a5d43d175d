"""What a query asks for, by Prometheus's own parser: which metrics, and which labels are there at each step."""

from collections.abc import Iterator, Mapping
from typing import Any

from moe_operator.runtime import metrics_reference
from monitoring.recording import RECORDED

#: Agreed on, and not on the page yet: empty this once they are.
PENDING: dict[str, tuple[str, ...]] = {}

#: Of the operator's pods as the ServiceMonitor finds them.
TARGET = frozenset({"job", "instance", "namespace", "pod", "container", "service", "endpoint"})


def page() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Metric -> type, help and labels, as the reference has them."""
    return {name: (type_, help_, labels) for name, type_, help_, labels in metrics_reference.described()}


def known() -> dict[str, frozenset[str]]:
    """Every series that a query may name -> its labels."""
    found: dict[str, frozenset[str]] = {}
    for name, (type_, _, labels) in page().items():
        own = TARGET | set(labels)
        if type_ == "histogram":
            found |= {f"{name}_bucket": own | {"le"}, f"{name}_sum": own, f"{name}_count": own}
        else:
            found[name] = own
    found |= {name: TARGET | set(labels) for name, labels in PENDING.items()}
    for rule in RECORDED:
        level, _, _ = rule.name.partition(":")
        found[rule.name] = frozenset(level.split("_"))
    return found


class QueryError(AssertionError):
    """A query that would find nothing."""


def labels(node: Mapping[str, Any], series: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    """Labels of what the query yields; None for a number. Raises QueryError."""
    kind = node["type"]
    if kind in ("vectorSelector", "matrixSelector"):
        return _selected(node, series)
    if kind == "aggregation":
        inner, grouped = labels(node["expr"], series), frozenset(node["grouping"])
        _need(grouped, inner, f"{node['op']} by")
        return inner if node["op"] in ("topk", "bottomk") else grouped
    if kind == "call":
        return _called(node, series)
    if kind == "binaryExpr":
        return _joined(node, series)
    if kind in ("parenExpr", "unaryExpr", "subquery"):
        return labels(node["expr"], series)
    if kind in ("numberLiteral", "stringLiteral"):
        return None
    raise QueryError(f"{kind} is not understood here")


def selectors(node: Any) -> Iterator[str]:
    """Names of all series that a query names."""
    if isinstance(node, Mapping):
        if node.get("type") in ("vectorSelector", "matrixSelector"):
            yield node["name"]
        for value in node.values():
            yield from selectors(value)
    elif isinstance(node, list):
        for value in node:
            yield from selectors(value)


def _selected(node: Mapping[str, Any], series: Mapping[str, frozenset[str]]) -> frozenset[str]:
    name = node["name"]
    if name not in series:
        raise QueryError(f"no metric {name}")
    asked = {matcher["name"] for matcher in node["matchers"]} - {"__name__"}
    _need(asked, series[name], name)
    return series[name]


def _called(node: Mapping[str, Any], series: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    function, found = node["func"]["name"], [labels(argument, series) for argument in node["args"]]
    if function == "absent":
        return frozenset()
    vectors = [each for each in found if each is not None]
    inner = vectors[0] if vectors else None
    if function == "histogram_quantile":
        _need({"le"}, inner, function)
        return (inner or frozenset()) - {"le"}
    return inner


def _joined(node: Mapping[str, Any], series: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    left, right = labels(node["lhs"], series), labels(node["rhs"], series)
    if left is None or right is None:
        return right if left is None else left
    matching = node["matching"]
    if matching["on"]:
        for side in (left, right):
            _need(matching["labels"], side, f"{node['op']} on")
        return left
    if left != right:
        raise QueryError(f"{node['op']}: never the same labels: {sorted(left)} and {sorted(right)}")
    return left


def _need(asked: Any, there: frozenset[str] | None, where: str) -> None:
    missing = set(asked) - (there or frozenset())
    if missing:
        raise QueryError(f"{where}: no label {', '.join(sorted(missing))}")
