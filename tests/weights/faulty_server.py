"""An HTTP server whose answers can be spoilt one by one, and that counts the bytes it sends."""

import threading
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass(frozen=True)
class Answer:
    """What a server would say if nothing went wrong."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Fault:
    """How one answer goes wrong. Each is used once, in the order they were planned."""

    status: int = 0
    """Answer this status instead."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside, or in place of, the right ones."""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    corrupt_at: int | None = None
    """Turn the bits of this byte of the body over."""
    whole: bool = False
    """Ignore the range that was asked for."""
    hold_at: int | None = None
    """Send so much and then wait until the server is told to go on."""


class FaultyServer:
    """Subclasses say what the right answer to a request is."""

    def __init__(self) -> None:
        self.sent: defaultdict[str, int] = defaultdict(int)
        """Path without query -> bytes of bodies sent."""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """Method, path with query, headers in lower case."""
        self.holding, self.go_on = threading.Event(), threading.Event()
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._always: dict[str, Fault] = {}
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> Answer:
        """The right answer, with the range that `headers` asks for."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def plan(self, ending: str, *faults: Fault) -> None:
        """The next requests for paths with this ending go wrong so."""
        self._faults[ending].extend(faults)

    def always(self, ending: str, fault: Fault | None) -> None:
        """Every request for paths with this ending goes wrong so; None: no more."""
        self._always.pop(ending, None)
        if fault:
            self._always[ending] = fault

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fault_for(self, path: str) -> Fault:
        with self._lock:
            for ending, planned in self._faults.items():
                if planned and path.endswith(ending):
                    return planned.popleft()
            for ending, fault in self._always.items():
                if path.endswith(ending):
                    return fault
        return Fault()

    def count(self, path: str, number: int) -> None:
        with self._lock:
            self.sent[path] += number

    def asked(self, part: str) -> int:
        """How many requests had this in their path."""
        with self._lock:
            return sum(part in path for _, path, _ in self.requests)

    def bytes_of(self, ending: str) -> int:
        with self._lock:
            return sum(number for path, number in self.sent.items() if path.endswith(ending))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: FaultyServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def _serve(self) -> None:
        owner = self.server.owner
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        with owner._lock:
            owner.requests.append((self.command, self.path, headers))
        fault = owner.fault_for(path)
        if fault.whole:
            headers.pop("range", None)
        right = owner.answer(self.command, path, query, headers)
        if fault.status:
            right = Answer(fault.status, {}, b"spoilt")
        body = bytearray(right.body)
        if fault.corrupt_at is not None and fault.corrupt_at < len(body):
            body[fault.corrupt_at] ^= 0xFF
        self.send_response(right.status)
        for name, value in {"Content-Length": str(len(body)), **right.headers, **fault.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self._send(path, bytes(body if fault.cut_after is None else body[: fault.cut_after]), fault.hold_at)
        if fault.cut_after is not None:
            self.close_connection = True

    def _send(self, path: str, body: bytes, hold_at: int | None) -> None:
        owner = self.server.owner
        step = 64 * 1024
        for start in range(0, len(body), step):
            if hold_at is not None and start >= hold_at:
                self.wfile.flush()
                owner.holding.set()
                owner.go_on.wait()
                hold_at = None
            piece = body[start : start + step]
            self.wfile.write(piece)
            owner.count(path, len(piece))


def ranged(content: bytes, headers: Mapping[str, str], more: Mapping[str, str]) -> Answer:
    """200 with everything, 206 with the end that is asked for, or 416."""
    asked = headers.get("range")
    if asked is None:
        return Answer(200, {"Accept-Ranges": "bytes", **more}, content)
    start = int(asked.removeprefix("bytes=").partition("-")[0])
    if start >= len(content):
        return Answer(416, {"Content-Range": f"bytes */{len(content)}", **more})
    span = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return Answer(206, {"Accept-Ranges": "bytes", "Content-Range": span, **more}, content[start:])
