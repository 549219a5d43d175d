"""What `kubectl moe top -o json` prints. Pure."""

from collections.abc import Sequence
from typing import Any

from moe_operator.api.times import format_time
from moe_operator.cli.top_rows import Look, Row, View

_OF_DEPLOYMENTS = ("ready", "desired", "width", "per_million_tokens", "currency")
_OF_GROUPS = ("group", "state", "ranks")
_OF_RANKS = ("group", "state", "rank", "pod", "node")
_KEYS = {View.DEPLOYMENTS: _OF_DEPLOYMENTS, View.GROUPS: _OF_GROUPS, View.RANKS: _OF_RANKS}
_NAMES = {"ready": "groupsReady", "desired": "groupsDesired", "per_million_tokens": "perMillionTokens"}


def top_data(look: Look, shown: Sequence[Row], view: View) -> dict[str, Any]:
    """Keys are stable. `figures` has the names and units of the operator's page, and only what is known."""
    page = look.page
    return {
        "view": view.value,
        "takenAt": format_time(look.taken_at),
        "source": "Status" if page is None else "Operator",
        "missing": look.missing,
        "figuresAt": page.at if page else None,
        "windowSeconds": page.window_seconds if page else None,
        "latencyWindowSeconds": page.latency_window_seconds if page else None,
        "items": [_item(row, view) for row in shown],
    }


def _item(row: Row, view: View) -> dict[str, Any]:
    return {
        "namespace": row.namespace,
        "name": row.deployment,
        **{_NAMES.get(key, key): getattr(row, key) for key in _KEYS[view]},
        "figures": row.figures.wire(),
    }
