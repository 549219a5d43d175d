"""The bound: a fleet that knows the trace, and pays for cold starts like everyone else.

From the work that is needed in every interval it derives how many groups should serve at each moment, level by
level: level k is on while at least k groups are needed. An off-gap shorter than a cold start (and the drain that
an end costs) is kept on, as starting again would cost as much; that is optimal for one level with unit start-up
cost. Every on-interval is started early by the cold start. `utilisation` is swept; the cheapest run that holds
the objective is the bound. It is a heuristic, not a proof: a policy that queues on purpose could cost less.
"""

import math
from dataclasses import dataclass

from moe_operator.simulator.policies.baseline import Tunable, one
from moe_operator.simulator.policy import FleetState, Samples, View

TUNABLE = one(
    "utilisation", (0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0), "share of a group's capacity used"
)


@dataclass(frozen=True)
class ClairvoyantSettings:
    utilisation: float = 0.9
    """Share of a group's sustained capacity that is used, 0..1."""
    cold_start: float = 300.0
    """Seconds from creation to ready that are planned for: the mean, plus what the jitter adds if all of it
    shall be covered."""
    drain: float = 0.0
    """Seconds that a group still costs after it was let go."""
    margin: float = 0.0
    """Seconds that groups are ready ahead of the need."""
    least: int = 1
    interval: float = 15.0


def needed_groups(work: Samples, utilisation: float, least: int = 1) -> list[int]:
    """Groups in every interval for the work in it, in groups at full capacity (1.0: one group busy)."""
    if not 0 < utilisation <= 1:
        raise ValueError(
            f"utilisation is {utilisation}: give a share of a group's capacity, above 0 and up to 1"
        )
    needed = []
    for index in range(len(work)):
        amount = float(work[index])
        if not (math.isfinite(amount) and amount >= 0):
            raise ValueError(f"the work in interval {index} is {amount}: give a finite number of at least 0")
        needed.append(max(least, math.ceil(amount / utilisation - 1e-9)))
    return needed


def kept_on(needed: list[int], gap: int) -> list[int]:
    """Groups that serve in every interval once each level's gaps of fewer than `gap` intervals are filled."""
    kept = list(needed)
    for level in range(1, max(needed, default=0) + 1):
        last: int | None = None
        for index, number in enumerate(needed):
            if number < level:
                continue
            if last is not None and 1 < index - last <= gap:
                for off in range(last + 1, index):
                    kept[off] = max(kept[off], level)
            last = index
    return kept


def started_early(serving: list[int], lead: int) -> list[int]:
    """Groups that must exist (serve or start) in every interval for `serving` to be ready in time."""
    return [max(serving[index : index + lead + 1]) for index in range(len(serving))]


class Clairvoyant:
    """Follows the schedule. The work is counted from the trace's true arrivals and lengths by the caller."""

    name = "clairvoyant"
    undrain = False
    tunable: Tunable = TUNABLE

    def __init__(self, work: Samples, seconds: float, settings: ClairvoyantSettings | None = None) -> None:
        """`work`: groups at full capacity that each interval of `seconds` needs, from time 0."""
        self.settings = settings or ClairvoyantSettings()
        self.interval = self.settings.interval
        self.seconds = seconds
        lead = self.settings.cold_start + self.settings.margin
        needed = needed_groups(work, self.settings.utilisation, self.settings.least)
        self.serving = kept_on(needed, math.ceil((lead + self.settings.drain) / seconds))
        self.existing = started_early(self.serving, math.ceil(lead / seconds))

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        if not self.existing:
            return fleet.floor
        index = min(max(int(now / self.seconds), 0), len(self.existing) - 1)
        return self.existing[index]
