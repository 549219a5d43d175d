"""Crash the operator at every single write of a scenario, and compare where it ends with a run without a crash."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from fakecluster.engines import EngineSettings
from fakecluster.faults import FaultPlan
from fakecluster.harness import Harness, differences, play

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


@dataclass
class Report:
    """How a story fared with a crash at each of its writes."""

    story: str
    writes: list[str]
    converged: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def line(self) -> str:
        """For the test's output."""
        count = len(self.writes)
        return f"{self.story}: " + ", ".join(
            f"{n}/{count} converge after {how}" for how, n in self.converged.items()
        )


#: How an operator comes to grief at its n-th write.
FATES: dict[str, Callable[[int], FaultPlan]] = {
    "a crash before each write": lambda n: FaultPlan(crash_before=n),
    "a crash after each write": lambda n: FaultPlan(crash_after=n),
    "each write's answer lost": lambda n: FaultPlan(lose_answers={n}),
    "a 409 for each write": lambda n: FaultPlan(fail_writes={n: 409}),
    "a 500 for each write": lambda n: FaultPlan(fail_writes={n: 500}),
}


def _play(
    story: Story, fate: Callable[[int], FaultPlan] | None, number: int
) -> tuple[dict[str, Any], list[str]]:
    found: dict[str, Any] = {}
    written: list[str] = []

    async def run(h: Harness) -> None:
        await story.prepare(h)
        operator, before = h.operator, h.writes
        if fate is not None:
            plan = fate(operator.client.attempts + number)
            operator.client.faults = plan
        await story.act(h)
        await story.finish(h)
        await h.settle(quiet=75)  # figures may follow half a minute after what they measure
        found.update(h.end_state())
        written.extend(h.written(before))
        if fate is not None:
            hit = operator.crash is not None or operator.client.attempts >= number
            assert hit, f"write {number} was never made"

    play(run, settings=story.settings())
    return found, written


def explore(story: Story, fates: tuple[str, ...] = tuple(FATES)) -> Report:
    """Play the story once as it is, then once per write and fate."""
    expected, writes = _play(story, None, 0)
    report = Report(story.name, writes)
    for how in fates:
        report.converged[how] = 0
        for number in range(1, len(writes) + 1):
            try:
                state, _ = _play(story, FATES[how], number)
                wrong = differences(expected, state)
            except AssertionError as error:
                wrong = [str(error)]
            if wrong:
                report.failures.append(
                    f"{story.name}, {how}, at {writes[number - 1]}:\n" + "\n".join(wrong[:12])
                )
            else:
                report.converged[how] += 1
    return report
