"""``kubectl exec``: a command in a container, its streams carried by one WebSocket.

The protocol is Kubernetes' channel protocol, versions 4 and 5: each binary message starts with the number of its
channel. The API server hands such connections through to nodes that declare ``nodespec.WEBSOCKETS``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import struct
import termios
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import WSMsgType, web

from localcluster.kubelet.container import Container
from localcluster.kubelet.spawner import LaunchError, Process

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_BLOCK = 32 * 1024
#: TIOCSPTLCK and TIOCGPTPEER of the kernel's terminal interface, which the termios module lacks.
_UNLOCK, _OPEN_PEER = 0x40045431, 0x5441


def final_status(exit_code: int | None, problem: str = "") -> dict[str, Any]:
    """What the error channel says at the end. ``exit_code`` None: the command could not be run."""
    if exit_code == 0:
        return {"metadata": {}, "status": "Success"}
    if exit_code is None:
        return {"metadata": {}, "status": "Failure", "reason": "InternalError", "message": problem}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with exit code {exit_code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]},
    }


class _Flow(asyncio.BaseProtocol):
    """``room`` is set while the command reads as fast as the client sends."""

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.room.set()

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def connection_lost(self, _: Exception | None) -> None:
        self.room.set()


class ExecStream:
    """One connection. ``run`` returns when the command has ended or the client has gone."""

    def __init__(self, socket: web.WebSocketResponse, container: Container, terminal: bool) -> None:
        self._socket, self._container, self._terminal = socket, container, terminal
        self._stdin: asyncio.WriteTransport | None = None
        self._flow = _Flow()
        self._master = -1

    async def run(self, argv: list[str]) -> None:
        """Run ``argv``; everything about its end goes to the error channel."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                process, readers = await self._start(argv, stack)
            except LaunchError as error:
                await self._send(ERROR, json.dumps(final_status(None, str(error))).encode())
                return
            outputs = [asyncio.create_task(self._forward(channel, reader)) for channel, reader in readers]
            inputs = asyncio.create_task(self._receive())
            exited = asyncio.ensure_future(asyncio.shield(process.exited))
            try:
                either: set[asyncio.Future[Any]] = {exited, inputs}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not exited.done():
                    await self._container.hang_up(process)
                    return
                # What it left running may hold its streams open: what is there is sent, no more is waited for.
                await asyncio.wait(outputs, timeout=1.0)
                code = os.waitstatus_to_exitcode(exited.result())
                status = final_status(code if code >= 0 else 128 - code)
                await self._send(ERROR, json.dumps(status).encode())
            finally:
                for task in (*outputs, inputs):
                    task.cancel()
                exited.cancel()

    async def _start(
        self, argv: list[str], stack: contextlib.AsyncExitStack
    ) -> tuple[Process, list[tuple[int, asyncio.StreamReader]]]:
        if self._terminal:
            self._master, slave = _open_terminal(self._container)
            stack.callback(os.close, self._master)
            theirs = [slave, slave, slave]
            write_end = os.dup(self._master)
            read_ends = [(STDOUT, os.dup(self._master))]
        else:
            pairs = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
            write_end = pairs[0][1]
            theirs = [pairs[0][0], pairs[1][1], pairs[2][1]]
            read_ends = [(STDOUT, pairs[1][0]), (STDERR, pairs[2][0])]
        try:
            readers = [
                (channel, await stack.enter_async_context(_reader(descriptor)))
                for channel, descriptor in read_ends
            ]
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_write_pipe(lambda: self._flow, os.fdopen(write_end, "wb", 0))
            stack.callback(transport.close)
            self._stdin = transport
            process = await self._container.attach(argv, self._terminal, *theirs)
        finally:
            for descriptor in set(theirs):
                os.close(descriptor)
        return process, readers

    async def _forward(self, channel: int, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):  # a terminal whose other side has ended reads as EIO
            while data := await reader.read(_BLOCK):
                await self._send(channel, data)

    async def _send(self, channel: int, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            await self._socket.send_bytes(bytes([channel]) + data)

    async def _receive(self) -> None:
        async for message in self._socket:
            if message.type != WSMsgType.BINARY or not message.data or self._stdin is None:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == STDIN:
                self._stdin.write(data)
                await self._flow.room.wait()  # take no more from the client than the command reads
            elif channel == CLOSE and data[:1] == bytes([STDIN]) and not self._terminal:
                self._stdin.close()
            elif channel == RESIZE and self._master >= 0:
                self._resize(data)

    def _resize(self, data: bytes) -> None:
        with contextlib.suppress(ValueError, TypeError, OSError):
            size = json.loads(data)
            packed = struct.pack("HHHH", int(size["Height"]), int(size["Width"]), 0, 0)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, packed)


def _open_terminal(container: Container) -> tuple[int, int]:
    """Both sides of a new terminal, from the container's own devpts, so that it has a name inside."""
    if container.process is None:
        raise LaunchError("create", "the container is not running")
    try:
        master = os.open(
            f"/proc/{container.process.pid}/root/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        )
    except OSError:
        return os.openpty()  # the container has no devpts: a terminal without a name
    fcntl.ioctl(master, _UNLOCK, struct.pack("i", 0))
    return master, fcntl.ioctl(master, _OPEN_PEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


@contextlib.asynccontextmanager
async def _reader(descriptor: int) -> AsyncIterator[asyncio.StreamReader]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=4 * _BLOCK)
    pipe = os.fdopen(descriptor, "rb", 0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        yield reader
    finally:
        transport.close()
