"""`python -m dashboard_picture [--page FILE]`: draw the dashboard into docs/dashboard.svg, without Grafana, and its
first rows into docs/dashboard-overview.svg.

The committed dashboard's queries are asked of a Prometheus on loopback, which holds what the operator's metrics page
said in six hours of virtual time (see fleet.py). `--page` keeps that page, or takes the one that is there.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dashboard_picture.drawing import Drawn, picture
from dashboard_picture.fleet import HOURS, NAME, SCRAPE, recorded
from fakecluster.clock import EPOCH
from harness.prometheus import Server, promtool, running
from monitoring.dashboard import FILE

_ROOT = Path(__file__).parents[2]
_DOCS = _ROOT / "docs"
#: Rows of the overview.
_FIRST = 2
_STEP = 60
_TITLE = f"moe-operator · serving/{NAME} · {HOURS:g} hours"


def _asked(server: Server, target: Mapping[str, Any], begin: float, end: float) -> list[Drawn]:
    """The series of one query of a panel."""
    expr = target["expr"].replace("$__rate_interval", f"{4 * SCRAPE:.0f}s")
    expr = expr.replace("$namespace", ".+").replace("$name", ".+")
    told = server.ask("query_range", query=expr, start=str(begin), end=str(end), step=str(_STEP))
    found = []
    for series in told["result"]:
        points = [(float(at), float(value)) for at, value in series["values"] if value not in ("NaN", "+Inf")]
        if target["instant"]:
            points = [point for point in points if point[0] >= end - _STEP]
        if points:
            found.append(Drawn(_named(target["legendFormat"], series["metric"]), points))
    return sorted(found, key=lambda one: one.name)


def _named(legend: str, labels: Mapping[str, str]) -> str:
    """There is one deployment, whose name is left out where more is said."""
    short = re.sub(r"^\{\{namespace\}\}/\{\{name\}\} ", "", legend)
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), short)


Panel = tuple[dict[str, Any], list[Drawn]]


def _rows(server: Server, panels: list[dict[str, Any]], begin: float, end: float) -> list[list[Panel]]:
    """Panels with their series; rows move up where those before them have no data at all and are left out."""
    rows: list[list[Panel]] = []
    for panel in panels:
        if panel["type"] == "row":
            rows.append([(panel, [])])
        else:
            rows[-1].append(
                (panel, [one for target in panel["targets"] for one in _asked(server, target, begin, end)])
            )
    found: list[list[Panel]] = []
    up = 0
    for row in rows:
        top = row[0][0]["gridPos"]["y"]
        bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel, _ in row)
        empty = sum(not series for _, series in row[1:])
        if 2 * empty >= len(row) - 1:
            print(f"left out: {row[0][0]['title']} ({empty} of {len(row) - 1} panels have no data)")
            up += bottom - top
            continue
        for panel, _ in row:
            panel["gridPos"]["y"] -= up
        found.append(row)
    return found


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(
        prog="dashboard_picture", description="Draw the dashboard without Grafana."
    )
    parser.add_argument("--page", type=Path, help="keep the metrics page here, or take it from here")
    kept: Path | None = parser.parse_args().page
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        page = kept or folder / "page.txt"
        if not page.exists():
            page.write_text(recorded()[0])
        begin, end = EPOCH, EPOCH + HOURS * 3600
        print(
            promtool("tsdb", "create-blocks-from", "openmetrics", str(page), str(folder / "blocks")).strip()
        )
        panels = json.loads((_ROOT / FILE).read_text(encoding="utf-8"))["panels"]
        with running(folder, folder / "blocks") as server:
            rows = _rows(server, panels, begin, end - SCRAPE)
    for name, shown in (("dashboard.svg", rows), ("dashboard-overview.svg", rows[:_FIRST])):
        drawn = picture(_TITLE, [panel for row in shown for panel in row], begin, end)
        (_DOCS / name).write_text(drawn, encoding="utf-8")
        print(f"docs/{name}: {len(drawn) / 1024:.0f} KB")


if __name__ == "__main__":
    main()
