"""One request to the API server: explicit content types, timeouts, typed failures, a count of what is asked.

The content type is always given: left alone, the client library would send a dict as a strategic merge patch,
which custom resources refuse.
"""

import asyncio
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration, rest

from moe_operator.controller.kube import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
    Obj,
)

log = logging.getLogger(__name__)

JSON = "application/json"

#: Seconds for a request, and for connecting alone.
TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
#: Tries of a read, the first included.
_TRIES = 4
#: Longest wait between two tries of a read; a server that asks for longer gets its error passed on.
_LONGEST_WAIT = 10.0
#: What a moment may cure: no answer, too many requests, a server that restarts.
_PASSING = frozenset({0, 429, 500, 502, 503, 504})

Query = Sequence[tuple[str, str]]


class RequestObserver(Protocol):
    """Told of every request."""

    def request(self, verb: str, kind: str, code: int, seconds: float) -> None:
        """One request ended; code 0: without an answer."""


class _NoObserver:
    def request(self, verb: str, kind: str, code: int, seconds: float) -> None:
        pass


class Transport:
    """A connection pool to one API server."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        observer: RequestObserver | None = None,
        jitter: Callable[[], float] = random.random,
        timeout: aiohttp.ClientTimeout = TIMEOUT,
    ) -> None:
        """`jitter` gives numbers in [0, 1) and spreads the retries of reads."""
        self._api = ApiClient(configuration)
        self._api.user_agent = "moe-operator"
        self._observer = observer or _NoObserver()
        self._jitter = jitter
        self._timeout = timeout

    async def close(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]

    async def read(self, verb: str, kind: str, path: str, query: Query = (), *, accept: str = JSON) -> bytes:
        """GET, repeated a few times where a moment may help. `verb` and `kind` are for the count.

        Raises KubeError, with status 0 when there was no answer.
        """
        for attempt in range(1, _TRIES):
            try:
                return await self.send("GET", verb, kind, path, query, accept=accept)
            except KubeError as error:
                wait = (error.retry_after or 0.25 * 2**attempt) * (1 + 0.5 * self._jitter())
                if error.status not in _PASSING or wait > _LONGEST_WAIT:
                    raise
                log.debug("%s %s failed, trying again in %.1f s: %s", verb, path, wait, error)
            await asyncio.sleep(wait)
        return await self.send("GET", verb, kind, path, query, accept=accept)

    async def send(
        self,
        method: str,
        verb: str,
        kind: str,
        path: str,
        query: Query = (),
        body: Obj | None = None,
        *,
        content_type: str = JSON,
        accept: str = JSON,
        most: int | None = None,
    ) -> bytes:
        """One request, tried once: a lost answer does not say whether a write was done. `most`: bytes of an answer that
        is not the API server's own, but of somebody behind it.

        Raises KubeError, with status 0 when there was no answer, or one of more than `most` bytes.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        code = 0
        try:
            request = await self._api.param_serialize(
                method=method,
                resource_path=quote(path),
                query_params=list(query),
                header_params={"Accept": accept, "Content-Type": content_type}
                # A few KB that become gigabytes: nothing is asked for that needs to be unpacked.
                | ({} if most is None else {"Accept-Encoding": "identity"}),
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = await self._api.call_api(*request, _request_timeout=self._timeout)
            if most is None:
                raw: bytes = await answer.read()  # type: ignore[no-untyped-call]
            else:
                raw = await _bounded(answer.response, most)
            code = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, aiohttp.ClientConnectorCertificateError):
                await self._trust_again()
            what = str(error) or type(error).__name__
            raise KubeError(0, "NoAnswer", f"{method} {path}: {what}") from error
        finally:
            self._observer.request(verb, kind, code, loop.time() - started)
        if 200 <= code < 300:
            return raw
        raise failure(code, answer.headers, raw, f"{method} {path}")

    async def _trust_again(self) -> None:
        """Read the certificate authorities again: the cluster's may have been rotated since the start."""
        stale, self._api.rest_client = self._api.rest_client, rest.RESTClientObject(self._api.configuration)
        await stale.close()


async def _bounded(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """What it says, read only as far as it may go. Raises KubeError(0)."""
    read = bytearray()
    async for chunk in answer.content.iter_any():
        read += chunk
        if len(read) > most:
            answer.close()
            raise KubeError(0, "TooLong", f"the answer has more than {most} bytes")
    return bytes(read)


def loads(raw: bytes) -> Obj:
    """An answer's JSON object. Raises KubeError(0) for anything else."""
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise KubeError(0, "NoAnswer", f"the answer is no JSON object: {raw[:200]!r}")
    return answer


def failure(code: int, headers: Mapping[str, str], raw: bytes, what: str) -> KubeError:
    """The typed error of an answer; a proxy in between may have written something that is no Status."""
    status: dict[str, Any] = {}
    message = ""
    try:
        parsed = json.loads(raw)
        status = parsed if isinstance(parsed, dict) else {}
    except ValueError:
        message = raw[:300].decode(errors="replace").strip()
    details = status.get("details") or {}
    asked = headers.get("Retry-After") or details.get("retryAfterSeconds")
    try:
        retry_after = float(asked) if asked is not None else None
    except ValueError:
        retry_after = None  # a date: rare, and as good as no answer
    kinds: dict[int, type[KubeError]] = {
        400: InvalidError,
        403: ForbiddenError,
        404: NotFoundError,
        409: ConflictError,
        422: InvalidError,
    }
    return kinds.get(code, KubeError)(
        code,
        status.get("reason") or "Unknown",
        str(status.get("message") or status.get("error") or message or f"{what} answered {code}"),
        retry_after,
    )
