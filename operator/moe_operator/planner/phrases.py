"""Small pieces of sentences that name nodes, choices and counts."""

from collections import Counter
from collections.abc import Iterable, Sequence


def gpus(count: int) -> str:
    """1 GPU, 8 GPUs."""
    return "1 GPU" if count == 1 else f"{count} GPUs"


def some(names: Sequence[str]) -> str:
    """The first names, and how many more nodes there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more nodes"


def either(things: Iterable[object]) -> str:
    """a, b or c."""
    listed = [str(thing) for thing in (sorted(things) if isinstance(things, Counter) else things)]
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} or {listed[-1]}"
