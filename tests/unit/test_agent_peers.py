"""Readiness that knows of the group's other pods: half a group must take itself out within seconds."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from moe_operator.agent.middleware import AgentMiddleware
from moe_operator.agent.peers import Peer, peers_of_group
from moe_operator.agent.settings import Settings, read_settings
from moe_operator.agent.watch import PeerWatch
from unit.agent_driver import FakeEngine, ask

LEADER = "tiny-g0-0.tiny-g0.serving"


class PeerPod:
    """Another pod's agent on a real socket."""

    def __init__(self, pod: str = "tiny-g0-0-1", port: int = 0) -> None:
        self.status = 200
        self.reason = ""
        self.pod = pod
        self.asked = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked += 1
                body = json.dumps({"pod": owner.pod, "reason": owner.reason}).encode()
                self.send_response(owner.status if self.path == "/moe/v1/alive" else 404)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = int(self.server.server_address[1])
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def peer() -> Iterator[PeerPod]:
    pod = PeerPod()
    yield pod
    if pod.thread.is_alive():
        pod.stop()


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Callable[..., PeerWatch]]:
    started: list[PeerWatch] = []

    def start(*peers: Peer, interval: float = 0.05, timeout: float = 0.5) -> PeerWatch:
        watch = PeerWatch(Settings(directory=tmp_path, peers=peers, interval=interval, timeout=timeout))
        watch.start()
        started.append(watch)
        return watch

    yield start
    for watch in started:
        watch.stop()


def eventually(
    watch: PeerWatch, condition: Callable[[dict[str, Any]], bool], seconds: float = 5
) -> dict[str, Any]:
    """The first peer's row once the condition holds for it."""
    deadline = time.monotonic() + seconds
    while not condition(row := watch.rows()[0]):
        assert time.monotonic() < deadline, row
        time.sleep(0.01)
    return row


def test_the_peers_of_a_leader_and_of_a_worker_follow_from_leaderworkersets_names() -> None:
    """A wrong name is a pod that never becomes ready."""
    environ = {"LWS_LEADER_ADDRESS": LEADER, "LWS_GROUP_SIZE": "3", "LWS_WORKER_INDEX": "0"}
    assert [peer.address for peer in peers_of_group(environ)] == [
        "tiny-g0-0-1.tiny-g0.serving:8000",
        "tiny-g0-0-2.tiny-g0.serving:8000",
    ]
    environ = {**environ, "LWS_WORKER_INDEX": "2", "MOE_AGENT_PORT": "9000"}
    assert peers_of_group(environ) == (
        Peer(LEADER, 9000, "tiny-g0-0"),
        Peer("tiny-g0-0-1.tiny-g0.serving", 9000, "tiny-g0-0-1"),
    )


def test_a_pod_alone_in_its_group_has_no_peers() -> None:
    """A single-pod group would wait for a pod that does not exist."""
    assert (
        peers_of_group({"LWS_LEADER_ADDRESS": LEADER, "LWS_GROUP_SIZE": "1", "LWS_WORKER_INDEX": "0"}) == ()
    )
    assert peers_of_group({}) == ()


def test_listed_peers_win_over_derived_ones() -> None:
    """Where names do not resolve, addresses must be usable."""
    environ = {"MOE_AGENT_PEERS": "10.0.0.2:8000, [fd00::2]:8001", "LWS_LEADER_ADDRESS": LEADER}
    assert peers_of_group(environ) == (Peer("10.0.0.2", 8000), Peer("fd00::2", 8001))


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"MOE_AGENT_PEERS": "10.0.0.2"}, "'10.0.0.2' is not host:port"),
        ({"LWS_LEADER_ADDRESS": LEADER, "LWS_GROUP_SIZE": "2"}, "LWS_WORKER_INDEX is not set"),
        (
            {"LWS_LEADER_ADDRESS": LEADER, "LWS_GROUP_SIZE": "two"},
            "LWS_GROUP_SIZE must be a whole number, not 'two'",
        ),
        ({"MOE_AGENT_PEER_TIMEOUT": "0"}, "MOE_AGENT_PEER_TIMEOUT must be a number above 0, not '0'"),
    ],
)
def test_settings_that_cannot_be_read_are_named(environ: dict[str, str], message: str) -> None:
    """A typo would otherwise silently switch the peers' checks off."""
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        read_settings(environ)


def test_a_peer_that_ends_is_down_after_two_checks(watching: Callable[..., PeerWatch], peer: PeerPod) -> None:
    """Requests would go on reaching a group that cannot serve them."""
    watch = watching(Peer("127.0.0.1", peer.port))
    eventually(watch, lambda row: bool(row["up"]))
    peer.stop()
    row = eventually(watch, lambda row: not row["up"])
    assert row["failures"] >= 2
    assert "refused the connection" in row["reason"]


