"""What a run came to, for people and for programs."""

import dataclasses
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from traffic.changes import GroupLife
from traffic.counts import Counts, Record

#: Environment variable that names a folder for reports; without it they are printed only.
FOLDER_VARIABLE = "TRAFFIC_REPORTS"


@dataclass(frozen=True)
class Report:
    """One scenario. Times are seconds since the load began."""

    scenario: str
    layout: str
    """Groups and ranks, as "2 groups of 2 ranks"."""
    seed: int
    rate: float
    """Requests a second."""
    seconds: float
    counts: Counts
    groups: Sequence[GroupLife]
    marks: dict[str, float] = field(default_factory=dict)
    """What was done, when."""
    lag: float = 0.0
    """Longest time that a request was sent after its time: above some 0.1 s the machine was too busy to judge
    latencies."""
    lost: Sequence[Record] = ()


HEADER = (
    "| scenario | groups | sent | succeeded | failed | cut | p50 / p99 | first token p50 / p99 | long cut |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def row(report: Report) -> str:
    """The scenario's line of the table that HEADER begins."""
    c = report.counts
    return (
        f"| {report.scenario} | {report.layout} | {c.sent} | {c.succeeded} | {c.failed} | {c.cut}"
        f" | {_span(c.latency_p50, c.latency_p99)} | {_span(c.first_token_p50, c.first_token_p99)}"
        f" | {c.long_cut} of {c.long_sent} |"
    )


def markdown(report: Report) -> str:
    """The whole report of a scenario."""
    lines = [
        f"### {report.scenario}",
        "",
        f"{report.counts.sent + report.counts.long_sent} requests in {report.seconds:.0f} s, Poisson"
        f" {report.rate:g} a second, seed {report.seed}; sent at most {report.lag:.2f} s late.",
        "",
        *HEADER,
        row(report),
        "",
        "| group | made | serving | traffic off | told to stop | gone | drain |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {g.name} | {_at(g.born)} | {_at(g.serving)} | {_at(g.off)} | {_at(g.deleting)} | {_at(g.gone)}"
            f" | {_at(g.drain)} |"
            for g in report.groups
        ),
        "",
    ]
    lines += [f"- {what}: {_at(at)}" for what, at in report.marks.items()]
    lines += [f"- taken by {pod}: {number}" for pod, number in report.counts.pods.items()]
    lines += [f"- {number} x {fault}" for fault, number in report.counts.faults.items()]
    lines += [
        f"- lost: request {r.number} ({r.shape}), sent at {_at(r.sent)}, ended at {_at(r.ended)} after"
        f" {r.tokens} tokens, pod {r.pod or 'unknown'}: {r.fault} ({r.detail or 'no error'})"
        for r in report.lost
    ]
    return "\n".join(lines) + "\n"


def as_json(report: Report, commit: str) -> str:
    """The same for programs."""
    return json.dumps({"commit": commit, **dataclasses.asdict(report)}, indent=1) + "\n"


def publish(report: Report) -> None:
    """Print it, and write `<scenario>.md` and `.json` into the folder that $TRAFFIC_REPORTS names."""
    text = markdown(report)
    print(text, flush=True)
    if folder := os.environ.get(FOLDER_VARIABLE):
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        stem = report.scenario.replace(" ", "-")
        (target / f"{stem}.md").write_text(text)
        (target / f"{stem}.json").write_text(as_json(report, commit()))


def commit() -> str:
    """The checkout's commit, with "+" after it when files differ from it; "" outside of git."""
    done = subprocess.run(
        ("git", "describe", "--always", "--abbrev=7", "--dirty=+"),
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def _span(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:.2f} / {high:.2f} s"


def _at(time: float | None) -> str:
    return "–" if time is None else f"{time:.1f} s"
