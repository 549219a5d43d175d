"""Connections that clients keep for their next request: how long, and that none is left when the engine ends.

A server that closes an idle connection may meet a request on its way, which is then lost: HTTP/1.1 has no word for it.
So the server keeps idle connections for longer than clients do, and a client, which knows what it sends, closes first.
An engine that is told to stop answers what still comes on them with errors or not at all; in a drain they are
therefore closed before, once clients with short-lived pools have given theirs up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

_VARIABLE = "VLLM_HTTP_TIMEOUT_KEEP_ALIVE"
#: Seconds. vLLM's default, 5, is just what the pools of httpx keep (OpenAI's client among them): in an experiment one
#: in a hundred requests that came 5 s after the last failed. Go's clients keep theirs for 90 s, nginx for 60 s.
SERVER_SECONDS = 120
#: Seconds that a connection must have been idle before a drain closes it: above the 5 s of httpx's pools.
CLOSE_AFTER = 6.0


def install(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let vLLM's server, which reads its environment later, keep idle connections for longer; what the user has set
    stays."""
    environ.setdefault(_VARIABLE, str(SERVER_SECONDS))


class IdleConnections:
    """The idle connections of one API-server process, as uvicorn holds them: a set of protocols.

    Each has `cycle`, its last request, with `scope` and `response_complete`; `transport`; and `shutdown()`, which
    closes an idle one. uvicorn's server calls the last itself when it ends.
    """

    def __init__(
        self, is_work: Callable[[MutableMapping[str, Any]], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`is_work`: whether a request's scope is a client's: probes and scrapes keep connections too."""
        self._is_work, self._clock = is_work, clock
        self._since: dict[Any, tuple[Any, float]] = {}

    def look(self, protocols: Iterable[Any], close_after: float) -> int:
        """Close what has been seen idle for `close_after` seconds, and return how many idle ones are left."""
        now, idle = self._clock(), {}
        for protocol in list(protocols):
            cycle = getattr(protocol, "cycle", None)
            if cycle is None or not cycle.response_complete or not self._is_work(cycle.scope):
                continue
            if protocol.transport.is_closing():
                continue
            seen = self._since.get(protocol)
            if seen is None or seen[0] is not cycle:
                seen = (cycle, now)
            if now - seen[1] >= close_after:
                protocol.shutdown()
            else:
                idle[protocol] = seen
        self._since = idle
        return len(idle)

    def forget(self) -> None:
        """Begin anew with the next look: what was seen before says nothing of connections then."""
        self._since = {}


def protocols_of(scope: MutableMapping[str, Any]) -> Iterable[Any]:
    """The connections of the server behind a request's scope; nothing where it is not uvicorn as vLLM runs it."""
    server = getattr(getattr(scope.get("app"), "state", None), "server", None)
    found: Iterable[Any] = getattr(getattr(server, "server_state", None), "connections", ())
    return found
