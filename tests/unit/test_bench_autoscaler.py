"""The comparison of autoscalers. If it chose settings or counted wrongly, its verdict would be worth nothing."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.autoscaler import gauge, scenarios, store
from bench.autoscaler.__main__ import main
from bench.autoscaler.cells import BOUND, STATIC, Cell, Figures, run
from bench.autoscaler.outcome import BY_TRACE, HINDSIGHT, PUBLISHED, TUNED, Outcome
from bench.autoscaler.pictures import cost_and_misses
from bench.autoscaler.report import report
from bench.autoscaler.scenarios import QWEN, R1, Scenario
from bench.autoscaler.stats import bootstrap
from bench.autoscaler.store import Store
from bench.autoscaler.tuning import Tuned, _lines, tune
from moe_operator.simulator.candidates import Candidate, candidates
from moe_operator.simulator.policies.baseline import Tunable

SMALL = Scenario("small", R1, "reasoning-day", 8 * 3600, 8.25 * 3600, peak=2.0)
OTHER = replace(SMALL, name="other")


def figures(attainment: float = 0.995, hours: float = 10.0, **fields: Any) -> Figures:
    """One cell's, of a need of ten GPU-hours."""
    made = {
        "attainment": attainment,
        "token_attainment": attainment,
        "strict": attainment / 2,
        "strict_tokens": attainment / 2,
        "gpu_hours": hours,
        "starting": 0.0,
        "draining": 0.0,
        "cancelled": 0.0,
        "need_hours": 10.0,
        "actions": 3,
        "reversals": 1,
        "ttft_p99": 1.5,
        "tpot_p99": 0.06,
        "missing": 0,
        "requests": 1000,
        "seconds": 0.1,
    }
    return Figures(**{**made, **fields})


class Played:
    """In place of a bench: answers by a rule, and keeps what it was asked."""

    def __init__(self, rule: Callable[[Cell], Figures]) -> None:
        self.rule = rule
        self.asked: list[Cell] = []

    def run(self, cell: Cell) -> Figures:
        self.asked.append(cell)
        return self.rule(cell)


def _candidate(tunable: Tunable) -> Candidate:
    return replace(candidates()["kpa-concurrency"], name="played", tunable=tunable)


def _tune(rule: Callable[[Cell], Figures], tunable: Tunable) -> tuple[Tuned, Played]:
    bench = Played(rule)
    places = [(scenario, cold_start) for scenario in (SMALL, OTHER) for cold_start in (120.0, 600.0)]
    return tune(bench, _candidate(tunable), places, [1]), bench  # type: ignore[arg-type]


LINE = Tunable(("target",), tuple((float(value),) for value in range(10, 170, 10)), "")
PLANE = Tunable(("target", "other"), tuple((float(t), float(o)) for t in range(1, 9) for o in (0, 1)), "")


def test_the_cheapest_that_holds_everywhere_is_found_without_trying_all() -> None:
    # Holds up to 90, and with a long cold start on one trace up to 70.
    def rule(cell: Cell) -> Figures:
        assert cell.choice is not None
        target = LINE.grid[cell.choice][0]
        limit = 70 if cell.scenario is OTHER and cell.cold_start == 600 else 90
        return figures(0.995 if target <= limit else 0.97, 1000 / target)

    found, bench = _tune(rule, LINE)
    assert (found.label, found.held, found.places) == ("target 70", 4, 4)
    assert found.cost == pytest.approx(1000 / 70 / 10)
    assert len({cell.choice for cell in bench.asked}) <= 5, "of sixteen"


def test_of_several_lines_the_cheapest_end_wins() -> None:
    def rule(cell: Cell) -> Figures:
        assert cell.choice is not None
        target, other = PLANE.grid[cell.choice]
        holds = target <= (3 if other == 0 else 6)
        return figures(0.999 if holds else 0.5, (40 if other == 0 else 100) / target)

    found, _ = _tune(rule, PLANE)
    # 40 / 3 is less than 100 / 6.
    assert found.label == "target 3, other 0"


def test_where_nothing_holds_the_one_that_does_most_often_is_taken_and_it_is_said_so() -> None:
    def rule(cell: Cell) -> Figures:
        assert cell.choice is not None
        if cell.cold_start == 600:
            return figures(0.9 - cell.choice / 1000)
        return figures(0.999 if cell.choice < 3 else 0.9)

    found, _ = _tune(rule, LINE)
    assert (found.held, found.places, found.choice) == (2, 4, 0)
    assert found.worst == pytest.approx(0.9)


