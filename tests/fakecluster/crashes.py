"""Crash the operator at every single write of a scenario, and compare where it ends with a run without a crash.

The scenario is played once. At each write the world branches off once for every fate: what came before the write is
computed once, and the branches run on all processors.
"""

import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from fakecluster.client import LATENCY, MemoryClient
from fakecluster.engines import EngineSettings
from fakecluster.faults import Call, FaultPlan, WatchFaults
from fakecluster.forks import Forks
from fakecluster.harness import Harness, differences, play
from fakecluster.world import World
from moe_operator.controller.kube import LEADER_WORKER_SET, MODEL_DEPLOYMENT, NODE, POD

Step = Callable[[Harness], Awaitable[None]]


@dataclass(frozen=True)
class Story:
    """A scenario in three steps; crashes happen from `act` on."""

    name: str
    prepare: Step
    """Until everything is settled before the change."""
    act: Step
    """The change: a user's, or a failure."""
    finish: Step
    """Wait until what the change means is done; the world then settles."""
    settings: Callable[[], EngineSettings] = EngineSettings
    loose: tuple[str, ...] = ()
    """Ends of paths at which runs may end apart: `finish` says what has to hold of these."""

    def differences(self, one: dict[str, Any], other: dict[str, Any]) -> list[str]:
        """Where two ends are apart and may not."""
        found = differences(one, other)
        return [text for text in found if not text.partition(": ")[0].endswith(self.loose)]


@dataclass
class Report:
    """How a story fared with a crash at each of its writes."""

    story: str
    writes: list[str]
    """Those of the story without a fault."""
    tried: dict[str, int] = field(default_factory=dict)
    """Writes at which each fate struck: those that the API server refused are among them."""
    converged: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def line(self) -> str:
        """For the test's output."""
        return f"{self.story}: " + ", ".join(
            f"{n}/{self.tried[how]} converge after {how}" for how, n in self.converged.items()
        )


_BEFORE, _AFTER = "a crash before each write", "a crash after each write"
#: How an operator comes to grief at its n-th write.
FATES: dict[str, Callable[[int], FaultPlan]] = {
    _BEFORE: lambda n: FaultPlan(crash_before=n),
    _AFTER: lambda n: FaultPlan(crash_after=n),
    "each write's answer lost": lambda n: FaultPlan(lose_answers={n}),
    "a 409 for each write": lambda n: FaultPlan(fail_writes={n: 409}),
    "a 500 for each write": lambda n: FaultPlan(fail_writes={n: 500}),
}


#: Events of all kinds late, twice and against each other: the cache is never what the API server has.
DISORDER = WatchFaults(
    delay={POD: 1.0, LEADER_WORKER_SET: 2.0, MODEL_DEPLOYMENT: 1.5, NODE: 0.5}, jitter=1.5, double=0.3, seed=7
)
#: Seconds by which what an operator knows may be old, with events in disorder.
_LAG = 8.0


@dataclass
class _Scout(FaultPlan):
    """No fault; branches off before each write."""

    forks: Forks = field(default_factory=Forks)
    fates: tuple[str, ...] = ()
    every: int = 1
    client: MemoryClient | None = None
    world: World | None = None
    labels: list[str] = field(default_factory=list)
    _left: tuple[object, ...] | None = None
    """How the last write left the world ..."""
    _left_at: float = 0.0
    """... and when, in virtual seconds."""

    def before(self, call: Call) -> None:
        if not call.write_number:
            return
        self.labels.append(f"{call.verb} {call.kind.kind} {call.name}")
        same = self._tried_already()
        for index, how in enumerate(self.fates):
            if (len(self.labels) + index) % self.every or (same and how == _BEFORE):
                continue
            if self.forks.fork((how, len(self.labels))):
                assert self.client is not None
                self.client.faults = FATES[how](call.write_number)
                self.client.faults.before(call)
                return

    def after(self, call: Call) -> None:
        if call.write_number:
            assert self.world is not None
            self._left, self._left_at = self._world(), self.world.clock.elapsed

    def _tried_already(self) -> bool:
        """Whether a crash before this write is one after the write before: nothing has happened in between but that its
        answer came, and the next call."""
        assert self.world is not None
        at_once = self.world.clock.elapsed - self._left_at < 2.5 * LATENCY
        return self.every == 1 and _AFTER in self.fates and at_once and self._left == self._world()

    def _world(self) -> tuple[object, ...]:
        assert self.world is not None
        engines = [(e.identity, e.state, e.draining, e.canaries) for e in self.world.engines.by_pod.values()]
        return len(self.world.server.writes), engines


def _play(story: Story) -> dict[str, Any]:
    """Where the story ends when nothing goes wrong beside it."""
    found: dict[str, Any] = {}

    async def run(h: Harness) -> None:
        await story.prepare(h)
        await story.act(h)
        await story.finish(h)
        await h.settle(quiet=75)
        found.update(h.end_state())

    play(run, settings=story.settings())
    return found


def explore(
    story: Story,
    fates: tuple[str, ...] = tuple(FATES),
    *,
    disorder: WatchFaults | None = None,
    every: int = 1,
) -> Report:
    """Play the story as it is, and from each write on once per fate; `every`: only from each so many-th, others for
    each fate. With `disorder` all of that while events come late and in disorder, which must end where it ends
    without."""
    undisturbed = None if disorder is None else _play(story)
    forks = Forks()
    scout = _Scout(forks=forks, fates=fates, every=every)

    def once() -> tuple[dict[str, Any], list[str]]:
        found: dict[str, Any] = {}
        written: list[str] = []

        async def run(h: Harness) -> None:
            await story.prepare(h)
            before = h.writes
            if disorder is not None:
                h.invariants.lag = _LAG
                h.operator.feed.faults = disorder
                h.watch_faults = lambda: disorder
            scout.client, scout.world = h.operator.client, h.world
            scout.client.faults = scout
            await story.act(h)
            await story.finish(h)
            await h.settle(quiet=75)  # figures may follow half a minute after what they measure
            found.update(h.end_state())
            written.extend(h.written(before))

        play(run, settings=story.settings())
        return found, written

    gc.collect()
    gc.freeze()  # else every branch goes through, and so copies, all that was there before it
    try:
        expected, writes = forks.end(once)
    finally:
        gc.unfreeze()
    tried = Counter(how for how, _ in forks.results)
    report = Report(story.name, writes, {how: tried[how] for how in fates}, dict.fromkeys(fates, 0))
    if undisturbed is not None:
        report.story += ", events in disorder"
        if wrong := story.differences(undisturbed, expected):
            report.failures.append(f"{story.name}, only events in disorder:\n" + "\n".join(wrong[:12]))
    for (how, number), result in sorted(forks.results.items()):
        wrong = [result] if isinstance(result, str) else story.differences(expected, result[0])
        if wrong:
            at = f"{story.name}, {how}, at {scout.labels[number - 1]}"
            report.failures.append(f"{at}:\n" + "\n".join(wrong[:12]))
        else:
            report.converged[how] += 1
    return report
