"""Groups on a fleet of racks: real API server, scheduler, LeaderWorkerSet and operator process; no machines."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.compute_domains import compute_domains
from cluster.replica import Replica
from cluster.runtime_helpers import (
    HAS_CLUSTER,
    NO_CLUSTER,
    drop_namespace,
    ensure_crd,
    make_namespace,
    new_client,
    until,
)
from cluster.simulated_fleet import CLIQUE, SimulatedFleet
from factories.deployments import manifest
from moe_operator.api import names, reasons
from moe_operator.controller.kube import (
    LEADER_WORKER_SET,
    MODEL_DEPLOYMENT,
    NODE,
    POD,
    Obj,
)
from moe_operator.runtime.kube_client import AioKubeClient

pytestmark = pytest.mark.skipif(not HAS_CLUSTER, reason=NO_CLUSTER)


class World:
    """A fleet, an operator, and what a person would look at."""

    def __init__(self, client: AioKubeClient, namespace: str, fleet: SimulatedFleet) -> None:
        self.client = client
        self.namespace = namespace
        self.fleet = fleet

    async def deploy(self, name: str, groups: int = 1, *, trays: int = 2, **spec: Any) -> None:
        """Groups of so many whole trays, which the planner puts on NVLink, unless `spec` has another hardware."""
        whole = {"accelerator": "GB200", "gpusPerGroup": 4 * trays}
        made = {"hardware": whole, "scaling": {"mode": "External", "maxGroups": 8}, **spec}
        await self.client.create(MODEL_DEPLOYMENT, manifest(name, self.namespace, groups, **made))

    async def status(self, name: str) -> dict[str, Any]:
        found = await self.client.get(MODEL_DEPLOYMENT, self.namespace, name)
        assert found is not None
        return found.get("status") or {}

    async def condition(self, name: str, type_: str) -> dict[str, Any]:
        conditions = (await self.status(name)).get("conditions") or []
        return next((c for c in conditions if c["type"] == type_), {})

    async def cause(self, name: str) -> dict[str, Any]:
        return (await self.status(name)).get("recovery", {}).get("lastCause") or {}

    async def groups(self, name: str) -> list[Obj]:
        found = await self.client.list(LEADER_WORKER_SET, self.namespace, f"{names.LABEL_DEPLOYMENT}={name}")
        return [g for g in found if not g["metadata"].get("deletionTimestamp")]

    async def pods(self, name: str) -> list[Obj]:
        return await self.client.list(POD, self.namespace, f"{names.LABEL_DEPLOYMENT}={name}")

    async def node_in(self, name: str, rack: str) -> str:
        """A node of this rack on which the deployment has a pod."""
        nodes = [p["spec"].get("nodeName") or "" for p in await self.pods(name)]
        return min(node for node in nodes if node.startswith(rack))

    async def racks(self, name: str, groups: int, size: int = 2) -> list[str]:
        """The rack of each group, once all pods of all groups have nodes. Raises AssertionError for a group in two."""

        async def settled() -> list[str]:
            cliques = {
                node["metadata"]["name"]: node["metadata"]["labels"].get(CLIQUE, "")
                for node in await self.client.list(NODE)
            }
            where: dict[str, list[str]] = {}
            for pod in await self.pods(name):
                node = pod["spec"].get("nodeName")
                if node in cliques and not pod["metadata"].get("deletionTimestamp"):
                    where.setdefault(pod["metadata"]["labels"][names.LABEL_GROUP], []).append(cliques[node])
            for group, found in where.items():
                assert len(set(found)) == 1, f"{group} is in {found}"
            whole = [found[0] for found in where.values() if len(found) == size]
            return sorted(whole) if len(whole) == groups == len(where) else []

        found: list[str] = await until(settled, f"{groups} groups of {name} have their nodes", 30)
        return found


@pytest.fixture(scope="module", autouse=True)
def _domains() -> Iterator[None]:
    """Groups over trays of a rack are in a ComputeDomain."""
    with compute_domains():
        yield


@pytest.fixture
async def world() -> AsyncIterator[World]:
    client = await new_client()
    await ensure_crd(client)
    namespace = await make_namespace(client)
    async with SimulatedFleet(client, namespace) as fleet:
        try:
            yield World(client, namespace, fleet)
        finally:
            await drop_namespace(client, namespace)

            async def gone() -> bool:
                return not await client.list(POD, namespace)

            await until(gone, "the pods are gone", 60)
    await client.close()


@asynccontextmanager
async def operating(world: World, folder: Path) -> AsyncIterator[None]:
    """The operator's process."""
    replica = await Replica.start(world.namespace, "placing", folder)
    try:
        await until(lambda: replica.said("leading as"), "the operator leads", 60)
        yield
    finally:
        await replica.kill()


