"""`kubectl moe autoscaler explain`: what whoever is on call reads when groups are too many or too few. Lost otherwise:
the numbers behind a decision, and so the choice between waiting and acting."""

import json
from typing import Any

import pytest

from factories.cluster_objects import NOW, deployment_object
from moe_operator.api.deployment import parse
from moe_operator.api.times import format_time
from moe_operator.cli import autoscaler_command, kubectl_moe
from moe_operator.cli.cluster import Read
from moe_operator.cli.errors import ClusterError
from moe_operator.cli.lines import WIDTH
from moe_operator.cli.scaling_explanation import explanation, explanation_data
from moe_operator.cli.scaling_text import explanation_text
from moe_operator.cli.status_picture import Seen, picture

FIGURES: dict[str, Any] = {
    "load": "3.40",
    "resource": "StepTime",
    "arrivals": "9.4",
    "waiting": 3,
    "forecast": "4.12",
    "forecaster": "Arrivals",
    "leadSeconds": 345,
    "worthHaving": 6,
    "latePercent": "4.10",
    "latePercentThen": "0.31",
    "enough": 5,
    "worth": "28.4",
}


def change(ago: float, before: int, after: int, reason: str, **figures: Any) -> dict[str, Any]:
    return {
        "time": format_time(NOW - ago),
        "before": before,
        "after": after,
        "reason": reason,
        "figures": {**FIGURES, "waiting": 0, **figures},
    }


def scaling(**fields: Any) -> dict[str, Any]:
    """At its ceiling, for want of which one that it has been granted waits too."""
    return {
        "desired": 5,
        "granted": 4,
        "waiting": {
            "groups": 1,
            "gpusPerGroup": 8,
            "accelerator": "B200",
            "reason": "BehindOthers",
            "message": "waits for 1 group of 8 GPUs (B200): behind team-a/qwen",
            "since": format_time(NOW - 180),
        },
        "reason": "AtMaximum",
        "message": "the load is that of 3.4 full groups, by time per output token, but maxGroups is 5",
        "lastChangeTime": format_time(NOW - 720),
        "figures": FIGURES,
        "history": [
            {
                "time": format_time(NOW - 90_000),
                "before": 1,
                "after": 2,
                "reason": "LimitsChanged",
                "message": "1 groups are outside the limits 2 to 5",
            },
            change(5400, 2, 3, "DemandGrows", load="1.92", forecast="2.20", forecaster="Level"),
            change(1500, 3, 4, "RequestsWaiting", load="3.05", latePercent="22.40"),
            change(720, 4, 5, "DemandGrows"),
        ],
        "learned": {
            "time": format_time(NOW - 300),
            "idleStepMicroseconds": 21_300,
            "requestMilliseconds": 361,
            "coldStartSeconds": 300,
            "coldStarts": 4,
            "latePercent": "0.87",
            "version": "1-0",
            "state": "for the operator",
        },
        **fields,
    }


def found(mode: str = "Auto", **fields: Any) -> Any:
    spec = {
        "scaling": {"mode": mode, "minGroups": 2, "maxGroups": 5},
        "objective": {"timePerOutputToken": "80ms"},
    }
    obj = deployment_object(
        spec,
        groups={"desired": 5, "current": 4, "ready": 3, "draining": 0},
        scaling=scaling(**fields),
    )
    return explanation(parse(obj), NOW)


GOLDEN = """\
serving/tiny: org/tiny-moe
  mode        Auto, 2 to 5 groups; 2 s to the first token, 80 ms per output token
  wanted      5 groups for 12m: AtMaximum: the load is that of 3.4 full groups, by time per output
              token, but maxGroups is 5
  to do       Raise scaling.maxGroups.
  there       3 serve, 1 more start, 0 drain

NOW
  load        3.40 full groups, by time per output token; 9.4 requests/s come; 3 wait
  forecast    4.12 full groups (Arrivals) in 345 s, when a group that is ordered now would serve
  late then   4.10 % of requests with 5 groups, 0.31 % with 6, which are worth having
  enough      5 groups, even for the most that is expected until another could be had
  worth       28.4 groups are paid for rather than have all requests of one late

HELD BACK
  ceiling     scaling.maxGroups is 5, and 6 are worth having: 0.31 % of requests late, not 4.10 %
  GPUs        4 of 5 granted; waits for 1 group of 8 GPUs (B200): behind team-a/qwen (BehindOthers,
              for 3m)

LEARNED (5m ago)
  idle step   21.3 ms for a step of an engine without load
  a request   takes a whole group for 0.361 s
  cold start  300 s to count with, of 4 starts seen
  late        0.87 % of requests over the last hours; 1 % may be

CHANGES
TIME   GROUPS   REASON            LOAD   FORECAST        LEAD   LATE %          WORTH
25h    1 -> 2   LimitsChanged     -      -               -      -               -
90m    2 -> 3   DemandGrows       1.92   2.20 Level      345s   4.10 -> 0.31    28.4
25m    3 -> 4   RequestsWaiting   3.05   4.12 Arrivals   345s   22.40 -> 0.31   28.4
12m    4 -> 5   DemandGrows       3.40   4.12 Arrivals   345s   4.10 -> 0.31    28.4
  1 -> 2: 1 groups are outside the limits 2 to 5
"""


