"""Watches the group's other pods, once per pod, and tells all of the pod's processes what it sees.

Ranks run in lockstep, so a group that lost a pod cannot serve, but vLLM's own /health goes on saying 200:
each pod therefore asks its peers. One process of the pod does it (whoever holds the lock) and writes a small
table that the others read. It has a thread of its own, because an API server's event loop may stall for
longer than a check may take, and would then find every peer dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from .peers import Peer
from .settings import Settings

ALIVE_PATH = "/moe/v1/alive"
_LIMIT = 65536


@dataclass
class _Watched:
    """One peer: its state, and its address while that one works."""

    peer: Peer
    failures: int = 0
    up: bool = False
    reason: str = "has not been asked yet"
    since: float = field(default_factory=time.time)
    address: str = ""
    lookup: asyncio.Task[str] | None = None

    def record(self, reason: str, limit: int) -> None:
        """Take one check's outcome; an empty reason is a success. `limit` failures in a row make the peer
        down.
        """
        was_up = self.up
        if reason:
            self.failures += 1
            self.reason = reason
            self.address = ""
            self.up = self.up and self.failures < limit
        else:
            self.failures = 0
            self.reason = ""
            self.up = True
        if self.up != was_up:
            self.since = time.time()

    def row(self) -> dict[str, Any]:
        return {
            "address": self.peer.address,
            "pod": self.peer.pod,
            "up": self.up,
            "failures": self.failures,
            "reason": self.reason,
            "since": round(self.since, 3),
        }


class PeerWatch:
    """The checks of this pod's peers and the table that they lead to."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._table = settings.directory / "peers.json"
        self._lock = settings.directory / "peers.lock"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start watching in the background, unless the pod is alone in its group."""
        if self._settings.peers and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="moe-agent-peers", daemon=True)
            self._thread.start()

    def stop(self, wait: bool = True) -> None:
        """End the checks, and by default wait for those that run."""
        self._stop.set()
        if wait and self._thread is not None:
            self._thread.join(timeout=self._settings.interval + 2 * self._settings.timeout)
            self._thread = None

    def rows(self) -> list[dict[str, Any]]:
        """The latest table, a row for each peer. If it is no longer written, every peer counts as down."""
        expected = [peer.address for peer in self._settings.peers]
        if not expected:
            return []
        try:
            table = json.loads(self._table.read_text())
            age = (time.monotonic_ns() - int(table["written"])) / 1e9
            rows = {row["address"]: row for row in table["peers"]}
        except (OSError, ValueError, KeyError, TypeError):
            return [_unknown(address, "has not been asked yet") for address in expected]
        allowed = 3 * (self._settings.interval + self._settings.timeout)
        if not 0 <= age <= allowed:
            return [
                _unknown(address, f"was last asked {age:.0f} s ago: the checks stopped")
                for address in expected
            ]
        return [rows.get(address) or _unknown(address, "has not been asked yet") for address in expected]

    def _run(self) -> None:
        with contextlib.suppress(RuntimeError):  # the interpreter is going down
            asyncio.run(self._watch())

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        with self._lock.open("w") as handle:
            watched = [_Watched(peer) for peer in self._settings.peers]
            in_charge = False
            while not self._stop.is_set():
                in_charge = in_charge or try_lock(handle.fileno())
                if not in_charge:
                    await asyncio.sleep(self._settings.interval / 2)
                    continue
                began = loop.time()
                await asyncio.gather(*(self._check(entry) for entry in watched))
                self._publish(watched)
                await asyncio.sleep(max(0.0, self._settings.interval - (loop.time() - began)))

    async def _check(self, entry: _Watched) -> None:
        try:
            async with asyncio.timeout(self._settings.timeout):
                reason = await self._ask(entry)
        except TimeoutError:
            reason = f"did not answer within {self._settings.timeout:g} s"
        except ConnectionRefusedError:
            reason = "refused the connection: its engine is starting, or has ended"
        except socket.gaierror as error:
            reason = f"its name cannot be resolved: {error.strerror}"
        except (OSError, ValueError, EOFError) as error:
            reason = f"{type(error).__name__}: {error}"
        entry.record(reason, self._settings.failures)

    async def _ask(self, entry: _Watched) -> str:
        """Ask once; the answer is why the peer is not alive, or "" if it is."""
        peer = entry.peer
        if not entry.address:
            entry.address = await _resolve(entry)
        context = None
        if self._settings.scheme == "https":
            # Liveness only: nothing is believed but that the peer answers, and its certificate names a
            # Service.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(entry.address, peer.port, ssl=context)
        try:
            request = f"GET {ALIVE_PATH} HTTP/1.1\r\nHost: {peer.host}\r\nConnection: close\r\n\r\n"
            writer.write(request.encode())
            await writer.drain()
            answer = await reader.read(_LIMIT)
            while chunk := await reader.read(_LIMIT):
                answer += chunk
                if len(answer) > _LIMIT:
                    return "answered with something else than the agent's page"
        finally:
            writer.close()
        return _judge(answer, peer.pod)

    def _publish(self, watched: list[_Watched]) -> None:
        content = {"written": time.monotonic_ns(), "peers": [entry.row() for entry in watched]}
        new = self._table.with_name(f"peers.{os.getpid()}.new")
        with contextlib.suppress(OSError):  # a full disk: the table grows old, and the peers count as down
            new.write_text(json.dumps(content))
            new.replace(self._table)


async def _resolve(entry: _Watched) -> str:
    """The peer's address. A lookup that outlives its check goes on and serves the next one: no thread is used
    up.
    """
    if entry.lookup is None:
        entry.lookup = asyncio.get_running_loop().create_task(_lookup(entry.peer))
    task = entry.lookup
    address = await asyncio.shield(task)
    entry.lookup = None
    return address


async def _lookup(peer: Peer) -> str:
    found = await asyncio.get_running_loop().getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


def _judge(answer: bytes, pod: str) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    try:
        content = json.loads(body)
        named = str(content.get("pod", ""))
    except (ValueError, AttributeError):
        return "answered with something else than the agent's page"
    if pod and named and named != pod:
        return f"its address is now another pod's, {named}"
    if status != [b"200"]:
        return str(content.get("reason") or "says that it is not alive")
    return ""


def try_lock(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _unknown(address: str, reason: str) -> dict[str, Any]:
    return {"address": address, "pod": "", "up": False, "failures": 0, "reason": reason, "since": None}
