"""One kubelet under test for all rows of the contract.

It has nodes of its own, so that it can be failed, killed and restarted without touching what else runs in the cluster.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from cluster.kubelet.harness import Api, ContractKubelet
from localcluster.namespace import INSIDE


@pytest.fixture(scope="session")
def kubelet() -> Iterator[ContractKubelet]:
    if INSIDE not in os.environ:
        pytest.skip("tests of the local cluster's kubelet; another cluster is in use")
    under_test = ContractKubelet()
    under_test.start()
    yield under_test
    under_test.close()


@pytest.fixture
async def api(kubelet: ContractKubelet) -> AsyncIterator[Api]:
    made = await Api.make(kubelet.kubeconfig)
    yield made
    await made.close()
