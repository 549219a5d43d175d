"""One process of the cluster, kept running by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

_log = logging.getLogger(__name__)
_POLL_S = 0.05
_RESTART_FIRST_S, _RESTART_MAX_S = 0.2, 5.0
#: A component that ran this long is not in a crash loop.
_STABLE_S = 30.0
_TAIL_LINES = 20

Healthy = Callable[[], Awaitable[bool]]


class ComponentError(Exception):
    """A component did not come up; the message ends with its last log lines."""


class Component:
    """``argv[0]`` is an absolute path; the log is appended to over restarts."""

    def __init__(self, name: str, argv: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self.restarts = 0
        self.process: asyncio.subprocess.Process | None = None
        self._argv = argv
        self._environment = dict(environment)
        self._came_up = False
        self._keeper: asyncio.Task[None] | None = None

    async def start(self, healthy: Healthy, seconds: float) -> None:
        """Start, and wait until ``healthy`` says so. Raises ComponentError."""
        self._keeper = asyncio.create_task(self._keep_running())
        deadline = time.monotonic() + seconds
        while not await healthy():
            if self._keeper.done():
                await self._keeper
            if time.monotonic() >= deadline:
                raise ComponentError(f"{self.name} was not ready within {seconds:.0f} s; {self._tail()}")
            await asyncio.sleep(_POLL_S)
        self._came_up = True

    async def stop(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL after ``seconds``."""
        self._let_go()
        if self.process is None or self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(seconds):
                await self.process.wait()
        except TimeoutError:
            _log.warning("%s did not stop within %.0f s and is killed", self.name, seconds)
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL, and no restart."""
        self._let_go()
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()

    def _let_go(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()

    async def _keep_running(self) -> None:
        backoff = _RESTART_FIRST_S
        while True:
            started = time.monotonic()
            with self.log.open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    *self._argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    start_new_session=True,
                )
            status = await self.process.wait()
            if not self._came_up:
                raise ComponentError(
                    f"{self.name} ended with status {status} before it was ready; {self._tail()}"
                )
            backoff = _RESTART_FIRST_S if time.monotonic() - started > _STABLE_S else backoff
            self.restarts += 1
            _log.warning("%s ended with status %s; starting it again in %.1f s", self.name, status, backoff)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _RESTART_MAX_S)

    def _tail(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        except FileNotFoundError:
            lines = []
        return f"the end of {self.log}:\n" + "\n".join(lines)
