"""Processes of engines: pods of a local cluster are process trees of this machine."""

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


def processes(pod_uid_or_name: str) -> list[EngineProcess]:
    """All processes whose environment says that they belong to the pod (POD_NAME), oldest first."""
    marker = f"POD_NAME={pod_uid_or_name}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if marker in environment and title:
            found.append(EngineProcess(int(entry.name), title))
    return sorted(found, key=lambda p: p.pid)


def engine_core(pod: str) -> EngineProcess:
    """The process that computes: vLLM's EngineCore. Raises RuntimeError if there is none."""
    for process in processes(pod):
        if "EngineCore" in process.title:
            return process
    raise RuntimeError(
        f"pod {pod} has no EngineCore process; it has {[p.title[:60] for p in processes(pod)]}"
    )
