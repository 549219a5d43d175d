"""The table of `kubectl moe top`. Lost otherwise: the figures that somebody on call compares, or trusts though nobody
measured them; and the terminal, if a name could write to it."""

import json
from typing import Any

import pytest

from factories import figures_page
from factories.cluster_objects import NOW, deployment_object
from factories.figures_page import FULL, GIB, group, page, rank
from factories.records import PLAN
from moe_operator.api.deployment import ModelDeployment, parse
from moe_operator.api.figures import Figures, FiguresPage, Quantiles
from moe_operator.cli.fitting import Piece, Shape, Style, clean, painted, shorten, table_lines
from moe_operator.cli.operator_page import NoFiguresError, page_of
from moe_operator.cli.top_data import top_data
from moe_operator.cli.top_options import COLUMNS
from moe_operator.cli.top_rows import SORTS, Look, Row, View, ordered, rows
from moe_operator.cli.top_text import heading, notes, percent, rate, seconds, top_lines, watts

STATUS: dict[str, Any] = {
    "groups": {"desired": 3, "ready": 2, "summary": "2/3"},
    "plan": PLAN,
    "throughput": {"promptTokensPerSecond": 5120, "outputTokensPerSecond": 900},
    "hbm": {
        "source": "Estimated",
        "usedMib": 1203 * 1024,
        "capacityMib": 1432 * 1024,
        "percent": 84,
        "summary": "~84",
        "gpus": 8,
        "measuredGpus": 0,
        "kvUsedMib": 30,
        "kvFreeMib": 70,
    },
}


def deployed(name: str = "tiny", namespace: str = "serving", **status: Any) -> ModelDeployment:
    obj = deployment_object({"objective": {"timeToFirstToken": "400ms"}}, **status)
    obj["metadata"] |= {"name": name, "namespace": namespace}
    return parse(obj)


def look(*found: ModelDeployment, told: dict[str, Any] | None = None, missing: str | None = None) -> Look:
    read = None if told is None else page_of(json.dumps(told).encode())
    return Look(found, read, missing, NOW)


def text(seen: Look, view: View = View.DEPLOYMENTS, **options: Any) -> list[str]:
    return [painted(line, colour=False) for line in top_lines(rows(seen, view), view, **options)]


def test_live_figures_of_deployments() -> None:
    seen = look(deployed(**STATUS), told=page(figures_page.deployment("tiny", **FULL)))
    assert text(seen) == [
        "NAME  READY  WIDTH  IN TOK/S  OUT TOK/S  RUN/WAIT   KV          HBM  TTFT P95  TPOT P95   IMB  $/MTOK"
        "  POWER",
        "tiny    2/3     16      182k      41.2k     512/3  71%  1203/1432Gi     412ms      31ms  1.08       -"
        "  9.3kW",
    ]


def test_without_the_operators_page_the_status_says_what_it_knows() -> None:
    (row,) = rows(look(deployed(**STATUS)), View.DEPLOYMENTS)
    assert row.figures == Figures(
        input_tokens_per_second=5120,
        output_tokens_per_second=900,
        kv_used_ratio=0.3,
        hbm_used_bytes=1203 * GIB,
        hbm_capacity_bytes=1432 * GIB,
        hbm_source="Estimated",
    )
    assert "~1203/1432Gi" in text(look(deployed(**STATUS)))[1]
    latency = {
        "windowSeconds": 300,
        "timeToFirstTokenMilliseconds": {"p50": "212", "p95": "1830"},
        "timePerOutputTokenMilliseconds": {"p95": "nobody's"},
    }
    (row,) = rows(look(deployed(**STATUS, latency=latency)), View.DEPLOYMENTS)
    assert row.figures.time_to_first_token_seconds == Quantiles(p50=0.212, p95=1.83)
    assert row.figures.time_per_output_token_seconds == Quantiles()


