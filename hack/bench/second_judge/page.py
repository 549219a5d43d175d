"""The page of two judges' verdicts."""

import math
from dataclasses import dataclass

from bench.autoscaler.cells import SHARE
from bench.second_judge.ranks import kendall, spearman
from moe_operator.simulator.candidates import OPERATOR

_STATIC = "static"


@dataclass(frozen=True)
class Verdict:
    """One judge's."""

    attainment: float
    gpu_hours: float
    actions: int

    @property
    def held(self) -> bool:
        """Whether enough requests were in the objective."""
        return self.attainment >= SHARE

    def __str__(self) -> str:
        return f"{self.attainment:.2%} at {self.gpu_hours:.1f} GPU-h"


@dataclass(frozen=True)
class Entry:
    """One policy with one setting."""

    policy: str
    setting: str
    published: bool
    ours: Verdict
    theirs: Verdict


@dataclass(frozen=True)
class Outcome:
    """All of them. Static fleets are there to compare the engines by, and take no part in orders."""

    entries: tuple[Entry, ...]
    facts: dict[str, str]

    @property
    def policies(self) -> list[Entry]:
        """Without static fleets."""
        return [entry for entry in self.entries if entry.policy != _STATIC]

    @property
    def held(self) -> list[Entry]:
        """Those that both judges find to hold."""
        return [entry for entry in self.policies if entry.ours.held and entry.theirs.held]

    def places(self, judge: str) -> list[tuple[str, Entry]]:
        """Each policy's cheapest setting that holds, cheapest first, by one judge; the operator as it comes."""
        best: dict[str, Entry] = {}
        for entry in self.policies:
            if not getattr(entry, judge).held or (entry.policy == OPERATOR and not entry.published):
                continue
            known = best.get(entry.policy)
            if known is None or getattr(entry, judge).gpu_hours < getattr(known, judge).gpu_hours:
                best[entry.policy] = entry
        return sorted(best.items(), key=lambda item: getattr(item[1], judge).gpu_hours)

    def place(self, judge: str) -> int | None:
        """The operator's, from 1; None where it does not hold."""
        names = [name for name, _ in self.places(judge)]
        return names.index(OPERATOR) + 1 if OPERATOR in names else None

    def agreement(self) -> dict[str, tuple[int, float, float]]:
        """Pairs, Spearman's and Kendall's coefficient of cost among those that hold, of cost, and of attainment."""

        def of(entries: list[Entry], figure: str) -> tuple[int, float, float]:
            ours = [getattr(entry.ours, figure) for entry in entries]
            theirs = [getattr(entry.theirs, figure) for entry in entries]
            return len(entries), spearman(ours, theirs), kendall(ours, theirs)

        return {
            "GPU-hours, of those that hold with both": of(self.held, "gpu_hours"),
            "GPU-hours, of all": of(self.policies, "gpu_hours"),
            "share in the objective, of all": of(self.policies, "attainment"),
        }


def summary(outcome: Outcome) -> str:
    """A few lines."""
    lines = [
        f"{name}: {count} settings, Spearman {rho:.3f}, Kendall {tau:.3f}"
        for name, (count, rho, tau) in outcome.agreement().items()
    ]
    same = sum(entry.ours.held == entry.theirs.held for entry in outcome.policies)
    lines.append(f"the judges agree on {same} of {len(outcome.policies)} settings whether they hold")
    for judge in ("ours", "theirs"):
        order = ", ".join(
            f"{name} {getattr(entry, judge).gpu_hours:.1f}" for name, entry in outcome.places(judge)
        )
        lines.append(f"{judge}: the operator is {_ordinal(outcome.place(judge))}; {order}")
    return "\n".join(lines)


def page(outcome: Outcome) -> str:
    """Markdown."""
    lines = [
        "# A second judge",
        "",
        "Autoscalers are compared in a [simulator of this project's own](../contributing/simulator.md). Here the same "
        "policies, as code, scale the fleets of another simulator on one trace: NVIDIA Dynamo's simulated engines, "
        "written in Rust by others, with a scheduler, a router and fleets of their own. `make bench-second-judge` "
        "writes this page.",
        "",
        *(f"- {name}: {text}" for name, text in outcome.facts.items()),
        "",
        "## Do they agree?",
        "",
        "| Order of | settings | Spearman | Kendall |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {count} | {_number(rho)} | {_number(tau)} |"
            for name, (count, rho, tau) in outcome.agreement().items()
        ),
        "",
        f"Whether {SHARE:.0%} are in the objective: the same answer for "
        f"{sum(e.ours.held == e.theirs.held for e in outcome.policies)} of {len(outcome.policies)} settings. "
        f"The operator as it comes is {_ordinal(outcome.place('ours'))} by our judge and "
        f"{_ordinal(outcome.place('theirs'))} by the other, among every policy's cheapest setting that holds "
        "(settings of the others chosen on this very trace, the operator's not):",
        "",
        "| Place | our judge | GPU-hours | the other judge | GPU-hours |",
        "| --- | --- | --- | --- | --- |",
        *_order(outcome),
        "",
        "## Every setting",
        "",
        "| Policy | Setting | ours: in objective | GPU-hours | other: in objective | GPU-hours |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| `{e.policy}` | {e.setting} | {_share(e.ours)} | {e.ours.gpu_hours:.1f} | {_share(e.theirs)} | "
            f"{e.theirs.gpu_hours:.1f} |"
            for e in outcome.entries
        ),
        "",
        "Bold: holds. Static fleets show how the two engines differ for the same constants.",
        "",
        "## What is the same and what is not",
        "",
        "- The same: arrivals and lengths, slots, token budget and KV blocks of a rank, ranks in lockstep, constants "
        "of step times, cold start, the interval and delay of samples.",
        "- The other's own: how a step is put together, preemption, the router (its load- and cache-aware one), which "
        "group drains. It has no deadline for draining, and a draining group does not come back.",
        "- Step times enter as two tables that are added, of prompts and of decoding; ours counts the tokens of all "
        "ranks together. How many ranks compute prompts at once is therefore a number: set so that two static groups "
        "have the same share of this trace in the objective by both judges.",
        "- It tells times to the first token when a request ends, and of 2.5 s of steps each group's last: what "
        "policies see of latencies is coarser than in our simulator, and later by a request's length.",
        "",
    ]
    return "\n".join(lines)


def _order(outcome: Outcome) -> list[str]:
    ours, theirs = outcome.places("ours"), outcome.places("theirs")
    rows = []
    for at in range(max(len(ours), len(theirs))):
        cells = []
        for places, judge in ((ours, "ours"), (theirs, "theirs")):
            if at < len(places):
                name, entry = places[at]
                cells += [f"`{name}`, {entry.setting}", f"{getattr(entry, judge).gpu_hours:.1f}"]
            else:
                cells += ["", ""]
        rows.append(f"| {at + 1} | {' | '.join(cells)} |")
    return rows


def _share(verdict: Verdict) -> str:
    text = f"{verdict.attainment:.2%}"
    return f"**{text}**" if verdict.held else text


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _ordinal(place: int | None) -> str:
    if place is None:
        return "not among those that hold"
    return {1: "first", 2: "second", 3: "third"}.get(place, f"{place}th")
