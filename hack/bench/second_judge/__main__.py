"""`python -m bench.second_judge`: policies on one trace, judged by our simulator and by another one.

The other is the engine simulator of NVIDIA's Dynamo (`install`, a wheel of 75 MB), with fleets and a router of its
own. Each policy runs as it comes and with settings spread over its sweep; both judges get the same trace, step times
from the same constants, and cold starts of 300 s without jitter. What is asked is whether they put the policies in one
order.
Results are kept in the project's cache, so that an interrupted run goes on where it was.
"""

import argparse
import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.autoscaler.scenarios import (
    CEILING,
    INTERVAL,
    OBJECTIVE,
    QWEN,
    Prepared,
    Scenario,
    busiest,
    prepared,
)
from bench.autoscaler.store import Store, code_of
from bench.autoscaler.tuning import label
from bench.second_judge import replayed
from bench.second_judge.install import InstallError, core, release
from bench.second_judge.page import Entry, Outcome, Verdict, page, summary
from engine.store import cache_root
from moe_operator.simulator.candidates import Candidate, candidates
from moe_operator.simulator.hindsight import starting_groups
from moe_operator.simulator.policies.static import StaticSettings
from moe_operator.simulator.run import simulate

COLD_START, SETTLE, SEED = 300.0, 600.0, 11
_HOUR = 3600.0
#: Nothing of it is cached, as the other judge would find other prefixes than the trace says.
TRACE = Scenario("documents, a morning", QWEN, "documents-day", 6.5 * _HOUR, 8 * _HOUR, peak=3.5)
SHORT = Scenario("documents, an hour", QWEN, "documents-day", 6.5 * _HOUR, 7.5 * _HOUR, peak=3.0)
STATIC, BOUND = "static", "clairvoyant"
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Run:
    """One policy with one setting; `choice` as in `bench.autoscaler`, or how many groups a static fleet has."""

    policy: str
    choice: int | None


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0; 2 where the other simulator cannot be installed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.second_judge", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--short", action="store_true", help="an hour instead")
    parser.add_argument("--settings", type=int, default=4, help="of each policy's sweep, beside its defaults")
    parser.add_argument("--policy", nargs="+", help="only these; default: all")
    parser.add_argument("--cache", type=Path, default=cache_root() / "second-judge" / "results")
    parser.add_argument("--output", type=Path, help="folder of the page; without it the summary is printed")
    arguments = parser.parse_args(argv)
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"[{time.monotonic() - began:6.0f} s] {text}", file=sys.stderr, flush=True)

    try:
        core(tell)
    except InstallError as error:
        print(f"bench.second_judge: {error}", file=sys.stderr)
        return 2
    store = Store(str(arguments.cache))
    scenario = SHORT if arguments.short else TRACE
    found = prepared(scenario, SEED, store)
    tell(f"{len(found.trace)} requests, {busiest(found.need):.1f} groups at the peak")
    entries = []
    for run in _runs(arguments.policy, arguments.settings, found):
        entry = Entry(run.policy, _label(run), run.choice is None, *_judged(run, scenario, found, store))
        tell(f"{entry.policy} {entry.setting}: {entry.ours} / {entry.theirs}")
        entries.append(entry)
    outcome = Outcome(tuple(entries), _facts(scenario, found))
    print(summary(outcome))
    if arguments.output:
        (arguments.output / "second-judge.md").write_text(page(outcome), encoding="utf-8")
    return 0


def _runs(names: list[str] | None, settings: int, found: Prepared) -> list[Run]:
    """Defaults first."""
    chosen = [name for name in candidates() if name not in (STATIC, BOUND) and name in (names or [name])]
    peak = round(busiest(found.need))
    runs = [Run(name, None) for name in chosen] + [Run(STATIC, peak + more) for more in (-1, 0, 1)]
    for name in chosen:
        tunable = candidates()[name].tunable
        size = len(tunable.grid) if tunable else 0
        # A sweep begins with what asks for most groups: with what holds, if anything does.
        numbers = {round(at / settings * (size - 1)) for at in range(settings)} if size else set()
        runs += [Run(name, number) for number in sorted(numbers)]
    return runs


def _label(run: Run) -> str:
    if run.policy == STATIC:
        return f"{run.choice} groups"
    return label(candidates()[run.policy], run.choice)


def _settings(run: Run, candidate: Candidate, found: Prepared) -> Any:
    if run.policy == STATIC:
        return StaticSettings(float(run.choice or 0))
    if run.choice is None:
        return candidate.defaults(found.engine, OBJECTIVE)
    return candidate.variants(found.engine, OBJECTIVE)[run.choice]


def _judged(run: Run, scenario: Scenario, found: Prepared, store: Store) -> tuple[Verdict, Verdict]:
    candidate = candidates()[run.policy]
    settings = _settings(run, candidate, found)
    start = run.choice or 0 if run.policy == STATIC else starting_groups(found.need, INTERVAL, 1, CEILING)
    verdicts = []
    for which, serve in (("ours", _ours), ("theirs", _theirs)):
        key = ("second judge", which, scenario, SEED, settings, start, code_of(run.policy), _code())
        kept = store.get(key)
        if kept is None:
            policy = candidate.make(settings, found.engine, OBJECTIVE)
            kept = store.put(key, asdict(serve(policy, found, start)))
        verdicts.append(Verdict(**kept))
    return verdicts[0], verdicts[1]


def _ours(policy: Any, found: Prepared, start: int) -> Verdict:
    result = simulate(
        found.trace,
        found.engine,
        policy,
        cold_start=COLD_START,
        jitter=0.0,
        seed=SEED,
        start_groups=start,
        floor=1,
        ceiling=CEILING,
        objective=OBJECTIVE,
        settle=SETTLE,
    )
    return Verdict(result.attainment(), result.gpu_hours, len(result.actions))


def _theirs(policy: Any, found: Prepared, start: int) -> Verdict:
    result = replayed.serve(
        found.trace,
        found.engine,
        policy,
        cold_start=COLD_START,
        start_groups=start,
        floor=1,
        ceiling=CEILING,
        objective=OBJECTIVE,
        settle=SETTLE,
    )
    return Verdict(result.attainment, result.gpu_hours, result.actions)


def _code() -> str:
    digest = hashlib.sha256()
    for name in ("replayed.py", "timing.py", "requirements.txt"):
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()[:16]


def _facts(scenario: Scenario, found: Prepared) -> dict[str, str]:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=_HERE, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = (
        " with uncommitted changes" if git("status", "--porcelain", "--", ".", "../../../operator") else ""
    )
    return {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Commit": f"{git('rev-parse', '--short', 'HEAD') or 'unknown'}{changed}",
        "Machine": f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}",
        "Other judge": f"ai-dynamo-runtime {release()} (Apache-2.0), its simulated engines and offline replay",
        "Trace": f"{scenario.name}: {len(found.trace)} requests in {found.trace.duration / _HOUR:g} h, "
        f"{found.trace.prompt.mean():.0f} + {found.trace.output.mean():.0f} tokens, seed {SEED}; "
        f"{busiest(found.need):.1f} groups at the peak",
        "Engine": f"{found.engine.name}, {found.engine.ranks} ranks a group; cold start {COLD_START:g} s",
        "Objective": f"first token within {OBJECTIVE.ttft:g} s, {OBJECTIVE.tpot * 1e3:g} ms per further token",
    }


if __name__ == "__main__":
    raise SystemExit(main())