def test_what_the_operator_does_not_know_is_not_taken_from_an_older_status() -> None:
    """A throughput of before the outage would hide the outage."""
    told = page(figures_page.deployment("tiny", waiting=4))
    (row,) = rows(look(deployed(**STATUS), told=told), View.DEPLOYMENTS)
    assert row.figures == Figures(waiting=4)
    (row,) = rows(look(deployed(**STATUS), told=page()), View.DEPLOYMENTS)
    assert row.figures == Figures()


def test_nothing_is_0_for_want_of_a_reading() -> None:
    """The status has a throughput of 0 before anybody reads an engine."""
    line = text(look(deployed(groups={"desired": 1, "ready": 0})))[1]
    assert line.split() == ["tiny", "0/1", *["-"] * 11]
    idle = deployed(scaling={"desired": 1, "reason": "x", "message": "x", "figures": FIGURES})
    (row,) = rows(look(idle), View.DEPLOYMENTS)
    assert row.figures.output_tokens_per_second == 0, "measured, and idle"


FIGURES = {
    "load": "0",
    "arrivals": "0",
    "forecast": "0",
    "forecaster": "Level",
    "leadSeconds": 1,
    "worthHaving": 1,
    "latePercent": "0",
    "latePercentThen": "0",
    "enough": 1,
    "worth": "1",
}


def test_a_deployment_that_the_operator_has_not_looked_at_has_no_groups_to_count() -> None:
    obj = deployment_object()
    del obj["status"]
    assert text(look(parse(obj)))[1].split() == ["tiny", *["-"] * 12]


def test_groups_and_ranks_of_deployments_that_may_be_listed() -> None:
    told = page(
        figures_page.deployment(
            "tiny",
            group("tiny-g10", state="draining", waiting=0),
            group("tiny-g2", rank(0, running=1), rank(1, running=7.5), **FULL),
        ),
        figures_page.deployment("tiny", group("tiny-g0", **FULL), namespace="secret"),
    )
    seen = look(deployed(**STATUS), told=told)
    assert [line.split()[:3] for line in text(seen, View.GROUPS)[1:]] == [
        ["tiny-g2", "serving", "2"],
        ["tiny-g10", "draining", "-"],
    ]
    assert [(row.group, row.rank, row.pod, row.node) for row in rows(seen, View.RANKS)] == [
        ("tiny-g2", 0, "tiny-g0-0", "b200-00"),
        ("tiny-g2", 1, "tiny-g0-0-1", "b200-01"),
    ]
    assert "7.5/-" in text(seen, View.RANKS)[2]
    assert text(seen, View.RANKS)[0].split()[-1] == "NODE"
    assert text(seen, View.RANKS, wide=True)[0].split()[-1] == "POD"


@pytest.mark.parametrize("view", View)
@pytest.mark.parametrize("wide", [False, True])
def test_no_line_is_longer_than_the_terminal(view: View, wide: bool) -> None:
    name = "a-model-with-a-name-of-forty-five-characters-x"[:45]
    groups = [group(f"{name}-g{slot}", rank(0, **FULL), rank(1), **FULL) for slot in range(12)]
    seen = look(deployed(name, **STATUS), told=page(figures_page.deployment(name, *groups, **FULL)))
    before: set[str] = set()
    for width in range(1, 260):
        lines = text(seen, view, namespaces=True, wide=wide, width=width)
        assert max(map(len, lines)) <= width
        titles = set(lines[0].replace(" P", "_P").replace(" TOK", "_TOK").split())
        if width > 60:
            assert before <= titles, "more room never costs a column"
            before = titles
            assert len({line.split()[1] for line in lines[1:]}) == (1 if view is View.DEPLOYMENTS else 12)


def test_the_least_important_columns_go_first_and_names_are_shortened_last() -> None:
    shapes = [Shape("NAME", 0, name=True), Shape("A", 0), Shape("B", 2), Shape("C", 1)]
    cells = [[Piece(one) for one in ("a-long-name-g10", "1", "2", "3")]]

    def at(width: int) -> list[str]:
        return [painted(line, colour=False) for line in table_lines(shapes, cells, width)]

    assert at(24) == ["NAME             A  B  C", "a-long-name-g10  1  2  3"]
    assert at(23) == ["NAME             A  C", "a-long-name-g10  1  3"]
    assert at(20) == ["NAME             A", "a-long-name-g10  1"]
    assert at(17) == ["NAME            A", "a-long..me-g10  1"]
    assert at(13) == ["NAME        A", "a-lo..-g10  1"]
    assert at(5) == ["NAME", "a-l.."]


