"""A simulation as one page: demand, groups and latency over time by policy, without anything from elsewhere."""

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from moe_operator.cli import charts
from moe_operator.cli.charts import Chart, Line
from moe_operator.cli.simulation import INTERVAL, Simulation
from moe_operator.cli.simulation_text import HEADER, head, row

Floats = NDArray[np.float64]

#: Points of a line at most.
_POINTS = 480

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%(title)s</title>
<style>
:root { color-scheme: light dark; }
body { font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; margin: 24px auto;
  max-width: 1000px; padding: 0 16px; color: #1f2328; background: #ffffff; line-height: 1.45; }
h1 { font-size: 20px; }
pre { white-space: pre-wrap; font-size: 13px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; margin: 16px 0; }
th, td { padding: 4px 12px; border-bottom: 1px solid #8a929a55; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.warning { border-left: 3px solid #bc4c00; padding-left: 10px; font-size: 14px; }
svg { max-width: 100%%; height: auto; display: block; margin: 14px 0; }
@media (prefers-color-scheme: dark) { body { color: #e6edf3; background: #0d1117; } }
%(style)s
</style>
</head>
<body>
<h1>%(title)s</h1>
<pre>%(head)s</pre>
%(table)s
%(notes)s
%(warnings)s
%(charts)s
</body>
</html>"""


def simulation_html(found: Simulation) -> str:
    """The page."""
    notes = [f"{one.name}: {one.note}" for one in found.served if one.note]
    title, *lines = head(found)
    return _PAGE % {
        "title": escape(f"{title}: simulated"),
        "style": charts.STYLE,
        "head": escape("\n".join(line.strip() for line in lines)),
        "table": _table(found),
        "notes": "".join(f"<p>{escape(note)}</p>" for note in notes),
        "warnings": "".join(f'<p class="warning">{escape(text)}</p>' for text in found.warnings),
        "charts": "\n".join(charts.svg(chart, style=False) for chart in pictures(found)),
    }


def pictures(found: Simulation) -> Sequence[Chart]:
    """Demand, groups, latency and what was served in time."""
    lines = [one.result.timeline() for one in found.served]
    names = [one.name for one in found.served]
    if not lines:
        return ()
    hours = lines[0].minute / 60
    size = max(1, -(-len(hours) // _POINTS))
    grouped = _thinned(hours, size, "first").tolist()

    def each(field: str, how: str, *, steps: bool = False) -> list[Line]:
        return [
            Line(name, grouped, _thinned(getattr(line, field), size, how).tolist(), steps=steps)
            for name, line in zip(names, lines, strict=True)
        ]

    need: list[Line] = []
    if found.need is not None:
        of_minute = found.need[: len(found.need) // 4 * 4].reshape(-1, 4).mean(axis=1)
        shown = _thinned(of_minute, size, "mean")
        at = np.arange(len(shown)) * size * 4 * INTERVAL / 3600
        need = [Line("needed at full capacity", at.tolist(), shown.tolist(), area=True)]
    places = {name: at for at, name in enumerate(names)}
    tokens = [
        Line("output", grouped, _thinned(lines[0].output_tokens, size, "mean").tolist()),
        Line("prompt", grouped, _thinned(lines[0].prompt_tokens, size, "mean").tolist()),
    ]
    goal = found.objective
    return (
        Chart("Demand: tokens of the requests that arrive", "tokens per second", tokens),
        Chart(
            "Groups ready", "groups", [*need, *each("ready", "mean", steps=True)], height=300, places=places
        ),
        Chart(
            "Time to first token, 99th percentile of the requests that arrived in a minute",
            "seconds",
            each("ttft_p99", "max"),
            logarithmic=True,
            limit=goal.ttft,
            limit_name=f"objective {goal.ttft:g} s",
            places=places,
        ),
        Chart(
            "Requests served within the objective, by the minute of their arrival",
            "percent",
            [Line(one.name, one.x, [100 * y for y in one.y]) for one in each("attained", "mean")],
            limit=99.0,
            limit_name="99 %",
            most=100.0,
            places=places,
        ),
    )


def _thinned(values: Floats, size: int, how: str) -> Floats:
    """One of each `size` values: their first, mean or greatest; NaN left out."""
    if size == 1:
        return values
    padded = np.concatenate([values, np.full(-len(values) % size, np.nan)]).reshape(-1, size)
    if how == "first":
        first: Floats = padded[:, 0]
        return first
    known = ~np.isnan(padded)
    filled = np.where(known, padded, -np.inf if how == "max" else 0.0)
    if how == "max":
        most: Floats = filled.max(axis=1)
        return np.where(known.any(axis=1), most, np.nan)
    with np.errstate(invalid="ignore"):
        means: Floats = filled.sum(axis=1) / known.sum(axis=1)
    return means


def _table(found: Simulation) -> str:
    cells = "".join(f"<th>{escape(name.capitalize())}</th>" for name in HEADER)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row(one)) + "</tr>" for one in found.served
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table>"
