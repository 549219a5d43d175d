"""The in-memory API server that the fault tests trust: were it wrong, they would prove nothing about a real cluster."""

import asyncio
from typing import Any

import pytest

from fakecluster.api_server import ApiServer, GoneError
from fakecluster.client import MemoryClient
from fakecluster.clock import Clock, NothingLeftError, run_virtual
from fakecluster.collector import GarbageCollector
from fakecluster.contract import CASES, config
from fakecluster.controller import Timers
from fakecluster.faults import CrashError, FaultPlan, WatchFaults
from fakecluster.watch import Feed, watch
from moe_operator.controller.kube import CONFIG_MAP, NODE, POD, KubeError


def _server() -> ApiServer:
    return ApiServer(Clock(asyncio.get_running_loop()))


@pytest.mark.parametrize("name", CASES)
def test_answers_as_the_table_says(name: str) -> None:
    do, expected = CASES[name]

    async def main() -> Any:
        server = _server()
        GarbageCollector(server, Timers())
        return await do(MemoryClient(server), "serving")

    assert run_virtual(main) == expected


def test_virtual_time_jumps_and_a_dead_wait_is_told() -> None:
    async def main() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == pytest.approx(86_400, abs=0.01)

    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingLeftError):
        run_virtual(never)


def test_a_watch_tells_changes_through_its_selector_and_ends_with_410_once_compacted() -> None:
    async def main() -> list[tuple[str, str]]:
        server = _server()
        server.create(CONFIG_MAP, config("a", "early", metadata={"labels": {"on": "1"}}), "user")
        since = server.version
        server.create(CONFIG_MAP, config("a", "one", metadata={"labels": {"on": "1"}}), "user")
        server.create(CONFIG_MAP, config("a", "two"), "user")
        server.patch(CONFIG_MAP, "a", "two", {"metadata": {"labels": {"on": "1"}}}, "user")
        server.patch(CONFIG_MAP, "a", "one", {"data": {"x": "1"}}, "user")
        server.patch(CONFIG_MAP, "a", "one", {"metadata": {"labels": None}}, "user")
        server.delete(CONFIG_MAP, "a", "one", "user")
        server.delete(CONFIG_MAP, "a", "two", "user")
        seen: list[tuple[str, str]] = []
        async for type_, obj in watch(server, CONFIG_MAP, since, "a", "on=1"):
            seen.append((type_, obj["metadata"]["name"]))
            if len(seen) == 5:
                break
        server.compact()
        with pytest.raises(GoneError):
            await anext(watch(server, CONFIG_MAP, since))
        return seen

    assert run_virtual(main) == [
        ("ADDED", "one"),
        ("ADDED", "two"),
        ("MODIFIED", "one"),
        ("DELETED", "one"),
        ("DELETED", "two"),
    ]


def test_a_pod_goes_gracefully_and_a_shorter_grace_wins() -> None:
    async def main() -> None:
        server = _server()
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "a"},
            "spec": {"containers": []},
        }
        server.create(POD, pod, "user")
        server.delete(POD, "a", "p", "user")
        assert server.get(POD, "a", "p") is None, "a pod without a node goes at once"
        server.create(POD, {**pod, "spec": {"nodeName": "n", "containers": []}}, "user")
        server.delete(POD, "a", "p", "user")
        for asked, left in ((60, 30), (5, 5), (None, 5)):
            server.delete(POD, "a", "p", "user", grace_seconds=asked)
            live = server.get(POD, "a", "p")
            assert live is not None
            assert live["metadata"]["deletionGracePeriodSeconds"] == left
        server.delete(POD, "a", "p", "kubelet", grace_seconds=0)
        assert server.get(POD, "a", "p") is None

    run_virtual(main)


def test_a_crash_before_a_write_prevents_it_and_one_after_it_does_not() -> None:
    async def main() -> None:
        server = _server()
        for plan, there in ((FaultPlan(crash_before=2), False), (FaultPlan(crash_after=2), True)):
            client = MemoryClient(server, plan)
            await client.create(CONFIG_MAP, config("a", f"first-{there}"))
            with pytest.raises(CrashError):
                await client.create(CONFIG_MAP, config("a", f"second-{there}"))
            assert (server.get(CONFIG_MAP, "a", f"second-{there}") is not None) is there
            with pytest.raises(CrashError):
                await client.list(NODE)  # the dead do not read either

    run_virtual(main)


def test_a_lost_answer_hides_a_write_that_was_carried_out() -> None:
    async def main() -> None:
        server = _server()
        client = MemoryClient(server, FaultPlan(lose_answers={1}, fail_writes={2: 500, 3: 409}))
        for expected in (0, 500, 409):
            with pytest.raises(KubeError) as caught:
                await client.create(CONFIG_MAP, config("a", f"n{expected}"))
            assert caught.value.status == expected
        assert [o["metadata"]["name"] for o in server.list(CONFIG_MAP)] == ["n0"]
        server.unreachable = True
        with pytest.raises(KubeError):
            await client.list(CONFIG_MAP)

    run_virtual(main)


def test_a_feed_loses_deletions_in_a_gap_and_doubles_and_delays_on_demand() -> None:
    async def main() -> None:
        server = _server()
        seen: list[tuple[float, str, str]] = []

        def take(kind: object, type_: str, obj: Any) -> None:
            seen.append((round(server.clock.elapsed, 2), type_, obj["metadata"]["name"]))

        feed = Feed(server, {CONFIG_MAP: ""}, take, WatchFaults(delay={CONFIG_MAP: 2.0}, double=1.0))
        feed.start()
        server.create(CONFIG_MAP, config("a", "one"), "user")
        server.create(CONFIG_MAP, config("a", "two"), "user")
        await asyncio.sleep(3)
        assert seen == [(2.01, "ADDED", n) for n in ("one", "one", "two", "two")]
        seen.clear()
        feed.break_watch(CONFIG_MAP)
        server.delete(CONFIG_MAP, "a", "one", "user")
        server.create(CONFIG_MAP, config("a", "three"), "user")
        await asyncio.sleep(3)
        assert seen == []
        feed.mend_watch()
        await asyncio.sleep(3)
        assert [(t, n) for _, t, n in seen] == [("", "three"), ("", "two")], (
            "nothing tells that 'one' is gone"
        )

    run_virtual(main)
