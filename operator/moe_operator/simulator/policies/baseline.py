"""How a benchmark gets hold of a policy: its settings, and what of them may be tuned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Served:
    """What an autoscaler may be told about the deployment before it runs; all of it is known from the plan."""

    ttft: float
    """Objective: seconds to the first token."""
    tpot: float
    """Objective: mean seconds per output token."""
    ranks: int = 1
    """Data-parallel ranks in a group. What follows is per rank."""
    slots: int = 256
    """Requests computed at once (`max-num-seqs`)."""
    batched_tokens: int = 8192
    """Tokens in one step (`max-num-batched-tokens`)."""
    kv_tokens: int = 1_000_000
    """Tokens that fit into the KV cache."""


#: Shares of a KV cache that sweeps of policies on it try.
KV_SHARES = (
    *(0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25),
    *(0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8),
)


@dataclass(frozen=True)
class Tunable:
    """The settings that a sweep changes, together, and the combinations that it tries."""

    fields: tuple[str, ...]
    grid: tuple[tuple[float, ...], ...]
    why: str

    def variants(self, settings: Any) -> Iterator[Any]:
        """The settings with every combination of the grid."""
        for values in self.grid:
            yield replace(settings, **dict(zip(self.fields, values, strict=True)))


def one(field: str, values: Sequence[float], why: str) -> Tunable:
    """A sweep of a single setting."""
    return Tunable((field,), tuple((value,) for value in values), why)
