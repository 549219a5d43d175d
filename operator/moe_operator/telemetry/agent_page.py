"""Reads the agent's page of state."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


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
    """None for a page that is not the agent's."""
    try:
        content = json.loads(page)
        spans = content.get("phases") or {}
        phases = {str(name): max(0.0, float(seconds)) for name, seconds in spans.items()}
        idle = int(content.get("idle_connections") or 0)
        draining = content.get("draining") is not None
        return AgentState(int(content["in_flight"]), idle, draining, phases)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