def test_every_policys_sweep_is_divided_into_lines_without_loss() -> None:
    for candidate in candidates().values():
        if candidate.tunable is None:
            continue
        lines = _lines(candidate.tunable)
        assert sorted(at for line in lines for at in line if at is not None) == list(
            range(len(candidate.tunable.grid))
        )
        assert len(lines) <= 8, f"{candidate.name}: bisection is along the setting with most values"


def test_a_policy_without_settings_is_scored_as_it_comes() -> None:
    bench = Played(lambda cell: figures())
    candidate = replace(candidates()["kpa-concurrency"], tunable=None)
    found = tune(bench, candidate, [(SMALL, 120.0)], [1])  # type: ignore[arg-type]
    assert (found.choice, found.label, found.held) == (None, "as it comes", 1)


def test_an_interval_covers_the_mean_and_is_the_same_each_time() -> None:
    mean = bootstrap([0.9, 0.92, 0.88, 0.95, 0.91])
    assert mean == bootstrap([0.9, 0.92, 0.88, 0.95, 0.91])
    assert mean.value == pytest.approx(0.912)
    assert 0.88 < mean.low < 0.912 < mean.high < 0.95
    assert bootstrap([1.5]).text() == "1.500"


# --- Cells ---------------------------------------------------------------------------------------


def test_a_cell_is_run_once_and_remembered(tmp_path: Path) -> None:
    kept = Store(str(tmp_path))
    cell = Cell(SMALL, "kpa-concurrency", 60.0, 1, 8)
    first = run(cell, kept)
    assert first.requests > 500
    assert 0 <= first.attainment <= 1
    assert first.gpu_hours > 0
    again = run(cell, kept)
    assert again == first, "its seconds too, so nothing was run"
    assert run(replace(cell, choice=9), kept) != first


def test_what_one_machine_ran_counts_on_another_wherever_the_traces_lie(tmp_path: Path) -> None:
    """Lost: hours of two cores, for each that wants to see one figure of the report again."""
    csv = "t_seconds,prompt_tokens,output_tokens\n" + "".join(f"{at},300,900\n" for at in range(0, 900, 4))
    cells = {}
    for place in ("here", "there"):
        path = tmp_path / place / "slow.csv"
        path.parent.mkdir()
        path.write_text(csv)
        scenario = Scenario("slow", QWEN, str(path), peak=2.0, digest="of the file")
        cells[place] = Cell(scenario, "kpa-concurrency", 60.0, 1, 8)
    ours = Store(str(tmp_path / "ours"))
    first = run(cells["here"], ours)
    record = tmp_path / "record.gz"
    ours.put(("cell", replace(cells["here"], seed=9), "of another policy's code", "0123"), {"a": 1})
    assert store.write_record(ours, record) == 2, "the cell and a group's capacity; nothing of other code"
    theirs = Store(str(tmp_path / "theirs"), str(record))
    assert run(cells["there"], theirs) == first, "its seconds too, so nothing was run"
    run(replace(cells["there"], seed=2), theirs)
    assert store.write_record(theirs, tmp_path / "more.gz") == 3
    again = Store(str(tmp_path / "empty"), str(tmp_path / "more.gz"))
    assert store.write_record(again, tmp_path / "same.gz") == 3
    assert (tmp_path / "same.gz").read_bytes() == (tmp_path / "more.gz").read_bytes()
    assert Store(str(tmp_path / "none"), str(tmp_path / "not there.gz")).get(("a",)) is None


