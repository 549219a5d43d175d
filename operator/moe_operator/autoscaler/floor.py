"""Groups that there are at least for a time."""

import math
from dataclasses import dataclass

from moe_operator.api.reasons import ScalingReason


@dataclass(frozen=True)
class Floor:
    """What somebody asks for at a moment. Times in seconds since the epoch."""

    groups: int = 0
    """Groups that there are to be, so that they serve when they have to."""
    due: int = 0
    """Of these, those that have to serve now: the others are made ahead."""
    reason: ScalingReason = ScalingReason.SCHEDULED
    text: str = ""
    """Who asks, and until when, for people."""
    until: float = math.inf
    """When what asks for `groups` ends; infinite: never."""
    next_change: float = math.inf
    """When to ask again."""
