"""What a kubelet knows of one container: its states and counters, and how they read in a pod's status. Pure."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Obj = dict[str, Any]
Kind = Literal["init", "sidecar", "main"]


def timestamp(moment: datetime) -> str:
    """As Kubernetes writes times: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str | None) -> datetime | None:
    """A time as Kubernetes writes it, or None."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


@dataclass(frozen=True)
class Waiting:
    """Not running, and why."""

    reason: str
    message: str = ""

    def as_state(self) -> Obj:
        return {"waiting": {"reason": self.reason, **({"message": self.message} if self.message else {})}}


@dataclass(frozen=True)
class Running:
    """Running since ``started_at``."""

    started_at: datetime

    def as_state(self) -> Obj:
        return {"running": {"startedAt": timestamp(self.started_at)}}


@dataclass(frozen=True)
class Terminated:
    """Ended. ``signal``: what ended it, or 0; ``exit_code`` is then 128 + signal."""

    exit_code: int
    reason: str
    started_at: datetime | None
    finished_at: datetime | None
    container_id: str = ""
    signal: int = 0
    message: str = ""

    def as_state(self) -> Obj:
        out: Obj = {"exitCode": self.exit_code, "reason": self.reason}
        if self.signal:
            out["signal"] = self.signal
        if self.message:
            out["message"] = self.message
        if self.container_id:
            out["containerID"] = self.container_id
        out["startedAt"] = timestamp(self.started_at) if self.started_at else None
        out["finishedAt"] = timestamp(self.finished_at) if self.finished_at else None
        return {"terminated": out}

    @classmethod
    def from_state(cls, raw: Obj) -> Terminated:
        """The inverse of ``as_state``."""
        return cls(
            exit_code=int(raw.get("exitCode", 0)),
            reason=raw.get("reason", ""),
            started_at=parse_time(raw.get("startedAt")),
            finished_at=parse_time(raw.get("finishedAt")),
            container_id=raw.get("containerID", ""),
            signal=int(raw.get("signal", 0)),
            message=raw.get("message", ""),
        )


State = Waiting | Running | Terminated


def terminated_by(
    wait_status: int,
    started_at: datetime,
    finished_at: datetime,
    container_id: str,
    message: str = "",
    oom_killed: bool = False,
) -> Terminated:
    """The state that a wait status means, with a container engine's reasons."""
    code, number = 0, 0
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        code = 128 + number
    else:
        code = os.WEXITSTATUS(wait_status)
    reason = "OOMKilled" if oom_killed else ("Completed" if code == 0 else "Error")
    return Terminated(code, reason, started_at, finished_at, container_id, number, message)


#: A container whose end this kubelet did not see: it ran under an earlier one.
LOST_EXIT_CODE = 128 + signal.SIGKILL


@dataclass
class Record:
    """One container of a pod. ``started``: its startup probe and postStart hook have passed since it last started."""

    name: str
    kind: Kind
    spec: Obj
    state: State = field(default_factory=lambda: Waiting("ContainerCreating"))
    last: Terminated | None = None
    restart_count: int = 0
    started: bool = False
    ready: bool = False
    container_id: str = ""
    image_id: str = ""

    @property
    def running(self) -> bool:
        return isinstance(self.state, Running)

    @property
    def finished(self) -> Terminated | None:
        """How it ended, if it is not running: its present state, or the last one while it waits for a restart."""
        if isinstance(self.state, Terminated):
            return self.state
        return self.last if isinstance(self.state, Waiting) else None

    def as_status(self) -> Obj:
        """The entry of containerStatuses."""
        return {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": self.image_id,
            "containerID": self.container_id,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restart_count,
            "state": self.state.as_state(),
            "lastState": self.last.as_state() if self.last else {},
        }


def records_of(pod: Obj) -> list[Record]:
    """Fresh records for all containers, init containers first, in the pod's order."""
    spec = pod["spec"]
    out: list[Record] = []
    for container in spec.get("initContainers") or []:
        kind: Kind = "sidecar" if container.get("restartPolicy") == "Always" else "init"
        out.append(Record(container["name"], kind, container))
    initial = Waiting("PodInitializing") if out else Waiting("ContainerCreating")
    if out:
        for record in out:
            record.state = initial
    out += [Record(entry["name"], "main", entry, state=initial) for entry in spec["containers"]]
    return out


def adopt(record: Record, status: Obj) -> None:
    """Continue counting from what an earlier kubelet wrote. Its processes died with it, so a running container counts
    as ended by a kill that nobody saw."""
    record.restart_count = int(status.get("restartCount", 0))
    record.image_id = status.get("imageID", "")
    last = (status.get("lastState") or {}).get("terminated")
    record.last = Terminated.from_state(last) if last else None
    state = status.get("state") or {}
    if "running" in state:
        record.state = Terminated(
            LOST_EXIT_CODE,
            "ContainerStatusUnknown",
            parse_time(state["running"].get("startedAt")),
            None,
            status.get("containerID", ""),
            message="The container ended while its kubelet was away.",
        )
    elif "terminated" in state:
        record.state = Terminated.from_state(state["terminated"])
        record.container_id = status.get("containerID", "")
