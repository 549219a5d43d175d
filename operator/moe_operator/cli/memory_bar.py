"""One GPU's memory as parts of a bar: for text and for the picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from moe_operator.cli.units import gib
from moe_operator.planner.plan import Sizing

WIDTH = 64


@dataclass(frozen=True)
class Part:
    """One part of the memory."""

    label: str
    size: int
    """Bytes."""
    block: str
    """Its cell in a bar."""
    plain: str
    """The same for terminals without Unicode."""
    detail: str


def parts(sizing: Sizing) -> tuple[Part, ...]:
    """The parts of one GPU's memory in the order of the bar; they add up to the capacity."""
    return (
        Part("weights", sizing.weight_bytes, "█", "#", "experts, attention, embeddings"),
        Part("KV cache", sizing.kv_cache_bytes, "▒", "=", "the context of running requests"),
        Part(
            "buffers",
            sizing.activation_bytes + sizing.buffer_bytes,
            "░",
            "+",
            "activations, CUDA graphs, workspaces, NCCL",
        ),
        Part("headroom", sizing.headroom_bytes, "·", ".", "driver, fragmentation, other processes"),
    )


def cells(sizes: Sequence[int], width: int) -> list[int]:
    """Cells of each part: in proportion, every part that is there with one at least, `width` in all."""
    total = sum(sizes)
    if total <= 0:
        return [0] * len(sizes)
    shares = [size * width / total for size in sizes]
    given = [max(1 if size > 0 else 0, int(share)) for size, share in zip(sizes, shares, strict=True)]
    while sum(given) != width:
        step = 1 if sum(given) < width else -1
        # Where a cell is taken, from the part that is furthest above its share, but for the last of any.
        rest = [(share - cell) * step for share, cell in zip(shares, given, strict=True)]
        open_to = [i for i, cell in enumerate(given) if cell > 1 or (step > 0 and sizes[i] > 0)]
        given[max(open_to, key=lambda i: rest[i])] += step
    return given


def memory_bar(sizing: Sizing, *, plain: bool, width: int = WIDTH) -> list[str]:
    """The bar and its legend, a line each."""
    found = parts(sizing)
    drawn = zip(found, cells([part.size for part in found], width), strict=True)
    left, right = ("[", "]") if plain else ("▕", "▏")
    lines = [left + "".join((part.plain if plain else part.block) * n for part, n in drawn) + right]
    for part in found:
        share = 100 * part.size / sizing.capacity_bytes if sizing.capacity_bytes else 0
        mark = part.plain if plain else part.block
        lines.append(f"{mark} {part.label:<9}{gib(part.size):>10} {share:5.1f}%  {part.detail}")
    return lines