def test_a_run_that_takes_nothing_from_the_record_loses_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost: every run of others, as a machine whose cache is empty writes the record."""
    record = tmp_path / "record.gz"
    kept = Store(str(tmp_path / "theirs"))
    kept.put(("capacity", "of a trace"), {"rate": 1.0})
    store.write_record(kept, record)
    before = record.read_bytes()
    monkeypatch.setattr("bench.autoscaler.__main__.default_record", lambda: record)
    assert main(["--record", "--anew", "--cache", str(tmp_path / "ours")]) == 0
    assert record.read_bytes() == before


def test_the_bound_is_cheaper_than_a_static_fleet(tmp_path: Path) -> None:
    kept = Store(str(tmp_path))
    knows, static = (run(Cell(SMALL, policy, 60.0, 1), kept) for policy in (BOUND, STATIC))
    assert knows.held
    assert static.held
    assert knows.gpu_hours <= static.gpu_hours


def test_a_changed_policy_makes_its_results_void_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Store(str(tmp_path))
    kept.put(("cell", store.code_of("kpa-concurrency")), {"a": 1})
    assert kept.get(("cell", store.code_of("kpa-concurrency"))) == {"a": 1}
    assert kept.get(("cell", store.code_of("operator"))) is None
    assert store.code_of("apa-kv") == store.code_of("kpa-concurrency")
    real = store.code_of
    monkeypatch.setattr(store, "code_of", lambda policy: "changed" if policy == "" else real(policy))
    assert kept.get(("cell", store.code_of("kpa-concurrency"))) is None


def test_a_trace_is_scaled_to_the_same_peak_whatever_its_rate_was(tmp_path: Path) -> None:
    path = tmp_path / "slow.csv"
    rows = "".join(f"{at},{300 + at % 50},{2000 + at % 40}\n" for at in range(0, 3600, 4))
    path.write_text("t_seconds,prompt_tokens,output_tokens\n" + rows)
    scenario = Scenario("slow", QWEN, str(path), peak=2.0)
    kept = Store(str(tmp_path / "store"))
    one, two = (scenarios.prepared(scenario, seed, kept) for seed in (1, 2))
    for found in (one, two):
        assert scenarios.busiest(found.need) == pytest.approx(2.0, rel=0.1)
    assert not np.array_equal(one.trace.arrival, two.trace.arrival), "seeds draw other requests"


def test_a_folder_gives_each_trace_an_engine_and_stress_loads_apart(tmp_path: Path) -> None:
    header = "t_seconds,prompt_tokens,output_tokens\n"
    (tmp_path / "chat.csv").write_text(header + "0,500,100\n3600,500,100\n")
    (tmp_path / "think.csv").write_text(header + "0,500,2000\n3600,500,2000\n")
    (tmp_path / "notes.txt").write_text("no trace")
    found = {scenario.name: scenario for scenario in scenarios.scored(tmp_path)}
    assert (found["chat"].engine, found["think"].engine) == (QWEN, R1)
    assert {name for name, scenario in found.items() if scenario.stress} == {
        "chat, on and off",
        "think, steps",
    }


def test_what_cannot_be_scored_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no .csv" in capsys.readouterr().err
    assert main([]) == 2
    (tmp_path / "bad.csv").write_text("t,prompt\n1,2\n")
    assert main([str(tmp_path)]) == 2
    assert "line 1: no column t_seconds" in capsys.readouterr().err


# --- Report --------------------------------------------------------------------------------------


def _outcome(ours: float = 9.0, attained: float = 0.995) -> Outcome:
    stress = replace(SMALL, name="jumps", stress=True)
    seeds, cold_starts = (1, 2, 3), (120.0, 600.0)
    hours = {"ours": ours, "theirs": 12.0, STATIC: 14.0, BOUND: 8.0}
    made = {
        Cell(scenario, name, cold_start, seed, choice): figures(
            attained if name == "ours" else 0.995, value + seed / 100
        )
        for scenario in (SMALL, OTHER, stress)
        for cold_start in cold_starts
        for seed in seeds
        for name, value in hours.items()
        for choice in (None, 1, 2)
    }
    tuned = {name: Tuned(name, 1, "target 1", 4, 4, 0.995, 1.2, 5) for name in ("ours", "theirs")}
    hindsight = {"theirs": Tuned("theirs", 2, "target 2", 4, 4, 0.99, 1.1, 6)}
    return Outcome(
        subject="ours",
        scenarios=(SMALL, OTHER, stress),
        cold_starts=cold_starts,
        seeds=seeds,
        training=(SMALL,),
        tuned=tuned,
        hindsight=hindsight,
        by_trace={"theirs": {SMALL: hindsight["theirs"], OTHER: tuned["theirs"]}},
        figures=made,
        facts={"Date": "today"},
    )


def test_what_is_scored_with_fewer_seeds_is_compared_on_those_alone() -> None:
    """Lost: a bar that looks higher or lower by the luck of seeds that only one side was played with."""
    outcome = _outcome()
    few = replace(outcome, fewer_seeds={HINDSIGHT: outcome.seeds[:1], PUBLISHED: outcome.seeds[:2]})
    ours, bar = few.entry("ours", TUNED), few.entry("theirs", HINDSIGHT)
    assert ours is not None
    assert bar is not None
    place = few.places[0]
    assert len(few.of(bar, place)) == 1
    assert few.ratio(ours, bar, [place]).value == pytest.approx(
        few.of(ours, place)[0].gpu_hours / few.of(bar, place)[0].gpu_hours
    )
    text = report(few)
    assert "scored with seed 1," in text
    assert "with seeds 1, 2." in text


def test_the_best_of_others_is_the_cheapest_of_those_that_hold_on_most_places() -> None:
    """Lost: a bar that is dear though another is as good."""
    outcome = _outcome()
    tuned = {**outcome.tuned, "cheap": replace(outcome.tuned["theirs"], policy="cheap")}
    made = dict(outcome.figures)
    for cell, found in outcome.figures.items():
        if cell.policy == "theirs":
            late = cell.scenario is OTHER and cell.cold_start == 600
            made[replace(cell, policy="cheap")] = replace(
                found, gpu_hours=10.0, attainment=0.9 if late else 0.995
            )
            made[cell] = replace(found, attainment=0.95 if late else 0.995)
    both = replace(outcome, tuned=tuned, figures=made)
    best = both.best(TUNED)
    assert best is not None
    assert best.policy == "cheap", "it holds as often, and its worst does not count"
    assert len(both.where_held(best)) == 3
    text = report(both)
    assert "on the 3 where that holds" in text
    row = next(line for line in text.splitlines() if line.startswith("| `cheap` |"))
    assert "| 0.902 |" in row, row


def test_the_report_compares_pair_by_pair() -> None:
    outcome = _outcome()
    ours, theirs = outcome.entry("ours", TUNED), outcome.entry("theirs", TUNED)
    assert ours is not None
    assert theirs is not None
    assert outcome.ratio(ours, theirs).value == pytest.approx(9.02 / 12.02, rel=1e-4)
    assert outcome.best(TUNED) == theirs
    text = report(outcome, ["a.svg"])
    assert "Nowhere: it holds on every trace x cold start" in text
    assert "**0.750" in text
    assert "### jumps" in text.partition("## Steps, on and off")[2]
    assert "### jumps" not in text.partition("## Steps, on and off")[0]
    assert "![](a.svg)" in text
    for kind in (PUBLISHED, TUNED, HINDSIGHT, BY_TRACE):
        assert outcome.entries(kind)
    own = outcome.entry("theirs", BY_TRACE)
    assert own is not None
    assert [own.choice_for(scenario) for scenario in (SMALL, OTHER)] == [2, 1]


def test_the_report_says_where_it_loses() -> None:
    text = report(_outcome(ours=13.0)).partition("## Where it loses")[2].partition("## By trace")[0]
    assert text.count("of the GPU-hours of `theirs` (tuned on made-up traces)") == 4
    assert "of `static`" not in text, "14 is more than 13"
    missed = report(_outcome(attained=0.98)).partition("## Where it loses")[2].partition("## By trace")[0]
    assert missed.count("98.00 % of the requests in the objective") == 4


def test_the_report_draws_everyone() -> None:
    picture = cost_and_misses(_outcome())
    ET.fromstring(picture)
    assert picture.count("<title>") == 4, "ours, theirs twice, and the static fleet"


# --- The perfect gauge ---------------------------------------------------------------------------


class _Inline:
    """In place of a pool: at once."""

    def submit(self, call: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        done.set_result(call(*arguments))
        return done


def test_one_setting_for_all_is_the_one_that_the_most_demanding_place_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Lost: the bar itself. With the easy place's factor it would look as if more could be had than can."""
    easy, hard = Cell(SMALL, gauge.GAUGE, 120, 1), Cell(OTHER, gauge.GAUGE, 120, 1)

    def measured(place: Cell, setting: gauge.Setting, _: Store) -> gauge.Found:
        needed = (1.0 if place is easy else 1.5) - setting.window / 6000
        return gauge.Found(
            0.995 if setting.factor > needed - 1e-6 else 0.9, setting.factor + setting.window / 1000
        )

    monkeypatch.setattr(gauge, "measured", measured)
    kept = Store(str(tmp_path))
    leasts = {
        (place, window): gauge.least(place, window, kept)
        for place in (easy, hard)
        for window in gauge.WINDOWS
    }
    alone = gauge.cheapest([easy], leasts, _Inline(), kept)  # type: ignore[arg-type]
    assert alone is not None
    assert alone.setting.factor == pytest.approx(1.0)
    assert alone.setting.window == 0
    both = gauge.cheapest([easy, hard], leasts, _Inline(), kept)  # type: ignore[arg-type]
    assert both is not None
    assert both.setting.factor == pytest.approx(1.5)
    assert both.over == pytest.approx(1.5)
    assert all(found.held for found in both.places.values())
    leasts[hard, 0.0] = None
    other = gauge.cheapest([easy, hard], leasts, _Inline(), kept)  # type: ignore[arg-type]
    assert other is not None
    assert other.setting.window == 120
    assert gauge.cheapest([hard], dict.fromkeys(leasts), _Inline(), kept) is None  # type: ignore[arg-type]


def test_a_gauge_holds_with_its_least_factor_and_not_with_less(tmp_path: Path) -> None:
    kept, place = Store(str(tmp_path)), Cell(SMALL, gauge.GAUGE, 120, 1)
    step = gauge.least(place, 0.0, kept)
    assert step is not None
    assert step > 0
    assert gauge.measured(place, gauge.Setting(step, 0.0), kept).held
    assert not gauge.measured(place, gauge.Setting(step - 1, 0.0), kept).held
