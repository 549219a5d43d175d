"""Reads the operator's page `/figures` through the API server's proxy: bounded in time and size, whoever answers.

Who may list pods asks the replicas one after the other. Who may not asks the metrics Service, which is all that the
chart's Role for it allows (`rbac.figures`); the API server then chooses a replica, and another one the next time. Only
the leader has figures: the others answer 503.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import ValidationError

from moe_operator.api.figures import PATH, FiguresPage
from moe_operator.cli.fitting import clean
from moe_operator.cli.spec_changes import cut
from moe_operator.controller.kube import POD, SERVICE, ForbiddenError, Kind, KubeError
from moe_operator.runtime.transport import Query

Obj = dict[str, Any]
#: Where the documentation has it installed, and what the release is called there.
DEFAULT_PLACE = "moe-system/moe-operator"
#: Of the operator's pods, whatever the release is called.
_SELECTOR = "app.kubernetes.io/part-of=moe-operator"
#: Of the container's port, and of the Service's.
_PORT = "metrics"
#: Seconds for all of it, and for one replica: a table that is drawn every few seconds must not wait for long.
_PATIENCE, _PATIENCE_WITH_ONE = 10.0, 5.0
#: Bytes. A fleet of 8,000 ranks takes about 5 MB.
LONGEST_PAGE = 16 * 2**20
#: Replicas that are asked at most.
_MOST_REPLICAS = 8
#: Times that the Service is asked. Of two replicas the right one is missed once in 65,000 times, of three once in 650.
_SERVICE_TRIES = 16
#: Characters of what others say.
_WORDS = 200


class NoFiguresError(Exception):
    """There is no page; the message says why, and what to do."""


class Proxy(Protocol):
    """What reading the page needs of a client."""

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, field_selector: str = ""
    ) -> list[Obj]:
        """As `KubeClient.list`."""

    async def proxied(
        self, kind: Kind, namespace: str, name: str, path: str, query: Query, most: int
    ) -> bytes:
        """As `AioKubeClient.proxied`."""


@dataclass(frozen=True)
class Place:
    """Where the operator is."""

    namespace: str
    release: str
    """What its objects are called by: the chart's full name."""
    given: bool = True
    """By whoever asks; else it is looked for elsewhere too."""

    @classmethod
    def read(cls, text: str | None) -> "Place":
        """`NAMESPACE` or `NAMESPACE/NAME`; None: as documented."""
        default = DEFAULT_PLACE.partition("/")
        namespace, _, release = (text or DEFAULT_PLACE).partition("/")
        return cls(namespace, release or default[2], given=text is not None)


@dataclass(frozen=True)
class _Target:
    kind: Kind
    namespace: str
    name: str
    tries: int = 1


class FiguresReader:
    """Reads the page again and again, from whoever had it last."""

    def __init__(self, client: Proxy, place: Place) -> None:
        self._client = client
        self._place = place
        self._last: _Target | None = None

    async def read(self, namespace: str | None, name: str | None) -> FiguresPage:
        """Of a namespace, of one deployment, or of all. Raises NoFiguresError."""
        query = [(key, value) for key, value in (("namespace", namespace), ("name", name)) if value]
        try:
            async with asyncio.timeout(_PATIENCE):
                raw = await self._found(query)
        except TimeoutError as error:
            raise NoFiguresError(f"the operator's figures did not come within {_PATIENCE:g} s") from error
        return page_of(raw)

    async def _found(self, query: Query) -> bytes:
        if self._last is not None:
            try:
                return await self._ask(self._last, query)
            except KubeError:
                self._last = None  # another leads by now, or it is gone
        said: list[str] = []
        try:
            for target in await self._replicas():
                try:
                    return await self._ask(target, query)
                except ForbiddenError:
                    raise
                except KubeError as error:
                    said.append(f"{target.name.split(':')[1]}: {_words(error)}")
        except ForbiddenError:
            return await self._by_service(query)
        if said:
            raise NoFiguresError(f"no replica of the operator has figures: {'; '.join(said[:2])}")
        raise NoFiguresError(
            f"no pod of the operator runs in {self._where()}: say where it is with --operator NAMESPACE/NAME"
        )

    async def _replicas(self) -> list[_Target]:
        """Raises ForbiddenError where nobody may be asked for them."""
        place = self._place
        try:
            found = list(_running(await self._client.list(POD, place.namespace, _SELECTOR)))
            if not found and not place.given:
                found = list(_running(await self._client.list(POD, None, _SELECTOR)))
        except ForbiddenError:
            raise
        except KubeError as error:
            raise NoFiguresError(f"the operator's pods could not be listed: {_said(error)}") from error
        return found[:_MOST_REPLICAS]

    async def _by_service(self, query: Query) -> bytes:
        place = self._place
        service = f"{place.release}-metrics"
        target = _Target(SERVICE, place.namespace, f"http:{service}:{_PORT}", _SERVICE_TRIES)
        try:
            return await self._ask(target, query)
        except ForbiddenError as error:
            raise NoFiguresError(
                f"you may not read the operator's figures: ask for the Role {place.release}-figures in namespace "
                f"{place.namespace}, which may get services/proxy {target.name} (the chart's rbac.figures)"
                + ("" if place.given else "; if the operator is elsewhere, give --operator NAMESPACE/NAME")
            ) from error
        except KubeError as error:
            if error.status == 404 and error.reason == "NotFound":
                raise NoFiguresError(
                    f"there is no Service {service} in namespace {place.namespace} (metrics.service.enabled): "
                    "say where the operator is with --operator NAMESPACE/NAME"
                ) from error
            raise NoFiguresError(f"the operator has no figures: {_words(error)}") from error

    async def _ask(self, target: _Target, query: Query) -> bytes:
        for left in reversed(range(target.tries)):
            try:
                async with asyncio.timeout(_PATIENCE_WITH_ONE):
                    raw = await self._client.proxied(
                        target.kind, target.namespace, target.name, PATH, query, LONGEST_PAGE
                    )
            except TimeoutError as error:
                raise KubeError(0, "NoAnswer", f"no answer within {_PATIENCE_WITH_ONE:g} s") from error
            except KubeError as error:
                if error.status != 503 or not left:
                    raise
            else:
                self._last = target
                return raw
        raise AssertionError("asked at least once")

    def _where(self) -> str:
        return f"namespace {self._place.namespace}" if self._place.given else "any namespace"


def _running(pods: Sequence[Obj]) -> Iterator[_Target]:
    for pod in pods:
        meta, spec = pod.get("metadata") or {}, pod.get("spec") or {}
        if meta.get("deletionTimestamp") or (pod.get("status") or {}).get("phase") != "Running":
            continue
        for container in spec.get("containers") or ():
            for port in container.get("ports") or ():
                if port.get("name") == _PORT:
                    # The proxy of pods takes a number, and no name.
                    name = f"http:{meta['name']}:{port['containerPort']}"
                    yield _Target(POD, meta["namespace"], name)


def page_of(raw: bytes) -> FiguresPage:
    """What the operator said. Raises NoFiguresError for what cannot be read."""
    try:
        return FiguresPage.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        fault = f"{where}: {first['msg']}" if where else first["msg"]
        text = f"the operator's figures cannot be read ({cut(clean(fault), _WORDS)})"
        raise NoFiguresError(f"{text}: is it of the version of this command?") from error


def _words(error: KubeError) -> str:
    if error.status == 404:
        gone = error.reason == "NotFound"
        return "it is gone" if gone else "it has no such page: it is older than this command"
    return _said(error)


def _said(error: KubeError) -> str:
    return cut(clean(" ".join(error.message.split())), _WORDS)
