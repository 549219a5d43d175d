"""A group that drains and is wanted again, on a real control plane: API server, LeaderWorkerSet, EndpointSlices and the
operator's process are real; nodes, containers and engines are played.

Lost if it fails: what the fault tests promise of an API server and a LeaderWorkerSet that are made for them. A webhook
that refuses the write, or an EndpointSlice without the group, leaves a warm group idle while its load waits.
"""

import os
from pathlib import Path

import pytest

from bench.played_nodes import PlayedKubelet
from bench.sightings import Sightings
from cluster.played_engines import PlayedEngines
from cluster.replica import Replica
from cluster.runtime_helpers import HAS_CLUSTER, NO_CLUSTER, drop_namespace, make_namespace, until
from cluster.simulated_fleet import SimulatedFleet
from factories.deployments import manifest
from localcluster.kubelet.apiclient import ApiClient, Obj
from moe_operator.api import names
from moe_operator.controller.kube import EVENT, MODEL_DEPLOYMENT
from moe_operator.runtime.kube_client import AioKubeClient

pytestmark = pytest.mark.skipif(not HAS_CLUSTER, reason=NO_CLUSTER)

NAME = "tiny"


def _marked(group: Obj) -> bool:
    return names.ANNOTATION_DRAINING in (group["metadata"].get("annotations") or {})


async def test_a_group_that_drains_serves_again_and_no_other_is_made(
    client: AioKubeClient, tmp_path: Path
) -> None:
    namespace = await make_namespace(client)
    api = ApiClient.from_kubeconfig(Path(os.environ["KUBECONFIG"]))
    machines = [f"{namespace}-{number}" for number in range(3)]
    kubelet = PlayedKubelet(api, machines)
    seen = Sightings(api, namespace, kubelet.pod)

    def serving() -> int:
        """Groups all of whose pods are ready endpoints."""
        routed = seen.routed(NAME)
        pods = [seen.of_group(group["metadata"]["name"]) for group in seen.of_deployment(NAME)]
        return sum(bool(own) and {p["metadata"]["uid"] for p in own} <= routed for own in pods)

    def draining() -> list[str]:
        return [g["metadata"]["name"] for g in seen.of_deployment(NAME) if _marked(g)]

    async def want(replicas: int) -> None:
        await client.patch(MODEL_DEPLOYMENT, namespace, NAME, {"spec": {"replicas": replicas}})

    async with SimulatedFleet(client, namespace) as fleet, PlayedEngines().running() as engines:
        for name in machines:
            await fleet.hgx(name, "zone-a")
        seen.start()
        replica = await Replica.start(namespace, "returning", tmp_path)
        try:
            await client.create(MODEL_DEPLOYMENT, manifest(NAME, namespace, 2))
            await seen.until(lambda: serving() == 2, "two groups serve")
            before = {group["metadata"]["uid"] for group in seen.of_deployment(NAME)}
            engines.requests = 1
            await want(1)
            await seen.until(lambda: len(draining()) == serving() == 1, "one of them drains", 30)
            assert len(engines.draining) == 1
            await want(2)
            await seen.until(lambda: serving() == 2 and not draining(), "both serve", 10)
            assert not engines.draining
            assert {group["metadata"]["uid"] for group in seen.of_deployment(NAME)} == before

            async def told() -> bool:
                return "Undrained" in [event["reason"] for event in await client.list(EVENT, namespace)]

            await until(told, "an Event tells")
            await want(1)
            await seen.until(lambda: len(draining()) == serving() == 1, "one drains again", 30)
            assert len(engines.draining) == 1
            engines.requests = 0
            await seen.until(lambda: len(seen.of_deployment(NAME)) == 1, "it goes once it is idle", 30)
            assert {g["metadata"]["uid"] for g in seen.of_deployment(NAME)} < before
        finally:
            await replica.kill()
            await drop_namespace(client, namespace)
            await seen.until(lambda: not seen.pods, "the pods are gone", 60)
            await seen.stop()
    await api.close()