HOSTILE = "\x1b[2J\x07\r\ntiny\u202e\u2028模\x9b31m"


def test_names_cannot_write_to_the_terminal() -> None:
    """The page comes from another machine, and a proxy may stand in between."""
    hostile = rank(0, **FULL) | {"pod": HOSTILE, "node": HOSTILE}
    told = page(
        figures_page.deployment("tiny", group(HOSTILE, hostile, state=HOSTILE, **FULL)),
    )
    seen = look(deployed(**STATUS), told=told, missing=HOSTILE)
    said = [line for view in View for line in text(seen, view, wide=True)]
    said += [painted(heading(seen, 5, 100), colour=False), *notes(seen)]
    for line in said:
        assert all(" " <= one <= "~" for one in line), line
    assert "?[2J???tiny????31m" in said[-1]
    assert json.loads(json.dumps(top_data(seen, rows(seen, View.RANKS), View.RANKS)))
    assert "\x1b" not in json.dumps(top_data(seen, rows(seen, View.RANKS), View.RANKS))


def test_money_in_another_currency_says_so_and_what_is_no_number_is_not_sorted() -> None:
    cost = {
        "time": "2027-01-15T08:00:00Z",
        "since": "2027-01-15T08:00:00Z",
        "currency": "EUR",
        "price": {"message": "x"},
        "perMillionTokens": "0.21",
        **{span: {"since": "2027-01-15T08:00:00Z"} for span in ("lastHour", "lastDay", "total")},
    }
    assert "0.21 EUR" in text(look(deployed(cost=cost)))[1]
    assert text(look(deployed(cost=cost | {"currency": "USD"})))[1].split()[-2] == "0.21"
    found = [Row("a", name, Figures(), per_million_tokens=amount) for name, amount in COSTS]
    assert [row.deployment for row in ordered(found, "cost")] == ["dear", "cheap", "odd", "nan", "none"]


COSTS = (("odd", "x"), ("cheap", "0.2"), ("nan", "nan"), ("dear", "10"), ("none", None))


def test_sorting_puts_the_largest_first_and_the_unknown_last() -> None:
    assert {"name", *SORTS} == set(COLUMNS), "each column that is offered can be sorted by"
    amounts = {"a": 1.0, "b": None, "c": 30.0, "d": 0.0}
    found = [Row("n", name, Figures(waiting=amount)) for name, amount in amounts.items()]
    assert [row.name for row in ordered(found, "waiting")] == ["c", "a", "d", "b"]
    assert ordered(found, "name") == found
    full = Figures.model_validate(FULL)
    whole = Row("n", "d", full, ready=1, desired=2, width=8, per_million_tokens="1")
    assert [key for key, value in SORTS.items() if value(whole) is None] == []


@pytest.mark.parametrize(
    ("value", "written"),
    [
        *((None, "-"), (0, "0"), (0.04, "0"), (7.46, "7.5"), (9.96, "10"), (640.4, "640"), (999.6, "1.0k")),
        *((41_230.0, "41.2k"), (99_960.0, "100k"), (182_400.0, "182k"), (999_600.0, "1.0M"), (1e13, "1e+13")),
    ],
)
def test_rates(value: float | None, written: str) -> None:
    assert rate(value) == written


def test_other_figures() -> None:
    assert [seconds(one) for one in (None, 0, 0.0084, 0.412, 0.9996, 1.214, 75.2, 3600)] == [
        *("-", "0ms", "8.4ms", "412ms", "1.00s", "1.21s", "75s", "3.6ks")
    ]
    assert [percent(one) for one in (None, 0, 0.713, 1.0)] == ["-", "0%", "71%", "100%"]
    assert [watts(one) for one in (None, 692.4, 18_400)] == ["-", "692W", "18.4kW"]


