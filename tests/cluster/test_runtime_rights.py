"""The real process with exactly the chart's rights. A missing one shows weeks later, as a group nobody replaces."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cluster.chart_rights import start
from cluster.runtime_helpers import HAS_CLUSTER, NO_CLUSTER, deployment, until
from harness.kubectl import apply, items, kubectl
from moe_operator.api import names
from moe_operator.controller.kube import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    LEADER_WORKER_SET,
    MODEL_DEPLOYMENT,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    SERVICE_ACCOUNT,
)
from moe_operator.runtime.kube_client import AioKubeClient

pytestmark = pytest.mark.skipif(not HAS_CLUSTER, reason=NO_CLUSTER)


async def children(client: AioKubeClient, namespace: str) -> dict[str, list[dict[str, Any]]]:
    selector = f"{names.LABEL_DEPLOYMENT}=tiny"
    kinds = (
        SERVICE_ACCOUNT,
        CONFIG_MAP,
        SERVICE,
        POD_DISRUPTION_BUDGET,
        NETWORK_POLICY,
        CONTROLLER_REVISION,
        LEADER_WORKER_SET,
    )
    return {kind.kind: await client.list(kind, namespace, selector) for kind in kinds}


async def all_made(client: AioKubeClient, namespace: str) -> bool:
    return all((await children(client, namespace)).values())


async def test_the_charts_rights_are_enough_for_a_whole_life_and_no_call_is_refused(
    client: AioKubeClient, place: str, tmp_path: Path
) -> None:
    operator = await start(place, tmp_path)
    try:
        await until(lambda: operator.said("leading as"), "it leads", 60)
        made = await client.create(MODEL_DEPLOYMENT, deployment(place, "tiny"))
        await until(lambda: all_made(client, place), "all children are made", 60)
        # Pods are created by LeaderWorkerSet and labelled, read and deleted by the operator.
        await until(lambda: items("pods", place), "the group's pods are made", 60)
        change = {"spec": {"engine": {"env": [{"name": "A", "value": "b"}]}}}
        await client.patch(MODEL_DEPLOYMENT, place, "tiny", change)

        async def rolls_out() -> bool:
            found = await client.list(CONTROLLER_REVISION, place, f"{names.LABEL_DEPLOYMENT}=tiny")
            owners = [o["metadata"]["ownerReferences"][0]["kind"] for o in found]
            return owners.count("ModelDeployment") == 2  # StatefulSets hand our labels on to theirs

        await until(rolls_out, "a second revision is made", 60)
        await client.delete(MODEL_DEPLOYMENT, place, "tiny", uid=made["metadata"]["uid"])

        async def gone() -> bool:
            return not any((await children(client, place)).values())

        await until(gone, "the children go with their owner", 90)
        assert await operator.count("moe_operator_api_requests_total", code="403") == 0, (
            operator.log.read_text()
        )
        assert not operator.said("may not be")
    finally:
        await operator.kill()


async def test_a_key_that_may_not_be_read_ends_the_operator_with_a_word(place: str, tmp_path: Path) -> None:
    """An operator without it would let anyone drain every group that it makes, and nobody would notice."""
    operator = await start(place, tmp_path, key="of-somebody-else")
    try:
        assert await asyncio.wait_for(operator.process.wait(), 90) == 1
        assert operator.said(f"cannot use Secret {place}/of-somebody-else"), operator.log.read_text()
    finally:
        await operator.kill()


async def test_one_namespace_without_nodes_is_enough_and_nothing_else_is_touched(
    client: AioKubeClient, place: str, tmp_path: Path
) -> None:
    """A team without any cluster-wide right can run it for itself."""
    elsewhere = f"{place}-other"
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": elsewhere}})
    operator = await start(place, tmp_path, f"watch.namespaces={{{place}}}", "rbac.nodes=false")
    try:
        await until(lambda: operator.said("leading as"), "it leads", 60)
        await client.create(MODEL_DEPLOYMENT, deployment(elsewhere, "tiny"))
        await client.create(MODEL_DEPLOYMENT, deployment(place, "tiny"))
        await until(lambda: all_made(client, place), "all children are made", 60)
        assert not any((await children(client, elsewhere)).values())
        refused = await operator.count("moe_operator_api_requests_total", code="403")
        nodes = await operator.count("moe_operator_api_requests_total", code="403", kind="Node", verb="list")
        assert refused == nodes > 0
        assert (await operator.page("/readyz"))[0] == 200
        assert operator.said("Node may not be listed, going on without")
    finally:
        await operator.kill()
        kubectl("delete", "modeldeployments", "--all", "-n", elsewhere)
        kubectl("delete", "namespace", elsewhere, "--wait=false")
