"""What the runtime's tests on a real API server share."""

import asyncio
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio.client import Configuration

from moe_operator.api import names
from moe_operator.controller.kube import MODEL_DEPLOYMENT, Kind, NotFoundError, Obj
from moe_operator.runtime.connection import load_configuration
from moe_operator.runtime.kube_client import AioKubeClient
from moe_operator.runtime.transport import Transport

CRD_FILE = Path(__file__).resolve().parents[2] / "crds" / "moe-operator.dev_modeldeployments.yaml"

NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
CRD = Kind(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)

HAS_CLUSTER = bool(os.environ.get("KUBECONFIG"))
NO_CLUSTER = "needs an API server: run it in a cluster (`make test-cluster`)"


async def configure() -> Configuration:
    return await load_configuration(os.environ["KUBECONFIG"])


async def new_client() -> AioKubeClient:
    return AioKubeClient(Transport(await configure()))


async def ensure_crd(client: AioKubeClient) -> None:
    """Install the CRD, and wait until it is served."""
    await client.apply(CRD, yaml.safe_load(CRD_FILE.read_text()))

    async def served() -> bool:
        try:
            await client.list(MODEL_DEPLOYMENT)
        except NotFoundError:
            return False
        return True

    await until(served, "the CRD is served")


async def make_namespace(client: AioKubeClient) -> str:
    name = f"runtime-{uuid.uuid4().hex[:8]}"
    await client.create(NAMESPACE, {"metadata": {"name": name}})
    return name


async def drop_namespace(client: AioKubeClient, name: str) -> None:
    """Its deployments first: an operator that serves all namespaces would be refused in one that is on its way out.
    Where none runs any more, nobody else takes their finalizer off."""
    for obj in await client.list(MODEL_DEPLOYMENT, name):
        if obj["metadata"].get("finalizers"):
            patch = {"metadata": {"uid": obj["metadata"]["uid"], "finalizers": None}}
            await client.patch(MODEL_DEPLOYMENT, name, obj["metadata"]["name"], patch)
        await client.delete(MODEL_DEPLOYMENT, name, obj["metadata"]["name"], uid=obj["metadata"]["uid"])
    found = await client.get(NAMESPACE, None, name)
    if found:
        await client.delete(NAMESPACE, None, name, uid=found["metadata"]["uid"])


async def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Poll until the condition, a function or a coroutine function, gives something true; returns that."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(0.02)


def config_map(namespace: str, name: str, deployment: str | None = "qwen", **data: str) -> Obj:
    labels = (
        {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_DEPLOYMENT: deployment} if deployment else {}
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "data": data,
    }


def pod(namespace: str, name: str) -> Obj:
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_DEPLOYMENT: "qwen"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {
            "nodeSelector": {"no-such-node": "at-all"},
            "containers": [{"name": "engine", "image": "busybox", "command": ["sleep", "1"]}],
        },
    }


def deployment(namespace: str, name: str) -> Obj:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"model": {"name": "org/model"}, "hardware": {"accelerator": "cpu"}},
    }
