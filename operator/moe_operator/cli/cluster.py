"""Reads of a cluster for the commands. Imported only when one is asked: the client takes half a second to load."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from moe_operator.api import names
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.cli.errors import ClusterError, UsageError
from moe_operator.cli.inventory_source import Nodes
from moe_operator.cli.status_picture import Seen
from moe_operator.controller.census import list_holders
from moe_operator.controller.kube import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    EVENT,
    LEADER_WORKER_SET,
    MODEL_DEPLOYMENT,
    NODE,
    POD,
    ConflictError,
    ForbiddenError,
    Kind,
    KubeError,
    NotFoundError,
)
from moe_operator.planner.inventory import Inventory, NodeReader
from moe_operator.runtime.connection import NoConnectionError, context_namespace, load_configuration
from moe_operator.runtime.kube_client import AioKubeClient
from moe_operator.runtime.transport import Transport

Obj = dict[str, Any]
_T = TypeVar("_T")
#: Times that a write is tried while the status of its object keeps changing.
_TRIES = 5


class Reader(Protocol):
    """What reads of a deployment need."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        """As `KubeClient.get`."""

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, field_selector: str = ""
    ) -> list[Obj]:
        """As `KubeClient.list`."""


@dataclass(frozen=True)
class Read:
    """What was asked for."""

    obj: Obj
    nodes: Nodes | None
    config: str | None
    """Text of the ConfigMap's key that `model.configFrom` names."""


def read_for_plan(
    kubeconfig: str | None,
    namespace: str | None,
    *,
    name: str | None = None,
    obj: Obj | None = None,
    site: OperatorConfig | None = None,
    config: bool = True,
    patience: float | None = None,
) -> Read:
    """The ModelDeployment `name` (unless `obj` is it); with `site` the nodes; config.json where it is wanted.

    `patience`: seconds after which a cluster that does not answer is given up. Raises UsageError.
    """
    return _run(_read(kubeconfig, namespace, name, obj, site, config), patience)


def read_status(kubeconfig: str | None, namespace: str | None, name: str) -> Seen:
    """A ModelDeployment with all that belongs to it, as far as it may be read. Raises UsageError, ClusterError."""

    async def reading() -> Seen:
        async with _Connected(kubeconfig) as client:
            return await read_seen(client, namespace or context_namespace(kubeconfig), name)

    return _run(reading(), None)


def run_reading(kubeconfig: str | None, read: Callable[[AioKubeClient], Awaitable[_T]]) -> _T:
    """What `read` makes of a cluster. Raises UsageError, ClusterError."""

    async def reading() -> _T:
        async with _Connected(kubeconfig) as client:
            return await read(client)

    return _run(reading(), None)


def watch_deployment(
    kubeconfig: str | None,
    namespace: str | None,
    name: str,
    watch: Callable[[Callable[[], Awaitable[Obj]]], Awaitable[_T]],
) -> _T:
    """Runs `watch`, which may read the ModelDeployment again and again. Raises UsageError, ClusterError."""

    async def watching() -> _T:
        async with _Connected(kubeconfig) as client:
            space = namespace or context_namespace(kubeconfig)

            async def look() -> Obj:
                try:
                    return await _get(client, space, name)
                except KubeError as error:
                    raise _cluster_error(error) from error

            return await watch(look)

    return _run(watching(), None)


def with_client(kubeconfig: str | None, work: Callable[[AioKubeClient, str], Coroutine[Any, Any, _T]]) -> _T:
    """Runs `work` with a client and the context's namespace. Raises UsageError, ClusterError."""

    async def working() -> _T:
        async with _Connected(kubeconfig) as client:
            return await work(client, context_namespace(kubeconfig))

    return _run(working(), None)


async def list_deployments(client: Reader, namespace: str | None, name: str | None) -> list[Obj]:
    """One by its name, or all of a namespace or, where that is None, of the cluster. Raises ClusterError."""
    try:
        if namespace is not None and name is not None:
            return [await _get(client, namespace, name)]
        return await client.list(MODEL_DEPLOYMENT, namespace)
    except KubeError as error:
        raise _cluster_error(error) from error


def send_patch(kubeconfig: str | None, obj: Obj, patch: Obj, manager: str) -> None:
    """Merge the patch into the ModelDeployment if its spec is still as it was read. Raises UsageError, ClusterError."""

    async def sending() -> None:
        async with _Connected(kubeconfig) as client:
            await _merge(client, obj, patch, manager)

    _run(sending(), None)


