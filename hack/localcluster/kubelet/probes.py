"""One container's startup, liveness and readiness probes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from localcluster.kubelet import handlers
from localcluster.kubelet.handlers import Obj, Outcome, Target


@dataclass(frozen=True)
class ProbeSettings:
    """A probe's numbers with Kubernetes' defaults. Times in seconds."""

    initial_delay: float
    period: float
    timeout: float
    failures: int
    successes: int

    @classmethod
    def of(cls, probe: Obj) -> ProbeSettings:
        return cls(
            initial_delay=float(probe.get("initialDelaySeconds") or 0),
            period=float(probe.get("periodSeconds") or 10),
            timeout=float(probe.get("timeoutSeconds") or 1),
            failures=int(probe.get("failureThreshold") or 3),
            successes=int(probe.get("successThreshold") or 1),
        )


@dataclass
class Threshold:
    """Turns single outcomes into a verdict, which changes only after so many equal outcomes in a row."""

    settings: ProbeSettings
    verdict: bool | None = None
    _last: bool | None = None
    _run: int = 0

    def observe(self, ok: bool) -> bool:
        """Returns whether the verdict changed or, for a failure, was reached again."""
        self._run = self._run + 1 if ok == self._last else 1
        self._last = ok
        if self._run < (self.settings.successes if ok else self.settings.failures):
            return False
        changed = self.verdict != ok
        self.verdict = ok
        return changed or not ok


@dataclass
class ProbeCallbacks:
    """What happens: ``unhealthy(kind, output, fatal)`` for each failure (``fatal``: the container must be restarted),
    ``ready(bool)`` on a change of the readiness verdict, ``started()`` once."""

    unhealthy: Callable[[str, str, bool], None]
    ready: Callable[[bool], None]
    started: Callable[[], None]


class Prober:
    """Probes one run of one container: the startup probe alone first, then liveness and readiness side by side."""

    def __init__(self, target: Target, callbacks: ProbeCallbacks, paused: Callable[[], bool]) -> None:
        self._target = target
        self._paused = paused
        self._callbacks = callbacks
        self._tasks: list[asyncio.Task[Any]] = []
        self._started_at = asyncio.get_running_loop().time()

    def start(self) -> None:
        """Begin; ``stop`` ends it."""
        self._tasks.append(asyncio.create_task(self._run()))

    def stop(self) -> None:
        """No further probe is made."""
        for task in self._tasks:
            task.cancel()

    def stop_killing(self) -> None:
        """Only readiness goes on: the pod is on its way out."""
        for task in self._tasks:
            if task.get_name() in ("startup", "liveness"):
                task.cancel()

    async def _run(self) -> None:
        container = self._target.container
        startup = container.get("startupProbe")
        if startup and not await self._task("startup", startup):
            return
        self._callbacks.started()
        for kind in ("liveness", "readiness"):
            if container.get(kind + "Probe"):
                self._task(kind, container[kind + "Probe"])

    def _task(self, kind: str, probe: Obj) -> asyncio.Task[bool]:
        task = asyncio.create_task(self._loop(kind, probe), name=kind)
        self._tasks.append(task)
        return task

    async def _loop(self, kind: str, probe: Obj) -> bool:
        """Ends with True when a startup probe has passed, with False when the container must be restarted."""
        settings = ProbeSettings.of(probe)
        threshold = Threshold(settings)
        loop = asyncio.get_running_loop()
        due = max(loop.time(), self._started_at + settings.initial_delay)
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            if self._paused():
                due += settings.period
                continue
            outcome: Outcome = await handlers.run(probe, self._target, settings.timeout)
            decided = threshold.observe(outcome.ok)
            if not outcome.ok:
                fatal = decided and kind != "readiness"
                self._callbacks.unhealthy(kind, outcome.output, fatal)
                if fatal:
                    return False
            if decided and kind == "readiness":
                self._callbacks.ready(outcome.ok)
            if decided and outcome.ok and kind == "startup":
                return True
            # Ticks lie on a fixed grid; those that a slow answer has missed are left out, not made up for.
            due += settings.period
            if due < loop.time():
                due += settings.period * ((loop.time() - due) // settings.period + 1)
