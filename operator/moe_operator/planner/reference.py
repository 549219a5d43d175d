"""The page of the planner's constants and of how far its estimates are from what was published:
`python -m moe_operator.planner.reference` prints it."""

import inspect
import re
import sys
from types import ModuleType

from moe_operator.catalog.accelerators import load_catalog
from moe_operator.catalog.models.catalog import load_models
from moe_operator.planner import arithmetic, balance, memory, roofline, sizing, wants
from moe_operator.planner.anchors import ANCHORS, Anchor, estimate

#: Where the generated file is kept, from the repository's root.
FILE = "docs/reference/planner.md"

_INTRODUCTION = """\
# How the planner counts

This page is generated from the planner's sources.

Bytes of weights and of the KV cache are exact: sums over a model's tensors as its checkpoint stores them, and vLLM's
own arithmetic of cache blocks. What an engine needs besides is bounded from above with the constants here. Throughput
and latency are estimates of a roofline: a decode step takes the longer of reading memory and computing, then
communicates, then pays for launches; they choose between layouts and size a fleet until there are measurements.
"""

_ANCHORS = """
## Estimates beside published figures

Tokens per second and GPU, without speculative decoding. Layout: GPUs per rank x ranks; "best" is the best within one
node, as published. Off: the estimate divided by what was published.

| Published by | Model | On | Layout | Tokens in + out | Counted | Published | Estimate | Off |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

_CHAPTERS: tuple[tuple[str, ModuleType], ...] = (
    ("Memory", memory),
    ("Steps and contexts", sizing),
    ("Experts", balance),
    ("Roofline", roofline),
    ("Arithmetic", arithmetic),
    ("Where the spec says nothing", wants),
)


def render() -> str:
    """The page as Markdown."""
    parts = [_INTRODUCTION]
    for title, module in _CHAPTERS:
        rows = [f"| `{name}` | {value} | {reason} |\n" for name, value, reason in constants(module)]
        parts += [f"\n## {title}\n\n| Constant | Value | Why |\n| --- | --- | --- |\n", *rows]
    parts += [_ANCHORS, *map(_row, ANCHORS)]
    return "".join(parts)


def constants(module: ModuleType) -> list[tuple[str, str, str]]:
    """(name, value, reason) of a module's public numbers, in its order. The reason is the comment above (`#:`); it
    stands for those that follow without one too."""
    found: list[tuple[str, str, str]] = []
    reason: list[str] = []
    fresh = True
    for line in inspect.getsource(module).splitlines():
        if line.startswith("#:"):
            reason = ([] if fresh else reason) + [line[2:].strip()]
            fresh = False
            continue
        fresh = True
        names = re.match(r"((?:[A-Z][A-Z0-9_]*(?:, )?)+) = ", line)
        if names is None:
            if not line.startswith(("_", " ", ")")):
                reason = []
            continue
        for name in names[1].split(", "):
            value = getattr(module, name)
            if reason and isinstance(value, int | float | tuple):
                found.append((name, _value(value), " ".join(reason).replace("|", "\\|")))
    return found


def _value(value: float | tuple[int, ...]) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, int) and value >= memory.MIB and value % memory.MIB == 0:
        return f"{value // memory.MIB} MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row(anchor: Anchor) -> str:
    rate = estimate(anchor, load_catalog(), load_models())
    layout = "best" if anchor.layout is None else "{} x {}".format(*anchor.layout)
    counted = anchor.rate.value
    if anchor.per_user:
        counted += f", {anchor.per_user} a second for each user"
    if anchor.sequences:
        counted += f", {anchor.sequences} requests"
    cells = (
        anchor.source,
        f"{anchor.model} {anchor.precision}",
        anchor.accelerator,
        layout,
        f"{anchor.prompt} + {anchor.output}",
        counted,
        f"{anchor.published:,.0f}",
        f"{rate:,.0f}",
        f"{rate / anchor.published:.2f}" + (f" ({anchor.remark})" if anchor.remark else ""),
    )
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.stdout.write(render())