async def _merge(client: AioKubeClient, obj: Obj, patch: Obj, manager: str) -> None:
    """Pinned to the version that was read, and tried again while only the status has moved on, as it does often."""
    meta = obj["metadata"]
    space, name = meta["namespace"], meta["name"]
    seen = meta
    for _ in range(_TRIES):
        version = {"uid": meta["uid"], "resourceVersion": seen["resourceVersion"]}
        pinned = {**patch, "metadata": {**patch.get("metadata", {}), **version}}
        try:
            await client.patch(MODEL_DEPLOYMENT, space, name, pinned, manager=manager)
            return
        except ConflictError:
            seen = (await _get(client, space, name))["metadata"]
            if (seen["uid"], seen["generation"]) != (meta["uid"], meta["generation"]):
                break
    raise ClusterError(f"{space}/{name} changed meanwhile, nothing was written: run it again")


def _run(reading: Coroutine[Any, Any, _T], patience: float | None) -> _T:
    async def bounded() -> _T:
        async with asyncio.timeout(patience):
            return await reading

    try:
        return asyncio.run(bounded())
    except TimeoutError as error:
        raise UsageError(f"the API server did not answer within {patience:g} s") from error
    except NoConnectionError as error:
        raise UsageError(str(error)) from error
    except KubeError as error:
        raise _cluster_error(error) from error


def _cluster_error(error: KubeError) -> ClusterError:
    return ClusterError(str(error), final=400 <= error.status < 500 and error.status != 429)


async def _read(
    kubeconfig: str | None,
    namespace: str | None,
    name: str | None,
    obj: Obj | None,
    site: OperatorConfig | None,
    config: bool,
) -> Read:
    async with _Connected(kubeconfig) as client:
        space = namespace or context_namespace(kubeconfig)
        if obj is None:
            obj = await _get(client, space, name or "")
        text = await _config(client, obj, space) if config else None
        return Read(obj, await _nodes(client, site) if site else None, text)


async def _get(client: Reader, namespace: str, name: str) -> Obj:
    obj = await client.get(MODEL_DEPLOYMENT, namespace, name)
    if obj is None:
        raise ClusterError(f"there is no ModelDeployment {namespace}/{name}")
    return obj


async def _nodes(client: AioKubeClient, site: OperatorConfig) -> Nodes:
    """As the operator sees them: without the right to read nodes the plan says what it assumes."""
    try:
        nodes = await client.list(NODE)
    except ForbiddenError:
        return Nodes(Inventory(nodes=None), "the catalogue, as nodes may not be read")
    holders = await list_holders(client)
    return Nodes(holders.inventory(nodes, NodeReader.of(site)), "the cluster")


async def _config(client: AioKubeClient, obj: Obj, namespace: str) -> str | None:
    source = ((obj.get("spec") or {}).get("model") or {}).get("configFrom")
    if not isinstance(source, dict):
        return None
    name, key = str(source.get("name")), str(source.get("key", "config.json"))
    space = (obj.get("metadata") or {}).get("namespace") or namespace
    found = await client.get(CONFIG_MAP, space, name)
    text = ((found or {}).get("data") or {}).get(key)
    if not isinstance(text, str):
        missing = "does not exist" if found is None else f"has no key {key!r}"
        raise UsageError(
            f"spec.model.configFrom: ConfigMap {space}/{name} {missing}: create it, or give --config FILE"
        )
    return text


async def read_seen(client: Reader, namespace: str, name: str) -> Seen:
    """The deployment and its groups, pods, revisions and Events; what may not be read is left out, and said.

    Raises KubeError where the deployment itself cannot be read, ClusterError where there is none.
    """
    obj = await _get(client, namespace, name)
    selector = f"{names.LABEL_DEPLOYMENT}={name}"
    regarding = f"regarding.kind={names.KIND},regarding.name={name}"
    reads = (
        ("groups", client.list(LEADER_WORKER_SET, namespace, selector)),
        ("pods", client.list(POD, namespace, selector)),
        ("revisions", client.list(CONTROLLER_REVISION, namespace, selector)),
        ("Events", client.list(EVENT, namespace, field_selector=regarding)),
    )
    answers = await asyncio.gather(*(_or_words(what, read) for what, read in reads))
    groups, pods, revisions, events = (answer if isinstance(answer, list) else None for answer in answers)
    unread = tuple(answer for answer in answers if isinstance(answer, str))
    return Seen(obj, groups, pods, revisions, events, unread)


async def _or_words(what: str, read: Awaitable[list[Obj]]) -> list[Obj] | str:
    try:
        return await read
    except ForbiddenError as error:
        return f"{what} may not be read: {error.message}"
    except NotFoundError as error:
        return f"{what}: the cluster does not serve their kind ({error.message})"
    except KubeError as error:
        return f"{what} could not be read: {error}"


class _Connected:
    """A client for the length of a `with` block."""

    def __init__(self, kubeconfig: str | None) -> None:
        self._kubeconfig = kubeconfig

    async def __aenter__(self) -> AioKubeClient:
        configuration = await load_configuration(self._kubeconfig)
        self._client = AioKubeClient(Transport(configuration))
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
