"""Groups as the linear model of `autoscaler.capacity` has them, for the autoscaler to look at.

Steady from look to look, without an engine's fine structure. Requests have `output` tokens each; a step takes idle +
per_request * n seconds with n requests at work in a rank. Overload piles requests up.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate

from moe_operator.autoscaler.auto import TICK, Autoscaler, Profile, Want
from moe_operator.autoscaler.reading import Buckets, Reading

BOUNDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1.0, float("inf"))
FIRST_BOUNDS = (0.1, 1.0, 2.5, 5.0, 10.0, float("inf"))

_PARTS = 5


def profile(**overrides: object) -> Profile:
    """Eight ranks of a GPU and of 256 slots, for 5 s and 80 ms."""
    values: dict[str, object] = {"ranks": 8, "slots": 256, "ttft": 5.0, "tpot": 0.08, "gpus": 8}
    return Profile(**{**values, **overrides})  # type: ignore[arg-type]


@dataclass
class Group:
    """One group's state and counters."""

    at_work: float = 0.0
    """Requests of the whole group."""
    finished: float = 0.0
    gaps: float = 0.0
    gap_seconds: float = 0.0
    per_token: list[float] = field(default_factory=lambda: [0.0] * len(BOUNDS))


@dataclass
class Plant:
    """A fleet that serves `rate` requests per second, each at the group with the least at work."""

    autoscaler: Autoscaler
    groups: int = 4
    output: float = 500.0
    idle: float = 0.02
    per_request: float = 0.001
    kv_per_request: float = 0.0002
    cold_start: float = 300.0
    now: float = 0.0
    floor: int = 1
    ceiling: int = 1_000
    desired: int = 0
    history: list[tuple[float, int]] = field(default_factory=list)
    change: Callable[[str, Reading, float], Reading | None] = lambda name, reading, now: reading
    """What becomes of a reading on its way: None is lost."""

    def __post_init__(self) -> None:
        self.desired = self.groups
        self._serving = {f"g{at}": Group() for at in range(self.groups)}
        self._born: dict[str, float | None] = dict.fromkeys(self._serving)
        self._starting: list[float] = []
        self._next = self.groups

    @property
    def capacity(self) -> float:
        """Requests per second of one group whose step takes just the objective's time."""
        tpot = self.autoscaler.profile.tpot or 0.08
        at_work = (tpot - self.idle) / self.per_request * self.autoscaler.profile.ranks
        return at_work / (self.output * tpot)

    def run(self, seconds: float, rate: Callable[[float], float], *, act: bool = True) -> Want:
        """Look after look; with `act` the number of groups follows."""
        want = None
        end = self.now + seconds
        while self.now < end:
            self.now += TICK
            self._step(rate(self.now))
            want = self._look()
            if act:
                self._follow(min(max(want.groups, self.floor), self.ceiling))
            self.history.append((self.now, self.desired))
        assert want is not None
        return want

    def unseen(self, seconds: float, rate: Callable[[float], float]) -> None:
        """The same number of groups goes on serving, and nobody looks."""
        end = self.now + seconds
        while self.now < end:
            self.now += TICK
            self._step(rate(self.now))

    def _step(self, rate: float) -> None:
        for due in [due for due in self._starting if due <= self.now]:
            self._starting.remove(due)
            self._serving[f"g{self._next}"] = Group()
            self._born[f"g{self._next}"] = self.now
            self._next += 1
        ranks = self.autoscaler.profile.ranks
        for _ in range(_PARTS):
            _route(list(self._serving.values()), rate * TICK / _PARTS)
            for group in self._serving.values():
                step = self.idle + self.per_request * group.at_work / ranks
                done = min(group.at_work, group.at_work / (self.output * step) * TICK / _PARTS)
                group.at_work -= done
                group.finished += done
                group.gaps += done * self.output
                group.gap_seconds += done * self.output * step
                # Cumulative sums are made when somebody looks.
                group.per_token[bisect_left(BOUNDS, step)] += done

    def _look(self) -> Want:
        ranks = self.autoscaler.profile.ranks
        for name, group in self._serving.items():
            reading = Reading(
                at=self.now,
                running=group.at_work,
                waiting=0.0,
                kv=min(1.0, group.at_work / ranks * self.kv_per_request),
                finished=group.finished,
                gaps=group.gaps,
                gap_seconds=group.gap_seconds,
                first_token=Buckets(FIRST_BOUNDS, (group.finished,) * len(FIRST_BOUNDS)),
                per_token=Buckets(BOUNDS, tuple(accumulate(group.per_token))),
                ranks=ranks,
            )
            changed = self.change(name, reading, self.now)
            if changed is not None:
                self.autoscaler.read(name, changed, born=self._born[name])
        self.autoscaler.look(self.now, {name: self._born[name] for name in self._serving}, ())
        return self.autoscaler.want(self.now, self.desired, self.floor, self.ceiling)

    def _follow(self, wanted: int) -> None:
        while len(self._serving) + len(self._starting) < wanted:
            self._starting.append(self.now + self.cold_start)
        while len(self._serving) + len(self._starting) > wanted and self._starting:
            self._starting.pop()
        while len(self._serving) > max(1, wanted):
            name = next(iter(self._serving))
            leaving = self._serving.pop(name)
            for group in self._serving.values():
                group.at_work += leaving.at_work / len(self._serving)
        self.desired = wanted


def _route(groups: list[Group], requests: float) -> None:
    """To those with the least at work, as a router does."""
    groups.sort(key=lambda group: group.at_work)
    for count in range(1, len(groups) + 1):
        level = (requests + sum(each.at_work for each in groups[:count])) / count
        if count == len(groups) or level <= groups[count].at_work:
            for each in groups[:count]:
                each.at_work = level
            return


def plant(rate: float | None = None, **overrides: object) -> Plant:
    """A fleet with an autoscaler that knows nothing; `rate` (requests/s) is served for an hour before, if given."""
    start = Autoscaler(profile(), cold_start=float(overrides.get("cold_start", 300.0)))  # type: ignore[arg-type]
    made = Plant(**{"autoscaler": start, **overrides})  # type: ignore[arg-type]
    if rate is not None:
        made.run(3600, lambda _: rate)
    return made
