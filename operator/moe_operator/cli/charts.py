"""Lines over time as pictures (SVG) without scripts or outside resources, readable on light and dark pages. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 960, 64, 20, 58, 34
_LETTER = 7.4

#: By place: on light pages, on dark ones. Told apart in common colour blindness; after them lines are dashed.
COLOURS = (
    ("#0550ae", "#58a6ff"),
    ("#bc4c00", "#f0883e"),
    ("#1a7f37", "#3fb950"),
    ("#8250df", "#bc8cff"),
    ("#9a6700", "#d29922"),
    ("#bf3989", "#f778ba"),
)

STYLE = (
    """\
text { font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; font-size: 13px; }
text { fill: #1f2328; }
.page { fill: #ffffff; }
.title { font-size: 15px; font-weight: 600; }
.quiet { fill: #59636e; font-size: 12px; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.grid { stroke: #d8dee4; stroke-width: 1; }
.limit { stroke: #cf222e; stroke-width: 1.2; stroke-dasharray: 5 4; fill: none; }
.limit-text { fill: #cf222e; font-size: 12px; text-anchor: end; }
.line { fill: none; stroke-width: 1.7; stroke-linejoin: round; }
.faint { fill: none; stroke: #8a929a; stroke-width: 1.4; }
.area { stroke: none; fill: #8a929a; fill-opacity: 0.28; }
"""
    + "".join(f".s{at} {{ stroke: {light}; }}\n" for at, (light, _) in enumerate(COLOURS))
    + """\
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .page { fill: #0d1117; }
  .quiet { fill: #9aa4ae; }
  .grid { stroke: #30363d; }
  .limit { stroke: #ff7b72; }
  .limit-text { fill: #ff7b72; }
"""
    + "".join(f"  .s{at} {{ stroke: {dark}; }}\n" for at, (_, dark) in enumerate(COLOURS))
    + "}"
)


@dataclass(frozen=True)
class Line:
    """One line. `x` in hours, ascending; `y` may be NaN, where there is nothing to draw."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    steps: bool = False
    """Whether a value holds until the next."""
    area: bool = False
    """Filled, in grey, behind the lines."""


@dataclass(frozen=True)
class Chart:
    """One picture."""

    title: str
    unit: str
    lines: Sequence[Line]
    height: int = 250
    logarithmic: bool = False
    limit: float | None = None
    """A level to be kept, and its name."""
    limit_name: str = ""
    least: float = 0.0
    """Of the scale, where it is not logarithmic."""
    most: float | None = None
    places: dict[str, int] = field(default_factory=dict)
    """The colours of lines by name, so that several charts have the same; else in their order."""


def svg(chart: Chart, *, style: bool = True) -> str:
    """The picture. Without `style` it is for a page that has STYLE once."""
    low, high = _range(chart)
    first, last = _hours(chart)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {chart.height}" width="{_WIDTH}"'
        f' height="{chart.height}" role="img" aria-label="{escape(chart.title, quote=True)}">',
        *([f"<style>{STYLE}</style>"] if style else []),
        f'<rect class="page" width="{_WIDTH}" height="{chart.height}" rx="8"/>',
        f'<text class="title" x="{_LEFT}" y="22">{escape(chart.title)}</text>',
        *_legend(chart),
        *_grid(chart, low, high, first, last),
    ]
    for line in sorted(chart.lines, key=lambda line: not line.area):
        parts += _drawn(chart, line, low, high, first, last)
    if chart.limit is not None and low <= chart.limit <= high:
        y = _y(chart, chart.limit, low, high)
        parts.append(f'<path class="limit" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        name = escape(chart.limit_name)
        parts.append(f'<text class="limit-text" x="{_WIDTH - _RIGHT - 4}" y="{y - 5:.1f}">{name}</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


# --- Scales --------------------------------------------------------------------------------------


def _range(chart: Chart) -> tuple[float, float]:
    values = [value for line in chart.lines for value in line.y if math.isfinite(value)]
    if chart.limit is not None:
        values.append(chart.limit)
    top = chart.most if chart.most is not None else max(values, default=1.0)
    if chart.logarithmic:
        positive = [value for value in values if value > 0] or [1.0]
        low = 10 ** math.floor(math.log10(min(positive)))
        return low, max(10 ** math.ceil(math.log10(max(positive))), 10 * low)
    return chart.least, top if chart.most is not None else _nice(max(top, chart.least + 1e-9))


def _nice(top: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(top))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= top * 0.999)


def _hours(chart: Chart) -> tuple[float, float]:
    first = min((line.x[0] for line in chart.lines if len(line.x)), default=0.0)
    last = max((line.x[-1] for line in chart.lines if len(line.x)), default=1.0)
    return first, max(last, first + 1e-6)


def _x(hour: float, first: float, last: float) -> float:
    return _LEFT + (hour - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)


def _y(chart: Chart, value: float, low: float, high: float) -> float:
    if chart.logarithmic:
        share = math.log(max(value, low) / low) / math.log(high / low)
    else:
        share = (value - low) / (high - low)
    return chart.height - _BOTTOM - min(max(share, 0.0), 1.0) * (chart.height - _BOTTOM - _TOP)


# --- Parts ---------------------------------------------------------------------------------------


def _legend(chart: Chart) -> Iterator[str]:
    x = float(_LEFT)
    for place, line in enumerate(chart.lines):
        if line.area:
            yield f'<rect class="area" x="{x:.0f}" y="33" width="20" height="10"/>'
        else:
            yield f'<path class="{_style(chart, line, place)}"{_dash(chart, line, place)} d="M{x:.0f} 38h20"/>'
        yield f'<text class="quiet" x="{x + 26:.0f}" y="42">{escape(line.name)}</text>'
        x += 44 + _LETTER * len(line.name)


def _grid(chart: Chart, low: float, high: float, first: float, last: float) -> Iterator[str]:
    right, bottom = _WIDTH - _RIGHT, chart.height - _BOTTOM
    if chart.logarithmic:
        ticks = [low * 10**power for power in range(round(math.log10(high / low)) + 1)]
    else:
        ticks = [low + (high - low) * quarter / 4 for quarter in range(5)]
    for tick in ticks:
        y = _y(chart, tick, low, high)
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>'
        yield f'<text class="quiet end" x="{_LEFT - 8}" y="{y + 4:.1f}">{tick:g}</text>'
    yield f'<text class="quiet end" x="{right}" y="22">{escape(chart.unit)}</text>'
    step = next((s for s in (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 6, 12, 24) if (last - first) / s <= 13), 48)
    for count in range(math.floor((last - first) / step + 1e-9) + 1):
        x = _x(first + count * step, first, last)
        hour = first + count * step
        label = f"{hour:g} h" if step >= 0.25 else f"{hour * 60:.0f} min"
        yield f'<path class="grid" d="M{x:.1f} {bottom}v5"/>'
        anchor = " end" if x > right - 14 else " middle"
        yield f'<text class="quiet{anchor}" x="{x:.1f}" y="{bottom + 20}">{label}</text>'


def _drawn(chart: Chart, line: Line, low: float, high: float, first: float, last: float) -> Iterator[str]:
    place = next(at for at, other in enumerate(chart.lines) if other is line)
    runs: list[list[tuple[float, float]]] = [[]]
    for hour, value in zip(line.x, line.y, strict=True):
        if not math.isfinite(value):
            runs.append([])
            continue
        point = (_x(hour, first, last), _y(chart, value, low, high))
        if line.steps and runs[-1]:
            runs[-1].append((point[0], runs[-1][-1][1]))
        runs[-1].append(point)
    bottom = chart.height - _BOTTOM
    for run in runs:
        if not run:
            continue
        if len(run) == 1:
            run.append((run[0][0] + 1, run[0][1]))
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in run)
        if line.area:
            yield f'<path class="area" d="{path}L{run[-1][0]:.1f} {bottom}L{run[0][0]:.1f} {bottom}Z"/>'
        else:
            yield f'<path class="{_style(chart, line, place)}"{_dash(chart, line, place)} d="{path}"/>'


def _place(chart: Chart, line: Line, place: int) -> int:
    return chart.places.get(line.name, sum(not other.area for other in chart.lines[:place]))


def _style(chart: Chart, line: Line, place: int) -> str:
    return f"line s{_place(chart, line, place) % len(COLOURS)}"


def _dash(chart: Chart, line: Line, place: int) -> str:
    turn = _place(chart, line, place) // len(COLOURS)
    return "" if turn == 0 else f' stroke-dasharray="{("7 3", "2 3")[(turn - 1) % 2]}"'
