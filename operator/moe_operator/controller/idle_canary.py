"""Canaries of groups that serve and have nothing to do: a rank that hangs, or answers nonsense, shows in no metric
while nobody asks it anything.

One request per rank and period: with the default of 60 s at most 60 requests per rank and hour, of one token each, and
none while there are real ones. Memory only: another leader begins anew.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from moe_operator.api import reasons
from moe_operator.api.status import Cause
from moe_operator.controller.canary import Asker, cancelled
from moe_operator.controller.group_planner import GroupState, GroupView
from moe_operator.controller.incarnation import admitted_incarnations, incarnation, whole
from moe_operator.controller.observed import GroupFacts
from moe_operator.controller.store import Key
from moe_operator.telemetry.engine import CanaryResult

#: Canaries that fail in a row before the group is lost.
ATTEMPTS = 3
#: Seconds from a failed canary to the next.
RETRY = 5.0
#: Seconds that a canary may take. An idle group answers within one; a request that came just before may be in the way.
DEADLINE = 30.0
#: Shortest period (s): one that is asked for more often is never idle.
SHORTEST = 10.0


@dataclass
class _State:
    """How the canaries of one incarnation ended."""

    incarnation: str
    asked_at: float
    failures: int = 0
    failing_since: float = 0.0
    message: str = ""
    pods: tuple[tuple[str, str | None], ...] = ()
    """Names and nodes of the pods that failed last."""


class IdleCanaries:
    """By group, while it is idle."""

    def __init__(self, asker: Asker, enqueue: Callable[[Key], None], clock: Callable[[], float]) -> None:
        """`enqueue` is called with the deployment when a canary has failed."""
        self._asker = asker
        self._enqueue = enqueue
        self._clock = clock
        self._states: dict[Key, dict[str, _State]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def causes(self, key: Key, groups: Iterable[GroupFacts]) -> dict[str, Cause]:
        """Groups that failed too often, by name: only those that are still as they were when they were asked."""
        states = self._states.get(key, {})
        found = {}
        for group in groups:
            state = states.get(group.uid)
            if state is None or state.failures < ATTEMPTS or group.draining_since is not None:
                continue
            # Not by the traffic label, which is the first to go.
            same = {state.incarnation} == admitted_incarnations(group) == {incarnation(group.pods)}
            if same and whole(group):
                found[group.name] = _cause(state)
        return found

    def look(
        self, key: Key, views: Sequence[GroupView], period: float, token: Callable[[GroupFacts], str | None]
    ) -> float | None:
        """Start the canaries that are due. Returns the seconds until the next one is; None: a change of load tells.

        `period`: spec.recovery.idleCanary in seconds, 0 for none.
        """
        before = self._states.pop(key, {})
        if period <= 0:
            return None
        period = max(period, SHORTEST)
        now = self._clock()
        states: dict[str, _State] = {}
        waits = []
        for view in views:
            if view.state is not GroupState.SERVING or view.requests:
                continue  # judged by its progress
            state = before.get(view.facts.uid)
            if state is None or state.incarnation != incarnation(view.facts.pods):
                state = _State(incarnation(view.facts.pods), float("-inf"))
            if view.quiet is not None and state.failures and view.quiet < now - state.failing_since:
                state.failures = 0  # it had requests meanwhile
            states[view.facts.uid] = state
            if view.quiet is None:
                waits.append(period)  # telemetry will know again
                continue
            due = state.asked_at + (RETRY if state.failures else period) - now
            wait = max(due, period - view.quiet)
            if view.facts.uid in self._tasks:
                continue
            if wait <= 0:
                self._start(key, view.facts, state, token(view.facts))
                wait = period
            waits.append(wait)
        if states:
            self._states[key] = states
        return min(waits, default=None)

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._states.pop(key, None)

    async def close(self) -> None:
        """Cancel what runs."""
        await cancelled(self._tasks.values())

    def _start(self, key: Key, group: GroupFacts, state: _State, token: str | None) -> None:
        state.asked_at = self._clock()
        self._tasks[group.uid] = asyncio.create_task(
            self._run(key, group, state, token), name=f"idle canary {group.name}"
        )

    async def _run(self, key: Key, group: GroupFacts, state: _State, token: str | None) -> None:
        began = state.asked_at
        try:
            results = await self._asker.ask(group, group.served_name, token, DEADLINE)
        finally:
            self._tasks.pop(group.uid, None)
        failed = [(pod, result) for pod, result in results if _says_something(result)]
        if not failed:
            state.failures = 0
            return
        state.asked_at = self._clock()
        state.failing_since = state.failing_since if state.failures else began
        state.failures += 1
        state.message = failed[0][1].message
        state.pods = tuple((pod.name, pod.node) for pod, _ in failed)
        self._enqueue(key)


def _says_something(result: CanaryResult) -> bool:
    """Whether it speaks against the engine. One that refuses the request as such works: what was asked is wrong."""
    return not result.passed and not result.refused


def _cause(state: _State) -> Cause:
    """With pod and node where only one of them failed: ranks step together, so that one that hangs stops all."""
    name, node = state.pods[0] if len(state.pods) == 1 else (None, None)
    return Cause(
        reason=reasons.IDLE_CANARY_FAILED,
        message=f"{state.failures} canaries of the idle group failed in a row: {state.message}",
        pod=name,
        node=node,
    )
