"""Reads the agent's page of state. Whoever has the pod writes it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: No pod has so many requests or connections, and no part of a start takes so many seconds (a year).
_MOST_OPEN, _LONGEST = 10**6, 365 * 86400.0


@dataclass(frozen=True)
class AgentState:
    """What the agent of one pod says."""

    in_flight: int
    """Requests open in the pod: an engine that is stopped cannot tell of those that wait for it."""
    idle_connections: int = 0
    """Connections of clients that wait for another request, while the pod drains."""
    draining: bool = False
    """Whether it was told to drain: answers close their connections."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds that the engine took over each part of its start; an agent of an earlier version says nothing."""


def read_agent_state(page: bytes) -> AgentState | None:
    """None for a page that is not the agent's, or has a number that none can have."""
    try:
        content = json.loads(page)
        spans = content.get("phases") or {}
        phases = {str(name): _seconds(span) for name, span in spans.items()}
        idle = _open(content.get("idle_connections") or 0)
        draining = content.get("draining") is not None
        return AgentState(_open(content["in_flight"]), idle, draining, phases)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _open(value: Any) -> int:
    count = int(value)
    if not 0 <= count <= _MOST_OPEN:
        raise ValueError("no number of what is open in a pod")
    return count


def _seconds(value: Any) -> float:
    """Clocks may have been set back meanwhile."""
    seconds = float(value)
    if not math.isfinite(seconds) or seconds > _LONGEST:
        raise ValueError("no span of a start")
    return max(0.0, seconds)
