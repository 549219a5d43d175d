"""The in-memory API server of the fault tests against a real one: the same calls, the same answers.

Were they to differ, the fault tests would prove that the operator survives a cluster that does not exist.
"""

import pytest

from cluster.runtime_helpers import HAS_CLUSTER, NO_CLUSTER
from fakecluster.contract import CASES
from moe_operator.runtime.kube_client import AioKubeClient

pytestmark = pytest.mark.skipif(not HAS_CLUSTER, reason=NO_CLUSTER)


@pytest.mark.parametrize("name", CASES)
async def test_a_real_api_server_answers_as_the_table_says(
    client: AioKubeClient, namespace: str, name: str
) -> None:
    do, expected = CASES[name]
    assert await do(client, namespace) == expected
