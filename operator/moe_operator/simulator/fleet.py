"""Groups' lives: starting, ready, draining, gone; and the GPU time that each takes.

GPUs are held from a group's creation to its end, whether it serves or not. A group starts for the cold start, give or
take a drawn share; draining it gets no new requests, and ends with its last one, or at a deadline, when the rest is
cut.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from moe_operator.simulator import kernel
from moe_operator.simulator.engine_model import EngineModel


class Life(Enum):
    """What a group does with its GPUs."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass
class Group:
    """One group: numbered from 0 in order of creation, never twice. Times in seconds."""

    number: int
    life: Life
    since: float
    place: int = -1
    """Where the kernel keeps it, once ready."""
    due: float = np.inf
    """When it is ready (starting), or cut (draining)."""
    spent: dict[Life, float] = field(default_factory=lambda: dict.fromkeys(Life, 0.0))

    def turn(self, life: Life, now: float, due: float = np.inf) -> None:
        """From one state to another."""
        self.spent[self.life] += now - self.since
        self.life, self.since, self.due = life, now, due


class Fleet:
    """The groups of one deployment, over the kernel's places."""

    def __init__(
        self,
        requests: kernel.Requests,
        engine: EngineModel,
        *,
        cold_start: float,
        jitter: float,
        drain_deadline: float,
        places: int,
        seed: int,
    ) -> None:
        """`cold_start` and `drain_deadline` in seconds; a start takes cold_start x (1 +- jitter), drawn evenly."""
        self.requests = requests
        self.engine = engine
        self.constants = kernel.constants(engine)
        self.places = kernel.groups(max(1, places), engine)
        self._cold_start, self._jitter, self._deadline = cold_start, jitter, drain_deadline
        self._rng = np.random.default_rng(seed)
        self._next = 0
        self._preempted = 0
        self._groups: list[Group] = []
        self.spent = dict.fromkeys(Life, 0.0)
        """Seconds of groups that are gone, by state."""
        self.cancelled = 0.0
        """Seconds of groups that never got ready."""

    # --- What there is ---------------------------------------------------------------------------

    def of(self, life: Life) -> Iterator[Group]:
        """Groups in a state, oldest first."""
        return (group for group in self._groups if group.life is life)

    def count(self, life: Life) -> int:
        """How many are in a state."""
        return sum(1 for _ in self.of(life))

    def in_flight(self, group: Group) -> int:
        """Requests at a group."""
        return int(self.places.flight[group.place])

    def busy(self) -> bool:
        """Whether a request is at a group, or waits at the gateway for one that may yet come."""
        if any(self.in_flight(group) for group in self._groups if group.place >= 0):
            return True
        return self.count(Life.STARTING) > 0 and kernel.at_gateway(self.requests) > 0

    def preemptions(self) -> int:
        """Of all groups, those that are gone included."""
        return self._preempted + int(self.places.counters[:, :, kernel.PREEMPTIONS].sum())

    def next_due(self) -> float:
        """When the next group gets ready or is cut."""
        return min((group.due for group in self._groups), default=np.inf)

    # --- Time ------------------------------------------------------------------------------------

    def run_until(self, time: float) -> None:
        """Requests and steps up to `time`; then whoever is due gets ready, and who has drained or must is gone."""
        kernel.run_until(self.requests, self.places, self.constants, time)
        for group in list(self.of(Life.DRAINING)):
            if self.in_flight(group) == 0:
                self._end(group, max(group.since, float(self.places.clock[group.place])))
            elif group.due <= time:
                self._end(group, group.due)
        opened = False
        for group in list(self.of(Life.STARTING)):
            if group.due <= time:
                self._open(group, group.due)
                opened = True
        if opened:
            kernel.open_gateway(self.requests, self.places, self.constants, time)

    def close_books(self, time: float) -> tuple[dict[Life, float], float]:
        """Seconds of groups by state up to `time`, and of those that never got ready."""
        spent = dict(self.spent)
        for group in self._groups:
            for life, seconds in group.spent.items():
                spent[life] += seconds
            spent[group.life] += time - group.since
        return spent, self.cancelled

    # --- Change ----------------------------------------------------------------------------------

    def start(self, time: float, *, ready: bool = False) -> Group:
        """A new group, with `ready` one that has started before."""
        group = Group(self._next, Life.STARTING, time)
        self._next += 1
        self._groups.append(group)
        if ready:
            self._open(group, time)
        else:
            group.due = time + self._cold_start * (1.0 + self._rng.uniform(-self._jitter, self._jitter))
        return group

    def scale(self, wanted: int, time: float, *, undrain: bool) -> None:
        """So many groups ready and starting. Starting ones are cancelled before a ready one drains, the last to be
        ready first; the ready one with the fewest requests in flight drains first."""
        more = wanted - self.count(Life.READY) - self.count(Life.STARTING)
        if undrain:
            for group in sorted(self.of(Life.DRAINING), key=lambda group: (-group.since, -group.number))[
                : max(0, more)
            ]:
                group.turn(Life.READY, time)
                self.places.state[group.place] = kernel.READY
                more -= 1
        for _ in range(more):
            self.start(time)
        for group in sorted(self.of(Life.STARTING), key=lambda group: (-group.due, -group.number))[
            : max(0, -more)
        ]:
            self._end(group, time)
            more += 1
        for group in sorted(self.of(Life.READY), key=lambda group: (self.in_flight(group), -group.number))[
            : max(0, -more)
        ]:
            group.turn(Life.DRAINING, time, time + self._deadline)
            self.places.state[group.place] = kernel.DRAINING
            if self.in_flight(group) == 0:
                self._end(group, time)
        if undrain:
            kernel.open_gateway(self.requests, self.places, self.constants, time)

    def _open(self, group: Group, time: float) -> None:
        free = np.flatnonzero(self.places.state == kernel.GONE)
        if not len(free):
            free = np.array([len(self.places.state)])
            self.places = kernel.more_places(self.places, self.engine)
        group.place = int(free[0])
        group.turn(Life.READY, time)
        self.places.state[group.place] = kernel.READY

    def _end(self, group: Group, time: float) -> None:
        if group.life is Life.STARTING:
            self.cancelled += time - group.since
        else:
            self._preempted += int(self.places.counters[group.place, :, kernel.PREEMPTIONS].sum())
            kernel.clear_place(self.requests, self.places, self.constants, group.place)
        group.turn(group.life, time)
        for life, seconds in group.spent.items():
            self.spent[life] += seconds
        self._groups.remove(group)
