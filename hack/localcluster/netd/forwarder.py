"""A TCP listener behind every ClusterIP and port, each connection handed to one endpoint, as kube-proxy
would.

A Service without a usable endpoint has no listener, so the kernel refuses connections to it at once.
Connections that were handed over live on when their endpoint leaves the Service. Unlike kube-proxy this
accepts a connection before it knows that the endpoint does: an endpoint that refuses shows as a reset, not as
a refusal.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
from dataclasses import dataclass

from localcluster.netd.table import Key, ServiceTable

_log = logging.getLogger(__name__)
_CHUNK = 256 * 1024
_CONNECT_S = 10.0
_BACKLOG = 1024
_RESET = struct.pack("ii", 1, 0)

Address = tuple[str, int]


def choose(backends: list[Address], rng: random.Random) -> Address:
    """Uniformly at random, like kube-proxy: a test that only passes with perfect rotation would fail on a
    real cluster.
    """
    return rng.choice(backends)


def wanted_listeners(table: ServiceTable, key: Key) -> dict[Address, list[Address]]:
    """For each ClusterIP and TCP port of the Service that can be served: the endpoints that connections
    may go to.
    """
    service = table.services.get(key)
    if service is None:
        return {}
    return {
        (address, port.number): backends
        for port in service.ports
        if port.protocol == "TCP" and (backends := table.backends(key, port))
        for address in service.cluster_ips
    }


@dataclass
class _Listener:
    backends: list[Address]
    socket: socket.socket


class Forwarder:
    """Keeps one listener per served ClusterIP and port. ``reserved`` addresses are somebody else's to
    listen on.
    """

    def __init__(self, rng: random.Random, reserved: frozenset[str] = frozenset()) -> None:
        self._rng = rng
        self._reserved = reserved
        self._listeners: dict[Address, _Listener] = {}
        self._of_service: dict[Key, set[Address]] = {}
        self._connections: set[asyncio.Task[None]] = set()

    def update(self, key: Key, wanted: dict[Address, list[Address]]) -> None:
        """Make the listeners of one Service what ``wanted_listeners`` says, in place: takes effect at
        once.
        """
        served = {address for address in wanted if address[0] not in self._reserved}
        for address in self._of_service.pop(key, set()) - served:
            self._close(address)
        opened = set()
        for address in served:
            listener = self._listeners.get(address)
            if listener is not None:
                listener.backends = wanted[address]
            elif not self._open(address, wanted[address]):
                continue
            opened.add(address)
        if opened:
            self._of_service[key] = opened

    def _open(self, address: Address, backends: list[Address]) -> bool:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            _log.warning("cannot serve %s:%d: %s", *address, error)
            return False
        self._listeners[address] = listener = _Listener(backends, listening)
        asyncio.get_running_loop().add_reader(listening.fileno(), self._accept, listener)
        return True

    def _close(self, address: Address) -> None:
        listener = self._listeners.pop(address)
        asyncio.get_running_loop().remove_reader(listener.socket.fileno())
        listener.socket.close()

    def _accept(self, listener: _Listener) -> None:
        """Called when a client waits. No task awaits clients: one cancelled with a client just accepted would
        drop it unanswered.
        """
        loop = asyncio.get_running_loop()
        try:
            client, _ = listener.socket.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # Out of descriptors, or the client was gone before it was accepted: the listener itself is sound.
            _log.warning("accept: %s", error)
            loop.remove_reader(listener.socket.fileno())
            loop.call_later(0.05, self._resume, listener)
            return
        client.setblocking(False)
        task = loop.create_task(_carry(client, choose(listener.backends, self._rng)))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    def _resume(self, listener: _Listener) -> None:
        if listener in self._listeners.values():
            asyncio.get_running_loop().add_reader(listener.socket.fileno(), self._accept, listener)


async def _carry(client: socket.socket, backend: Address) -> None:
    """Join a client's connection to an endpoint until both sides have ended; an abrupt end of one resets
    the other.
    """
    loop = asyncio.get_running_loop()
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(_CONNECT_S):
            await loop.sock_connect(server, backend)
        async with asyncio.TaskGroup() as both:
            both.create_task(_pump(client, server))
            both.create_task(_pump(server, client))
    except* (OSError, TimeoutError):
        for end in (client, server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    finally:
        client.close()
        server.close()


async def _pump(source: socket.socket, target: socket.socket) -> None:
    """Copy until ``source`` ends its side, then end that side of ``target``: half-closed connections stay
    usable.
    """
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK):
        await loop.sock_sendall(target, data)
    target.shutdown(socket.SHUT_WR)
