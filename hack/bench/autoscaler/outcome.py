"""Everything that was measured, and what is asked of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from bench.autoscaler.cells import BOUND, SHARE, STATIC, Cell, Figures
from bench.autoscaler.scenarios import Scenario
from bench.autoscaler.stats import Mean, bootstrap
from bench.autoscaler.tuning import Place, Tuned

PUBLISHED, TUNED = "published defaults", "tuned on made-up traces"
HINDSIGHT, BY_TRACE = "best shared one in hindsight", "best for each trace in hindsight"


@dataclass(frozen=True)
class Entry:
    """One policy with one setting."""

    policy: str
    kind: str
    choice: int | None
    label: str
    by_trace: tuple[tuple[Scenario, int | None], ...] = ()
    """Where it has another for each trace."""

    def choice_for(self, scenario: Scenario) -> int | None:
        """Its setting's number on a trace."""
        return next((choice for one, choice in self.by_trace if one == scenario), self.choice)


@dataclass(frozen=True)
class Outcome:
    """All figures. `subject` is the policy that the others are compared with."""

    subject: str
    scenarios: tuple[Scenario, ...]
    cold_starts: tuple[float, ...]
    seeds: tuple[int, ...]
    training: tuple[Scenario, ...]
    tuned: dict[str, Tuned]
    hindsight: dict[str, Tuned]
    by_trace: dict[str, dict[Scenario, Tuned]]
    figures: dict[Cell, Figures]
    fewer_seeds: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """By kind of settings, the first few of the seeds, where it is scored with those only: bars, not results."""
    facts: dict[str, str] = field(default_factory=dict)
    """Date, commit, machine and so on."""

    # --- Who took part ---------------------------------------------------------------------------

    @property
    def places(self) -> list[Place]:
        """Traces and cold starts that count."""
        return [(s, c) for s in self.scenarios if not s.stress for c in self.cold_starts]

    @property
    def stress(self) -> list[Place]:
        """Those that nobody is held to."""
        return [(s, c) for s in self.scenarios if s.stress for c in self.cold_starts]

    def entries(self, kind: str) -> list[Entry]:
        """Policies with their settings of a kind, the subject first."""
        names = [self.subject, *(name for name in self.tuned if name != self.subject)]
        found = []
        for name in names:
            if kind == PUBLISHED:
                found.append(Entry(name, kind, None, "as it comes"))
            elif kind == BY_TRACE:
                if name in self.by_trace:
                    each = self.by_trace[name]
                    choices = tuple((scenario, one.choice) for scenario, one in each.items())
                    labels = "; ".join(dict.fromkeys(one.label for one in each.values()))
                    found.append(Entry(name, kind, None, labels, choices))
            else:
                one = (self.tuned if kind == TUNED else self.hindsight).get(name)
                if one is not None:
                    found.append(Entry(name, kind, one.choice, one.label))
        if kind == TUNED:
            found += [
                Entry(STATIC, kind, None, "least that holds, by trace"),
                Entry(BOUND, kind, None, "knows the trace"),
            ]
        return found

    def entry(self, policy: str, kind: str) -> Entry | None:
        """One of them."""
        return next((one for one in self.entries(kind) if one.policy == policy), None)

    # --- Figures ---------------------------------------------------------------------------------

    def of(self, entry: Entry, place: Place) -> list[Figures]:
        """By seed. The bound's is the cheaper of the fleet that knows the trace and the least static one: that knows it
        too, and is the cheaper one where the need hardly changes."""
        if entry.policy == BOUND:
            pairs = zip(
                self._found(entry, place), self._found(replace(entry, policy=STATIC), place), strict=True
            )
            return [min(pair, key=lambda figures: (not figures.held, figures.gpu_hours)) for pair in pairs]
        return self._found(entry, place)

    def _found(self, entry: Entry, place: Place) -> list[Figures]:
        scenario, cold_start = place
        return [
            self.figures[Cell(scenario, entry.policy, cold_start, seed, entry.choice_for(scenario))]
            for seed in self.seeds_of(entry.kind)
        ]

    def seeds_of(self, kind: str) -> tuple[int, ...]:
        """Those that a kind of settings is scored with: all, or the first few."""
        return self.fewer_seeds.get(kind, self.seeds)

    def attainment(self, entry: Entry, place: Place) -> float:
        """Mean over seeds."""
        return fmean(figures.attainment for figures in self.of(entry, place))

    def held(self, entry: Entry) -> int:
        """On how many places enough requests were in the objective."""
        return len(self.where_held(entry))

    def worst(self, entry: Entry) -> float:
        """The least attainment of any place that counts."""
        return min(self.attainment(entry, place) for place in self.places)

    def ratio(self, entry: Entry, other: Entry, places: Sequence[Place] | None = None) -> Mean:
        """GPU-hours over another's: of each place and seed that both have, then mean of places, then of seeds."""
        chosen = list(places or self.places)
        seeds = min(len(self.seeds_of(one.kind)) for one in (entry, other))
        pairs = [
            [
                mine.gpu_hours / theirs.gpu_hours
                for mine, theirs in zip(
                    self.of(entry, place)[:seeds], self.of(other, place)[:seeds], strict=True
                )
            ]
            for place in chosen
        ]
        return bootstrap([fmean(of_place[at] for of_place in pairs) for at in range(seeds)])

    @property
    def bound(self) -> Entry:
        """The fleet that knows the trace."""
        return Entry(BOUND, TUNED, None, "knows the trace")

    def best(self, kind: str) -> Entry | None:
        """Of the others that hold on most places with their settings of a kind, the cheapest."""
        others = [e for e in self.entries(kind) if e.policy not in (self.subject, STATIC, BOUND)]
        return min(
            others,
            key=lambda entry: (-self.held(entry), self.ratio(entry, self.bound).value),
            default=None,
        )

    def where_held(self, entry: Entry) -> list[Place]:
        """The places on which enough requests were in the objective."""
        return [place for place in self.places if self.attainment(entry, place) >= SHARE]
