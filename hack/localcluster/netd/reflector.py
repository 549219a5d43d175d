"""Follow one resource: list, then watch, for ever; deletions that a gap hid are told like any other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from localcluster.api import Api, ApiError

Object = dict[str, Any]
#: ``changed(key, object)``: created or updated; ``changed(key, None)``: deleted. Key: (namespace, name).
Changed = Callable[[tuple[str, str], Object | None], None]

_log = logging.getLogger(__name__)
_WATCH_S = 300
_BACKOFF_FIRST_S, _BACKOFF_MAX_S = 0.05, 1.0


class ExpiredError(Exception):
    """The server no longer knows the resource version from which the watch should go on."""


class Reflector:
    """Calls ``changed`` for every difference between what it told before and what the server says."""

    def __init__(self, api: Api, path: str, changed: Changed) -> None:
        self._api = api
        self._path = path
        self._changed = changed
        self._known: dict[tuple[str, str], str] = {}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Never returns. Errors of the server or the connection are retried with back-off, from a fresh
        list.
        """
        backoff = _BACKOFF_FIRST_S
        version: str | None = None
        while True:
            try:
                if version is None:
                    version = await self._list()
                    self.synced.set()
                    backoff = _BACKOFF_FIRST_S
                started = time.monotonic()
                version = await self._watch(version)
                if time.monotonic() - started < _BACKOFF_MAX_S:
                    # A server that ends watches as soon as they begin must not be asked without pause.
                    await asyncio.sleep(_BACKOFF_FIRST_S)
            except ExpiredError:
                version = None
            except (aiohttp.ClientError, TimeoutError, OSError, ApiError, ValueError) as error:
                _log.info(
                    "%s: %s; listing again in %.2f s", self._path, error or type(error).__name__, backoff
                )
                version = None
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _BACKOFF_MAX_S)

    async def _list(self) -> str:
        answer = await self._api.get(self._path)
        seen = set()
        for item in answer.get("items") or []:
            seen.add(self._tell(item))
        for key in self._known.keys() - seen:
            del self._known[key]
            self._changed(key, None)
        return str(answer["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        async for event in self._api.watch(self._path, version, _WATCH_S):
            kind, item = event["type"], event["object"]
            if kind == "ERROR":
                if item.get("code") == 410:
                    raise ExpiredError
                raise ApiError(int(item.get("code", 500)), str(item.get("message")))
            version = item["metadata"]["resourceVersion"]
            if kind == "DELETED":
                key = _key(item)
                if self._known.pop(key, None) is not None:
                    self._changed(key, None)
            elif kind != "BOOKMARK":
                self._tell(item)
        return version

    def _tell(self, item: Object) -> tuple[str, str]:
        key, version = _key(item), item["metadata"]["resourceVersion"]
        if self._known.get(key) != version:
            self._known[key] = version
            self._changed(key, item)
        return key


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]
