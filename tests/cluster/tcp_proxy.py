"""A TCP forwarder in front of the API server that can be cut, or made to swallow what established connections say."""

import asyncio
from collections.abc import Callable


class TcpProxy:
    """Forwards a local port to another; TLS passes through untouched."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._connections: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._generation = 0
        self._deaf_below = 0
        self.refusing = False

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # one turn of the loop, in which aborted connections close

    def cut(self) -> None:
        """Break all connections."""
        for pair in self._connections:
            for writer in pair:
                writer.transport.abort()
        self._connections.clear()

    def deafen(self) -> None:
        """Established connections stay open, and nothing the server says on them comes through any more."""
        self._deaf_below = self._generation

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        self._generation += 1
        mine = self._generation
        there, back = await asyncio.open_connection(*self._target)
        self._connections.add((writer, back))
        for source, sink, deaf in (
            (reader, back, lambda: False),
            (there, writer, lambda: mine <= self._deaf_below),
        ):
            task = asyncio.create_task(self._pump(source, sink, deaf))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _pump(
        source: asyncio.StreamReader, sink: asyncio.StreamWriter, deaf: Callable[[], bool]
    ) -> None:
        try:
            while data := await source.read(65536):
                if not deaf():
                    sink.write(data)
                    await sink.drain()
        except OSError:
            pass
        finally:
            sink.transport.abort()
