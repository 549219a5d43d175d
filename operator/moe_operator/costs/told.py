"""What counters have said, where that is more than the accounts have."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from moe_operator.costs.accounts import Accounts
from moe_operator.costs.holdings import GpuState


@dataclass(frozen=True, slots=True)
class Told:
    """By state: GPU-seconds, money, and seconds that never had a price."""

    seconds: Mapping[GpuState, float] = field(default_factory=lambda: dict.fromkeys(GpuState, 0.0))
    money: Mapping[GpuState, float] = field(default_factory=lambda: dict.fromkeys(GpuState, 0.0))
    unpriced: float = 0.0

    @staticmethod
    def of(accounts: Accounts, elsewhere: float) -> "Told":
        """As counters say accounts; `elsewhere`: GPU-seconds that had a price in an earlier currency."""
        kept = accounts.rounded()
        return Told(kept.gpu_seconds, kept.money, max(0.0, round(kept.unpriced - elsewhere, 3)))

    def most(self, other: "Told") -> "Told":
        return Told(
            {state: max(value, other.seconds[state]) for state, value in self.seconds.items()},
            {state: max(value, other.money[state]) for state, value in self.money.items()},
            max(self.unpriced, other.unpriced),
        )

    def least(self, other: "Told") -> "Told":
        return Told(
            {state: min(value, other.seconds[state]) for state, value in self.seconds.items()},
            {state: min(value, other.money[state]) for state, value in self.money.items()},
            min(self.unpriced, other.unpriced),
        )

    def without_money(self) -> "Told":
        return Told(self.seconds, unpriced=self.unpriced)
