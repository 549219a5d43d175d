"""Requests that kept the objective, and those that did not, counted from engines' histograms. Pure.

From look to look of each pod: what an engine had counted before it was first seen, or before it began anew, is not
counted. Of a bucket with the objective inside, a part: see `autoscaler.attainment`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from moe_operator.autoscaler.attainment import within
from moe_operator.telemetry.engine_counters import EngineCounters, Histogram


@dataclass(frozen=True, slots=True)
class Objective:
    """In seconds; None: the spec names none."""

    first_token: float | None = None
    per_token: float | None = None


@dataclass
class ObjectiveCounts:
    """Of one deployment, since this operator has looked."""

    counts: dict[tuple[str, str], float] = field(default_factory=dict)
    """By part (`first_token`, `output_token`) and outcome (`within`, `beyond`). Without parts that have no
    objective."""
    _seen: dict[str, EngineCounters] = field(default_factory=dict)

    def look(self, pods: Iterable[tuple[str, EngineCounters]], objective: Objective) -> None:
        """Readings of the pods that serve or drain, by uid."""
        seen = dict(pods)
        for part, limit in (("first_token", objective.first_token), ("output_token", objective.per_token)):
            for outcome in ("within", "beyond"):
                if limit is None:
                    self.counts.pop((part, outcome), None)
                else:
                    self.counts.setdefault((part, outcome), 0.0)
        for uid, now in seen.items():
            then = self._seen.get(uid)
            if then is None or (then.since, then.ranks) != (now.since, now.ranks) or then.at == now.at:
                continue
            # Where nobody else asked, those that were timed are the operator's own.
            own = now.own_output_tokens - then.own_output_tokens
            first = now.first_token.since(then.first_token)
            self._add("first_token", first if first.count > own else Histogram(), objective.first_token)
            self._add("output_token", now.per_token.since(then.per_token), objective.per_token)
        self._seen = seen

    def told(self) -> Iterator[tuple[tuple[str, str], float]]:
        """What there is."""
        yield from self.counts.items()

    def _add(self, part: str, grown: Histogram, limit: float | None) -> None:
        if limit is None or grown.count <= 0:
            return
        found = within(grown.bounds, grown.counts, limit)
        self.counts[part, "within"] += found.kept
        self.counts[part, "beyond"] += max(0.0, found.total - found.kept)
