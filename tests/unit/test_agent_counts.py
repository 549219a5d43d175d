"""Requests in flight over real processes: hybrid balancing runs one API server for each local rank."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moe_operator.agent.middleware import AgentMiddleware
from moe_operator.agent.settings import Settings
from moe_operator.agent.slots import Slot, read_all
from unit.agent_driver import FakeEngine, ask

# Another API server of the pod: enters as many requests as it is told, one command a line, and answers each.
_OTHER = """
import os, sys
from pathlib import Path
from moe_operator.agent.drain import DrainFlag
from moe_operator.agent.slots import Slot
directory = Path(sys.argv[1])
slot = Slot(directory)
print("ready", flush=True)
for command in sys.stdin:
    if command == "enter\\n":
        slot.enter()
    elif command == "leave\\n":
        slot.leave()
    elif command == "drain\\n":
        DrainFlag(directory).set("told to the other process")
    elif command == "fork\\n":
        child = os.fork()
        if not child:
            os.execvp("sleep", ["sleep", "60"])
        print(child, flush=True)
        continue
    print("done", flush=True)
"""


class Other:
    """Another process of the pod."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OTHER, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == "ready"

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, command: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    process = Other(tmp_path)
    yield process
    process.end()


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Slot]:
    made = Slot(tmp_path)
    yield made
    made.close()


def total(directory: Path, slot: Slot) -> int:
    return sum(reading.in_flight for reading in read_all(directory, slot))


def test_a_pods_count_is_the_sum_over_its_processes(tmp_path: Path, slot: Slot, other: Other) -> None:
    """A drain that asks one API server would overlook the requests of the others."""
    slot.enter()
    other.tell("enter")
    other.tell("enter")
    assert total(tmp_path, slot) == 3
    other.tell("leave")
    slot.leave()
    assert total(tmp_path, slot) == 1
    assert {reading.pid for reading in read_all(tmp_path, slot)} == {os.getpid(), other.process.pid}


def test_what_a_killed_process_had_in_flight_is_not_counted(tmp_path: Path, slot: Slot, other: Other) -> None:
    """Every later drain of the pod would wait to its deadline for requests that nobody serves."""
    other.tell("enter")
    assert total(tmp_path, slot) == 1
    other.end()
    assert total(tmp_path, slot) == 0
    assert list(tmp_path.glob("*.slot")) == [slot.path]


def test_a_child_that_outlives_its_server_does_not_keep_its_count(
    tmp_path: Path, slot: Slot, other: Other
) -> None:
    """API servers start helpers; one that survives would look like a server with requests for ever."""
    other.tell("enter")
    child = int(other.tell("fork"))
    try:
        other.end()
        assert total(tmp_path, slot) == 0
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_request_that_ends_after_the_server_began_to_stop_is_no_error(tmp_path: Path) -> None:
    """Shutting down would log an error for every client that is still connected."""
    slot = Slot(tmp_path)
    slot.enter()
    slot.close()
    slot.leave()
    assert not list(tmp_path.iterdir())


def test_reading_does_not_make_the_own_count_look_dead_to_others(tmp_path: Path, slot: Slot) -> None:
    """Closing a second descriptor of a locked file drops the lock, and the count with it."""
    slot.enter()
    for _ in range(3):
        read_all(tmp_path, slot)
    script = (
        "import sys; from pathlib import Path; from moe_operator.agent.slots import Slot, read_all;"
        "d = Path(sys.argv[1]); own = Slot(d); print(sum(r.in_flight for r in read_all(d, own)))"
    )
    seen = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert seen.stdout.strip() == "1"


async def test_a_drain_told_to_one_process_is_the_pods(tmp_path: Path, other: Other) -> None:
    """The operator's call reaches one API server; clients of the others would stay."""
    agent = AgentMiddleware(FakeEngine(), Settings(directory=tmp_path))
    assert "connection" not in (await ask(agent, "GET", "/v1/models")).headers
    other.tell("drain")
    assert (await ask(agent, "GET", "/v1/models")).headers["connection"] == "close"
    state = (await ask(agent, "GET", "/moe/v1/state")).json
    assert state["draining"]["reason"] == "told to the other process"


async def test_a_stopped_api_server_makes_the_pod_not_alive(
    tmp_path: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its siblings go on answering probes, while the requests that it holds hang."""
    agent = AgentMiddleware(FakeEngine(), Settings(directory=tmp_path))
    assert (await ask(agent, "GET", "/moe/v1/alive")).status == 200
    monkeypatch.setattr("moe_operator.agent.middleware._SILENT_SECONDS", 0.05)
    async with asyncio.timeout(5):
        while (answer := await ask(agent, "GET", "/moe/v1/alive")).status == 200:
            continue
    assert f"process {other.process.pid} gave no sign of life" in answer.json["reason"]
