"""One container of a pod: its process, log, probes and hooks through all its restarts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localcluster.kubelet import containerlog, handlers, records
from localcluster.kubelet.backoff import BackOff
from localcluster.kubelet.containerlog import ContainerLog
from localcluster.kubelet.grace import Grace
from localcluster.kubelet.handlers import Obj, Target
from localcluster.kubelet.launch import Launch, Machine, container_spec, exec_spec
from localcluster.kubelet.launcher import ProcessSpec
from localcluster.kubelet.podvolumes import remove_tree
from localcluster.kubelet.probes import ProbeCallbacks, Prober
from localcluster.kubelet.records import Record, Running, Terminated, Waiting
from localcluster.kubelet.spawner import LaunchError, Process

#: Bounds of a termination message: from its file, and from the log when the file is empty.
MESSAGE_BYTES = 4096
FALLBACK_BYTES = 2048
FALLBACK_LINES = 80
#: Seconds that a container gets after its preStop hook has used up the grace period.
MINIMUM_AFTER_HOOK = 2.0
_DRAIN_SECONDS = 2.0
_EXEC_OUTPUT = 10 * 1024


class Container:
    """``wake`` is called after every change; ``event(kind, reason, message)`` records a pod's Event."""

    def __init__(
        self,
        record: Record,
        machine: Machine,
        sandbox: str,
        directory: Path,
        wake: Callable[[], None],
        event: Callable[[str, str, str], None],
    ) -> None:
        self.record = record
        self.backoff = BackOff()
        self.pull_backoff = BackOff()
        #: The pod's grace period, for restarts that a probe asks for.
        self.grace_seconds = 30.0
        #: Loop time at which it last ended, None before that or when the kubelet was away.
        self.ended_at: float | None = None
        #: Loop time of the last failed pull.
        self.pull_failed_at: float | None = None
        #: While its node plays dead nothing probes it.
        self.frozen = False
        self.process: Process | None = None
        self.log: ContainerLog | None = None
        #: Set by who knows that memory was the cause of the next end, or that SIGKILL was sent on purpose.
        self.oom_killed = self.killed = False
        self._machine, self._sandbox, self._directory = machine, sandbox, directory
        self._wake, self._event = wake, event
        self._launch: Launch | None = None
        self._prober: Prober | None = None
        self._hook: asyncio.Task[None] | None = None
        self._exit: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._abandoned: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        return self.record.name

    def log_path(self, previous: bool = False) -> Path | None:
        """The present run's log, or the one before it; None when there is none."""
        # A container that waits for its restart shows its last run, which is also its previous one.
        attempt = self.record.restart_count - (previous and not isinstance(self.record.state, Waiting))
        path = self._log_file(attempt)
        return path if path.exists() else None

    def _log_file(self, attempt: int) -> Path:
        return self._directory / "logs" / self.name / f"{attempt}.log"

    def waiting(self, reason: str, message: str = "") -> None:
        """It cannot run now; how it last ended becomes its last state."""
        if isinstance(self.record.state, Terminated):
            self.record.last = self.record.state
        if self.record.state != Waiting(reason, message):
            self.record.state = Waiting(reason, message)
            self.record.ready = self.record.started = False
            self._wake()

    # -- start -------------------------------------------------------------------------------------------------------

    async def start(self, launch: Launch) -> None:
        """Run it. A program that cannot be started counts as an end with StartError.

        Raises LaunchError when the container itself cannot be made.
        """
        record = self.record
        attempt = record.restart_count + (record.finished is not None)
        home = self._directory / "containers" / self.name / str(attempt)
        if home.exists():
            await remove_tree(home)
        spec = container_spec(launch, self._machine, record.spec, self._directory, home)
        log = ContainerLog(self._log_file(attempt))
        started_at = datetime.now(UTC)
        failure: LaunchError | None = None
        process: Process | None = None
        try:
            process = await self._machine.spawner.start(self._sandbox, spec, log.write)
        except LaunchError as error:
            log.close()
            if error.stage != "start":
                raise
            failure = error
        self._count_restart()
        self.log, self._launch = log, launch
        self.oom_killed = self.killed = False
        if process is None:
            record.container_id = ""
            self._ended(
                Terminated(128, "StartError", None, datetime.now(UTC), message=f"{failure}"[:MESSAGE_BYTES])
            )
            self._event("Warning", "Failed", f"Error: {failure}")
            return
        self.process = process
        record.container_id = f"process://{process.identity}"
        record.state = Running(started_at)
        self._event("Normal", "Started", f"Container started: process {process.pid}")
        self._exit = asyncio.create_task(self._follow(process, log, started_at, home))
        self._hook = asyncio.create_task(self._begin(process, launch))
        for suffix in (".log", ".log.1"):
            self._log_file(attempt - 2).with_suffix(suffix).unlink(missing_ok=True)
        self._wake()

    def _count_restart(self) -> None:
        record, now = self.record, asyncio.get_running_loop().time()
        if record.finished is not None:
            record.last = record.finished
            record.restart_count += 1
            self.backoff.started(self.ended_at if self.ended_at is not None else now, now)

    def _target(self, launch: Launch) -> Target:
        return Target(self.record.spec, launch.pod_ip, self.execute)

    async def _begin(self, process: Process, launch: Launch) -> None:
        """The postStart hook, then the probes."""
        hook = (self.record.spec.get("lifecycle") or {}).get("postStart")
        if hook:
            outcome = await handlers.run(hook, self._target(launch), None)
            if not outcome.ok:
                self._event("Warning", "FailedPostStartHook", f"PostStartHook failed: {outcome.output}")
                self.restart(f"Container {self.name}: PostStartHook failed", None)
                return
        if process.exited.done():
            return
        callbacks = ProbeCallbacks(
            unhealthy=self._unhealthy, ready=self._set_ready, started=self._set_started
        )
        self._prober = Prober(self._target(launch), callbacks, lambda: self.frozen)
        self._prober.start()

    def _set_started(self) -> None:
        if self.record.running:
            self.record.started = True
            if not self.record.spec.get("readinessProbe"):
                self.record.ready = True
            self._wake()

    def _set_ready(self, ready: bool) -> None:
        if self.record.running and self.record.ready != ready:
            self.record.ready = ready
            self._wake()

    def _unhealthy(self, kind: str, output: str, fatal: bool) -> None:
        self._event("Warning", "Unhealthy", f"{kind.capitalize()} probe failed: {output}")
        if fatal:
            seconds = (self.record.spec.get(kind + "Probe") or {}).get("terminationGracePeriodSeconds")
            self.restart(f"Container {self.name} failed {kind} probe, will be restarted", seconds)

    def restart(self, message: str, seconds: float | None) -> None:
        """Stop it with a grace period of its own; the restart policy decides what follows."""
        if self._stopping is None:
            self._event("Normal", "Killing", message)
            grace = Grace(self.grace_seconds if seconds is None else seconds)
            self._stopping = asyncio.create_task(self._stop(grace))

    # -- end ---------------------------------------------------------------------------------------------------------

    async def _follow(self, process: Process, log: ContainerLog, started_at: datetime, home: Path) -> None:
        status = await process.exited
        finished_at = datetime.now(UTC)
        with contextlib.suppress(TimeoutError):
            # A process outside (one that inherited a pipe through exec) may hold it open: do not wait for ever.
            await asyncio.wait_for(process.drained.wait(), _DRAIN_SECONDS)
        log.close()
        unexplained = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and not self.killed
        end = records.terminated_by(
            status,
            started_at,
            finished_at,
            self.record.container_id,
            self._message(home / "termination-log", log.path, os.waitstatus_to_exitcode(status)),
            self.oom_killed or (unexplained and self._machine.kernel_kills.happened()),
        )
        self._ended(end)
        await remove_tree(home)

    def _message(self, file: Path, log: Path, exit_code: int) -> str:
        with file.open("rb") as handle:
            text = handle.read(MESSAGE_BYTES).decode("utf-8", "replace")
        policy = self.record.spec.get("terminationMessagePolicy")
        if not text and exit_code != 0 and policy == "FallbackToLogsOnError":
            tail = b"".join(containerlog.read(log, containerlog.LogOptions(tail=FALLBACK_LINES)))
            text = tail[-FALLBACK_BYTES:].decode("utf-8", "replace")
        return text

    def _ended(self, end: Terminated) -> None:
        if self._hook is not None:
            self._hook.cancel()
        if self._prober is not None:
            self._prober.stop()
            self._prober = None
        self.process = None
        self.ended_at = asyncio.get_running_loop().time()
        record = self.record
        record.state = end
        record.started = False
        record.ready = record.kind == "init" and end.exit_code == 0
        self._wake()

    def leave_service(self) -> None:
        """The pod is on its way out: liveness and startup no longer matter."""
        if self._prober is not None:
            self._prober.stop_killing()

    async def stop(self, grace: Grace) -> None:
        """preStop, SIGTERM, and SIGKILL at the end of the grace period. Returns once it has ended."""
        if self.process is None:
            return
        if self._stopping is not None:
            # A probe asked for a restart with a grace period of its own: ours bounds it.
            stopping = self._stopping
            if not await grace.until(asyncio.shield(stopping)):
                await self.kill()
                await stopping
            return
        self._stopping = asyncio.create_task(self._stop(grace))
        await self._stopping

    async def _stop(self, grace: Grace) -> None:
        process, launch, exit_task = self.process, self._launch, self._exit
        if process is None or launch is None or exit_task is None:
            self._stopping = None
            return
        try:
            at_least = 0.0
            hook = (self.record.spec.get("lifecycle") or {}).get("preStop")
            if hook and grace.left > 0:
                await self._pre_stop(hook, launch, process, grace)
                at_least = MINIMUM_AFTER_HOOK
            name = (self.record.spec.get("lifecycle") or {}).get("stopSignal") or "SIGTERM"
            await self._machine.spawner.signal(process, signal.Signals[name])
            if not await grace.until(asyncio.shield(process.exited), at_least):
                await self.kill()
            await exit_task
        finally:
            self._stopping = None

    async def _pre_stop(self, hook: Obj, launch: Launch, process: Process, grace: Grace) -> None:
        running = asyncio.create_task(handlers.run(hook, self._target(launch), None))
        gone = asyncio.ensure_future(asyncio.shield(process.exited))
        both: set[asyncio.Future[Any]] = {running, gone}
        first = asyncio.ensure_future(asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED))
        try:
            in_time = await grace.until(first)
            if not running.done():
                if not in_time:
                    self._event(
                        "Warning", "FailedPreStopHook", "PreStopHook did not end within the grace period"
                    )
            elif not running.result().ok:
                self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {running.result().output}")
        finally:
            for task in (running, first):
                task.cancel()

    async def kill(self) -> None:
        """SIGKILL now."""
        if self.process is not None:
            self.killed = True
            await self._machine.spawner.signal(self.process, signal.SIGKILL)

    # -- exec --------------------------------------------------------------------------------------------------------

    async def execute(self, argv: list[str], seconds: float) -> tuple[int, str]:
        """Run a command inside; (exit code, first 10 KiB of its output). ``seconds`` 0: as long as it takes.

        Raises TimeoutError; a command that cannot be started is exit code 127.
        """
        output = bytearray()

        def sink(data: bytes, _: str) -> None:
            output.extend(data[: _EXEC_OUTPUT - len(output)])

        starting = asyncio.ensure_future(self._spawn(argv, sink))
        try:
            started = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(self._abandon)
            raise
        if isinstance(started, str):
            return 127, started
        try:
            async with asyncio.timeout(seconds or None):
                status = await asyncio.shield(started.exited)
                await started.drained.wait()
        finally:
            if not started.exited.done():
                await asyncio.shield(self._machine.spawner.signal(started, signal.SIGKILL, group=True))
        return os.waitstatus_to_exitcode(status), output.decode("utf-8", "replace")

    def _abandon(self, starting: asyncio.Future[Process | str]) -> None:
        if not starting.cancelled() and not isinstance(process := starting.result(), str):
            kill = self._machine.spawner.signal(process, signal.SIGKILL, group=True)
            self._abandoned.add(task := asyncio.create_task(kill))
            task.add_done_callback(self._abandoned.discard)

    def exec_spec(self, argv: list[str], terminal: bool = False) -> tuple[Process, ProcessSpec]:
        """The container's process, and what to run beside it. Raises LaunchError when it does not run."""
        if self.process is None or self._launch is None:
            raise LaunchError("create", "the container is not running")
        return self.process, exec_spec(self._launch, argv, terminal)

    async def _spawn(self, argv: list[str], sink: Callable[[bytes, str], None]) -> Process | str:
        try:
            process, spec = self.exec_spec(argv)
            return await self._machine.spawner.execute(process, spec, sink)
        except LaunchError as error:
            return str(error)

    async def attach(self, argv: list[str], terminal: bool, stdin: int, stdout: int, stderr: int) -> Process:
        """Run a command inside with the caller's descriptors. Raises LaunchError."""
        process, spec = self.exec_spec(argv, terminal)
        return await self._machine.spawner.attach(process, spec, stdin, stdout, stderr)

    async def hang_up(self, process: Process) -> None:
        """End a command that nobody listens to any more."""
        await self._machine.spawner.signal(process, signal.SIGKILL, group=True)
