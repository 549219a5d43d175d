"""Canaries: one token from every rank of a group, at each pod's own address, and what the answers say.

Here those at admission; `idle_canary` asks groups that serve and have nothing to do.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from moe_operator.api import names
from moe_operator.controller.group_planner import CanaryState
from moe_operator.controller.incarnation import incarnation
from moe_operator.controller.observed import GroupFacts, PodFacts
from moe_operator.controller.store import Key
from moe_operator.telemetry.engine import CanaryResult, EngineClient
from moe_operator.telemetry.own_requests import OwnRequests

#: Seconds that a canary may take: a first request compiles what start-up did not.
_DEADLINE = 60.0
#: Seconds between a failed canary and the next.
_RETRY = 2.0


@dataclass(frozen=True)
class Asker:
    """Asks all ranks of a group at once, and keeps what it asks out of telemetry."""

    engine: EngineClient
    own: OwnRequests

    async def ask(
        self, group: GroupFacts, model: str, token: str | None, deadline: float
    ) -> list[tuple[PodFacts, CanaryResult]]:
        """The result of each pod. `token`: see `EngineClient.canary`; `deadline` in seconds."""
        results = await asyncio.gather(*(self._pod(group, p, model, token, deadline) for p in group.pods))
        return list(zip(group.pods, results, strict=True))

    async def _pod(
        self, group: GroupFacts, pod: PodFacts, model: str, token: str | None, deadline: float
    ) -> CanaryResult:
        if pod.ip is None:
            return CanaryResult(False, f"pod {pod.index} of group {group.name} has no address")
        ranks = group.ranks_per_pod
        with self.own.asking(pod.uid, ranks) as asked:
            result = await self.engine.canary(
                pod.ip, names.HTTP_PORT, model, ranks, pod.index * ranks, deadline=deadline, token=token
            )
            asked.prompt_tokens, asked.output_tokens = result.prompt_tokens, result.output_tokens
        return result


async def cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their end."""
    every = list(tasks)
    for task in every:
        task.cancel()
    await asyncio.gather(*every, return_exceptions=True)


class CanaryRunner:
    """Keeps, per group, how the canaries of its present incarnation ended. Memory only: asking again is harmless."""

    def __init__(self, asker: Asker, enqueue: Callable[[Key], None]) -> None:
        self._asker = asker
        self._enqueue = enqueue
        self._states: dict[str, CanaryState] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def state(self, group: GroupFacts) -> CanaryState | None:
        """What is known of the present incarnation of this group."""
        state = self._states.get(group.uid)
        return state if state and state.incarnation == incarnation(group.pods) else None

    def start(self, key: Key, group: GroupFacts, model: str, token: str | None = None) -> None:
        """Start a canary unless one runs; `enqueue` is called when it ends. `token`: see `EngineClient.canary`."""
        if group.uid in self._tasks:
            return
        task = asyncio.create_task(self._run(key, group, model, token), name=f"canary {group.name}")
        self._tasks[group.uid] = task

    def forget(self, alive: set[str]) -> None:
        """Drop the outcomes of groups that no longer exist, given all uids that do."""
        for uid in [u for u in self._states if u not in alive]:
            del self._states[uid]

    async def close(self) -> None:
        """Cancel what runs."""
        await cancelled(self._tasks.values())

    async def _run(self, key: Key, group: GroupFacts, model: str, token: str | None) -> None:
        now = incarnation(group.pods)
        try:
            results = await self._asker.ask(group, model, token, _DEADLINE)
            failed = [r.message for _, r in results if not r.passed]
            known = self._states.get(group.uid)
            failures = known.failures if known and known.incarnation == now else 0
            if failed:
                self._states[group.uid] = CanaryState(now, False, failures + 1, failed[0])
                await asyncio.sleep(_RETRY)
            else:
                self._states[group.uid] = CanaryState(now, True)
        finally:
            self._tasks.pop(group.uid, None)
        self._enqueue(key)
