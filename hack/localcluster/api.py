"""The little of a Kubernetes client that the cluster's own parts need: GET, POST, server-side apply,
watch.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from localcluster.network import API_URL

Object = dict[str, Any]
_FIELD_MANAGER = "localcluster"


class ApiError(Exception):
    """The API server refused a request. ``status`` is HTTP's; ``message`` the server's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Api:
    """A client with the administrator's certificate. Use as an async context manager."""

    def __init__(self, pki: Path, base: str = API_URL) -> None:
        self._tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        self._base = base
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Api:
        connector = aiohttp.TCPConnector(ssl=self._tls)
        self._session = aiohttp.ClientSession(self._base, connector=connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("Api is used outside of its context")
        return self._session

    async def _json(self, method: str, path: str, **options: Any) -> Object:
        timeout = aiohttp.ClientTimeout(total=10)
        async with self.session.request(method, path, timeout=timeout, **options) as response:
            if response.status >= 400:
                raise ApiError(response.status, await response.text())
            body: Object = await response.json(content_type=None)
            return body

    async def ok(self, path: str) -> bool:
        """Whether GET answers 200; connection errors count as no."""
        try:
            async with self.session.get(path, timeout=aiohttp.ClientTimeout(total=2)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def get(self, path: str, **parameters: str) -> Object:
        return await self._json("GET", path, params=parameters)

    async def create(self, path: str, body: Object) -> Object:
        """POST to a collection. Raises ApiError 409 for what exists."""
        return await self._json("POST", path, json=body, params={"fieldManager": _FIELD_MANAGER})

    async def apply(self, path: str, body: Object) -> Object:
        """Server-side apply; creates what is missing. Taking fields from other managers is intended."""
        headers = {"Content-Type": "application/apply-patch+yaml"}
        parameters = {"fieldManager": _FIELD_MANAGER, "force": "true"}
        return await self._json("PATCH", path, params=parameters, data=json.dumps(body), headers=headers)

    async def watch(self, path: str, resource_version: str, seconds: int) -> AsyncIterator[Object]:
        """Watch events (``type``, ``object``) from ``resource_version`` until the server ends the stream.

        A silent connection is given up a little after ``seconds``, when the server should have ended it.
        """
        parameters = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        timeout = aiohttp.ClientTimeout(total=seconds + 10, sock_connect=5)
        async with self.session.get(path, params=parameters, timeout=timeout) as response:
            if response.status >= 400:
                raise ApiError(response.status, await response.text())
            pending = b""
            async for chunk in response.content.iter_any():
                # Objects may be larger than any line limit of a stream reader: split by hand.
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    if line:
                        event: Object = json.loads(line)
                        yield event
