"""Services' endpoints, the requests that reach them, and how engines answer the operator's canaries and drains."""

import asyncio
from collections import Counter
from collections.abc import Iterable

from fakecluster.api_server import ApiServer, Event
from fakecluster.controller import Controller, Key, Timers
from fakecluster.engines import Engine, Engines, State
from fakecluster.objects import is_deleting, is_true, labels_of
from moe_operator.controller.kube import POD, SERVICE
from moe_operator.resources.agent_token import verifier_of
from moe_operator.telemetry.engine import CanaryResult

#: Seconds that one canary takes.
CANARY_SECONDS = 0.2


class Endpoints(Controller):
    """Which pods each Service sends requests to: selected, ready, not terminating."""

    latency = 0.05

    def __init__(self, server: ApiServer, timers: Timers, engines: Engines) -> None:
        super().__init__(server, timers)
        self._engines = engines
        self.members: dict[Key, set[str]] = {}
        """Pod uids by Service."""
        self._changes: Counter[str] = Counter()
        """How often requests began or ceased to come to a pod."""

    def keys(self, event: Event) -> Iterable[Key]:
        namespace = event.obj["metadata"].get("namespace") or ""
        if event.kind == SERVICE:
            yield (namespace, event.obj["metadata"]["name"])
        elif event.kind == POD:
            for service in self.server.list(SERVICE, namespace):
                yield (namespace, service["metadata"]["name"])

    def sync(self, key: Key) -> None:
        service = self.server.get(SERVICE, *key)
        selector: dict[str, str] = (service["spec"].get("selector") or {}) if service else {}
        members: set[str] = set()
        for pod in self.server.list(POD, key[0]) if selector else []:
            labels = labels_of(pod)
            if (
                all(labels.get(k) == v for k, v in selector.items())
                and is_true(pod, "Ready")
                and not is_deleting(pod)
            ):
                members.add(pod["metadata"]["uid"])
        before, self.members[key] = self.members.get(key, set()), members
        for uid in sorted(before ^ members):
            self._route(uid, uid in members)

    def serves(self, uid: str) -> bool:
        """Whether any Service sends requests to a pod."""
        return any(uid in members for members in self.members.values())

    def _route(self, uid: str, on: bool) -> None:
        engine = self._engines.by_pod.get(uid)
        if engine is None:
            return
        self._engines.count(engine)
        self._changes[uid] += 1
        change = self._changes[uid]
        if on:
            if engine.state is State.UP:
                engine.running = self._engines.settings.requests
            return

        def finish() -> None:
            # What it had is answered by now, unless it computes no more.
            whole = engine.cohort and not any(e.hung or not self._engines.answers(e) for e in engine.cohort)
            if whole and change == self._changes[uid]:
                self._engines.count(engine)
                engine.running = 0

        self.timers.after(self._engines.settings.request_seconds, finish)


class MemoryEngineClient:
    """Canaries and drains of in-memory engines."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self.drained: list[str] = []
        self.undrained: list[str] = []

    async def canary(
        self,
        host: str,
        port: int,
        model: str,
        ranks: int,
        first_rank: int,
        *,
        deadline: float,
        token: str | None = None,
    ) -> CanaryResult:
        engine = self._engines.at(host)
        if engine is None or not self._engines.reachable(engine.node):
            await asyncio.sleep(CANARY_SECONDS)
            return CanaryResult(False, f"{host}:{port} refused the connection", CANARY_SECONDS)
        engine.canaries_asked += ranks
        engine.canaries += ranks
        try:
            return await self._answer(engine, f"{host}:{port}", ranks, deadline)
        finally:
            engine.canaries -= ranks

    async def _answer(self, engine: Engine, at: str, ranks: int, deadline: float) -> CanaryResult:
        await asyncio.sleep(CANARY_SECONDS)
        settings = self._engines.settings
        if not self._engines.reachable(engine.node) or engine.state is not State.UP:
            return CanaryResult(False, f"{at} refused the connection", CANARY_SECONDS)
        if settings.canary_failure:
            return CanaryResult(False, settings.canary_failure, CANARY_SECONDS)
        if not self._engines.whole(engine) or any(e.hung for e in engine.cohort):
            await asyncio.sleep(deadline)
            return CanaryResult(False, f"no token from {at} within {deadline:.0f} s", deadline)
        engine.canary_tokens += ranks
        engine.canary_passed = engine.canary_passed or not engine.garbage
        return CanaryResult(
            not engine.garbage,
            engine.garbage,
            CANARY_SECONDS,
            prompt_tokens=2 * ranks,
            output_tokens=ranks,
        )

    async def drain(self, host: str, port: int, token: str | None = None) -> bool:
        return await self._tell(host, token, draining=True)

    async def undrain(self, host: str, port: int, token: str | None = None) -> bool:
        return await self._tell(host, token, draining=False)

    async def _tell(self, host: str, token: str | None, *, draining: bool) -> bool:
        await asyncio.sleep(0.01)
        engine = self._engines.at(host)
        if engine is None or not self._engines.reachable(engine.node):
            return False
        if engine.verifier and verifier_of(token or "") != engine.verifier:
            return False
        engine.draining = draining
        (self.drained if draining else self.undrained).append(engine.pod)
        return True
