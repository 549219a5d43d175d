"""What a site may set of the alerts: the chart's `metrics.rules.thresholds`."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Threshold:
    """One number in expressions and texts, written there as `${name}`."""

    name: str
    default: float
    most: float
    meaning: str

    @property
    def mark(self) -> str:
        return f"${{{self.name}}}"


#: Above what any plan fills: vLLM is given at most `LARGEST_UTILIZATION` of the planner, 0.95.
HBM = Threshold("hbmUsedRatio", 0.98, 1, "used of what processes may have, of a rank's fullest GPU")
KV = Threshold("kvUsedRatio", 0.95, 1, "KV cache in use, while requests wait")
OBJECTIVE = Threshold("objectiveRatio", 0.99, 0.9999, "share of requests that are to be within the objective")
REQUESTS = Threshold(
    "objectiveRequests",
    30,
    1e6,
    "requests that there must have been in the longer window for its share to count",
)
BUDGET = Threshold("costBudgetRatio", 0.8, 1, "share of cost.budget that is spent")
PLANNER = Threshold("plannerErrorRatio", 0.05, 1, "what the planner is off, of a GPU, either way")
TELEMETRY = Threshold("telemetryAgeSeconds", 60, 3600, "age of the oldest figures of a pod")
LOSSES = Threshold("groupsLostPerHour", 3, 1e3, "groups lost within an hour for one reason")

THRESHOLDS = (HBM, KV, OBJECTIVE, REQUESTS, BUDGET, PLANNER, TELEMETRY, LOSSES)


def number(value: float) -> str:
    """As it is written in YAML and PromQL: 60, not 60.0."""
    return str(int(value)) if value == int(value) else str(value)


def schema() -> dict[str, Any]:
    """Of `metrics.rules.thresholds`, for the chart's values.schema.json."""
    properties = {
        one.name: {"type": "number", "exclusiveMinimum": 0, "maximum": one.most, "description": one.meaning}
        for one in THRESHOLDS
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def filled(text: str) -> str:
    """With the defaults in place of the marks."""
    for one in THRESHOLDS:
        text = text.replace(one.mark, number(one.default))
    return text
