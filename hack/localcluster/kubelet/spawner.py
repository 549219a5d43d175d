"""The kubelet's side of the launcher's socket: start, exec, signal, and a future for every process's end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localcluster.kubelet.launcher import PACKET, ProcessSpec

Obj = dict[str, Any]
#: Receives each chunk that a process writes, and its stream's name ("stdout" or "stderr").
Sink = Callable[[bytes, str], None]


class LaunchError(Exception):
    """A process did not come to run. ``stage``: ``create`` (its namespaces and root) or ``start`` (its program)."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


@dataclass
class Process:
    """A running process. ``exited``: its wait status. ``drained``: set once its output has reached the sink."""

    identity: str
    pid: int
    exited: asyncio.Future[int]
    drained: asyncio.Event = field(default_factory=asyncio.Event)


class _Pipe:
    """Reads one stream of one process into a sink."""

    def __init__(self, name: str, sink: Sink, on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._name, self._sink, self._on_end = name, sink, on_end
        self._read, self.write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._loop.add_reader(self._read, self._ready)

    def _ready(self) -> None:
        try:
            data = os.read(self._read, 65536)
        except BlockingIOError:
            return
        if data:
            self._sink(data, self._name)
        else:
            self.close()
            self._on_end()

    def close(self) -> None:
        if self._read >= 0:
            self._loop.remove_reader(self._read)
            os.close(self._read)
            self._read = -1


class Spawner:
    """Owns the launcher process. All methods belong to the event loop that ``start_launcher`` ran in."""

    def __init__(self) -> None:
        self._sequence = 0
        self._replies: dict[int, asyncio.Future[Obj]] = {}
        self._exits: dict[str, asyncio.Future[int]] = {}
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.lost: asyncio.Event = asyncio.Event()

    def start_launcher(self) -> None:
        """Fork it. Its end sets ``lost``: every container is then dead."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "localcluster.kubelet.launcher", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        theirs.close()
        ours.setblocking(False)
        self._channel = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._receive)

    def close(self) -> None:
        """Close the socket: the launcher kills what still runs and ends."""
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.wait()

    def _receive(self) -> None:
        assert self._channel is not None
        try:
            data = self._channel.recv(PACKET)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            error = LaunchError("create", "the launcher ended")
            for reply in self._replies.values():
                reply.set_exception(error)
            for exited in self._exits.values():
                exited.set_result(signal.SIGKILL)
            self._replies.clear()
            self._exits.clear()
            self.lost.set()
            return
        message = json.loads(data)
        if message["ev"] == "reply":
            reply = self._replies.pop(message["seq"])
            if not reply.done():
                reply.set_result(message)
        else:
            self._exits.pop(message["id"]).set_result(message["status"])

    async def request(self, op: str, fds: list[int] | None = None, **fields: Any) -> Obj:
        """One request; raises LaunchError with the launcher's words."""
        if self._channel is None or self.lost.is_set():
            raise LaunchError("create", "the launcher is not running")
        self._sequence += 1
        reply = asyncio.get_running_loop().create_future()
        self._replies[self._sequence] = reply
        packet = json.dumps({"op": op, "seq": self._sequence, **fields}).encode()
        while True:
            try:
                socket.send_fds(self._channel, [packet], fds or [])
                break
            except BlockingIOError:
                await asyncio.sleep(0.005)  # the launcher is forking; its queue holds a few hundred packets
            except OSError as error:
                raise LaunchError("create", f"the launcher is gone: {error}") from error
        answer: Obj = await reply
        if "error" in answer:
            raise LaunchError("create", answer["error"])
        return answer

    async def start(self, sandbox: str, spec: ProcessSpec, sink: Sink) -> Process:
        """A container's first process. Raises LaunchError."""
        return await self._with_sink("start", spec, sink, {"sandbox": sandbox})

    async def execute(self, container: Process, spec: ProcessSpec, sink: Sink) -> Process:
        """A process beside a container's own. Raises LaunchError, also when the container has ended."""
        return await self._with_sink("exec", spec, sink, {"container": container.identity})

    async def attach(
        self, container: Process, spec: ProcessSpec, stdin: int, stdout: int, stderr: int
    ) -> Process:
        """As ``execute``, with the caller's own descriptors, which it may close afterwards."""
        process = await self._launch("exec", spec, (stdin, stdout, stderr), {"container": container.identity})
        process.drained.set()
        return process

    async def _with_sink(self, op: str, spec: ProcessSpec, sink: Sink, fields: Obj) -> Process:
        open_streams = 2
        drained = asyncio.Event()

        def stream_ended() -> None:
            nonlocal open_streams
            open_streams -= 1
            if open_streams == 0:
                drained.set()

        pipes = [_Pipe(name, sink, stream_ended) for name in ("stdout", "stderr")]
        try:
            process = await self._launch(op, spec, (self._null, pipes[0].write, pipes[1].write), fields)
        except LaunchError:
            for pipe in pipes:
                pipe.close()
            raise
        finally:
            for pipe in pipes:
                os.close(pipe.write)
        process.drained = drained
        return process

    async def _launch(
        self, op: str, spec: ProcessSpec, streams: tuple[int, int, int], fields: Obj
    ) -> Process:
        identity = uuid.uuid4().hex
        process = Process(identity, 0, asyncio.get_running_loop().create_future())
        failure = bytearray()
        decided = asyncio.Event()
        body = os.memfd_create("spec", os.MFD_CLOEXEC)
        errors = _Pipe("error", lambda data, _: failure.extend(data), decided.set)
        self._exits[identity] = process.exited
        try:
            with os.fdopen(os.dup(body), "wb") as handle:
                handle.write(json.dumps(spec).encode())
            answer = await self.request(op, [body, *streams, errors.write], id=identity, **fields)
        except LaunchError:
            self._exits.pop(identity, None)
            errors.close()
            raise
        finally:
            os.close(body)
            os.close(errors.write)
        process.pid = answer["pid"]
        await decided.wait()
        if failure:
            problem = json.loads(failure)
            raise LaunchError(problem["stage"], problem["message"])
        return process

    async def signal(self, process: Process, number: int, group: bool = False) -> None:
        """Send a signal to a process started here, or to its process group; a no-op once it has ended."""
        if not process.exited.done():
            with contextlib.suppress(LaunchError):
                await self.request("signal", id=process.identity, signal=number, group=group)
