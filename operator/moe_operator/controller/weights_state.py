"""What the Job that downloads weights, its pods and the program's words mean. Pure: objects in, a view out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from moe_operator.api import names, reasons
from moe_operator.api.status import WeightsStatus
from moe_operator.api.times import parse_time
from moe_operator.catalog.weights_layout import Reason
from moe_operator.controller.conditions import Said
from moe_operator.resources.weights_fetch import read_message

#: Of how the program ended, in the status.
_REASONS = {
    Reason.UNAUTHORIZED: reasons.WEIGHTS_UNAUTHORIZED,
    Reason.NOT_FOUND: reasons.WEIGHTS_NOT_FOUND,
    Reason.BAD_SOURCE: reasons.WEIGHTS_BAD_SOURCE,
    Reason.BAD_CACHE: reasons.WEIGHTS_BAD_CACHE,
    Reason.UNREACHABLE: reasons.WEIGHTS_UNREACHABLE,
    Reason.CORRUPT: reasons.WEIGHTS_CORRUPT,
    Reason.DISK_FULL: reasons.WEIGHTS_DISK_FULL,
}
STARTS = "the download is about to begin"
"""What is said while nothing is known of a Job's pod."""
#: Seconds until a failed Job is made again. A Secret cannot be watched with the operator's rights, so what it may
#: mend is tried soon: such a try costs one request.
_AGAIN_SOON, _AGAIN = 30.0, 60.0
FAILURES = frozenset({*_REASONS.values(), reasons.WEIGHTS_FAILED})
"""Reasons for which a download has failed."""
_SOON = {reasons.WEIGHTS_UNAUTHORIZED, reasons.WEIGHTS_NOT_FOUND, reasons.WEIGHTS_BAD_SOURCE}


class Phase(StrEnum):
    """Of a download."""

    WAITING = "Waiting"
    """There is no Job, or its pod does not run."""
    RUNNING = "Running"
    FAILED = "Failed"
    DONE = "Done"


@dataclass(frozen=True)
class Outcome:
    """How a pod of the program ended, in its own words."""

    reason: Reason
    message: str = ""
    commit: str | None = None
    bytes: int = 0

    @property
    def complete(self) -> bool:
        return self.reason == Reason.COMPLETE

    @property
    def failure(self) -> tuple[str, str]:
        """A constant of `api.reasons`, and the message."""
        return _REASONS.get(self.reason, reasons.WEIGHTS_FAILED), self.message


