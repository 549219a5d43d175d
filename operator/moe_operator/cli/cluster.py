"""Reads of a cluster for the commands. Imported only when one is asked: the client takes half a second to load."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.cli.errors import UsageError
from moe_operator.cli.inventory_source import Nodes
from moe_operator.cli.manifest import deployment_of
from moe_operator.controller.census import list_holders
from moe_operator.controller.kube import CONFIG_MAP, MODEL_DEPLOYMENT, NODE, POD, ForbiddenError, KubeError
from moe_operator.planner.inventory import Inventory
from moe_operator.runtime.connection import NoConnectionError, context_namespace, load_configuration
from moe_operator.runtime.kube_client import AioKubeClient
from moe_operator.runtime.transport import Transport

Obj = dict[str, Any]
_T = TypeVar("_T")


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


def read_status(kubeconfig: str | None, namespace: str | None, name: str) -> tuple[Obj, list[Obj]]:
    """A ModelDeployment and the pods of its namespace that carry its labels. Raises UsageError."""
    return _run(_status(kubeconfig, namespace, name), None)


def _run(reading: Coroutine[Any, Any, _T], patience: float | None) -> _T:
    async def bounded() -> _T:
        async with asyncio.timeout(patience):
            return await reading

    try:
        return asyncio.run(bounded())
    except TimeoutError as error:
        raise UsageError(f"the API server did not answer within {patience:g} s") from error
    except (NoConnectionError, KubeError) as error:
        raise UsageError(str(error)) from error


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


async def _get(client: AioKubeClient, namespace: str, name: str) -> Obj:
    obj = await client.get(MODEL_DEPLOYMENT, namespace, name)
    if obj is None:
        raise UsageError(f"there is no ModelDeployment {namespace}/{name}")
    return obj


async def _nodes(client: AioKubeClient, site: OperatorConfig) -> Nodes:
    """As the operator sees them: without the right to read nodes the plan says what it assumes."""
    try:
        nodes = await client.list(NODE)
    except ForbiddenError:
        return Nodes(Inventory(nodes=None), "the catalogue, as nodes may not be read")
    holders = await list_holders(client)
    return Nodes(holders.inventory(nodes, site), "the cluster")


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


async def _status(kubeconfig: str | None, namespace: str | None, name: str) -> tuple[Obj, list[Obj]]:
    async with _Connected(kubeconfig) as client:
        obj = await _get(client, namespace or context_namespace(kubeconfig), name)
        deployment = deployment_of(obj)
        selector = ",".join(f"{k}={v}" for k, v in sorted(deployment.labels().items()))
        return obj, await client.list(POD, deployment.namespace, selector)


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
