"""Expert-parallel groups of real vLLM on loopback: a "pod" is one `vllm serve` with its own address."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from e2e.engine_helpers import get
from engine.install import vllm_command
from engine.tiny_model import tiny_model
from harness.wait import wait_for
from moe_operator.resources.agent_bundle import MIDDLEWARE, agent_files

PORT = 8000


@dataclass
class Pod:
    """One pod: its process, address and what it leaves behind."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Where its API server answers."""
        return f"http://{self.address}:{PORT}"

    @property
    def termination_message(self) -> str:
        """What the agent wrote for the container's status."""
        return (self.folder / "termination-log").read_text()

    @property
    def log(self) -> str:
        """Everything its processes printed."""
        return (self.folder / "log").read_text(errors="replace")

    def processes(self, name: str) -> list[int]:
        """Ids of its processes whose title holds `name`, such as EngineCore, Worker or APIServer."""
        return [pid for pid in descendants(self.process.pid) if name in _title(pid)]

    def stop(self) -> None:
        """End it and all that it started."""
        family = descendants(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass
class Group:
    """The pods of one expert-parallel instance, leader first."""

    pods: list[Pod] = field(default_factory=list)

    def wait_ready(self, seconds: float = 300.0) -> None:
        """Wait until every pod says that it and its peers can serve."""

        def ready() -> bool:
            for pod in self.pods:
                assert pod.process.poll() is None, f"{pod.name} ended while starting:\n{pod.log[-4000:]}"
            return all(get(pod.url, "/moe/v1/ready")[0] == 200 for pod in self.pods)

        wait_for(f"{len(self.pods)} pods ready", ready, seconds=seconds)


@dataclass(frozen=True)
class Layout:
    """A group's shape: pods, ranks in each, and the first three numbers of its loopback addresses."""

    pods: int = 1
    ranks: int = 1
    subnet: str = "127.30.1"

    def address(self, index: int) -> str:
        """The address of one pod; the leader is 0."""
        return f"{self.subnet}.{index + 1}"

    def arguments(self, index: int) -> list[str]:
        """vLLM's arguments that make this pod its part of the group."""
        if self.pods * self.ranks == 1:
            return []
        leader = self.address(0)
        shared = ["--enable-expert-parallel", "--data-parallel-size", str(self.pods * self.ranks)]
        shared += ["--data-parallel-size-local", str(self.ranks), "--data-parallel-address", leader]
        if self.pods == 1:
            return shared
        shared.append("--data-parallel-hybrid-lb")
        if self.ranks == 1:
            return [*shared, "--data-parallel-start-rank", str(index)]
        # vLLM works out the first rank from the node's index, the same expression in every worker's template.
        return [*shared, "--nnodes", str(self.pods), "--node-rank", str(index), "--master-addr", leader]


@contextmanager
def group(
    layout: Layout,
    *,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    model: Path | None = None,
    agent: bool = True,
) -> Iterator[Group]:
    """Run one group of `model`, else of the tiny one, with the agent mounted, and end it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="moe-group-"))
    mount = folder / "agent"
    for path, content in agent_files().items():
        (mount / path).parent.mkdir(parents=True, exist_ok=True)
        (mount / path).write_text(content)
    made = Group()
    try:
        for index in range(layout.pods):
            more = environment or {}
            made.pods.append(_start(layout, index, folder, arguments, more, model or tiny_model(), agent))
        yield made
    finally:
        for pod in reversed(made.pods):
            pod.stop()
        shutil.rmtree(folder)


def _start(
    layout: Layout,
    index: int,
    folder: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    model: Path,
    agent: bool,
) -> Pod:
    own = folder / f"pod-{index}"
    own.mkdir()
    (own / "termination-log").touch()
    address = layout.address(index)
    name = f"tiny-g0-0-{index}" if index else "tiny-g0-0"
    peers = [f"{layout.address(other)}:{PORT}" for other in range(layout.pods) if other != index]
    command = [str(vllm_command()), "serve", str(model), "--served-model-name", "tiny"]
    command += ["--host", address, "--port", str(PORT), "--dtype", "float32", "--seed", "0"]
    command += ["--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "8"]
    command += ["--middleware", MIDDLEWARE] if agent else []
    command += [*layout.arguments(index), *arguments]
    env = {
        **os.environ,
        **({"PYTHONPATH": str(folder / "agent")} if agent else {}),
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_HOST_IP": address,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "fork",
        "MOE_AGENT_DIR": str(own / "shared"),
        "MOE_AGENT_PEERS": ",".join(peers),
        "MOE_TERMINATION_LOG": str(own / "termination-log"),
        "POD_NAME": name,
        **environment,
    }
    with (own / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    return Pod(name, address, own, process)


def descendants(pid: int) -> list[int]:
    """Ids of a process's children, their children and so on."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                # After the command's name, which may hold blanks: state, then the parent's id.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