async def test_groups_fill_racks_and_a_lost_tray_moves_its_group(world: World, tmp_path: Path) -> None:
    """Lost: NVLink within groups, whole racks for wide ones, and groups that wait in a rack that is full."""
    await world.fleet.rack("r1", 4)
    await world.fleet.rack("r2", 7)
    await world.deploy("wide", 3)
    async with operating(world, tmp_path):
        assert await world.racks("wide", 3) == ["r1", "r1", "r2"]
        places = [
            g["metadata"]["annotations"].get(names.ANNOTATION_DOMAIN) for g in await world.groups("wide")
        ]
        assert sorted(places) == [f"{CLIQUE}=r1", f"{CLIQUE}=r1", f"{CLIQUE}=r2"]
        lost = await world.node_in("wide", "r1")
        await world.fleet.remove(lost)

        async def told() -> bool:
            cause = await world.cause("wide")
            return cause.get("reason") == reasons.NODE_NOT_READY and cause.get("node") == lost

        await until(told, "the lost node is in the ledger", 30)
        assert await world.racks("wide", 3) == ["r1", "r2", "r2"], (
            "one tray of r1 is left: no place for a group"
        )


async def test_half_a_group_gives_its_tray_back_and_goes_elsewhere(world: World, tmp_path: Path) -> None:
    """Lost: GPUs that wait for a person."""
    await world.fleet.rack("r1", 1)
    # Its GPUs are free and it takes no pod: the operator counts devices, the scheduler memory too.
    await world.fleet.rack("r1", 1, first=1, memory="8Gi")
    await world.fleet.rack("r2", 3)
    await world.deploy("half", recovery={"placementLimit": "10s"})
    async with operating(world, tmp_path):

        async def waits() -> str:
            unhealthy = ((await world.status("half")).get("groups") or {}).get("unhealthy") or [{}]
            message = str(unhealthy[0].get("message"))
            return message if message.startswith("1 of 2 pods have nodes") else ""

        assert f"finds no node in {CLIQUE}=r1: " in await until(waits, "the status says what is missing", 30)

        async def gave_up() -> dict[str, Any]:
            cause = await world.cause("half")
            return cause if cause.get("reason") == reasons.PLACED_IN_PART else {}

        cause = await until(gave_up, "the tray is given back", 25)
        assert "Insufficient memory" in cause["message"], "the scheduler's own words"
        assert await world.racks("half", 1) == ["r2"]
        assert not [p for p in await world.pods("half") if p["spec"]["nodeName"].startswith("r1")]


async def test_without_room_the_status_counts_what_is_missing_per_rack(world: World, tmp_path: Path) -> None:
    """Lost: the difference between "no GPUs" and "one tray of the best rack"."""
    await world.fleet.rack("r1", 3)
    await world.fleet.cordon("r1-0")
    await world.fleet.rack("r2", 1)
    await world.deploy("short", trays=3, recovery={"placementLimit": "10s"})
    async with operating(world, tmp_path):

        async def short() -> str:
            found = await world.condition("short", reasons.CAPACITY_AVAILABLE)
            text = str(found.get("message", ""))
            return (
                text if found.get("reason") == reasons.WAITING_FOR_GPUS and "with most room" in text else ""
            )

        text = await until(short, "the status says what is missing", 30)
        assert f"needs 4 free GPUs on each of 3 nodes of one {CLIQUE}" in text
        assert "the clique with most room, r1, has 2 such nodes among its 3, of which 1 is cordoned" in text
        await world.fleet.rack("r2", 2, first=1)
        assert await world.racks("short", 1, size=3) == ["r2"]


async def test_narrow_groups_are_spread_over_zones_and_leave_whole_nodes(
    world: World, tmp_path: Path
) -> None:
    """Lost: whole nodes, one after another, for groups of a fraction of one."""
    for name, zone in (("a-0", "zone-a"), ("a-1", "zone-a"), ("b-0", "zone-b"), ("b-1", "zone-b")):
        await world.fleet.hgx(name, zone)
    await world.deploy("narrow", 6, hardware={"accelerator": "B200", "gpusPerGroup": 2})
    async with operating(world, tmp_path):

        async def placed() -> list[str]:
            nodes = [p["spec"].get("nodeName") for p in await world.pods("narrow")]
            return sorted(nodes) if len(nodes) == 6 and all(nodes) else []

        assert await until(placed, "all have nodes", 30) == ["a-0"] * 3 + ["b-0"] * 3
