"""Panels as SVG: the kinds that the dashboard uses, at the places that it gives them. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from moe_operator.cli.charts import COLOURS, STYLE

WIDTH = 1200
_GAP = 6
_COLUMN = (WIDTH - _GAP) / 24
_UNIT = 27
_HEAD = 46
_LEFT, _TOP, _FOOT = 52, 26, 34
_LETTER = 6.2
_LINES = 8
#: Of a line.
_POINTS = 180
_SYMBOLS = {"watt": "W", "joule": "J"}
_SUFFIXES = {"reqps": " req/s", "ops": " ops/s"}
_STEPS = {"green": "#3fb950", "orange": "#d29922", "red": "#f85149"}

_OWN_STYLE = """
text { font-size: 11px; }
.head { font-size: 15px; font-weight: 600; }
.row { font-size: 13px; font-weight: 600; }
.name { font-size: 12px; font-weight: 600; }
.small { font-size: 10px; fill: #59636e; }
.big { font-weight: 600; text-anchor: middle; }
.panel { fill: #f6f8fa; stroke: #d8dee4; }
.line { stroke-width: 1.3; }
.mark { stroke: #cf222e; stroke-width: 1; stroke-dasharray: 4 3; fill: none; }
@media (prefers-color-scheme: dark) {
  .small { fill: #9aa4ae; }
  .panel { fill: #161b22; stroke: #30363d; }
}
"""


@dataclass(frozen=True)
class Drawn:
    """One series of a panel: seconds since the epoch and values."""

    name: str
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        return self.points[-1][1]


def picture(
    title: str, panels: Sequence[tuple[Mapping[str, Any], Sequence[Drawn]]], begin: float, end: float
) -> str:
    """All panels; `panels` as Grafana's JSON has them, headings of rows with no series."""
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel, _ in panels)
    height = _HEAD + bottom * _UNIT + _GAP
    light = "".join(f".f{at} {{ fill: {one}; }}\n" for at, (one, _) in enumerate(COLOURS))
    dark = "".join(f".f{at} {{ fill: {one}; }}\n" for at, (_, one) in enumerate(COLOURS))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(title, quote=True)}">',
        f"<style>{STYLE}{_OWN_STYLE}{light}@media (prefers-color-scheme: dark) {{ {dark} }}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
        f'<text class="head" x="{_GAP + 4}" y="28">{escape(title)}</text>',
    ]
    for panel, series in panels:
        at = panel["gridPos"]
        box = _Box(
            _GAP + at["x"] * _COLUMN,
            _HEAD + at["y"] * _UNIT,
            at["w"] * _COLUMN - _GAP,
            at["h"] * _UNIT - _GAP,
            begin,
            end,
        )
        parts += _KINDS[panel["type"]](panel, series, box)
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclass(frozen=True)
class _Box:
    """Where a panel is, and the time that it shows."""

    x: float
    y: float
    width: float
    height: float
    begin: float
    end: float

    def across(self, at: float) -> float:
        inner = self.width - _LEFT - 10
        return self.x + _LEFT + (at - self.begin) / (self.end - self.begin) * inner


def told(value: float, unit: str, decimals: int | None = None) -> str:
    """A value as Grafana writes it in its unit."""
    if unit == "percentunit":
        return f"{_short(100 * value, 1 if decimals is None else decimals)}%"
    if unit == "bytes":
        return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
    if unit == "s":
        return f"{_short(1000 * value)} ms" if abs(value) < 1 else _seconds(value)
    if unit == "none":
        return _short(value, 2 if decimals is None else decimals)
    if unit in _SYMBOLS:
        return _scaled(value, 1000, [f"{prefix}{_SYMBOLS[unit]}" for prefix in ("", "k", "M")])
    number = _scaled(value, 1000, ("", "K", "M", "G")) if decimals != 0 else f"{value:,.0f}"
    suffix = unit.partition("suffix:")[2] or _SUFFIXES.get(unit, "")
    return number.rstrip() + suffix


def _seconds(value: float) -> str:
    return f"{_short(value / 60)} min" if value >= 120 else f"{_short(value)} s"


def _short(value: float, decimals: int = 2) -> str:
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scaled(value: float, step: int, names: Sequence[str]) -> str:
    at = 0
    while abs(value) >= step and at < len(names) - 1:
        value, at = value / step, at + 1
    return f"{_short(value, 1 if value >= 10 else 2)} {names[at]}"


def _frame(panel: Mapping[str, Any], box: _Box) -> Iterator[str]:
    size = f'width="{box.width:.1f}" height="{box.height:.1f}"'
    yield f'<rect class="panel" x="{box.x:.1f}" y="{box.y:.1f}" {size} rx="3"/>'
    yield _text("name", box.x + 8, box.y + 16, panel["title"])


def _text(style: str, x: float, y: float, text: str, more: str = "") -> str:
    return f'<text class="{style}" {more} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _row(panel: Mapping[str, Any], series: Sequence[Drawn], box: _Box) -> Iterator[str]:
    yield _text("row", box.x + 4, box.y + 17, f"▾ {panel['title']}")


def _nothing(box: _Box) -> str:
    return _text("small middle", box.x + box.width / 2, box.y + box.height / 2 + 6, "No data")


def _colour(panel: Mapping[str, Any], value: float) -> str | None:
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    found = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return _STEPS[found[-1]] if found else None


def _stat(panel: Mapping[str, Any], series: Sequence[Drawn], box: _Box) -> Iterator[str]:
    yield from _frame(panel, box)
    if not series:
        yield _nothing(box)
        return
    one = series[0]
    defaults = panel["fieldConfig"]["defaults"]
    values = [value for _, value in one.points]
    low, high = min(values), max(values)
    span, tall = (high - low) or 1.0, box.height * 0.34
    base = box.y + box.height - 4
    dots = [
        (
            box.x + 3 + (at - box.begin) / (box.end - box.begin) * (box.width - 6),
            base - (value - low) / span * tall,
        )
        for at, value in _thinned(one.points, 80)
    ]
    colour = _colour(panel, one.last)
    fill = f'style="fill: {colour}"' if colour else ""
    text = told(one.last, defaults["unit"], defaults.get("decimals"))
    size = min(24.0, (box.width - 12) / (0.58 * len(text)))
    written = f'style="font-size: {size:.1f}px{"; fill: " + colour if colour else ""}"'
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in dots)
    area = f"M{dots[0][0]:.1f} {base:.1f}L{path}L{dots[-1][0]:.1f} {base:.1f}Z"
    yield f'<path class="f0" {fill} fill-opacity="0.18" d="{area}"/>'
    yield _text("big", box.x + box.width / 2, box.y + box.height * 0.58, text, written)


def _bars(panel: Mapping[str, Any], series: Sequence[Drawn], box: _Box) -> Iterator[str]:
    yield from _frame(panel, box)
    if not series:
        yield _nothing(box)
        return
    defaults = panel["fieldConfig"]["defaults"]
    most = defaults.get("max") or max(one.last for one in series) or 1.0
    shown = sorted(series, key=lambda one: -one.last)[:16]
    high = (box.height - _TOP - 6) / len(shown)
    names = max(len(one.name) for one in shown) * _LETTER + 14
    room = box.width - names - 62
    for at, one in enumerate(shown):
        y = box.y + _TOP + at * high
        thick = max(3.0, min(16.0, high - 3))
        colour = _colour(panel, one.last)
        fill = f'style="fill: {colour}"' if colour else ""
        middle = y + thick / 2 + 3.5
        size = f'style="font-size: {min(11.0, high + 1):.1f}px"'
        yield _text("end", box.x + names - 6, middle, one.name, size)
        wide = max(1.0, room * one.last / most)
        size_of = f'width="{wide:.1f}" height="{thick:.1f}"'
        yield f'<rect class="f0" {fill} x="{box.x + names:.1f}" y="{y:.1f}" {size_of} fill-opacity="0.75"/>'
        text = told(one.last, defaults["unit"], defaults.get("decimals"))
        yield _text("", box.x + names + room + 6, middle, text, size)


def _lines(panel: Mapping[str, Any], series: Sequence[Drawn], box: _Box) -> Iterator[str]:
    yield from _frame(panel, box)
    if not series:
        yield _nothing(box)
        return
    defaults = panel["fieldConfig"]["defaults"]
    shown = series[:_LINES]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    layers = _stacked(shown) if stacked else [list(one.points) for one in shown]
    low, high = _range(layers, defaults)
    base, tall = box.y + box.height - _FOOT, box.height - _FOOT - _TOP - 4

    def down(value: float) -> float:
        return base - (min(max(value, low), high) - low) / (high - low) * tall

    for part in range(4):
        value = low + (high - low) * part / 3
        y = down(value)
        yield f'<path class="grid" d="M{box.x + _LEFT:.1f} {y:.1f}H{box.x + box.width - 10:.1f}"/>'
        label = told(value, "" if "suffix" in defaults["unit"] else defaults["unit"])
        yield _text("small end", box.x + _LEFT - 5, y + 3.5, label)
    for hour in _hours(box):
        if box.across(hour) + 16 < box.x + box.width:
            yield _text("small middle", box.across(hour), base + 12, f"{int(hour // 3600 % 24):02d}:00")
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is not None and low < step["value"] < high and step["color"] == "red":
            y = down(step["value"])
            yield f'<path class="mark" d="M{box.x + _LEFT:.1f} {y:.1f}H{box.x + box.width - 10:.1f}"/>'
    steps = defaults["custom"]["lineInterpolation"] == "stepAfter"
    gap = 3 * (box.end - box.begin) / _POINTS
    for at in reversed(range(len(shown))):
        thinned = _thinned(layers[at], _POINTS)
        dots = [(box.across(when), down(value)) for when, value in thinned]
        wide = box.across(gap) - box.across(0)
        colour = at % len(COLOURS)
        if stacked:
            below = (
                _thinned(layers[at - 1], _POINTS)
                if at
                else [(when, low) for when, _ in _thinned(layers[at], _POINTS)]
            )
            back = "L".join(f"{box.across(when):.1f} {down(value):.1f}" for when, value in reversed(below))
            yield f'<path class="f{colour}" fill-opacity="0.4" d="{_path(dots)}L{back}Z"/>'
        else:
            yield f'<path class="line s{colour}" d="{_path(dots, wide, steps=steps)}"/>'
    yield from _legend(shown, box)


def _path(dots: Sequence[tuple[float, float]], gap: float = math.inf, *, steps: bool = False) -> str:
    """Interrupted where nothing was told for longer than `gap`."""
    parts = [f"M{dots[0][0]:.1f} {dots[0][1]:.1f}"]
    for (before, _), (x, y) in pairwise(dots):
        if x - before > gap:
            parts.append(f"M{x:.1f} {y:.1f}")
        else:
            parts.append(f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}")
    return "".join(parts)


def _legend(shown: Sequence[Drawn], box: _Box) -> Iterator[str]:
    x, y = box.x + 10, box.y + box.height - 7
    for at, one in enumerate(shown):
        wide = len(one.name) * _LETTER * 0.92 + 22
        if x + wide > box.x + box.width and at:
            yield _text("small", x, y, "…")
            return
        yield f'<rect class="f{at % len(COLOURS)}" x="{x:.1f}" y="{y - 6:.1f}" width="9" height="4"/>'
        yield _text("small", x + 13, y, one.name)
        x += wide


def _stacked(shown: Sequence[Drawn]) -> list[list[tuple[float, float]]]:
    """Each on top of those before it; where one is missing it counts for nothing."""
    times = sorted({when for one in shown for when, _ in one.points})
    sums = dict.fromkeys(times, 0.0)
    layers = []
    for one in shown:
        own = dict(one.points)
        for when in times:
            sums[when] += own.get(when, 0.0)
        layers.append([(when, sums[when]) for when in times])
    return layers


def _range(
    layers: Sequence[Sequence[tuple[float, float]]], defaults: Mapping[str, Any]
) -> tuple[float, float]:
    values = [value for layer in layers for _, value in layer]
    low = defaults.get("min", min(values))
    high = max(values)
    if "min" in defaults or "max" not in defaults:
        high = max(high, low + (1e-3 if defaults["unit"] == "percentunit" else 1.0) * (high <= low))
    if defaults["unit"] == "percentunit" and "min" not in defaults:
        space = max(0.01, (high - low) * 0.3)
        return low - space, min(high + space, defaults.get("max", math.inf))
    return low, defaults.get("max") or _nice(high, low)


def _nice(high: float, low: float) -> float:
    """The next value of which a third is round."""
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = next(
        one * power for one in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if one * power * 3 >= span * 0.9999
    )
    return low + 3 * step


def _hours(box: _Box) -> Iterator[float]:
    first = math.ceil(box.begin / 3600) * 3600
    every = 1 if box.width > 500 else 2
    for at in range(first, int(box.end) + 1, 3600 * every):
        yield float(at)


def _thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most so many, the last one always among them."""
    step = max(1, math.ceil(len(points) / most))
    found = list(points[::step])
    return found if found[-1] == points[-1] else [*found, points[-1]]


_KINDS = {"row": _row, "stat": _stat, "bargauge": _bars, "timeseries": _lines}
