"""A pod's status from its containers' records: phase, conditions, and what to write. Pure.

The rules are a kubelet's: which containers make a pod Pending, Running, Succeeded or Failed, and when it is Ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from localcluster.kubelet.records import Record, Running, Terminated, Waiting

Obj = dict[str, Any]
#: Conditions that a kubelet owns; all others belong to whoever wrote them (readiness gates).
OWNED = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


@dataclass(frozen=True)
class Sandbox:
    """What of the pod itself shows in its status. Times in Kubernetes' format."""

    ready: bool
    pod_ip: str
    host_ip: str
    start_time: str
    #: Set when the kubelet itself ended the pod: (reason, message), for example DeadlineExceeded.
    failed: tuple[str, str] | None = None


def phase(pod: Obj, records: Sequence[Record], *, terminal: bool) -> str:
    """``terminal``: no container will ever start again, whatever the restart policy says."""
    policy = pod["spec"].get("restartPolicy", "Always")
    pending_init = failed_init = running = waiting = stopped = succeeded = 0
    for record in records:
        done = record.finished
        if record.kind == "init":
            if isinstance(record.state, Terminated):
                failed_init += record.state.exit_code != 0
            else:
                pending_init += not (isinstance(record.state, Waiting) and done and done.exit_code == 0)
        elif record.kind == "sidecar":
            running += record.running
            pending_init += not record.started and not isinstance(record.state, Terminated) and not done
        elif isinstance(record.state, Running):
            running += 1
        elif done is not None:
            stopped += 1
            succeeded += isinstance(record.state, Terminated) and done.exit_code == 0
        else:
            waiting += 1
    if failed_init and (policy == "Never" or terminal):
        return "Failed"
    if terminal and not running:
        return "Succeeded" if stopped and stopped == succeeded and not waiting else "Failed"
    if pending_init or failed_init or waiting:
        return "Pending"
    if running:
        return "Running"
    if policy == "Always":
        return "Running"
    if stopped == succeeded:
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def initialized(records: Sequence[Record]) -> list[str]:
    """Names of the init containers that still keep the main ones from starting."""
    left: list[str] = []
    for record in records:
        if record.kind == "init":
            done = record.finished
            if record.running or done is None or done.exit_code != 0:
                left.append(record.name)
        elif record.kind == "sidecar" and not record.started and not isinstance(record.state, Terminated):
            left.append(record.name)
    return left


def _condition(kind: str, status: bool, reason: str = "", message: str = "") -> Obj:
    out: Obj = {"type": kind, "status": "True" if status else "False"}
    if reason:
        out["reason"] = reason
    if message:
        out["message"] = message
    return out


def _names(names: list[str]) -> str:
    return "[" + " ".join(names) + "]"


def conditions(
    pod: Obj, records: Sequence[Record], now_phase: str, sandbox: Sandbox, been_initialized: bool
) -> list[Obj]:
    """The owned conditions but for their transition times."""
    out = [_condition("PodReadyToStartContainers", sandbox.ready)]
    left = [] if been_initialized else initialized(records)
    if now_phase == "Succeeded":
        out.append(_condition("Initialized", True, "PodCompleted"))
    elif left:
        message = f"containers with incomplete status: {_names(left)}"
        out.append(_condition("Initialized", False, "ContainersNotInitialized", message))
    else:
        out.append(_condition("Initialized", True))
    unready = [record.name for record in records if record.kind != "init" and not record.ready]
    if now_phase in ("Succeeded", "Failed"):
        containers = _condition(
            "ContainersReady", False, "PodCompleted" if now_phase == "Succeeded" else "PodFailed"
        )
    elif unready:
        message = f"containers with unready status: {_names(unready)}"
        containers = _condition("ContainersReady", False, "ContainersNotReady", message)
    else:
        containers = _condition("ContainersReady", True)
    out.append(_ready(pod, containers))
    out.append(containers)
    out.append(_condition("PodScheduled", True))
    return out


def _ready(pod: Obj, containers: Obj) -> Obj:
    if containers["status"] != "True":
        return {**containers, "type": "Ready"}
    present = {entry["type"]: entry["status"] for entry in (pod.get("status") or {}).get("conditions") or []}
    problems: list[str] = []
    for gate in pod["spec"].get("readinessGates") or []:
        kind = gate["conditionType"]
        if kind not in present:
            problems.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif present[kind] != "True":
            problems.append(f'the status of pod readiness gate "{kind}" is not "True", but {present[kind]}')
    if problems:
        return _condition("Ready", False, "ReadinessGatesNotReady", ", ".join(problems))
    return _condition("Ready", True)


def status(
    pod: Obj,
    records: Sequence[Record],
    sandbox: Sandbox,
    previous: Sequence[Obj],
    now: str,
    *,
    terminal: bool = False,
    been_initialized: bool = False,
) -> Obj:
    """The status to write. ``previous``: the owned conditions last written, which keep their transition times."""
    now_phase = "Failed" if sandbox.failed and terminal else phase(pod, records, terminal=terminal)
    old = {entry["type"]: entry for entry in previous}
    generation = pod["metadata"].get("generation")
    entries: list[Obj] = []
    for entry in conditions(pod, records, now_phase, sandbox, been_initialized):
        before = old.get(entry["type"])
        same = before is not None and before["status"] == entry["status"]
        entry["lastTransitionTime"] = before["lastTransitionTime"] if same and before is not None else now
        if generation is not None:
            entry["observedGeneration"] = generation
        entries.append(entry)
    out: Obj = {
        "phase": now_phase,
        "conditions": entries,
        "hostIP": sandbox.host_ip,
        "hostIPs": [{"ip": sandbox.host_ip}],
        "startTime": sandbox.start_time,
        "containerStatuses": [record.as_status() for record in records if record.kind == "main"],
    }
    if generation is not None:
        out["observedGeneration"] = generation
    inits = [record.as_status() for record in records if record.kind != "main"]
    if inits:
        out["initContainerStatuses"] = inits
    if sandbox.pod_ip:
        out |= {"podIP": sandbox.pod_ip, "podIPs": [{"ip": sandbox.pod_ip}]}
    out["reason"], out["message"] = sandbox.failed or (None, None)
    return out


def same(left: Obj | None, right: Obj | None) -> bool:
    """Whether two statuses say the same about everything a kubelet owns, as the API server would show it."""
    if left is None or right is None:
        return left is right
    return _normal(left) == _normal(right)


def _normal(status: Obj) -> Obj:
    kept = {
        key: status.get(key)
        for key in (
            "phase",
            "hostIP",
            "podIP",
            "reason",
            "message",
            "containerStatuses",
            "initContainerStatuses",
        )
        if status.get(key)
    }
    kept["conditions"] = sorted(
        (
            (entry["type"], entry["status"], entry.get("reason") or "", entry.get("message") or "")
            for entry in status.get("conditions") or []
            if entry["type"] in OWNED
        ),
    )
    cleaned: Obj = _without_empty(kept)
    return cleaned


def _without_empty(value: Any) -> Any:
    """The API server drops null and empty values and adds none that a kubelet does not set."""
    if isinstance(value, dict):
        cleaned = {key: _without_empty(item) for key, item in value.items()}
        return {
            key: item
            for key, item in cleaned.items()
            if item not in (None, "", {}, []) and key not in _SERVER_SIDE
        }
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value


#: Fields of a container's status that the API server or an older writer may show and this kubelet never sets.
_SERVER_SIDE = frozenset(
    {"volumeMounts", "resources", "allocatedResources", "user", "allocatedResourcesStatus"}
)
