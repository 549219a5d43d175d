"""How long no request came to a deployment: what may let its last group go. Pure.

Two things tell: what telemetry saw of each pod, at each of its scrapes, and what the engines have counted, which tells
of requests between two looks and of those that came while nobody looked. A group that cannot be read now makes the
answer unknown; once it can, and its counters are where they were, nothing came meanwhile. Counters that are another's
(an engine began anew, a rank stopped to tell) prove nothing, so time counts from then.

Requests of the operator are no requests (`telemetry.own_requests`). One that it gave up looks like one that a client
gave up: it counts, which only keeps a group longer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Activity:
    """What is known of a group that is or was in the traffic."""

    busy: bool
    """Whether it has requests."""
    used_at: float
    """When it was last seen to have some, or was first seen; by telemetry's clock, in seconds."""
    counted: tuple[float, ...]
    """Totals that move with every request, and since when they run on."""


@dataclass
class Idleness:
    """One deployment's. Empty after a restart of the operator: time then counts from its first look."""

    requested_at: float | None = None
    """When a request was seen last; None: none was seen."""
    _since: float | None = None
    """Since when no request came."""
    _known: bool = False
    _counted: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def look(self, now: float, groups: Mapping[str, Activity | None]) -> None:
        """Take up all groups that are or were in the traffic; None for one that cannot be read."""
        self._counted = {key: seen for key, seen in self._counted.items() if key in groups}
        self._known = bool(groups) and all(seen is not None for seen in groups.values())
        for key, seen in groups.items():
            if seen is None:
                continue
            before = self._counted.get(key)
            self._counted[key] = seen.counted
            if before is None or self._since is None:
                self.begin(now)
            if seen.busy or (before is not None and before != seen.counted):
                self.requested_at = now
                self.begin(now)
            self.begin(seen.used_at)

    def begin(self, at: float) -> None:
        """No request is known to have stayed away before then."""
        self._since = at if self._since is None else max(self._since, at)

    def quiet(self, now: float) -> float | None:
        """Seconds for which no request came; None: not known now."""
        return now - self._since if self._known and self._since is not None else None
