"""Processes of engines: pods of a local cluster are process trees of this machine."""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class EngineProcess:
    """One process of a pod."""

    pid: int
    title: str

    def send(self, number: signal.Signals) -> None:
        """Signal it. Raises ProcessLookupError if it is gone."""
        os.kill(self.pid, number)


def _parents_and_titles() -> dict[int, tuple[int, str]]:
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(entry.name)] = (parent, title)
    return found


def processes(pod: str) -> list[EngineProcess]:
    """All processes of a pod, oldest first: those whose environment names it (POD_NAME), and their descendants.

    Descendants by parent, as vLLM's processes write their titles over their environment.
    """
    marker = f"POD_NAME={pod}".encode()
    known = _parents_and_titles()
    ours: set[int] = set()
    for pid in known:
        with contextlib.suppress(OSError):
            if marker in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                ours.add(pid)
    while fresh := {pid for pid, (parent, _) in known.items() if parent in ours} - ours:
        ours |= fresh
    return [EngineProcess(pid, known[pid][1]) for pid in sorted(ours) if known[pid][1]]


def engine_core(pod: str) -> EngineProcess:
    """The process that schedules: vLLM's EngineCore. Raises RuntimeError if there is none."""
    return _called("EngineCore", pod)


def worker(pod: str) -> EngineProcess:
    """The process that computes: vLLM's Worker. Raises RuntimeError if there is none."""
    return _called("VLLM::Worker", pod)


def _called(name: str, pod: str) -> EngineProcess:
    for process in processes(pod):
        if name in process.title:
            return process
    raise RuntimeError(f"pod {pod} has no {name} process; it has {[p.title[:60] for p in processes(pod)]}")
