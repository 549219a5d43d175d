"""The lease's life against an in-memory API server with versions, in virtual time."""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from moe_operator.controller.kube import LEASE, ConflictError, Kind, KubeError, Obj
from moe_operator.runtime.fence import FencedClient, NotLeadingError
from moe_operator.runtime.lease import Lease


class LeaseServer:
    """One object with optimistic locking, latency, and faults per client."""

    def __init__(self) -> None:
        self.obj: Obj | None = None
        self.version = 0
        self.holders: list[tuple[float, str]] = []

    def write(self, obj: Obj) -> Obj:
        self.version += 1
        obj["metadata"] = {"name": "l", "uid": "u", "resourceVersion": str(self.version)}
        self.obj = obj
        holder = obj["spec"]["holderIdentity"]
        if not self.holders or self.holders[-1][1] != holder:
            self.holders.append((asyncio.get_running_loop().time(), holder))
        return copy.deepcopy(obj)


class Client:
    """One candidate's way to it."""

    def __init__(self, server: LeaseServer) -> None:
        self.server = server
        self.down = False
        self.loses_answers = False
        self.hang = False
        self.calls = 0

    async def _reach(self, write: Callable[[], Obj | None]) -> Obj | None:
        self.calls += 1
        if self.hang:
            await asyncio.Event().wait()
        await asyncio.sleep(0.01)
        if self.down:
            raise KubeError(0, "NoAnswer", "down")
        answer = write()
        await asyncio.sleep(0.01)
        if self.loses_answers:
            raise KubeError(0, "NoAnswer", "lost")
        return answer

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        assert kind is LEASE
        return await self._reach(lambda: copy.deepcopy(self.server.obj))

    async def create(self, kind: Kind, obj: Obj) -> Obj | None:
        def write() -> Obj:
            if self.server.obj is not None:
                raise ConflictError(409, "AlreadyExists", "there")
            return self.server.write(copy.deepcopy(obj))

        return await self._reach(write)

    async def patch(self, kind: Kind, namespace: str | None, name: str, patch: Obj) -> Obj | None:
        def write() -> Obj:
            there = self.server.obj
            if there is None or there["metadata"]["resourceVersion"] != patch["metadata"]["resourceVersion"]:
                raise ConflictError(409, "Conflict", "changed")
            return self.server.write({**copy.deepcopy(there), "spec": {**there["spec"], **patch["spec"]}})

        return await self._reach(write)


def candidate(server: LeaseServer, name: str) -> tuple[Lease, Client]:
    client = Client(server)
    lease = Lease(
        client,  # type: ignore[arg-type]
        namespace="ns",
        name="l",
        identity=name,
        wall_clock=lambda: 1e9 + asyncio.get_running_loop().time(),
        draw=lambda: 0.5,
    )
    return lease, client


