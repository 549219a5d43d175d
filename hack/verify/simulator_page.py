"""The page and the picture of a comparison of engines."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from verify.engine_figures import SPAN, WITHIN, Figure
from verify.simulated_engine import Course
from verify.simulator_loads import Load
from verify.step_times import StepTimes

Floats = NDArray[np.float64]

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 300, 110, 52, 64, 46
_REAL, _MADE = "#1f77b4", "#d62728"


@dataclass(frozen=True)
class Served:
    """One load, as both engines served it; `bias`: how far off fitted times are on steps as vLLM put them together."""

    load: Load
    real: Course
    made: Course
    figures: list[Figure]
    bias: float


@dataclass(frozen=True)
class Outcome:
    """All of them."""

    served: list[Served]
    times: StepTimes
    sustained: float
    limits: dict[str, int]
    facts: dict[str, str]

    @property
    def off(self) -> list[tuple[Served, Figure]]:
        """What is further off than it may be."""
        return [(served, figure) for served in self.served for figure in served.figures if not figure.held]


def page(outcome: Outcome) -> str:
    """Markdown."""
    times, limits = outcome.times, outcome.limits
    count = sum(len(served.figures) for served in outcome.served)
    known = sum(figure.known for served in outcome.served for figure in served.figures)
    lines = [
        "# The engine model against vLLM",
        "",
        "`make verify-simulator` writes this page. A model of random weights is served by vLLM's own scheduler, KV "
        "cache and kernels on a CPU, and the [simulator](../contributing/simulator.md)'s engine is given the same "
        "arrivals. The constants of its step times are fitted beforehand, to steps of other loads on the same machine.",
        "",
        *(f"- {name}: {text}" for name, text in outcome.facts.items()),
        f"- Limits, read from the engine: {limits['slots']} requests, {limits['batch_tokens']} tokens a step, "
        f"{limits['blocks']} blocks of {limits['block']} tokens",
        f"- Step times, fitted to {times.steps} steps (mean error {times.error:.1%}): {times.base * 1e3:.2f} ms, "
        f"{times.experts * 1e3:.2f} ms for all experts, {times.decode * 1e6:.0f} us a request that decodes, "
        f"{times.prefill * 1e6:.0f} us a prompt token, {times.kv * 1e9:.0f} ns a token in the cache; "
        f"{outcome.sustained:.1f} requests/s sustained",
        "",
        f"**{count - len(outcome.off) - known} of {count - known} figures are within {WITHIN:.0%}**"
        + (f", {known} more are of what is not modelled." if known else "."),
        "",
        "Time is the processor time of one thread, in units of work that is always the same and done beside each step: "
        "other processes on the machine neither stretch steps nor lengthen queues (`hack/verify/engine_run.py`). The "
        "front end, HTTP and tokenizer, is left out on both sides.",
        "",
        "![Output tokens per second, running and waiting requests, real and simulated](simulator/courses.svg)",
        "",
    ]
    for served in outcome.served:
        lines += [
            f"## {served.load.name[0].upper()}{served.load.name[1:]}",
            "",
            f"{len(served.load.requests)} requests; {served.load.about}. By the fitted times, the steps that vLLM put "
            f"together would have taken {served.bias:+.1%}.",
            "",
            "| | vLLM | simulated | off | |",
            "| --- | --- | --- | --- | --- |",
            *(_row(figure) for figure in served.figures),
            "",
        ]
    lines += [
        f"Courses are compared every {SPAN:g} s: the means of both, and the mean distance as a share of the real one's "
        "mean. Where figures are next to nothing a share says nothing: two values count as the same within 50 ms to "
        "the first token and in the queue (an arrival meets a step under way), half a request, one hundredth of the "
        "cache, five preemptions.",
        "",
    ]
    return "\n".join(lines)


def _row(figure: Figure) -> str:
    digits = 0 if max(figure.real, figure.simulated) >= 1000 else 3 if figure.unit == "s" else 1
    share = f"{figure.deviation:.1%}" if np.isfinite(figure.deviation) else "-"
    unit = f" {figure.unit}" if figure.unit not in ("", "requests") else ""
    return (
        f"| {figure.name} | {figure.real:,.{digits}f}{unit} | {figure.simulated:,.{digits}f}{unit} | {share} | "
        f"{figure.verdict()} |"
    )


def picture(outcome: Outcome) -> str:
    """Rows of loads; columns of tokens per second, running and waiting requests."""
    titles = ("output tokens per second", "running requests", "waiting requests")
    width = 3 * (_WIDTH + _GAP) + _LEFT
    height = len(outcome.served) * (_HEIGHT + _GAP) + _TOP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<line x1="{_LEFT}" x2="{_LEFT + 24}" y1="14" y2="14" stroke="{_REAL}" stroke-width="2"/>',
        f'<text x="{_LEFT + 30}" y="18">vLLM</text>',
        f'<line x1="{_LEFT + 80}" x2="{_LEFT + 104}" y1="14" y2="14" stroke="{_MADE}" stroke-width="2" '
        'stroke-dasharray="5 3"/>',
        f'<text x="{_LEFT + 110}" y="18">simulated</text>',
    ]
    for column, title in enumerate(titles):
        x = _LEFT + column * (_WIDTH + _GAP)
        parts.append(f'<text x="{x}" y="40" font-weight="bold">{title}</text>')
    for row, served in enumerate(outcome.served):
        y = _TOP + row * (_HEIGHT + _GAP)
        parts.append(f'<text x="{_LEFT}" y="{y - 6}" fill="#555">{escape(served.load.name)}</text>')
        for column, of in enumerate((_tokens, _running, _waiting)):
            parts += _panel(_LEFT + column * (_WIDTH + _GAP), y, of(served.real), of(served.made))
    return "\n".join([*parts, "</svg>", ""])


def _tokens(course: Course) -> tuple[Floats, Floats]:
    size = round(1.0 / float(course.at[1] - course.at[0]))
    reached = np.concatenate([[0.0], course.tokens[size - 1 :: size]])
    seconds: Floats = np.arange(1.0, len(reached))
    return seconds, np.diff(reached)


def _running(course: Course) -> tuple[Floats, Floats]:
    return course.at, course.running


def _waiting(course: Course) -> tuple[Floats, Floats]:
    return course.at, course.waiting


def _panel(x: float, y: float, real: tuple[Floats, Floats], made: tuple[Floats, Floats]) -> list[str]:
    last = max(float(real[0][-1]), float(made[0][-1]), 1.0)
    most = max(float(real[1].max()), float(made[1].max()), 1.0)
    parts = [
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#ccc"/>',
        f'<text x="{x - 4}" y="{y + 9}" text-anchor="end" fill="#555">{most:.0f}</text>',
        f'<text x="{x - 4}" y="{y + _HEIGHT}" text-anchor="end" fill="#555">0</text>',
        f'<text x="{x + _WIDTH}" y="{y + _HEIGHT + 13}" text-anchor="end" fill="#555">{last:.0f} s</text>',
    ]
    for (at, values), colour, dashes in ((real, _REAL, ""), (made, _MADE, ' stroke-dasharray="5 3"')):
        points = " ".join(
            f"{x + _WIDTH * moment / last:.1f},{y + _HEIGHT * (1 - value / most):.1f}"
            for moment, value in zip(at.tolist(), values.tolist(), strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.2"{dashes}/>'
        )
    return parts
