"""What a policy of scaling is: asked for a number of groups at fixed times, with what a Prometheus would show it."""

from dataclasses import dataclass
from typing import Protocol

from moe_operator.simulator.scrape import View


@dataclass(frozen=True)
class FleetState:
    """Groups by state; `desired` as asked for last, within `floor` and `ceiling`."""

    desired: int
    ready: int
    starting: int
    draining: int
    floor: int
    ceiling: int


class Policy(Protocol):
    """Decides how many groups there shall be, ready and starting ones together."""

    name: str
    interval: float
    """Seconds between decisions."""
    undrain: bool
    """Whether a draining group goes back to work before a new one is started."""

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        """Groups wanted at `now` (seconds from the beginning). What is beyond floor or ceiling is cut off."""
