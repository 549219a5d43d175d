"""Which nodes the scheduler would let a pod onto: selector, required node affinity and taints; and selectors of
labels, which read alike."""

from collections.abc import Mapping
from typing import Any

from moe_operator.planner.facts import NodeFacts

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_NAME_FIELD = "metadata.name"


def selects(pod: Mapping[str, Any], node: NodeFacts) -> bool:
    """Whether the labels and the name of the node are what the pod's spec (a plain dict) asks for."""
    if any(node.labels.get(key) != value for key, value in (pod.get("nodeSelector") or {}).items()):
        return False
    required = ((pod.get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED)
    return required is None or any(_term(term, node) for term in required.get("nodeSelectorTerms") or ())


def admits(node: NodeFacts, pod: Mapping[str, Any]) -> bool:
    """Whether the node takes new pods like this one: it is ready, not cordoned, and its taints are tolerated."""
    tolerations = pod.get("tolerations") or ()
    return node.ready and not node.cordoned and all(taint.tolerated_by(tolerations) for taint in node.taints)


def label_selector_matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector (`matchLabels`, `matchExpressions`) selects the labels; an empty one selects all."""
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(one, labels) for one in selector.get("matchExpressions") or ()
    )


def _term(term: Mapping[str, Any], node: NodeFacts) -> bool:
    """All expressions of a term must hold; a term without any matches no node."""
    labels, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not labels and not fields:
        return False
    name = {_NAME_FIELD: node.name}
    return all(_holds(one, node.labels) for one in labels) and all(_holds(one, name) for one in fields)


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression.get("key", ""))
    values = expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values  # a node without the label is let in
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _compared(value, values) > 0
        case "Lt":
            return _compared(value, values) < 0
        case _:
            return False


def _compared(value: str | None, values: Any) -> int:
    """Sign of the difference of two whole numbers; 0, which neither Gt nor Lt accepts, where one is none."""
    try:
        ours, theirs = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return 0
    return (ours > theirs) - (ours < theirs)
