"""The in-memory API server of the fault tests against a real one: the same calls, the same answers.

Were they to differ, the fault tests would prove that the operator survives a cluster that does not exist.
"""

from collections.abc import AsyncIterator

import pytest

from cluster.runtime_helpers import (
    HAS_CLUSTER,
    NO_CLUSTER,
    drop_namespace,
    ensure_crd,
    make_namespace,
    new_client,
)
from fakecluster.contract import CASES
from moe_operator.runtime.kube_client import AioKubeClient

pytestmark = pytest.mark.skipif(not HAS_CLUSTER, reason=NO_CLUSTER)


@pytest.fixture
async def client() -> AsyncIterator[AioKubeClient]:
    client = await new_client()
    await ensure_crd(client)
    yield client
    await client.close()


@pytest.mark.parametrize("name", CASES)
async def test_a_real_api_server_answers_as_the_table_says(client: AioKubeClient, name: str) -> None:
    do, expected = CASES[name]
    namespace = await make_namespace(client)
    try:
        assert await do(client, namespace) == expected
    finally:
        await drop_namespace(client, namespace)
