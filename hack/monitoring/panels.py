"""Grafana's panels as its dashboards' JSON has them (schema version 39, Grafana 10 and later): the parts that are used.

Own types: the published SDK for Python would be a further dependency of the environment for what are a few dozen keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
#: Of a dashboard; widths are in them.
COLUMNS = 24


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    expr: str
    legend: str
    """With labels in double braces."""
    instant: bool = False


@dataclass(frozen=True)
class Step:
    """A colour from this value on."""

    colour: str
    value: float | None = None


@dataclass(frozen=True)
class Panel:
    """One panel. Its place is given by the row that it is in."""

    title: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    """timeseries, stat or bargauge."""
    unit: str = "short"
    """Of Grafana's units."""
    width: int = 8
    height: int = 7
    description: str = ""
    stacked: bool = False
    decimals: int | None = None
    least: float | None = 0
    most: float | None = None
    steps: Sequence[Step] = ()
    step_line: bool = False
    """Whether a value holds until the next."""

    def json(self, at: tuple[int, int], number: int) -> Json:
        """As Grafana reads it, at column and row."""
        x, y = at
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": _OPTIONS[self.kind],
            "targets": [_target(query, ref) for query, ref in zip(self.queries, _REFS, strict=False)],
        }

    def _defaults(self) -> Json:
        found: Json = {
            "unit": self.unit,
            "color": {"mode": "thresholds" if self.steps else "palette-classic"},
        }
        for key, value in (("decimals", self.decimals), ("min", self.least), ("max", self.most)):
            if value is not None:
                found[key] = value
        if self.steps:
            steps = [{"color": step.colour, "value": step.value} for step in self.steps]
            found["thresholds"] = {"mode": "absolute", "steps": steps}
        if self.kind == "timeseries":
            found["color"] = {"mode": "palette-classic"}
            found["custom"] = self._drawn()
        return found

    def _drawn(self) -> Json:
        drawn: Json = {
            "drawStyle": "line",
            "lineInterpolation": "stepAfter" if self.step_line else "linear",
            "lineWidth": 1,
            "fillOpacity": 25 if self.stacked else 5,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
        }
        if self.steps:
            drawn["thresholdsStyle"] = {"mode": "dashed"}
        return drawn


@dataclass(frozen=True)
class Row:
    """A heading and its panels, set from left to right; what does not fit goes on below."""

    title: str
    panels: Sequence[Panel]


_REFS = "ABCDEFGHIJKLMNOP"
_REDUCED: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[str, Json] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": _REDUCED,
        "colorMode": "value",
        "graphMode": "area",
        "textMode": "auto",
        "orientation": "auto",
        "justifyMode": "auto",
    },
    "bargauge": {
        "reduceOptions": _REDUCED,
        "orientation": "horizontal",
        "displayMode": "basic",
        "showUnfilled": True,
        "valueMode": "color",
    },
}


def _target(query: Query, ref: str) -> Json:
    return {
        "refId": ref,
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "instant": query.instant,
        "range": not query.instant,
    }


def placed(rows: Sequence[Row]) -> list[Json]:
    """All panels with their places, each row's heading before its own."""
    found: list[Json] = []
    number, top = 1, 0
    for row in rows:
        found.append(
            {
                "id": number,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
                "panels": [],
            }
        )
        number, top = number + 1, top + 1
        left = tallest = 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                left, top, tallest = 0, top + tallest, 0
            found.append(panel.json((left, top), number))
            number, left, tallest = number + 1, left + panel.width, max(tallest, panel.height)
        top += tallest
    return found
