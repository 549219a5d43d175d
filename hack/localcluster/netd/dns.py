"""Cluster DNS over UDP and TCP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import cast

from localcluster.netd.table import ServiceTable
from localcluster.netd.wire import reply_to

_log = logging.getLogger(__name__)
_TCP_IDLE_S = 10.0


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, table: ServiceTable) -> None:
        self._table = table
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Python 3.11 does not say of its datagram transports that they are DatagramTransports.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            reply = reply_to(data, self._table, udp=True)
        except Exception:
            # One query must not end the service for all pods.
            _log.exception("query of %d bytes from %s could not be answered", len(data), addr[0])
            return
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)


class DnsServer:
    """Answers from ``table``, which its owner keeps up to date."""

    def __init__(self, table: ServiceTable) -> None:
        self._table = table

    async def start(self, host: str, port: int = 53) -> None:
        """Listen on both protocols. Raises OSError if the address cannot be bound."""
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self._table), local_addr=(host, port))
        self._tcp = await asyncio.start_server(self._serve, host, port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            while True:
                async with asyncio.timeout(_TCP_IDLE_S):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    reply = reply_to(await reader.readexactly(size), self._table, udp=False)
                    if reply is None:
                        break
                    writer.write(len(reply).to_bytes(2, "big") + reply)
                    await writer.drain()
        writer.close()
