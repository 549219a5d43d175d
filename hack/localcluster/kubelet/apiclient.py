"""A small client of the Kubernetes API: plain objects, typed errors, watches that restart themselves."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import ssl
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import yaml

Obj = dict[str, Any]
STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"


class ApiError(Exception):
    """The API server refused. ``status`` is the HTTP code, 0 when it could not be reached."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


def _file(data: str | None, path: str | None, base: Path) -> bytes | None:
    if data:
        return base64.b64decode(data)
    return (base / path).read_bytes() if path else None


def _tls(cluster: Obj, user: Obj, base: Path) -> ssl.SSLContext | bool:
    if not cluster["server"].startswith("https"):
        return True
    authority = _file(cluster.get("certificate-authority-data"), cluster.get("certificate-authority"), base)
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    certificate = _file(user.get("client-certificate-data"), user.get("client-certificate"), base)
    key = _file(user.get("client-key-data"), user.get("client-key"), base)
    if certificate and key:
        with tempfile.NamedTemporaryFile() as both:  # mode 0600; ssl reads keys from files only
            both.write(certificate + b"\n" + key)
            both.flush()
            context.load_cert_chain(both.name)
    return context


class ApiClient:
    """One cluster. Close it with ``close``."""

    def __init__(self, server: str, tls: ssl.SSLContext | bool, session: aiohttp.ClientSession) -> None:
        self.server = server.rstrip("/")
        self._tls = tls
        self._session = session
        #: While set, nothing gets through: this branch plays a node that is cut off.
        self.cut = False

    @classmethod
    def from_kubeconfig(cls, path: Path) -> ApiClient:
        """The current context of a kubeconfig with client certificates or a token. Call inside a running loop."""
        document = yaml.safe_load(path.read_text())
        name = document.get("current-context") or document["contexts"][0]["name"]
        context = next(entry["context"] for entry in document["contexts"] if entry["name"] == name)
        cluster = next(
            entry["cluster"] for entry in document["clusters"] if entry["name"] == context["cluster"]
        )
        user = next(entry["user"] for entry in document["users"] if entry["name"] == context["user"])
        headers = {"Authorization": f"Bearer {user['token']}"} if user.get("token") else {}
        session = aiohttp.ClientSession(
            headers={"User-Agent": "moe-operator-local-kubelet", **headers},
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=30),
        )
        return cls(cluster["server"], _tls(cluster, user, path.parent), session)

    def branch(self) -> ApiClient:
        """A client of the same cluster over the same connections, to be cut off by itself."""
        return ApiClient(self.server, self._tls, self._session)

    async def close(self) -> None:
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Obj | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Obj:
        """One request. Raises ApiError."""
        if self.cut:
            raise ApiError(0, "Unreachable", f"{method} {path}: this node is cut off")
        data = None if body is None else json.dumps(body).encode()
        try:
            async with self._session.request(
                method,
                self.server + path,
                params=query,
                data=data,
                headers={"Content-Type": content_type},
                ssl=self._tls,
            ) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{method} {path}: {error}") from error
        try:
            answer: Any = json.loads(raw) if raw else {}
        except ValueError:
            answer = {"message": raw.decode("utf-8", "replace")}
        if response.status >= 400:
            raise ApiError(response.status, answer.get("reason", ""), answer.get("message", ""))
        return answer if isinstance(answer, dict) else {}

    async def get(self, path: str, **query: str) -> Obj:
        return await self.request("GET", path, query=query)

    async def get_or_none(self, path: str) -> Obj | None:
        """None when the object does not exist."""
        try:
            return await self.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def post(self, path: str, body: Obj) -> Obj:
        return await self.request("POST", path, body)

    async def put(self, path: str, body: Obj) -> Obj:
        return await self.request("PUT", path, body)

    async def patch(self, path: str, body: Obj, content_type: str = STRATEGIC) -> Obj:
        return await self.request("PATCH", path, body, content_type)

    async def delete(self, path: str, body: Obj) -> Obj:
        return await self.request("DELETE", path, body)

    async def follow(
        self,
        path: str,
        on_list: Callable[[list[Obj]], None],
        on_event: Callable[[str, Obj], None],
        **query: str,
    ) -> None:
        """List, then watch, for ever: lists anew when the watch's history is gone, backs off when the API server is.

        ``on_list`` gets the complete set (also after each re-list, so it must drop what is missing).
        """
        pause = 0.5
        version: str | None = None
        while True:
            try:
                if version is None:
                    listed = await self.get(path, **query)
                    version = listed["metadata"]["resourceVersion"]
                    on_list(listed.get("items") or [])
                version = await self._watch(path, version, on_event, query)
                pause = 0.5
            except ApiError as error:
                if error.status == 410:
                    version = None
                    continue
                if error.status not in (0, 429) and error.status < 500:
                    version = None
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, 4)

    async def _watch(
        self, path: str, version: str, on_event: Callable[[str, Obj], None], query: dict[str, str]
    ) -> str:
        params = {
            **query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(random.randint(300, 600)),
        }
        try:
            async with self._session.get(
                self.server + path,
                params=params,
                ssl=self._tls,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=660),
            ) as response:
                if response.status >= 400:
                    raise ApiError(response.status, "", (await response.text())[:500])
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            status = event["object"]
                            raise ApiError(
                                status.get("code", 500), status.get("reason", ""), status.get("message", "")
                            )
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            on_event(event["type"], event["object"])
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, TimeoutError):
                return version
            raise ApiError(0, "Unreachable", f"watch {path}: {error}") from error
        return version
