"""No autoscaling: as many groups as the peak needs, always.

What a team runs that trusts no autoscaler. The number is given; the benchmark takes the least one that holds the
objective over the whole trace, so that this bound is not dearer than it must be.
"""

from dataclasses import dataclass

from moe_operator.simulator.policies.baseline import Tunable, one
from moe_operator.simulator.policy import FleetState, View

TUNABLE = one("groups", tuple(float(number) for number in range(1, 33)), "the least that holds the objective")


@dataclass(frozen=True)
class StaticSettings:
    groups: float = 0.0
    """Groups; 0: as many as the ceiling allows."""


class Static:
    name = "static"
    undrain = False
    tunable: Tunable = TUNABLE

    def __init__(self, settings: StaticSettings | None = None) -> None:
        self.settings = settings or StaticSettings()
        self.interval = 60.0

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        return int(self.settings.groups) or fleet.ceiling
