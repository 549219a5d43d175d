"""Who may use a node's server: client certificates and bearer tokens, both checked with the API server."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from localcluster.kubelet.apiclient import ApiClient, ApiError, Obj

#: Seconds for which an answer is kept: a kubelet's defaults.
_ALLOWED_FOR, _DENIED_FOR, _TOKEN_FOR = 300.0, 30.0, 120.0
_ANONYMOUS: Obj = {"username": "system:anonymous", "groups": ["system:unauthenticated"]}


class DeniedError(Exception):
    """The request is refused. ``status``: 401 or 403."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def subresource(path: str) -> str:
    """The subresource of ``nodes`` that guards a path, as a kubelet maps them."""
    first = path.strip("/").split("/", 1)[0]
    return {"metrics": "metrics", "stats": "stats", "logs": "log", "healthz": "healthz", "pods": "pods"}.get(
        first, "proxy"
    )


def certificate_user(certificate: Mapping[str, Any]) -> Obj:
    """User and groups from a verified client certificate, in the form that the ssl module gives."""
    names: dict[str, list[str]] = {}
    for part in certificate.get("subject", ()):
        for key, value in part:
            names.setdefault(key, []).append(value)
    groups = [*names.get("organizationName", []), "system:authenticated"]
    return {"username": (names.get("commonName") or [""])[0], "groups": groups}


class Authorizer:
    """``check`` raises DeniedError unless RBAC allows the caller this use of the node."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._users: dict[str, tuple[float, Obj]] = {}
        self._answers: dict[tuple[str, ...], tuple[float, bool]] = {}

    async def check(
        self, node: str, path: str, method: str, certificate: Mapping[str, Any] | None, authorization: str
    ) -> None:
        """``authorization``: the request's header."""
        user = _ANONYMOUS
        if certificate:
            user = certificate_user(certificate)
        elif authorization.startswith("Bearer "):
            user = await self._token_user(authorization.removeprefix("Bearer "))
        verb = {"GET": "get", "POST": "create", "PUT": "update", "DELETE": "delete"}.get(method, "get")
        resource = subresource(path)
        if not await self._allowed(user, verb, node, resource):
            if user is _ANONYMOUS:
                raise DeniedError(401, "Unauthorized")
            raise DeniedError(
                403,
                f"Forbidden (user={user['username']}, verb={verb}, resource=nodes, subresource={resource})",
            )

    async def _token_user(self, token: str) -> Obj:
        until, user = self._users.get(token, (0.0, _ANONYMOUS))
        if until > time.monotonic():
            return user
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        status = await self._post("/apis/authentication.k8s.io/v1/tokenreviews", body)
        if not status.get("authenticated"):
            raise DeniedError(401, "Unauthorized")
        self._users = {key: entry for key, entry in self._users.items() if entry[0] > time.monotonic()}
        self._users[token] = (time.monotonic() + _TOKEN_FOR, status["user"])
        found: Obj = status["user"]
        return found

    async def _allowed(self, user: Obj, verb: str, node: str, resource: str) -> bool:
        groups: list[str] = user.get("groups") or []
        key = (user["username"], *groups, verb, node, resource)
        until, allowed = self._answers.get(key, (0.0, False))
        if until > time.monotonic():
            return allowed
        attributes = {
            "verb": verb,
            "version": "v1",
            "resource": "nodes",
            "subresource": resource,
            "name": node,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user["username"], "groups": groups, "resourceAttributes": attributes},
        }
        status = await self._post("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
        allowed = bool(status.get("allowed"))
        self._answers[key] = (time.monotonic() + (_ALLOWED_FOR if allowed else _DENIED_FOR), allowed)
        return allowed

    async def _post(self, path: str, body: Obj) -> Obj:
        try:
            answer = await self._client.post(path, body)
        except ApiError as error:
            raise DeniedError(403, f"the API server could not be asked: {error}") from error
        status: Obj = answer.get("status") or {}
        return status
