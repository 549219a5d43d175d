"""`python -m bench.autoscaler FOLDER [--short]`: compares autoscalers on the traces of a folder.

FOLDER holds CSV files (`t_seconds,prompt_tokens,output_tokens[,cached_prefix_tokens_inf]`, plain or gzipped). With
`--short` no folder is needed: small made-up traces, two seeds, five minutes on two cores.

Policies are tuned on made-up traces, frozen, and scored on the folder's; beside that the setting is looked for that
would have been best on the scored ones. Results are kept in a folder outside of the repository, so that an interrupted
run goes on where it was, and a changed policy alone is run again. Those of a report are in its record
(docs/benchmarks/autoscaler/runs.jsonl.gz), which counts on any machine; `--anew` runs all of them again, and `--record`
only adds to it what is kept so far.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from bench.autoscaler import scenarios
from bench.autoscaler.cells import BOUND, STATIC, Cell, Figures
from bench.autoscaler.outcome import BY_TRACE, HINDSIGHT, PUBLISHED, TUNED, Outcome
from bench.autoscaler.pictures import cost_and_misses, over_time
from bench.autoscaler.report import report
from bench.autoscaler.scenarios import Scenario
from bench.autoscaler.store import REPOSITORY, Store, default_folder, default_record, write_record
from bench.autoscaler.tuning import COLD_STARTS, Bench, Place, Tuned, tune
from bench.autoscaler.workers import pool
from moe_operator.simulator.candidates import OPERATOR, candidates
from moe_operator.simulator.trace import TraceError

#: Seed of the made-up traces. Their cuts grow in ten minutes at worst by 1.3 to 1.7, as their recipes say they would in
#: some hours of a day; other seeds have cuts that hardly change, or that rise by 2.6.
TYPICAL = 102
#: Seeds with which published defaults are scored: with few of the others a whole report takes little more than an hour.
AS_PUBLISHED = 2


@dataclass(frozen=True)
class Plan:
    """What is to be run."""

    training: list[Scenario]
    scored: list[Scenario]
    cold_starts: tuple[float, ...]
    seeds: tuple[int, ...]
    training_seeds: tuple[int, ...] = (TYPICAL,)
    hindsight_seeds: tuple[int, ...] = (1,)
    """For which the best setting in hindsight is looked for, and with which it is scored; empty: it is not."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0; 2 for a folder or trace that cannot be used."""
    arguments = _parser().parse_args(argv)
    record = default_record()
    # The record is added to, also where nothing is taken from it.
    everything = Store(str(arguments.cache or default_folder()), str(record))
    store = replace(everything, record=None) if arguments.anew or arguments.short else everything
    if arguments.record:
        print(f"{write_record(everything, record)} results of this code in {record}")
        return 0
    try:
        plan = _plan(arguments)
    except (OSError, TraceError) as error:
        print(f"bench.autoscaler: {error}", file=sys.stderr)
        return 2
    begin = time.monotonic()

    def tell(text: str) -> None:
        print(f"[{time.monotonic() - begin:7.0f} s] {text}", file=sys.stderr, flush=True)

    with pool(arguments.jobs) as workers:
        if arguments.look:
            return _look(plan, Bench(workers, store, tell), arguments)
        outcome = _measured(plan, Bench(workers, store, tell), arguments, begin)
    _write(outcome, store, arguments.output)
    if arguments.output is not None and not arguments.short:
        write_record(everything, record)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.autoscaler", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("folder", nargs="?", type=Path, help="with traces to score on")
    parser.add_argument("--short", action="store_true", help="small made-up traces instead")
    parser.add_argument("--policy", nargs="+", help="only these; default: all")
    parser.add_argument("--subject", help="whom the others are compared with; default: the operator")
    parser.add_argument(
        "--look",
        nargs="+",
        metavar="POLICY",
        help="only how these do on the made-up traces as they come, beside the bound",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seeds", type=int, help="how many; default 5, 2 with --short")
    parser.add_argument("--cache", type=Path, help=f"default: {default_folder()}")
    parser.add_argument(
        "--without-hindsight",
        action="store_true",
        help="do not look for what would have been best on the scored traces: half of the time",
    )
    parser.add_argument("--anew", action="store_true", help="take no result from the record")
    parser.add_argument("--record", action="store_true", help="only write what is kept to the record")
    parser.add_argument(
        "--output", type=Path, help="folder of the report; without it only the summary is printed"
    )
    return parser


def _plan(arguments: argparse.Namespace) -> Plan:
    if arguments.short:
        return Plan(
            scenarios.short_training(),
            scenarios.short_scored(),
            (120.0, 300.0),
            tuple(range(1, 1 + (arguments.seeds or 2))),
            hindsight_seeds=(),
        )
    if arguments.look:
        return Plan(scenarios.training(), [], COLD_STARTS, ())
    if arguments.folder is None:
        raise TraceError("name a folder with traces, or give --short")
    scored = scenarios.scored(arguments.folder)
    if not scored:
        raise TraceError(f"{arguments.folder} holds no .csv or .csv.gz file: put traces there")
    hindsight = () if arguments.without_hindsight else (1,)
    seeds = tuple(range(1, 1 + (arguments.seeds or 5)))
    return Plan(scenarios.training(), scored, COLD_STARTS, seeds, hindsight_seeds=hindsight)


def _look(plan: Plan, bench: Bench, arguments: argparse.Namespace) -> int:
    """A line for each made-up trace and cold start: share in the objective, and GPU-hours over the bound's."""
    seeds = range(TYPICAL, TYPICAL + (arguments.seeds or 1))
    names = [*arguments.look, BOUND]
    cells = [
        Cell(scenario, name, cold_start, seed)
        for scenario in plan.training
        for cold_start in plan.cold_starts
        for seed in seeds
        for name in names
    ]
    found = bench.run_all(cells)
    print(f"{'trace':<22}{'start':>7}{'seed':>6}" + "".join(f"{name:>28}" for name in names[:-1]))
    for scenario in plan.training:
        for cold_start in plan.cold_starts:
            for seed in seeds:
                of = {name: found[Cell(scenario, name, cold_start, seed)] for name in names}
                shown = "".join(
                    f"{of[name].attainment:>15.2%} at {of[name].gpu_hours / of[BOUND].gpu_hours:>5.2f}, "
                    f"{of[name].reversals:>2}"
                    for name in names[:-1]
                )
                trace = scenario.name.removeprefix("train/")
                print(f"{trace:<22}{cold_start:>5g} s{seed:>6}{shown}")
    print("share in the objective, GPU-hours over the bound's, reversals")
    return 0


def _measured(plan: Plan, bench: Bench, arguments: argparse.Namespace, begin: float) -> Outcome:
    known = candidates()
    names = [name for name in (arguments.policy or known) if name != STATIC]
    subject = arguments.subject or (OPERATOR if OPERATOR in names else names[0])
    _prepare(plan, bench)
    training: list[Place] = [(s, c) for s in plan.training for c in plan.cold_starts]
    counted: list[Place] = [(s, c) for s in plan.scored if not s.stress for c in plan.cold_starts]

    def tuning(name: str, places: list[Place], seeds: tuple[int, ...]) -> Tuned:
        found = tune(bench, known[name], places, seeds)
        bench.tell(f"tuned: {found}")
        return found

    def scored(entries: Callable[[Scenario], list[tuple[str, int | None]]], seeds: tuple[int, ...]) -> None:
        cells = [
            Cell(scenario, name, cold_start, seed, choice)
            for scenario in plan.scored
            for cold_start in plan.cold_starts
            for name, choice in entries(scenario)
            for seed in seeds
        ]
        wanted = [cell for cell in dict.fromkeys(cells) if cell not in figures]
        bench.tell(f"scoring: {len(wanted)} runs")
        figures.update(bench.run_all(wanted))

    figures: dict[Cell, Figures] = {}
    again = [name for name in names if known[name].tunable is not None] if plan.hindsight_seeds else []
    with ThreadPoolExecutor(4) as workers:
        # First what is frozen before anything is scored.
        found = workers.map(lambda name: tuning(name, training, plan.training_seeds), names)
        tuned = dict(zip(names, found, strict=True))
        frozen = [(name, tuned[name].choice) for name in names] + [(STATIC, None), (BOUND, None)]
        scored(lambda scenario: frozen, plan.seeds)
        scored(
            lambda scenario: [] if scenario.stress else [(name, None) for name in names],
            plan.seeds[:AS_PUBLISHED],
        )
        found = workers.map(lambda name: tuning(name, counted, plan.hindsight_seeds), again)
        hindsight = dict(zip(again, found, strict=True))
        pairs = [(name, scenario) for name in again for scenario in dict.fromkeys(s for s, _ in counted)]
        found = workers.map(
            lambda pair: tuning(pair[0], [(pair[1], c) for c in plan.cold_starts], plan.hindsight_seeds),
            pairs,
        )
        by_trace: dict[str, dict[Scenario, Tuned]] = {name: {} for name in again}
        for (name, scenario), one in zip(pairs, found, strict=True):
            by_trace[name][scenario] = one
        scored(
            lambda scenario: (
                []
                if scenario.stress
                else [(name, one.choice) for name, one in hindsight.items()]
                + [(name, each[scenario].choice) for name, each in by_trace.items()]
            ),
            plan.hindsight_seeds,
        )
    seconds = time.monotonic() - begin
    return Outcome(
        subject=subject,
        scenarios=tuple(plan.scored),
        cold_starts=plan.cold_starts,
        seeds=plan.seeds,
        training=tuple(plan.training),
        tuned=tuned,
        hindsight=hindsight,
        by_trace=by_trace,
        fewer_seeds={
            PUBLISHED: plan.seeds[:AS_PUBLISHED],
            HINDSIGHT: plan.hindsight_seeds,
            BY_TRACE: plan.hindsight_seeds,
        },
        figures=figures,
        facts=_facts(bench, seconds),
    )


def _prepare(plan: Plan, bench: Bench) -> None:
    """Finds what groups sustain once, before several runs want to know."""
    for scenario in dict.fromkeys([*plan.training, *plan.scored]):
        bench.pool.submit(scenarios.size, scenario, bench.store)
    for scenario in dict.fromkeys([*plan.training, *plan.scored]):
        requests, groups = bench.pool.submit(scenarios.size, scenario, bench.store).result()
        bench.tell(
            f"{scenario.name} on {scenario.engine}: {requests} requests, {groups:.1f} groups at its peak"
        )


def _facts(bench: Bench, seconds: float) -> dict[str, str]:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = " with uncommitted changes" if git("status", "--porcelain", "--", "operator", "hack") else ""
    return {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Commit": f"{git('rev-parse', '--short', 'HEAD') or 'unknown'}{changed}",
        "Machine": f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}",
        "Time": f"{seconds:.0f} s for what was not known from earlier runs; {bench.cpu:.0f} s of processor time "
        f"in all, in {bench.done} runs",
    }


def _write(outcome: Outcome, store: Store, folder: Path | None) -> None:
    for kind in (TUNED, PUBLISHED, HINDSIGHT, BY_TRACE):
        for entry in outcome.entries(kind):
            print(
                f"{kind:<24} {entry.policy:<26} {outcome.held(entry):>3} of {len(outcome.places)} held, worst "
                f"{outcome.worst(entry):.2%}, {outcome.ratio(entry, outcome.bound).text()} of the bound ({entry.label})"
            )
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    images = folder / "autoscaler"
    images.mkdir(exist_ok=True)
    drawn = [("cost.svg", cost_and_misses(outcome)), *over_time(outcome, store)]
    for name, picture in drawn:
        (images / name).write_text(picture, encoding="utf-8")
    text = report(outcome, [f"autoscaler/{name}" for name, _ in drawn])
    (folder / "autoscaler.md").write_text(text, encoding="utf-8")
    print(f"written: {folder / 'autoscaler.md'}")


if __name__ == "__main__":
    raise SystemExit(main())
