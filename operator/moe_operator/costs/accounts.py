"""Sums since the accounts began: GPU-seconds, money, tokens and requests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from moe_operator.costs.holdings import TOKENS, GpuState


@dataclass(frozen=True, slots=True)
class Accounts:
    """All of it only grows. Differences of two are a span's; between two moments they are taken to grow evenly."""

    gpu_seconds: Mapping[GpuState, float] = field(default_factory=lambda: dict.fromkeys(GpuState, 0.0))
    money: Mapping[GpuState, float] = field(default_factory=lambda: dict.fromkeys(GpuState, 0.0))
    """In the currency."""
    unpriced: float = 0.0
    """GPU-seconds without a price: `money` lacks them."""
    counts: tuple[float, ...] = (0.0,) * len(TOKENS)
    """As `TOKENS` names them."""
    joules: float = 0.0
    """That GPUs took, as far as that was told ..."""
    metered: float = 0.0
    """... which it was for so many GPU-seconds."""

    @property
    def total_seconds(self) -> float:
        return sum(self.gpu_seconds.values())

    @property
    def total_money(self) -> float:
        return sum(self.money.values())

    def count(self, name: str) -> float:
        return self.counts[TOKENS.index(name)]

    def with_gpus(self, state: GpuState, gpu_seconds: float, price: int | None) -> "Accounts":
        """More of GPUs held; `price` in millionths per GPU-hour."""
        money, unpriced = self.money, self.unpriced
        if price is None:
            unpriced += gpu_seconds
        else:
            money = {**money, state: money[state] + gpu_seconds / 3600 * price / 1e6}
        seconds = {**self.gpu_seconds, state: self.gpu_seconds[state] + gpu_seconds}
        return replace(self, gpu_seconds=seconds, money=money, unpriced=unpriced)

    def with_counts(self, more: tuple[float, ...]) -> "Accounts":
        added = tuple(a + b for a, b in zip(self.counts, more, strict=True))
        return replace(self, counts=added)

    def with_energy(self, joules: float, gpu_seconds: float) -> "Accounts":
        """More of what GPUs took, in so many GPU-seconds."""
        return replace(self, joules=self.joules + joules, metered=self.metered + gpu_seconds)

    def without_money(self) -> "Accounts":
        """For another currency: what was spent before is not converted."""
        none = dict.fromkeys(GpuState, 0.0)
        return replace(self, money=none, unpriced=self.total_seconds)

    def rounded(self) -> "Accounts":
        """To the digits that the ledger keeps: what is told with more falls when the next operator reads it."""
        return Accounts(
            {state: round(value, 3) for state, value in self.gpu_seconds.items()},
            {state: round(value, 6) for state, value in self.money.items()},
            round(self.unpriced, 3),
            tuple(float(round(count)) for count in self.counts),
            float(round(self.joules)),
            round(self.metered, 3),
        )

    def since(self, earlier: "Accounts") -> "Accounts":
        """What came after `earlier`."""
        return _combined(self, earlier, lambda now, then: max(0.0, now - then))

    def towards(self, later: "Accounts", share: float) -> "Accounts":
        """The point at `share` (0 to 1) of the way to `later`."""
        return _combined(self, later, lambda now, then: now + (then - now) * share)


def _combined(one: Accounts, other: Accounts, of: Callable[[float, float], float]) -> Accounts:
    return Accounts(
        {state: of(one.gpu_seconds[state], other.gpu_seconds[state]) for state in GpuState},
        {state: of(one.money[state], other.money[state]) for state in GpuState},
        of(one.unpriced, other.unpriced),
        tuple(of(a, b) for a, b in zip(one.counts, other.counts, strict=True)),
        of(one.joules, other.joules),
        of(one.metered, other.metered),
    )
