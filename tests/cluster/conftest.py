"""A client of the real API server, and a place on it that a test has to itself."""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from cluster.runtime_helpers import drop_namespace, ensure_crd, make_namespace, new_client
from harness.kubectl import apply, helm, kubectl
from moe_operator.runtime.kube_client import AioKubeClient


@pytest.fixture
async def client() -> AsyncIterator[AioKubeClient]:
    """With the CRD there."""
    client = await new_client()
    await ensure_crd(client)
    yield client
    await client.close()


@pytest.fixture
async def namespace(client: AioKubeClient) -> AsyncIterator[str]:
    """For objects that the client makes."""
    name = await make_namespace(client)
    yield name
    await drop_namespace(client, name)


@pytest.fixture
def place() -> Iterator[str]:
    """A namespace, and the name of the chart's release in it; a node that can be planned for."""
    name = f"place-{uuid.uuid4().hex[:6]}"
    apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}},
    )
    yield name
    kubectl("delete", "modeldeployments", "--all", "-n", name)
    helm("uninstall", name, "-n", name, "--ignore-not-found")
    kubectl("delete", "node", name, "--wait=false")
    kubectl("delete", "namespace", name, "--wait=false")
