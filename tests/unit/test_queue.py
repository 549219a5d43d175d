"""The keyed queue: a lost key is a ModelDeployment that stays as it is; one done twice at once, two groups."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moe_operator.runtime.queue import BASE_DELAY, MAX_DELAY, KeyedQueue, QueueClosedError, QueueState

KEYS = st.sampled_from(["a", "b", "c"])


class QueueMachine(RuleBasedStateMachine):
    """Against a model that only counts: which keys still owe a run, and which are being run."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue: QueueState[str] = QueueState()
        self.owed: set[str] = set()
        self.running: set[str] = set()
        self.delayed: dict[str, float] = {}

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.queue.add(key, self.now)
        self.owed.add(key)

    @rule(key=KEYS, delay=st.floats(0.01, 10))
    def add_later(self, key: str, delay: float) -> None:
        self.queue.add_at(key, self.now + delay)
        self.delayed[key] = min(self.delayed.get(key, float("inf")), self.now + delay)

    @rule(seconds=st.floats(0, 12))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.queue.promote(self.now)
        for key, due in list(self.delayed.items()):
            if due <= self.now:
                del self.delayed[key]
                self.owed.add(key)

    @rule()
    def take(self) -> None:
        taken = self.queue.take()
        free = self.owed - self.running
        if taken is None:
            assert not free, f"{free} are owed a run and not given out"
        else:
            assert taken[0] in free, "given out although it runs already, or owes nothing"
            self.owed.discard(taken[0])
            self.running.add(taken[0])

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.queue.done(key)
        self.running.discard(key)

    @invariant()
    def depth_is_what_is_owed(self) -> None:
        assert len(self.queue) == len(self.owed)

    @invariant()
    def next_due_is_the_earliest(self) -> None:
        assert self.queue.next_due() == (min(self.delayed.values()) if self.delayed else None)


TestQueueRules = QueueMachine.TestCase
TestQueueRules.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_back_off_grows_up_to_its_bound_and_success_forgets_it() -> None:
    """Too eager, an outage of the API server is prolonged by us; unbounded, we sleep long after it is over."""
    state: QueueState[str] = QueueState()
    delays = [state.failed("a", 0.0) for _ in range(40)]
    assert delays[0] == BASE_DELAY
    assert delays == sorted(delays)
    assert delays[-1] == MAX_DELAY
    assert state.failed("b", 0.999) < BASE_DELAY * 1.5
    state.forget("a")
    assert state.failed("a", 0.0) == BASE_DELAY


@pytest.fixture
async def queue() -> AsyncIterator[KeyedQueue[str]]:
    queue: KeyedQueue[str] = KeyedQueue()
    yield queue
    queue.close()


@pytest.mark.looptime
async def test_a_delayed_key_comes_when_it_is_due_and_the_earlier_time_counts(queue: KeyedQueue[str]) -> None:
    loop = asyncio.get_running_loop()
    queue.add_after("a", 30)
    queue.add_after("a", 10)
    queue.add_after("a", 20)
    queue.add_after("b", 15)
    started = loop.time()
    assert (await queue.get())[0] == "a"
    assert loop.time() - started == pytest.approx(10, abs=0.01)
    queue.done("a")
    assert (await queue.get())[0] == "b"
    assert loop.time() - started == pytest.approx(15, abs=0.01)
    queue.done("b")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 100)


@pytest.mark.looptime
async def test_events_during_a_run_cause_exactly_one_further_run(queue: KeyedQueue[str]) -> None:
    queue.add("a")
    assert (await queue.get())[0] == "a"
    for _ in range(5):
        queue.add("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 1)
    queue.done("a")
    key, waited = await queue.get()
    assert key == "a"
    assert waited == pytest.approx(1, abs=0.01), "the wait counts from the event, for the latency metric"
    queue.done("a")
    assert len(queue) == 0


@pytest.mark.looptime
async def test_a_worker_that_is_cancelled_as_it_is_woken_leaves_the_key_to_another(
    queue: KeyedQueue[str],
) -> None:
    first = asyncio.create_task(queue.get())
    second = asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    queue.add("a")
    first.cancel()
    assert (await asyncio.wait_for(second, 1))[0] == "a"


@pytest.mark.looptime
async def test_closing_sends_the_waiting_home(queue: KeyedQueue[str]) -> None:
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(1)
    queue.close()
    for task in waiting:
        with pytest.raises(QueueClosedError):
            await task
    queue.add("a")
    with pytest.raises(QueueClosedError):
        await queue.get()


@pytest.mark.looptime
async def test_a_failed_key_waits_at_least_as_long_as_the_server_asks(queue: KeyedQueue[str]) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert queue.retry("a", 0.0, at_least=7.0) == 7.0
    await queue.get()
    assert loop.time() - started == pytest.approx(7, abs=0.01)
