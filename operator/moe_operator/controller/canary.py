"""Runs admission canaries beside the reconciles: one token from every rank, at each pod's own address."""

import asyncio
from collections.abc import Callable

from moe_operator.api import names
from moe_operator.controller.group_planner import CanaryState
from moe_operator.controller.incarnation import incarnation
from moe_operator.controller.observed import GroupFacts
from moe_operator.controller.store import Key
from moe_operator.telemetry.engine import CanaryResult, EngineClient

#: Seconds that a canary may take: a first request compiles what start-up did not.
_DEADLINE = 60.0
#: Seconds between a failed canary and the next.
_RETRY = 2.0


class CanaryRunner:
    """Keeps, per group, how the canaries of its present incarnation ended. Memory only: asking again is harmless."""

    def __init__(self, engine: EngineClient, enqueue: Callable[[Key], None]) -> None:
        self._engine = engine
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
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: Key, group: GroupFacts, model: str, token: str | None) -> None:
        now = incarnation(group.pods)
        try:
            results = await asyncio.gather(
                *(self._ask(group, p.ip, p.index, model, token) for p in group.pods)
            )
            failed = [r.message for r in results if not r.passed]
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

    async def _ask(
        self, group: GroupFacts, ip: str | None, index: int, model: str, token: str | None
    ) -> CanaryResult:
        if ip is None:
            return CanaryResult(False, f"pod {index} of group {group.name} has no address")
        ranks = group.ranks_per_pod
        return await self._engine.canary(
            ip, names.HTTP_PORT, model, ranks, index * ranks, deadline=_DEADLINE, token=token
        )
