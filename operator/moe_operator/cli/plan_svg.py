"""The memory of one GPU as a standalone picture (SVG), readable on light and dark pages."""

from collections.abc import Iterator
from html import escape

from moe_operator.cli.memory_bar import parts
from moe_operator.cli.plan_report import PlanReport
from moe_operator.cli.plan_text import layout_line
from moe_operator.cli.units import GIB, gib
from moe_operator.planner.plan import Sizing

_WIDTH, _MARGIN, _BAR_TOP, _BAR_HEIGHT = 880, 32, 92, 56
_ROW = 26
#: A segment narrower than this has no room for its figure.
_LEAST_LABELLED = 84
_LONGEST_TITLE = 88

#: By part: fill on light and on dark pages, and whether white letters are read on it (else dark ones).
_COLOURS = (
    ("weights", "#2563c9", "#3b76d8"),
    ("kv", "#1b7f5c", "#1f8a65"),
    ("buffers", "#b4610f", "#bd6a18"),
)

_STYLE = """\
text { font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; font-size: 14px; }
text { fill: #1f2328; }
.page { fill: #ffffff; }
.title { font-size: 18px; font-weight: 600; }
.quiet { fill: #59636e; }
.inside { fill: #ffffff; font-weight: 600; text-anchor: middle; }
.figure { text-anchor: end; font-variant-numeric: tabular-nums; }
.headroom { fill: #d4d8dd; }
.frame { fill: none; stroke: #8a929a; }
.tick { stroke: #8a929a; }
%(light)s
.on-headroom { fill: #1f2328; font-weight: 600; text-anchor: middle; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .page { fill: #0d1117; }
  .quiet { fill: #9aa4ae; }
  .inside { fill: #ffffff; }
  .headroom { fill: #3a424b; }
  .on-headroom { fill: #e6edf3; }
  %(dark)s
}"""

_CLASSES = ("weights", "kv", "buffers", "headroom")


def memory_svg(report: PlanReport) -> str | None:
    """The picture; None for a plan that is not sized."""
    sizing = report.plan.sizing
    if sizing is None:
        return None
    rows = len(parts(sizing))
    height = _BAR_TOP + _BAR_HEIGHT + 48 + rows * _ROW + 12
    title = f"{sizing.model} ({sizing.precision}) on {report.plan.accelerator}"
    subtitle = (
        f"One GPU of {gib(sizing.capacity_bytes)} in a group {layout_line(report.plan)};"
        f" {sizing.kv_cache_tokens:,} tokens of KV cache in all"
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}"'
        f' height="{height}" role="img" aria-labelledby="title subtitle">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="subtitle">{escape(subtitle)}</desc>',
        f"<style>{_style()}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}" rx="8"/>',
        _text(_MARGIN, 40, "title", _cut(title)),
        _text(_MARGIN, 66, "quiet", subtitle),
        *_bar(sizing),
        *_legend(sizing, _BAR_TOP + _BAR_HEIGHT + 60),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _style() -> str:
    light = "\n".join(f".{name} {{ fill: {fill}; }}" for name, fill, _ in _COLOURS)
    dark = "\n  ".join(f".{name} {{ fill: {fill}; }}" for name, _, fill in _COLOURS)
    return _STYLE % {"light": light, "dark": dark}


def _bar(sizing: Sizing) -> Iterator[str]:
    whole = _WIDTH - 2 * _MARGIN
    left = float(_MARGIN)
    labels: list[str] = []
    for name, part in zip(_CLASSES, parts(sizing), strict=True):
        width = whole * part.size / max(1, sizing.capacity_bytes)
        yield (
            f'<rect class="{name}" x="{left:.1f}" y="{_BAR_TOP}" width="{width:.1f}" height="{_BAR_HEIGHT}">'
            f"<title>{escape(part.label)}: {gib(part.size)}</title></rect>"
        )
        if width >= _LEAST_LABELLED:
            style = "on-headroom" if name == "headroom" else "inside"
            labels.append(_text(left + width / 2, _BAR_TOP + _BAR_HEIGHT / 2 + 5, style, gib(part.size)))
        left += width
    yield from labels
    yield f'<rect class="frame" x="{_MARGIN}" y="{_BAR_TOP}" width="{whole}" height="{_BAR_HEIGHT}"/>'
    for quarter in range(5):
        x = _MARGIN + whole * quarter / 4
        below = _BAR_TOP + _BAR_HEIGHT
        yield f'<line class="tick" x1="{x:.1f}" y1="{below}" x2="{x:.1f}" y2="{below + 5}"/>'
        anchor = ("start", "middle", "middle", "middle", "end")[quarter]
        figure = f"{sizing.capacity_bytes * quarter / 4 / GIB:.0f}"
        shown = f"{figure} GiB" if quarter == 4 else figure
        yield f'<text class="quiet" x="{x:.1f}" y="{below + 22}" text-anchor="{anchor}">{shown}</text>'


def _legend(sizing: Sizing, top: int) -> Iterator[str]:
    for row, (name, part) in enumerate(zip(_CLASSES, parts(sizing), strict=True)):
        y = top + row * _ROW
        share = 100 * part.size / max(1, sizing.capacity_bytes)
        yield f'<rect class="{name}" x="{_MARGIN}" y="{y - 12}" width="14" height="14" rx="3"/>'
        yield _text(_MARGIN + 26, y, "", part.label)
        yield _text(_MARGIN + 210, y, "figure", gib(part.size))
        yield _text(_MARGIN + 280, y, "figure", f"{share:.1f} %")
        yield _text(_MARGIN + 304, y, "quiet", part.detail)


def _text(x: float, y: float, style: str, text: str) -> str:
    marked = f' class="{style}"' if style else ""
    return f'<text{marked} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TITLE else f"{text[: _LONGEST_TITLE - 3]}..."
