"""The workers: one fault in one deployment must not stop the others, and nothing may be forgotten."""

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from moe_operator.controller.kube import KubeError
from moe_operator.controller.store import Key
from moe_operator.runtime.queue import KeyedQueue
from moe_operator.runtime.workers import Workers

A: Key = ("serving", "a")
B: Key = ("serving", "b")


@dataclass(frozen=True)
class Result:
    requeue_after: float | None = None


@dataclass
class Seen:
    outcomes: list[str] = field(default_factory=list)

    def reconciled(self, outcome: str, seconds: float, waited: float) -> None:
        self.outcomes.append(outcome)


@pytest.mark.looptime
async def test_a_failing_deployment_is_tried_again_with_back_off_while_others_go_on() -> None:
    queue: KeyedQueue[Key] = KeyedQueue()
    times: dict[Key, list[float]] = {A: [], B: []}
    seen = Seen()

    async def reconcile(key: Key) -> Result:
        times[key].append(asyncio.get_running_loop().time())
        if key == A and len(times[A]) <= 4:
            raise RuntimeError("a fault of ours") if len(times[A]) % 2 else KubeError(500, "Internal", "no")
        return Result()

    workers = Workers(queue, reconcile, count=2, jitter=lambda: 0.0, observer=seen)
    queue.add(A)
    queue.add(B)
    workers.start()
    await asyncio.sleep(10)
    await workers.stop()
    gaps = [b - a for a, b in zip(times[A], times[A][1:], strict=False)]
    assert gaps == pytest.approx([0.1, 0.2, 0.4, 0.8], abs=0.01)
    assert len(times[B]) == 1
    assert sorted(seen.outcomes) == ["error"] * 4 + ["success"] * 2


@pytest.mark.looptime
async def test_a_result_may_ask_to_be_looked_at_again() -> None:
    queue: KeyedQueue[Key] = KeyedQueue()
    times: list[float] = []

    async def reconcile(key: Key) -> Result:
        times.append(asyncio.get_running_loop().time())
        return Result(requeue_after=30.0 if len(times) < 3 else None)

    workers = Workers(queue, reconcile, count=4, jitter=lambda: 0.0, observer=Seen())
    queue.add(A)
    workers.start()
    await asyncio.sleep(200)
    await workers.stop()
    assert [t - times[0] for t in times] == pytest.approx([0, 30, 60], abs=0.01)


@pytest.mark.looptime
async def test_one_deployment_is_never_reconciled_twice_at_once() -> None:
    queue: KeyedQueue[Key] = KeyedQueue()
    running: set[Key] = set()
    runs = 0

    async def reconcile(key: Key) -> Result:
        nonlocal runs
        assert key not in running
        running.add(key)
        await asyncio.sleep(1)
        running.discard(key)
        runs += 1
        return Result()

    seen = Seen()
    workers = Workers(queue, reconcile, count=8, jitter=lambda: 0.0, observer=seen)
    workers.start()
    for _ in range(50):
        queue.add(A)
        await asyncio.sleep(0.1)
    await asyncio.sleep(5)
    await workers.stop()
    assert set(seen.outcomes) == {"success"}
    assert 5 <= runs <= 7


async def test_a_thousand_settled_deployments_do_not_keep_others_from_the_loop() -> None:
    """A leader whose workers never yield cannot renew its lease, and loses it."""
    queue: KeyedQueue[Key] = KeyedQueue()
    done = 0
    turns: list[int] = []

    async def reconcile(key: Key) -> Result:
        nonlocal done
        done += 1
        return Result()

    async def renew() -> None:
        while done < 1000:
            turns.append(done)
            await asyncio.sleep(0)

    for index in range(1000):
        queue.add(("ns", str(index)))
    workers = Workers(queue, reconcile, count=8, jitter=lambda: 0.0, observer=Seen())
    renewing = asyncio.create_task(renew())
    workers.start()
    await asyncio.wait_for(renewing, 10)
    await workers.stop()
    assert max(b - a for a, b in pairwise(turns)) <= 16, "reconciles between two turns of another task"


@pytest.mark.looptime
async def test_a_reconcile_that_hangs_is_seen_cancelled_and_tried_again() -> None:
    queue: KeyedQueue[Key] = KeyedQueue()
    calls = 0
    seen = Seen()

    async def reconcile(key: Key) -> Result:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        return Result()

    workers = Workers(queue, reconcile, count=1, jitter=lambda: 0.0, observer=seen, deadline=100)
    queue.add(A)
    workers.start()
    await asyncio.sleep(60)
    longest = workers.longest()
    assert longest is not None
    assert longest[0] == A
    assert longest[1] == pytest.approx(60, abs=0.1)
    await asyncio.sleep(60)
    assert seen.outcomes == ["timeout", "success"]
    assert workers.longest() is None
    await workers.stop()


@pytest.mark.looptime
async def test_stopping_lets_a_short_reconcile_end_and_cancels_a_long_one() -> None:
    """A clean stop must hand over within two seconds whatever is under way."""
    queue: KeyedQueue[Key] = KeyedQueue()
    ended: list[Key] = []

    async def reconcile(key: Key) -> Result:
        await asyncio.sleep(0.5 if key == A else 3600)
        ended.append(key)
        return Result()

    workers = Workers(queue, reconcile, count=2, jitter=lambda: 0.0, observer=Seen(), deadline=1e6)
    queue.add(A)
    queue.add(B)
    workers.start()
    await asyncio.sleep(0.1)
    started = asyncio.get_running_loop().time()
    await workers.stop(grace=1.0)
    assert asyncio.get_running_loop().time() - started <= 1.1
    assert ended == [A]
