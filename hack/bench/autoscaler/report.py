"""The outcome as a page of Markdown."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from bench.autoscaler.cells import BOUND, SHARE, STATIC, Figures
from bench.autoscaler.outcome import BY_TRACE, HINDSIGHT, PUBLISHED, TUNED, Entry, Outcome
from bench.autoscaler.scenarios import CEILING, Scenario
from bench.autoscaler.tuning import Place

#: How much dearer than the best baseline the subject may be at one place before that is listed.
_DEARER = 1.02


def report(outcome: Outcome, pictures: Sequence[str] = ()) -> str:
    """The page; `pictures` are paths relative to it."""
    blocks = [
        "# Autoscalers compared",
        "Written by `make bench-autoscaler`: a run writes it anew, so change the benchmark and not this page.",
        _facts(outcome),
        _protocol(outcome),
        "## In short",
        _short(outcome),
        *(f"![]({path})" for path in pictures),
        "## Where it loses",
        _losses(outcome),
        "## By trace and cold start",
        *(_of_trace(outcome, scenario) for scenario in outcome.scenarios if not scenario.stress),
        "## As published",
        f"Every policy as it comes, with {_seeds(outcome, PUBLISHED)}.",
        _summary(outcome, PUBLISHED),
        *(_hindsight(outcome) if outcome.hindsight else ()),
        *(_stress(outcome) if outcome.stress else ()),
        "## Settings",
        _settings(outcome),
    ]
    return "\n\n".join(blocks) + "\n"


# --- Head ----------------------------------------------------------------------------------------


def _facts(outcome: Outcome) -> str:
    return _table(("", ""), [(name, text) for name, text in outcome.facts.items()])


def _protocol(outcome: Outcome) -> str:
    trained = ", ".join(scenario.name.removeprefix("train/") for scenario in outcome.training)
    rows = [(s.name, s.engine, "reported apart" if s.stress else "counts") for s in outcome.scenarios]
    return "\n\n".join(
        [
            f"A trace x cold start is held when at least {SHARE:.0%} of its requests (mean of seeds) have their first "
            "token within 5 s and further ones every 80 ms on average. Rejected, cut and unfinished requests are "
            "misses. Every trace is scaled so that its busiest ten minutes need 8 to 16 groups; policies have 1 to "
            f"{CEILING} groups and start with what the first ten minutes need; in the first ten minutes nothing is "
            "scaled in, as a trace begins with idle groups. GPU-hours count from a group's creation to its end. Groups "
            f"start in {', '.join(f'{c:g}' for c in outcome.cold_starts)} s, give or take 15 %. "
            f"Seeds: {', '.join(map(str, outcome.seeds))}; each draws the requests that scaling thins or "
            "doubles, and the cold starts.",
            f"Settings are one for all traces and cold starts, chosen on made-up traces ({trained}; see "
            "`simulator/synthetic.py`): the cheapest that holds on all of them, or if none does, the one that holds "
            "on most. Then they are frozen. The bound knows the trace (`policies/clairvoyant.py`): the cheapest fleet "
            "found that holds, by trace, cold start and seed, be it a static one; the static fleet is the least that "
            "holds, likewise.",
            _table(("Scored trace", "Engine", ""), rows),
        ]
    )


# --- Summary -------------------------------------------------------------------------------------


def _short(outcome: Outcome) -> str:
    lines = [_summary(outcome, TUNED)]
    subject = outcome.entry(outcome.subject, TUNED)
    assert subject is not None
    for kind in (TUNED, HINDSIGHT, BY_TRACE):
        best = outcome.best(kind)
        if best is None:
            continue
        held = outcome.where_held(best)
        where = (
            f"; {outcome.ratio(subject, best, held).text()} on the {len(held)} where that holds"
            if 0 < len(held) < len(outcome.places)
            else ""
        )
        lines.append(
            f"`{subject.policy}` over `{best.policy}` ({kind}: {best.label}; it holds on {len(held)} of "
            f"{len(outcome.places)}): **{outcome.ratio(subject, best).text()}** of its GPU-hours{where}."
        )
    return "\n\n".join(lines)


def _summary(outcome: Outcome, kind: str) -> str:
    subject = outcome.entry(outcome.subject, TUNED)
    assert subject is not None
    whole, rows = len(outcome.places), []
    for entry in outcome.entries(kind):
        every = [f for place in outcome.places for f in outcome.of(entry, place)]
        rows.append(
            (
                f"`{entry.policy}`",
                entry.label,
                f"{outcome.held(entry)} of {whole}",
                _percent(outcome.worst(entry)),
                _percent(fmean(f.attainment for f in every)),
                _percent(fmean(f.token_attainment for f in every)),
                _percent(fmean(f.strict for f in every)),
                "1" if entry.policy == BOUND else outcome.ratio(entry, outcome.bound).text(),
                "1" if entry.policy == subject.policy else outcome.ratio(subject, entry).text(),
                _at_most(outcome, subject, entry),
                f"{fmean(f.reversals for f in every):.1f}",
            )
        )
    header = (
        "Policy",
        "Setting",
        "Held",
        "Worst",
        "Mean",
        "By token",
        "2 s, 50 ms",
        "GPU-hours / bound",
        f"`{subject.policy}` / its GPU-hours",
        "at most, where it holds",
        "Reversals",
    )
    return _table(header, rows)


def _at_most(outcome: Outcome, subject: Entry, entry: Entry) -> str:
    """The subject's GPU-hours over its, at the place where that is most."""
    ratios = [outcome.ratio(subject, entry, [place]).value for place in outcome.where_held(entry)]
    return f"{max(ratios):.3f}" if ratios and entry.policy != subject.policy else "-"


