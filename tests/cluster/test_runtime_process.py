"""The operator's real process, twice: handing over, answering for its health, telling what happened."""

import asyncio
import functools
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.proxied import Proxied
from cluster.replica import Replica
from cluster.runtime_helpers import HAS_CLUSTER, NO_CLUSTER, deployment, until
from moe_operator.controller.kube import EVENT, LEASE, MODEL_DEPLOYMENT
from moe_operator.runtime.capabilities import LeaderWorkerSetCheck
from moe_operator.runtime.kube_client import AioKubeClient

pytestmark = pytest.mark.skipif(not HAS_CLUSTER, reason=NO_CLUSTER)


@asynccontextmanager
async def replicas(namespace: str, folder: Path, *names: str) -> AsyncIterator[list[Replica]]:
    """Replicas in their order of taking the lease; none is left behind."""
    running: list[Replica] = []
    text = "leading as"
    try:
        for name in names:
            replica = await Replica.start(namespace, name, folder)
            running.append(replica)
            await until(functools.partial(replica.said, text), f"{name} is up", 60)
            text = "standing by"
        yield running
    finally:
        for replica in running:
            await replica.kill()


async def holder(client: AioKubeClient, namespace: str) -> str:
    lease = await client.get(LEASE, namespace, "moe-operator")
    return str((lease or {"spec": {}})["spec"].get("holderIdentity") or "")


def now() -> float:
    return asyncio.get_running_loop().time()


async def written(client: AioKubeClient, namespace: str, name: str) -> None:
    """Make a deployment and wait until the operator says something about it."""
    await client.create(MODEL_DEPLOYMENT, deployment(namespace, name))

    async def has_status() -> Any:
        found = await client.get(MODEL_DEPLOYMENT, namespace, name)
        return found and found.get("status", {}).get("conditions")

    await until(has_status, "the status is written", 30)


async def test_a_clean_stop_hands_over_within_two_seconds(
    client: AioKubeClient, namespace: str, tmp_path: Path
) -> None:
    """An upgrade of the operator must not cost a quarter of a minute without failure handling."""
    async with replicas(namespace, tmp_path, "first", "second") as (first, second):
        await written(client, namespace, "a")
        begun = now()
        first.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(first.process.wait(), 5) == 0, first.log.read_text()
        ended = now() - begun
        assert ended <= 2, f"the process took {ended:.1f} s to end"
        assert not (await holder(client, namespace)).startswith("first")

        async def follows() -> bool:
            return (await holder(client, namespace)).startswith("second")

        await until(follows, "the second holds the lease", 5)
        assert now() - begun <= 2, f"handed over after {now() - begun:.1f} s"
        await written(client, namespace, "b")
        assert second.said("leading as")


async def test_a_killed_leader_is_followed_within_twenty_seconds(
    client: AioKubeClient, namespace: str, tmp_path: Path
) -> None:
    async with replicas(namespace, tmp_path, "first", "second") as (first, _):
        begun = now()
        await first.kill()

        async def follows() -> bool:
            return (await holder(client, namespace)).startswith("second")

        await until(follows, "the second holds the lease", 25)
        assert 8 < now() - begun <= 20, f"followed after {now() - begun:.1f} s"
        await written(client, namespace, "a")


async def test_a_leader_that_was_frozen_ends_instead_of_writing_on(
    client: AioKubeClient, namespace: str, tmp_path: Path
) -> None:
    """A machine that hangs for half a minute must not come back as a second leader."""
    async with replicas(namespace, tmp_path, "first", "second") as (first, second):
        first.process.send_signal(signal.SIGSTOP)
        await until(lambda: second.said("leading as"), "the second leads", 25)
        first.process.send_signal(signal.SIGCONT)
        assert await asyncio.wait_for(first.process.wait(), 10) == 1
        assert first.said("no longer leading"), first.log.read_text()
        assert (await holder(client, namespace)).startswith("second")


async def test_both_replicas_answer_for_their_health_and_one_is_the_leader(
    client: AioKubeClient, namespace: str, tmp_path: Path
) -> None:
    async with replicas(namespace, tmp_path, "first", "second") as both:
        await written(client, namespace, "a")
        leaders = []
        for replica in both:
            assert (await replica.page("/readyz"))[0] == 200
            status, text = await replica.page("/healthz")
            assert status == 200, text
            assert json.loads(text)["problems"] == []
            _, metrics = await replica.page("/metrics", metrics=True)
            leaders.append("moe_operator_leader 1.0" in metrics)
            shows = f'moe_operator_groups{{name="a",namespace="{namespace}",state="desired"}} 1.0' in metrics
            assert shows == leaders[-1], "groups are counted once, by the leader"
        assert leaders == [True, False]


async def test_the_last_leaders_end_is_told_and_its_events_are_posted(
    client: AioKubeClient, namespace: str, tmp_path: Path
) -> None:
    """`kubectl describe` is where people look first."""
    async with replicas(namespace, tmp_path, "only") as (only,):
        broken = deployment(namespace, "odd")
        broken["spec"]["hardware"]["accelerator"] = "no-such-thing"
        await client.create(MODEL_DEPLOYMENT, broken)

        async def event() -> Any:
            return [e for e in await client.list(EVENT, namespace) if e["regarding"].get("name") == "odd"]

        found = await until(event, "an Event is posted", 30)
        assert found[0]["type"] == "Warning"
        assert "no-such-thing" in found[0]["note"]
        assert found[0]["reportingController"] == "moe-operator.dev/operator"
        line = only.lines()[-1]
        assert {"time", "level", "logger", "message"} <= set(line)


async def test_leader_worker_set_is_recognised_with_the_rights_of_any_account(client: AioKubeClient) -> None:
    assert await LeaderWorkerSetCheck(client, lambda: 0.0)() is None


async def test_an_api_server_that_is_away_for_a_moment_costs_neither_lease_nor_work(
    client: AioKubeClient, namespace: str, tmp_path: Path
) -> None:
    """Its restart takes seconds; an operator that restarts with it multiplies the load on it."""
    proxied = await Proxied.start()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(await proxied.kubeconfig())
    only = await Replica.start(namespace, "only", tmp_path, f"--kubeconfig={kubeconfig}")
    try:
        await until(lambda: only.said("leading as"), "it leads", 60)
        await written(client, namespace, "a")
        proxied.proxy.refusing = True
        proxied.proxy.cut()
        # The leader gives up after 10 s without a renewal; the last one may be 2.4 s old, and the next try comes 1.2 s
        # after the outage. What is left is for a machine that is busy with other tests.
        away_until = now() + 4
        await until(lambda: now() > away_until, "the outage passes")
        assert (await only.page("/healthz"))[0] == 200
        proxied.proxy.refusing = False
        await written(client, namespace, "b")
        assert only.process.returncode is None
        assert not only.said("no longer leading")
    finally:
        await only.kill()
        await proxied.proxy.stop()
