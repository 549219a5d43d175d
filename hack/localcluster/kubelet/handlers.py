"""The actions that probes and lifecycle hooks are made of: HTTP GET, TCP connect, exec, sleep."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

Obj = dict[str, Any]
#: Runs a command in the container within seconds: (exit code, output). Raises TimeoutError or OSError.
Exec = Callable[[list[str], float], Awaitable[tuple[int, str]]]

#: A kubelet reads at most this much of an answer's body.
_BODY_LIMIT = 10 * 1024
USER_AGENT = "kube-probe/1.36"


@dataclass(frozen=True)
class Outcome:
    """Whether an action succeeded; ``output`` says why not, in a kubelet's words."""

    ok: bool
    output: str = ""


@dataclass(frozen=True)
class Target:
    """The container that actions go to."""

    container: Obj
    pod_ip: str
    execute: Exec

    def port(self, port: int | str) -> int:
        """A port number from a number or a port's name. Raises ValueError."""
        if isinstance(port, int):
            return port
        for entry in self.container.get("ports") or []:
            if entry.get("name") == port:
                return int(entry["containerPort"])
        return int(port)


def unverified_tls() -> ssl.SSLContext:
    """Probes do not verify certificates."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_tls: list[ssl.SSLContext] = []


async def _get(host: str, port: int, action: Obj) -> Outcome:
    secure = action.get("scheme", "HTTP") == "HTTPS"
    if secure and not _tls:
        _tls.append(unverified_tls())
    path = action.get("path") or "/"
    if not path.startswith("/"):
        path = "/" + path
    url = f"{'https' if secure else 'http'}://{host}:{port}{path}"
    given = [(entry["name"], entry["value"]) for entry in action.get("httpHeaders") or []]
    names = {name.lower() for name, _ in given}
    defaults = [("Host", f"{host}:{port}"), ("User-Agent", USER_AGENT), ("Accept", "*/*")]
    headers = [pair for pair in defaults if pair[0].lower() not in names] + given + [("Connection", "close")]
    request = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=_tls[0] if secure else None)
    except OSError as error:
        return Outcome(False, f'Get "{url}": dial tcp {host}:{port}: {_reason(error)}')
    try:
        writer.write(request.encode())
        line = await reader.readline()
        parts = line.split(None, 2)
        if len(parts) < 2 or not parts[1].isdigit():
            return Outcome(False, f'Get "{url}": the answer is not HTTP: {line[:80]!r}')
        status = int(parts[1])
        # Read to the end, so that the server never writes into a closed connection.
        rest = b""
        while len(rest) < _BODY_LIMIT and (chunk := await reader.read(_BODY_LIMIT)):
            rest += chunk
        if 200 <= status < 400:
            return Outcome(True)
        return Outcome(False, f"HTTP probe failed with statuscode: {status}")
    except OSError as error:
        return Outcome(False, f'Get "{url}": {_reason(error)}')
    finally:
        writer.close()


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connect: connection refused"
    return error.strerror or str(error)


async def _tcp(host: str, port: int) -> Outcome:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return Outcome(False, f"dial tcp {host}:{port}: {_reason(error)}")
    writer.close()
    return Outcome(True)


async def run(action: Obj, target: Target, seconds: float | None) -> Outcome:
    """Carry out one probe's or hook's action within ``seconds`` (None: as long as it takes)."""
    try:
        async with asyncio.timeout(seconds):
            if action.get("httpGet"):
                get = action["httpGet"]
                return await _get(get.get("host") or target.pod_ip, target.port(get["port"]), get)
            if action.get("tcpSocket"):
                socket = action["tcpSocket"]
                return await _tcp(socket.get("host") or target.pod_ip, target.port(socket["port"]))
            if action.get("exec"):
                code, output = await target.execute(action["exec"].get("command") or [], seconds or 0.0)
                return Outcome(code == 0, output.strip() or f"command exited with {code}")
            if action.get("sleep"):
                await asyncio.sleep(action["sleep"]["seconds"])
                return Outcome(True)
            kinds = sorted(set(action) & {"grpc"}) or sorted(action)
            return Outcome(False, f"{kinds} is not supported by this kubelet: use httpGet, tcpSocket or exec")
    except TimeoutError:
        return Outcome(False, f"timed out after {seconds:g} s" if seconds else "timed out")
    except ValueError as error:
        return Outcome(False, str(error))