async def within(awaitable: Awaitable[Any], seconds: float) -> float:
    """Seconds that it took, at most `seconds`."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await asyncio.wait_for(awaitable, seconds)
    return loop.time() - begun


@pytest.mark.looptime
async def test_one_of_two_leads_and_the_other_waits_for_as_long_as_it_renews() -> None:
    server = LeaseServer()
    (a, _), (b, _) = candidate(server, "a"), candidate(server, "b")
    await a.acquire()
    holding = asyncio.create_task(a.hold())
    waiting = asyncio.create_task(b.acquire())
    await asyncio.sleep(600)
    assert a.holds()
    assert not b.holds()
    assert not waiting.done()
    assert [h for _, h in server.holders] == ["a"]
    holding.cancel()
    waiting.cancel()


@pytest.mark.looptime
async def test_of_two_that_begin_at_once_one_wins() -> None:
    server = LeaseServer()
    pair = [candidate(server, name)[0] for name in "ab"]
    tasks = [asyncio.create_task(lease.acquire()) for lease in pair]
    await asyncio.sleep(10)
    assert [t.done() for t in tasks].count(True) == 1
    for task in tasks:
        task.cancel()


@pytest.mark.looptime
async def test_a_clean_stop_hands_over_in_about_a_second() -> None:
    server = LeaseServer()
    (a, _), (b, _) = candidate(server, "a"), candidate(server, "b")
    await a.acquire()
    holding = asyncio.create_task(a.hold())
    waiting = asyncio.create_task(b.acquire())
    await asyncio.sleep(30)
    holding.cancel()
    await a.give_back()
    assert not a.holds()
    assert await within(waiting, 2) < 1.3


@pytest.mark.looptime
async def test_a_leader_that_was_killed_is_followed_within_twenty_seconds_and_not_before_its_time() -> None:
    server = LeaseServer()
    (a, _), (b, _) = candidate(server, "a"), candidate(server, "b")
    await a.acquire()
    holding = asyncio.create_task(a.hold())
    waiting = asyncio.create_task(b.acquire())
    await asyncio.sleep(30)
    holding.cancel()
    assert 12 < await within(waiting, 20) < 17.5


@pytest.mark.looptime
async def test_a_leader_that_is_cut_off_stops_before_another_begins() -> None:
    """Whatever the cut: refused, silent, or answers lost on their way back."""
    for fault in ("down", "hang"):
        server = LeaseServer()
        (a, reach), (b, _) = candidate(server, "a"), candidate(server, "b")
        await a.acquire()
        holding = asyncio.create_task(a.hold())
        waiting = asyncio.create_task(b.acquire())
        await asyncio.sleep(30)
        setattr(reach, fault, True)
        cut = asyncio.get_running_loop().time()
        while not waiting.done():
            assert not (a.holds() and b.holds())
            await asyncio.sleep(0.1)
        assert not a.holds()
        assert holding.done()
        assert "could not be renewed for 10 s" in holding.result()
        assert asyncio.get_running_loop().time() - cut < 18


@pytest.mark.looptime
async def test_a_short_outage_and_lost_answers_do_not_cost_the_lease() -> None:
    """An API server's restart takes seconds; handing over for each would be a storm of its own."""
    server = LeaseServer()
    a, reach = candidate(server, "a")
    await a.acquire()
    holding = asyncio.create_task(a.hold())
    for fault, seconds in (("down", 7.0), ("hang", 5.0), ("loses_answers", 6.0)):
        setattr(reach, fault, True)
        await asyncio.sleep(seconds)
        setattr(reach, fault, False)
        await asyncio.sleep(20)
        assert a.holds(), fault
        assert not holding.done(), fault
    holding.cancel()


@pytest.mark.looptime
async def test_a_leader_that_sees_another_stops_at_once() -> None:
    server = LeaseServer()
    a, _ = candidate(server, "a")
    await a.acquire()
    holding = asyncio.create_task(a.hold())
    await asyncio.sleep(5)
    assert server.obj is not None
    server.write({**server.obj, "spec": {**server.obj["spec"], "holderIdentity": "thief"}})
    assert await within(asyncio.shield(holding), 5) < 4
    assert holding.result() == "thief holds it"
    assert not a.holds()


@pytest.mark.looptime
async def test_a_lease_that_somebody_deleted_is_made_again() -> None:
    server = LeaseServer()
    a, _ = candidate(server, "a")
    await a.acquire()
    holding = asyncio.create_task(a.hold())
    await asyncio.sleep(5)
    server.obj = None
    await asyncio.sleep(10)
    assert a.holds()
    assert server.obj is not None
    holding.cancel()


@pytest.mark.looptime
async def test_a_process_that_was_stopped_for_long_knows_before_it_writes() -> None:
    """After SIGCONT or a frozen machine the loop goes on where it was, with a lease that is another's."""
    server = LeaseServer()
    a, reach = candidate(server, "a")
    await a.acquire()
    assert a.holds()
    await asyncio.sleep(10)  # nobody renews
    assert not a.holds()
    fenced = FencedClient(reach, a.holds)  # type: ignore[arg-type]
    calls = reach.calls
    for write in (
        fenced.create(LEASE, {}),
        fenced.apply(LEASE, {}),
        fenced.apply_status(LEASE, {}),
        fenced.patch(LEASE, "ns", "l", {}),
        fenced.delete(LEASE, "ns", "l", uid="u"),
    ):
        with pytest.raises(NotLeadingError):
            await write
    assert reach.calls == calls, "nothing was sent"
    assert await fenced.get(LEASE, "ns", "l"), "reading is free"


@pytest.mark.looptime
async def test_giving_back_does_not_hold_up_the_end_of_the_process() -> None:
    server = LeaseServer()
    a, reach = candidate(server, "a")
    await a.acquire()
    reach.hang = True
    assert await within(a.give_back(), 2) <= 1.01
    b, _ = candidate(server, "b")
    await b.give_back()
    assert server.obj is not None
    assert server.obj["spec"]["holderIdentity"] == "a", "what is not ours is not given back"