def _hindsight(outcome: Outcome) -> Iterator[str]:
    yield "## Best in hindsight"
    yield (
        "The cheapest shared setting that would have held on the scored traces themselves: chosen with knowledge that "
        f"nobody has, and scored with {_seeds(outcome, HINDSIGHT)}, which it was looked for with."
    )
    yield _summary(outcome, HINDSIGHT)
    yield (
        "The hardest bar: for each trace a setting of its own, the cheapest that would have held on that very trace "
        "with each cold start. The operator's ratio is that of its one setting."
    )
    yield _summary(outcome, BY_TRACE)


def _losses(outcome: Outcome) -> str:
    subject, best = outcome.entry(outcome.subject, TUNED), outcome.best(TUNED)
    assert subject is not None
    lines = []
    for place in outcome.places:
        scenario, cold_start = place
        where = f"{scenario.name}, cold start {cold_start:g} s"
        if (attained := outcome.attainment(subject, place)) < SHARE:
            lines.append(f"- {where}: {_percent(attained)} of the requests in the objective.")
        for other in (best, outcome.best(HINDSIGHT), outcome.best(BY_TRACE), outcome.entry(STATIC, TUNED)):
            if other is None or outcome.attainment(other, place) < SHARE:
                continue
            ratio = outcome.ratio(subject, other, [place])
            if ratio.value > _DEARER:
                what = other.label if other.policy == STATIC else other.kind
                lines.append(f"- {where}: {ratio.text()} of the GPU-hours of `{other.policy}` ({what}).")
    return "\n".join(lines) or (
        f"Nowhere: it holds on every trace x cold start, and costs at most {_DEARER:g} times the best baseline's "
        "GPU-hours on each where that holds."
    )


# --- Details -------------------------------------------------------------------------------------

_HEADER = (
    "Cold start",
    "Policy",
    "5 s, 80 ms",
    "by token",
    "2 s, 50 ms",
    "by token",
    "GPU-hours",
    "/ bound",
    "/ best baseline",
    "TTFT p99",
    "Changes",
    "Reversals",
    "Missing",
)


def _of_trace(outcome: Outcome, scenario: Scenario) -> str:
    rows: list[tuple[str, ...]] = []
    best = outcome.best(TUNED)
    for cold_start in outcome.cold_starts:
        place = (scenario, cold_start)
        rows += [_row(outcome, entry, best, place) for entry in outcome.entries(TUNED)]
    return f"### {scenario.name} on {scenario.engine}\n\n{_table(_HEADER, rows)}"


def _stress(outcome: Outcome) -> Iterator[str]:
    yield "## Steps, on and off"
    yield (
        "Loads that double, quadruple or come and go faster than groups start: no policy holds the objective on them "
        "without groups in reserve."
    )
    for scenario in dict.fromkeys(scenario for scenario, _ in outcome.stress):
        yield _of_trace(outcome, scenario)


def _row(outcome: Outcome, entry: Entry, best: Entry | None, place: Place) -> tuple[str, ...]:
    found = outcome.of(entry, place)
    bounds = outcome.of(outcome.bound, place)
    against = outcome.of(best, place) if best is not None else bounds

    def over(others: list[Figures]) -> str:
        return f"{fmean(a.gpu_hours / b.gpu_hours for a, b in zip(found, others, strict=True)):.2f}"

    first = [f.ttft_p99 for f in found if f.ttft_p99 is not None]
    attained = fmean(f.attainment for f in found)
    return (
        f"{place[1]:g} s",
        f"`{entry.policy}`",
        _percent(attained) if attained >= SHARE else f"**{_percent(attained)}**",
        _percent(fmean(f.token_attainment for f in found)),
        _percent(fmean(f.strict for f in found)),
        _percent(fmean(f.strict_tokens for f in found)),
        f"{fmean(f.gpu_hours for f in found):.1f}",
        over(bounds),
        over(against),
        f"{fmean(first):.1f} s" if first else "-",
        f"{fmean(f.actions for f in found):.0f}",
        f"{fmean(f.reversals for f in found):.1f}",
        f"{fmean(f.missing for f in found):.0f}",
    )


def _settings(outcome: Outcome) -> str:
    rows = []
    for name, one in outcome.tuned.items():
        hindsight = outcome.hindsight.get(name)
        rows.append(
            (
                f"`{name}`",
                one.label,
                f"{one.held} of {one.places}",
                _percent(one.worst),
                str(one.tried),
                "-" if hindsight is None else hindsight.label,
                "-" if hindsight is None else f"{hindsight.held} of {hindsight.places}",
                "-" if hindsight is None else str(hindsight.tried),
            )
        )
    header = (
        "Policy",
        "Tuned on made-up traces",
        "Held there",
        "Worst there",
        "Tried",
        "Best in hindsight",
        "Held",
        "Tried",
    )
    return _table(header, rows)


# --- Text ----------------------------------------------------------------------------------------


def _seeds(outcome: Outcome, kind: str) -> str:
    """`seed 1`, `seeds 1, 2`."""
    seeds = outcome.seeds_of(kind)
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _percent(share: float) -> str:
    """Never rounded up to what was not reached."""
    return f"{int(share * 1e4 + 1e-9) / 100:.2f} %"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