def test_the_whole_explanation() -> None:
    assert explanation_text(found()) + "\n" == GOLDEN


def said(**options: Any) -> str:
    return " ".join(explanation_text(found(**options)).split())


def test_what_holds_it_back_is_named() -> None:
    window = {**FIGURES, "worthHaving": 2, "enough": 3, "heldUntil": format_time(NOW + 95)}
    assert "window 3 would do, and groups go in 95s" in said(figures=window, waiting=None)
    assert "telemetry 1 group without current figures" in said(figures={**FIGURES, "silent": 1})
    assert "floor 1 would do, and 2 groups are the fewest" in said(
        desired=2, figures={**FIGURES, "worthHaving": 1, "enough": 1}
    )
    over = {**window, "heldUntil": format_time(NOW - 5)}
    assert "HELD BACK" not in said(figures=over, waiting=None), "what is over holds nothing"


_OFFICE = {"groups": 3, "message": "at least 3 until 19:00 UTC (schedule office)"}
_NARROW = {"gpus": 2, "planned": 8, "before": 8, "percent": 30, "groups": 10, "groupsBefore": 3}


@pytest.mark.parametrize(
    ("spec", "told", "figures", "expected", "held"),
    [
        ({}, {}, {}, (1, 4), None),
        (
            {"width": "Auto"},
            {"desired": 10, "chosenWidth": {**_NARROW, "since": format_time(NOW - 9000)}},
            {"worthHaving": 10, "enough": 9},
            (1, 16),
            None,
        ),
        (
            {"width": "Auto"},
            {"desired": 16, "chosenWidth": {**_NARROW, "since": format_time(NOW - 9000)}},
            {"worthHaving": 17, "enough": 16},
            (1, 16),
            "scaling.maxGroups leaves 16 of 2 GPUs, and 17 are worth having",
        ),
        (
            {},
            {"desired": 3, "floor": _OFFICE},
            {"enough": 1},
            (3, 4),
            "1 would do, and 3 groups are the fewest: at least 3 until 19:00 UTC (schedule office)",
        ),
        ({"minGroups": 0, "scaleToZeroAfter": "30m"}, {"desired": 0, "reason": "Idle"}, None, (0, 4), None),
        (
            {"minGroups": 0, "scaleToZeroAfter": "30m"},
            {"desired": 1, "reason": "WithinObjective"},
            {"enough": 1},
            (0, 4),
            None,
        ),
        ({"minGroups": 0}, {"desired": 1}, {"enough": 1}, (1, 4), None),
        ({"mode": "External"}, {"desired": 3, "floor": _OFFICE}, {}, (3, 4), None),
    ],
    ids=["plain", "width", "width, full", "schedule", "zero", "may go to zero", "never to zero", "External"],
)
def test_the_limits_are_those_that_the_operator_keeps_to(
    spec: dict[str, Any],
    told: dict[str, Any],
    figures: dict[str, Any] | None,
    expected: tuple[int, int],
    held: str | None,
) -> None:
    """Lost: whoever raises a limit that held nothing back, and leaves the one that did."""
    shown = None if figures is None else {**FIGURES, "worthHaving": 3, "enough": 3, **figures}
    obj = deployment_object(
        {"scaling": {"mode": "Auto", "minGroups": 1, "maxGroups": 4, **spec}},
        scaling=scaling(**{"waiting": None, "figures": shown, **told}),
    )
    explained = explanation(parse(obj), NOW)
    data = explanation_data(explained)
    assert (data["fewestGroups"], data["mostGroups"]) == expected
    assert f", {expected[0]} to {expected[1]} groups;" in explanation_text(explained)
    reasons = [one["why"] for one in data["heldBack"]]
    assert [why[: len(held)] for why in reasons] == [held] if held else reasons == []


