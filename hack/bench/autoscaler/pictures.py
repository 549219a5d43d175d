"""The report's pictures."""

import math
from collections.abc import Callable, Iterator
from html import escape
from statistics import fmean

from bench.autoscaler.cells import BOUND, STATIC, Cell, result_of
from bench.autoscaler.outcome import PUBLISHED, TUNED, Entry, Outcome
from bench.autoscaler.scenarios import INTERVAL
from bench.autoscaler.store import Store
from moe_operator.cli import charts
from moe_operator.cli.charts import COLOURS, STYLE, Chart, Line

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 960, 420, 70, 70, 52
_RIGHT = 270
_MARKS = {PUBLISHED: "hollow", TUNED: "full"}


def cost_and_misses(outcome: Outcome) -> str:
    """Every policy's cost over the bound against its misses, means of all places: left and low is good."""
    points: list[tuple[Entry, float, float]] = []
    for kind in (PUBLISHED, TUNED):
        for entry in outcome.entries(kind):
            if entry.policy == BOUND or (kind == PUBLISHED and entry.policy in (outcome.subject, STATIC)):
                continue
            cost = outcome.ratio(entry, outcome.bound).value
            missed = 1 - fmean(outcome.attainment(entry, place) for place in outcome.places)
            points.append((entry, cost, max(missed, 1e-4)))
    most = max(2.0, math.ceil(max(cost for _, cost, _ in points) * 2) / 2)
    least = min(0.9, math.floor(min(cost for _, cost, _ in points) * 10) / 10)

    def x(cost: float) -> float:
        return _LEFT + (cost - least) / (most - least) * (_WIDTH - _LEFT - _RIGHT)

    def y(missed: float) -> float:
        return _TOP + (0 - math.log10(missed)) / 4 * (_HEIGHT - _TOP - _BOTTOM)

    # The subject first, with a mark of its own.
    names = [entry.policy for entry in outcome.entries(TUNED) if entry.policy != BOUND]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" aria-label="Cost and misses of every policy">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>',
        f'<text class="title" x="{_LEFT}" y="24">'
        "Requests that missed the objective, and GPU-hours over the bound</text>",
        f'<text class="quiet" x="{_LEFT}" y="46">means over traces, cold starts and seeds; full: '
        "tuned on made-up traces, hollow: published defaults</text>",
    ]
    for power in range(5):
        at = y(10.0**-power)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text class="quiet end" x="{_LEFT - 8}" y="{at + 4:.1f}">{100 * 10.0**-power:g} %</text>'
        )
    step = 0.1 if most - least <= 1.2 else 0.25 if most - least <= 2.5 else 1.0
    for count in range(math.ceil(least / step), math.floor(most / step + 1e-9) + 1):
        at = x(count * step)
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
        parts.append(
            f'<text class="quiet middle" x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}">{count * step:.4g}</text>'
        )
    parts.append(
        f'<text class="quiet middle" x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 12}">'
        "GPU-hours / GPU-hours of the bound</text>"
    )
    limit = y(0.01)
    parts.append(f'<path class="limit" d="M{_LEFT} {limit:.1f}H{_WIDTH - _RIGHT}"/>')
    parts += _dots(points, names, x, y)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _dots(
    points: list[tuple[Entry, float, float]],
    names: list[str],
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> Iterator[str]:
    for entry, cost, missed in points:
        place = names.index(entry.policy)
        fill = _colour(place) if _MARKS[entry.kind] == "full" else "none"
        title = f"<title>{escape(entry.policy)}, {entry.kind}: {cost:.2f}, {missed:.2%}</title>"
        yield _mark(place, x(cost), y(missed), fill, title)
    for place, name in enumerate(names):
        top, left = _TOP + 22 * place, _WIDTH - _RIGHT + 28
        yield _mark(place, left, top, _colour(place))
        yield f'<text class="quiet" x="{left + 14}" y="{top + 4}">{escape(name)}</text>'


def _colour(place: int) -> str:
    return "#cf222e" if place == 0 else COLOURS[(place - 1) % len(COLOURS)][0]


def _mark(place: int, x: float, y: float, fill: str, title: str = "") -> str:
    """A diamond for the subject, circles for the next, then squares."""
    style = f'fill="{fill}" stroke="{_colour(place)}" stroke-width="2"'
    if place == 0:
        return f'<path d="M{x:.1f} {y - 9:.1f}l9 9l-9 9l-9 -9Z" {style}>{title}</path>'
    if place <= len(COLOURS):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" {style}>{title}</circle>'
    return f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" {style}>{title}</rect>'


def over_time(outcome: Outcome, store: Store) -> list[tuple[str, str]]:
    """(file name, picture) of groups, and of what was served in time, of the longest trace in its middle cold start."""
    places = outcome.places
    scenario = max(
        {s for s, _ in places}, key=lambda s: outcome.of(outcome.bound, (s, places[0][1]))[0].requests
    )
    cold_start, seed = outcome.cold_starts[len(outcome.cold_starts) // 2], outcome.seeds[0]
    shown = [outcome.entry(outcome.subject, TUNED), outcome.best(TUNED)]
    lines_ready: list[Line] = []
    lines_met: list[Line] = []
    need: list[Line] = []
    for entry in shown:
        if entry is None:
            continue
        result, found = result_of(Cell(scenario, entry.policy, cold_start, seed, entry.choice), store)
        line = result.timeline()
        size = max(1, len(line.minute) // 480)
        count = len(line.minute) // size
        hours = (line.minute[: count * size].reshape(count, size)[:, 0] / 60).tolist()
        ready = line.ready[: count * size].reshape(count, size).mean(axis=1).tolist()
        missed = [
            100 * (1 - value)
            for value in line.attained[: count * size].reshape(count, size).mean(axis=1).tolist()
        ]
        lines_ready.append(Line(entry.policy, hours, ready, steps=True))
        lines_met.append(Line(entry.policy, hours, missed))
        if not need:
            per = round(60 / INTERVAL) * size
            values = found.need[: len(found.need) // per * per].reshape(-1, per).mean(axis=1).tolist()
            need = [
                Line(
                    "needed at full capacity",
                    [at * per * INTERVAL / 3600 for at in range(len(values))],
                    values,
                    area=True,
                )
            ]
    title = f"{scenario.name}, cold start {cold_start:g} s"
    return [
        (
            "groups.svg",
            charts.svg(Chart(f"Groups ready: {title}", "groups", [*need, *lines_ready], height=320)),
        ),
        ("misses.svg", charts.svg(Chart(f"Requests that missed: {title}", "percent", lines_met, height=230))),
    ]
