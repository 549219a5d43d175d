"""The operator's page `/figures`, as JSON on the wire."""

import copy
from typing import Any

from moe_operator.api.times import format_time

GIB = 2**30
#: All figures that there are.
FULL: dict[str, Any] = {
    "inputTokensPerSecond": 182_400.0,
    "outputTokensPerSecond": 41_230.5,
    "running": 512.0,
    "waiting": 3.0,
    "kvUsedRatio": 0.713,
    "prefixHitRatio": 0.42,
    "preemptionsPerMinute": 0.5,
    "draftAcceptanceRatio": 0.81,
    "timeToFirstTokenSeconds": {"p50": 0.18, "p95": 0.412, "p99": 1.214},
    "timePerOutputTokenSeconds": {"p50": 0.021, "p95": 0.0312, "p99": 0.05},
    "imbalanceRatio": 1.08,
    "hbmUsedBytes": 1203 * GIB,
    "hbmCapacityBytes": 1432 * GIB,
    "hbmSource": "Measured",
    "powerWatts": 9_310.0,
}


def rank(number: int, **figures: Any) -> dict[str, Any]:
    return {
        "rank": number,
        "pod": f"tiny-g0-0-{number}" if number else "tiny-g0-0",
        "node": f"b200-0{number}",
        "figures": figures,
    }


def group(name: str, *ranks: dict[str, Any], state: str = "serving", **figures: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "figures": figures, "ranks": list(ranks)}


def deployment(
    name: str, *groups: dict[str, Any], namespace: str = "serving", **figures: Any
) -> dict[str, Any]:
    return {"namespace": namespace, "name": name, "figures": figures, "groups": list(groups)}


def page(*deployments: dict[str, Any], at: float = 1_800_000_000.0) -> dict[str, Any]:
    windows = {"windowSeconds": 60, "latencyWindowSeconds": 300}
    return copy.deepcopy({"at": format_time(at), **windows, "deployments": list(deployments)})