def test_what_else_asks_for_groups_is_said() -> None:
    wake = "annotation moe-operator.dev/wake-until: '2027' is no time"
    text = said(floor=_OFFICE, ignored=wake)
    assert "asked for at least 3 until 19:00 UTC (schedule office)" in text
    assert f"ignored {wake}" in text


def test_what_is_not_known_is_said_so() -> None:
    """Lost: the difference between no load and nobody who looks."""
    bare = explanation(parse(deployment_object()), NOW)
    assert "wanted not known: the operator has not decided yet" in " ".join(explanation_text(bare).split())
    assert "nothing is measured yet" in said(figures=None)
    external = said(mode="External", figures=None, history=[], learned=None, waiting=None, reason="Replicas")
    assert "NOW nothing is measured yet" in external, "it is measured in every mode"
    assert "CHANGES none yet" in external
    assert "LEARNED" not in external
    assert "the limits leave 5 as the only number" in said(figures=None, reason="LimitsLeaveOne")
    assert "there is no group to measure" in said(figures=None, reason="Idle", desired=0)
    fresh = {"idleStepMicroseconds": 900, "coldStartSeconds": 300}
    assert "300 s to count with, none was seen yet" in said(learned=fresh)


def test_what_another_version_wrote_hides_nothing_of_the_rest() -> None:
    strange = {**FIGURES, "resource": "Magic", "forecaster": "Oracle", "more": 1}
    assert "load 3.40 full groups; 9.4 requests/s come" in said(figures=strange, reason="Whim")


@pytest.mark.parametrize("absolute", [False, True])
def test_lines_fit_a_terminal(absolute: bool) -> None:
    long = found(
        message="word " * 300, history=[change(3e6 - at, 100, 256, "LoadFitsInFewer") for at in range(9)]
    )
    text = explanation_text(long, absolute=absolute)
    assert max(map(len, text.splitlines())) <= WIDTH


def test_as_json_it_has_everything_but_what_is_for_the_operator_alone() -> None:
    data = json.loads(json.dumps(explanation_data(found())))
    assert data["mode"] == "Auto"
    assert (data["fewestGroups"], data["mostGroups"]) == (2, 5)
    assert data["objective"] == {"secondsToFirstToken": 2.0, "secondsPerOutputToken": 0.08}
    assert [one["by"] for one in data["heldBack"]] == ["ceiling", "GPUs"]
    assert data["scaling"]["figures"] == {**FIGURES, "silent": 0}
    assert [one["after"] for one in data["scaling"]["history"]] == [2, 3, 4, 5]
    assert "state" not in data["scaling"]["learned"]


def test_the_command_prints_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def read(kubeconfig: str | None, namespace: str | None, *, name: str, config: bool) -> Read:
        if name != "tiny":
            raise ClusterError(f"there is no ModelDeployment {namespace}/{name}")
        return Read(deployment_object(scaling=scaling()), None, None)

    monkeypatch.setattr(autoscaler_command, "read_for_plan", read)
    assert kubectl_moe.main(["autoscaler", "explain", "tiny", "-n", "serving", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["scaling"]["desired"] == 5
    assert kubectl_moe.main(["autoscaler", "explain", "tiny"]) == 0
    assert capsys.readouterr().out.startswith("serving/tiny: org/tiny-moe\n")
    assert kubectl_moe.main(["autoscaler", "explain", "other", "-n", "serving"]) == 1
    assert "there is no ModelDeployment serving/other" in capsys.readouterr().err


def test_the_timeline_of_status_has_the_changes() -> None:
    """Kubernetes forgets Events after an hour."""
    seen = Seen(deployment_object(scaling=scaling()), [], [], [], [])
    told = [entry.text for entry in picture(seen, NOW).timeline if entry.step == "scaling"]
    assert told[0] == "2 groups wanted, 1 before: LimitsChanged: 1 groups are outside the limits 2 to 5"
    assert told[-1] == "5 groups wanted, 4 before: DemandGrows: at a load of 3.40 full groups"
