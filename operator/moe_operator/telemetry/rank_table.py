"""What each rank of a pod has counted, in a row of numbers: a fleet has thousands of ranks, and windows keep a dozen
readings of each. Pure."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from moe_operator.telemetry.engine_counters import EngineCounters, Histogram

#: Figures of `EngineCounters` that a row begins with; the buckets of both histograms follow.
_COLUMNS = (
    "prompt_tokens",
    "output_tokens",
    "running",
    "waiting",
    "kv_worst",
    "prefix_queries",
    "prefix_hits",
    "preemptions",
    "draft_tokens",
    "accepted_tokens",
)


@dataclass(frozen=True, slots=True)
class RankTable:
    """One reading of the ranks of one pod, as the engine has it: the operator's own requests are in it."""

    ranks: tuple[int, ...] = ()
    """Their numbers in the group, ascending."""
    first_token_bounds: tuple[float, ...] = ()
    per_token_bounds: tuple[float, ...] = ()
    _rows: "array[float]" = field(default_factory=lambda: array("d"))

    @classmethod
    def of(cls, readings: Sequence[tuple[int, EngineCounters]]) -> "RankTable":
        """One for each rank. Ranks of one process have the same buckets; of one that has others they are left out."""
        if not readings:
            return cls()
        found = sorted(readings, key=lambda one: one[0])
        first, later = found[0][1].first_token.bounds, found[0][1].per_token.bounds
        rows: array[float] = array("d")
        for _, seen in found:
            rows.extend(getattr(seen, name) for name in _COLUMNS)
            for told, bounds in ((seen.first_token, first), (seen.per_token, later)):
                rows.extend(told.counts if told.bounds == bounds else (0.0,) * len(bounds))
        return cls(tuple(rank for rank, _ in found), first, later, rows)

    @property
    def _width(self) -> int:
        return len(_COLUMNS) + len(self.first_token_bounds) + len(self.per_token_bounds)

    def like(self, other: "RankTable") -> bool:
        """Whether rows of the two may be compared."""
        return (self.ranks, self.first_token_bounds, self.per_token_bounds) == (
            other.ranks,
            other.first_token_bounds,
            other.per_token_bounds,
        )

    def tokens(self) -> list[float]:
        """Prompt and output tokens by rank, since the engines began."""
        width, rows = self._width, self._rows
        return [rows[at] + rows[at + 1] for at in range(0, len(rows), width)]

    def row(self, place: int, at: float, zeros: float = 0.0) -> EngineCounters:
        """Of the rank at a place, read `at`. `zeros`: entries of 0 in its time per output token that are not counted.
        Raises IndexError."""
        width, first = self._width, len(self.first_token_bounds)
        row = self._rows[place * width : (place + 1) * width]
        if len(row) < width or place < 0:
            raise IndexError(f"no rank at place {place}")
        figures = dict(zip(_COLUMNS, row, strict=False))
        buckets = row[len(_COLUMNS) :]
        return EngineCounters(
            at=at,
            ranks=1,
            running=round(figures.pop("running")),
            waiting=round(figures.pop("waiting")),
            kv_sum=figures["kv_worst"],
            first_token=Histogram(self.first_token_bounds, tuple(buckets[:first])),
            per_token=Histogram(self.per_token_bounds, tuple(buckets[first:])).without_zeros(zeros),
            **figures,  # type: ignore[arg-type]
        )
