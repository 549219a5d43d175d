"""Rules, dashboard and what is written about them belong together. Lost where they do not: an alert whose link leads
nowhere at night, a threshold that cannot be set, a panel that lies over another."""

import json
import re
from pathlib import Path

import pytest
import yaml

from moe_operator.planner.memory import LARGEST_UTILIZATION
from monitoring import dashboard, rule_files, thresholds
from monitoring.alerts import ALERTS, RUNBOOK, Severity
from monitoring.thresholds import THRESHOLDS

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "moe-operator"
NAMES = sorted({alert.name for alert in ALERTS})


def _sections() -> dict[str, str]:
    """Heading of the runbook -> what is below it."""
    text = (ROOT / RUNBOOK).read_text(encoding="utf-8")
    parts = re.split(r"^## (\w+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (rule_files.CHART_FILE, rule_files.chart_file()),
        (rule_files.PLAIN_FILE, rule_files.plain_file()),
        (rule_files.REFERENCE, rule_files.reference()),
        (dashboard.FILE, dashboard.render()),
    ],
)
def test_what_is_generated_is_current(name: str, text: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == text, "run make generate"


def test_each_alert_has_a_section_and_each_section_an_alert() -> None:
    assert sorted(_sections()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_section_says_what_it_means_what_to_look_at_and_what_to_do(name: str) -> None:
    parts = re.findall(r"^\*\*(.+?)\*\*: (\S.*)$", _sections()[name], flags=re.MULTILINE)
    assert [part for part, _ in parts] == ["Means", "Look at", "Do"]


def test_thresholds_that_a_section_names_are_those_there_are() -> None:
    named = {word for text in _sections().values() for word in re.findall(r"\(`(\w+)`\)", text)}
    known = {one.name for one in THRESHOLDS}
    assert {word for word in named if word.endswith(("Ratio", "Seconds", "PerHour"))} <= known


def test_panels_that_a_section_names_are_on_the_dashboard() -> None:
    """`Row / panel`, as the page writes them."""
    titles = {f"{row.title} / {panel.title}" for row in dashboard.ROWS for panel in row.panels}
    named = {
        found.strip()
        for text in _sections().values()
        for found in re.findall(r"((?:HBM|Scaling) / [\w ]+?)(?=[,;.:]|$)", text)
    }
    assert named
    assert named <= titles


def test_every_severity_is_one_that_routes_know() -> None:
    assert {alert.severity for alert in ALERTS} <= set(Severity)
    pages = [alert.name for alert in ALERTS if alert.severity is Severity.CRITICAL]
    assert all(alert.lasting != "0m" for alert in ALERTS if alert.name in pages), (
        "nobody is woken for one scrape"
    )


def test_the_charts_values_are_the_defaults() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    rules = values["metrics"]["rules"]
    assert rules["thresholds"] == {one.name: one.default for one in THRESHOLDS}
    assert rules["runbookUrl"] == RUNBOOK
    assert not rules["enabled"]
    assert not values["metrics"]["dashboard"]["enabled"]


def test_a_plan_alone_is_no_pressure() -> None:
    """Else every group that is filled as planned would be reported."""
    assert thresholds.HBM.default > LARGEST_UTILIZATION / 100 + 0.02


def test_the_charts_schema_is_made_of_the_thresholds() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    written = schema["properties"]["metrics"]["properties"]["rules"]["properties"]["thresholds"]
    assert written == thresholds.schema(), "run make generate"


def test_every_mark_is_a_threshold() -> None:
    """The chart puts values in place of marks: one that it does not know would stay in the expression."""
    marks = set(re.findall(r"\$\{(\w+)\}", rule_files.chart_file().partition("groups:")[2]))
    assert marks == {one.name for one in THRESHOLDS} | {"runbookUrl"}


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard.dashboard()["panels"]
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_dashboard_names_no_variable_that_it_lacks() -> None:
    page = dashboard.dashboard()
    own = {one["name"] for one in page["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(page)))
    assert used <= own


def test_a_config_map_holds_the_dashboard() -> None:
    """Kubernetes takes 1 MiB in one object, and server-side apply is not what every GitOps tool does: 256 KiB."""
    assert len(dashboard.render().encode()) < 200_000