def test_with_the_settings_in_use_a_silent_peer_is_down_within_five_seconds(
    watching: Callable[..., PeerWatch], peer: PeerPod
) -> None:
    """A pod that vanishes, or is stopped, refuses nothing: it just does not answer."""
    watch = watching(Peer("127.0.0.1", peer.port), interval=1.0, timeout=1.0)
    eventually(watch, lambda row: bool(row["up"]))
    port = peer.port
    peer.stop()
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        silent.bind(("127.0.0.1", port))
        silent.listen()
        began = time.monotonic()
        row = eventually(watch, lambda row: not row["up"])
        assert time.monotonic() - began < 4.5
        assert row["reason"] == "did not answer within 1 s"


def test_one_lost_answer_does_not_take_a_group_out(watching: Callable[..., PeerWatch], peer: PeerPod) -> None:
    """A single slow answer under load would flap the whole group."""
    watch = watching(Peer("127.0.0.1", peer.port), interval=0.3)
    eventually(watch, lambda row: bool(row["up"]))
    peer.status, peer.reason = 503, "busy"
    row = eventually(watch, lambda row: row["failures"] == 1)
    assert row["up"]
    peer.status = 200
    assert eventually(watch, lambda row: row["failures"] == 0)["up"]


def test_a_peer_says_why_it_is_not_alive(watching: Callable[..., PeerWatch], peer: PeerPod) -> None:
    """The cause of a group's failure must reach the status of its other pods too."""
    peer.status, peer.reason = 503, "vLLM's /health answers 503"
    watch = watching(Peer("127.0.0.1", peer.port))
    assert eventually(watch, lambda row: row["failures"] > 0)["reason"] == "vLLM's /health answers 503"


def test_another_pod_at_the_peers_address_is_not_the_peer(
    watching: Callable[..., PeerWatch], peer: PeerPod
) -> None:
    """A pod of another group that got the address of one that is gone would keep half a group ready."""
    peer.pod = "other-g1-0"
    watch = watching(Peer("127.0.0.1", peer.port, "tiny-g0-0-1"))
    row = eventually(watch, lambda row: row["failures"] > 0)
    assert not row["up"]
    assert row["reason"] == "its address is now another pod's, other-g1-0"


def test_a_name_that_does_not_resolve_is_said_so(watching: Callable[..., PeerWatch]) -> None:
    """A misspelt or missing headless Service must be recognisable."""
    watch = watching(Peer("tiny-g0-0-1.invalid", 8000))
    assert "its name cannot be resolved" in eventually(watch, lambda row: row["failures"] > 0, 20)["reason"]


def test_when_the_checking_process_dies_another_goes_on(
    tmp_path: Path, watching: Callable[..., PeerWatch], peer: PeerPod
) -> None:
    """One API server of a pod may be killed; a table that nobody writes would be believed for ever."""
    script = (
        "import sys, time; from pathlib import Path; from moe_operator.agent.peers import Peer;"
        "from moe_operator.agent.settings import Settings; from moe_operator.agent.watch import PeerWatch;"
        "peer = Peer('127.0.0.1', int(sys.argv[2]));"
        "PeerWatch(Settings(Path(sys.argv[1]), (peer,), interval=0.05)).start();"
        "time.sleep(60)"
    )
    first = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(peer.port)])
    try:
        reader = PeerWatch(Settings(tmp_path, (Peer("127.0.0.1", peer.port),), interval=0.05, timeout=0.1))
        eventually(reader, lambda row: bool(row["up"]), 20)
        second = watching(Peer("127.0.0.1", peer.port))
    finally:
        first.kill()
        first.wait()
    peer.status, peer.reason = 503, "died meanwhile"
    assert eventually(second, lambda row: not row["up"])["reason"] == "died meanwhile"


def test_a_table_that_is_no_longer_written_counts_as_down(
    tmp_path: Path, watching: Callable[..., PeerWatch], peer: PeerPod
) -> None:
    """If the checks themselves stop, the last good result must not stand."""
    watch = watching(Peer("127.0.0.1", peer.port), timeout=0.1)
    eventually(watch, lambda row: bool(row["up"]))
    watch.stop()
    assert "the checks stopped" in eventually(watch, lambda row: not row["up"])["reason"]


async def test_readiness_needs_every_peer_and_liveness_none(tmp_path: Path, peer: PeerPod) -> None:
    """Liveness that waited for peers would never begin; readiness without them would serve half a group."""
    settings = Settings(tmp_path, (Peer("127.0.0.1", peer.port),), interval=0.05, timeout=0.5)
    agent = AgentMiddleware(FakeEngine(), settings)
    try:
        assert (await ask(agent, "GET", "/moe/v1/alive")).status == 200
        deadline = time.monotonic() + 5
        while (await ask(agent, "GET", "/moe/v1/ready")).status != 200:
            assert time.monotonic() < deadline
        peer.stop()
        while (answer := await ask(agent, "GET", "/moe/v1/ready")).status == 200:
            assert time.monotonic() < deadline + 5
        assert answer.json["reasons"] == [
            f"peer 127.0.0.1:{peer.port} refused the connection: its engine is starting, or has ended"
        ]
        assert (await ask(agent, "GET", "/moe/v1/alive")).status == 200
    finally:
        agent._end()