@dataclass(frozen=True)
class Progress:
    """How far a running download is."""

    bytes: int = 0
    total_bytes: int = 0
    commit: str | None = None

    @property
    def percent(self) -> int:
        return min(100, 100 * self.bytes // self.total_bytes) if self.total_bytes else 0


@dataclass(frozen=True)
class Download:
    """Where a download stands."""

    phase: Phase
    reason: str = reasons.WEIGHTS_WAITING
    message: str = ""
    pod: str | None = None
    """The pod that runs, whose log tells more."""
    outcome: Outcome | None = None
    finished_at: float | None = None
    """When the Job ended."""

    @property
    def retry_after(self) -> float:
        """Seconds from the end of a failed Job to the next."""
        return _AGAIN_SOON if self.reason in _SOON else _AGAIN


@dataclass(frozen=True)
class WeightsView:
    """Where the weights of a revision stand."""

    said: Said
    status: WeightsStatus | None = None
    hold: bool = False
    """Whether groups must wait: their engines would find nothing."""
    most_groups: int | None = None
    """Groups of the wanted revision that can mount the weights; None: as many as are wanted."""
    stalled: bool = False
    """Whether only somebody else can help, and fewer groups than must serve can be made until then."""
    again: float | None = None
    """Seconds until it is worth another look."""


def read_outcome(text: str | None) -> Outcome | None:
    """From a termination message or an annotation; None where the program wrote none."""
    found = read_message(text or "")
    if found is None or found.get("reason") not in set(Reason):
        return None
    return Outcome(
        reason=Reason(found["reason"]),
        message=str(found.get("message") or "")[:1024],
        commit=found.get("commit") or None,
        bytes=_whole(found.get("bytes")),
    )


def read_progress(log: str) -> Progress | None:
    """From the last lines of the program's output."""
    found = read_message(log)
    if found is None or "totalBytes" not in found:
        return None
    return Progress(_whole(found.get("bytes")), _whole(found.get("totalBytes")), found.get("commit") or None)


def download(job: Mapping[str, Any] | None, pods: Iterable[Mapping[str, Any]]) -> Download:
    """Where the download of a shared claim stands. `pods`: of the Job."""
    if job is None:
        return Download(Phase.WAITING, message=STARTS)
    newest = max(pods, key=_age, default=None)
    annotations = job["metadata"].get("annotations") or {}
    outcome = read_outcome(annotations.get(names.ANNOTATION_OUTCOME)) or _outcome_of(newest)
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("status") != "True":
            continue
        at = parse_time(condition.get("lastTransitionTime"))
        if condition["type"] == "Complete":
            return Download(Phase.DONE, reasons.WEIGHTS_CACHED, outcome=outcome, finished_at=at)
        if condition["type"] == "Failed":
            reason, message = _why(outcome, newest, condition.get("message") or "the Job failed")
            return Download(Phase.FAILED, reason, message, outcome=outcome, finished_at=at)
    if newest is not None and (newest.get("status") or {}).get("phase") == "Running":
        return Download(Phase.RUNNING, reasons.WEIGHTS_DOWNLOADING, pod=newest["metadata"]["name"])
    if outcome is not None and not outcome.complete and outcome.reason != Reason.INTERRUPTED:
        reason, message = outcome.failure
        return Download(Phase.WAITING, reason, message)
    return Download(Phase.WAITING, message=_waits_for(newest))


def download_on_nodes(pods: Iterable[Mapping[str, Any]]) -> Download:
    """Where the downloads of the nodes stand, by the containers that run before the engines."""
    running, done, failed = [], [], []
    for pod in pods:
        status = _container(pod, "initContainerStatuses")
        state = status.get("state") or {}
        ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated")
        if "running" in state:
            running.append(pod["metadata"]["name"])
        elif (state.get("terminated") or {}).get("exitCode") == 0:
            done.append(pod)
        elif ended and ended.get("exitCode") != 0:
            failed.append((pod, read_outcome(ended.get("message"))))
    if failed:
        pod, outcome = failed[0]
        where = f"on node {(pod.get('spec') or {}).get('nodeName')}: "
        reason, message = outcome.failure if outcome else (reasons.WEIGHTS_FAILED, _log_hint(pod))
        return Download(Phase.FAILED, reason, where + message, outcome=outcome)
    if running:
        return Download(Phase.RUNNING, reasons.WEIGHTS_DOWNLOADING, pod=running[0])
    if done:
        outcome = _outcome_of(done[0], "initContainerStatuses")
        return Download(Phase.DONE, reasons.WEIGHTS_CACHED, outcome=outcome)
    return Download(Phase.WAITING, reasons.NODES_DOWNLOAD)


def _why(outcome: Outcome | None, pod: Mapping[str, Any] | None, fallback: str) -> tuple[str, str]:
    if outcome is not None and not outcome.complete:
        return outcome.failure
    return reasons.WEIGHTS_FAILED, _log_hint(pod) if pod is not None else fallback


def _log_hint(pod: Mapping[str, Any]) -> str:
    name = pod["metadata"]["name"]
    return (
        f"the program in pod {name} ended without saying why: kubectl logs {name} -c {names.FETCH_CONTAINER}"
    )


def _outcome_of(pod: Mapping[str, Any] | None, where: str = "containerStatuses") -> Outcome | None:
    if pod is None:
        return None
    return read_outcome(((_container(pod, where).get("state") or {}).get("terminated") or {}).get("message"))


def _container(pod: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    for status in (pod.get("status") or {}).get(where) or []:
        if status.get("name") == names.FETCH_CONTAINER:
            return status  # type: ignore[no-any-return]
    return {}


def _waits_for(pod: Mapping[str, Any] | None) -> str:
    if pod is None:
        return STARTS
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"pod {name} finds no node: {condition.get('message') or condition.get('reason')}"
    state = _container(pod, "containerStatuses").get("state") or {}
    if (
        (ended := state.get("terminated"))
        and ended.get("exitCode")
        and read_outcome(ended.get("message")) is None
    ):
        words = " ".join((ended.get("message") or "").split())[-300:]
        return f"pod {name} ended with code {ended['exitCode']} ({ended.get('reason')}): {words}".rstrip(": ")
    waiting = state.get("waiting") or {}
    if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
        return f"pod {name}: {waiting['reason']}: {waiting.get('message') or ''}".rstrip(": ")
    return STARTS


def _age(pod: Mapping[str, Any]) -> tuple[str, str]:
    return (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"])


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and value >= 0 else 0