def test_what_needs_a_look_stands_out() -> None:
    told = page(
        figures_page.deployment(
            "tiny",
            group("tiny-g0", state="draining", **FULL | {"kvUsedRatio": 0.99, "imbalanceRatio": 1.6}),
        )
    )
    seen = look(deployed(**STATUS), told=told)
    (line,) = top_lines(rows(seen, View.GROUPS), View.GROUPS)[1:]
    assert {piece.text: piece.style for piece in line if piece.style} == {
        "draining": Style.WARNING,
        "512/3": Style.WARNING,
        "99%": Style.ALARM,
        "412ms": Style.WARNING,
        "1.60": Style.WARNING,
    }
    assert "\x1b[31m99%\x1b[0m" in painted(line, colour=True)
    assert "\x1b" not in painted(line, colour=False)


def test_old_figures_are_called_old() -> None:
    assert notes(look(told=page(at=NOW - 100))) == []
    assert notes(look(told=page(at=NOW - 600))) == ["the operator's figures are of 10m ago"]


def test_json_has_the_figures_as_the_operator_writes_them() -> None:
    told = page(figures_page.deployment("tiny", group("tiny-g0", rank(0, **FULL), **FULL), **FULL))
    seen = look(deployed(**STATUS), told=told)
    data = top_data(seen, rows(seen, View.DEPLOYMENTS), View.DEPLOYMENTS)
    assert data == {
        "view": "deployments",
        "takenAt": "2027-01-15T08:00:00Z",
        "source": "Operator",
        "missing": None,
        "figuresAt": "2027-01-15T08:00:00Z",
        "windowSeconds": 60,
        "latencyWindowSeconds": 300,
        "items": [
            {
                "namespace": "serving",
                "name": "tiny",
                "groupsReady": 2,
                "groupsDesired": 3,
                "width": 16,
                "perMillionTokens": None,
                "currency": None,
                "figures": FULL,
            }
        ],
    }
    (item,) = top_data(seen, rows(seen, View.RANKS), View.RANKS)["items"]
    assert (item.keys() - {"figures"}, item["rank"]) == (
        {"namespace", "name", "group", "state", "rank", "pod", "node"},
        0,
    )


GOOD = page(figures_page.deployment("tiny", group("tiny-g0", rank(0, **FULL), **FULL), **FULL))


def test_the_page_is_read_as_it_was_written() -> None:
    """The operator makes it of the same models."""
    assert FiguresPage.model_validate(GOOD).wire() == GOOD
    assert page_of(json.dumps(GOOD | {"new": 1}).encode()).wire() == GOOD


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>sign in</html>",
        b"[]",
        b'{"deployments": []}',
        b"[" * 100_000,
        b'{"at": "yesterday", "deployments": []}',
        b'{"at": "2027-01-15T08:00:00Z", "deployments": [{"namespace": "a", "name": "%s"}]}' % (b"x" * 300),
        json.dumps(GOOD).replace("41230.5", "NaN").encode(),
        json.dumps(GOOD).replace("41230.5", "-1").encode(),
        json.dumps(GOOD).replace("41230.5", "1e999").encode(),
        json.dumps(GOOD).replace("Measured", "Guessed").encode(),
        b"\xff\xfe",
    ],
)
def test_what_is_no_page_is_refused_in_a_line(raw: bytes) -> None:
    with pytest.raises(NoFiguresError) as caught:
        page_of(raw)
    assert str(caught.value).startswith("the operator's figures cannot be read (")
    assert len(str(caught.value)) < 320
    assert "\n" not in str(caught.value)


def test_shortened_names_keep_their_ends() -> None:
    assert shorten("qwen35-397b-g12", 15) == "qwen35-397b-g12"
    assert shorten("qwen35-397b-g12", 10) == "qwen..-g12"
    assert [len(shorten("qwen35-397b-g12", width)) for width in range(5)] == [0, 1, 2, 3, 4]
    assert clean("a\tb") == "a?b"
