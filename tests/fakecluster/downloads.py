"""Jobs and their pods, and the program in them: what the operator sees of downloads, in virtual time.

As the Job controller does: one pod at a time, made again after a back-off until `backoffLimit`, or given up at once by
`podFailurePolicy`. The program writes its progress as its log and its outcome as its termination message. A folder that
is complete takes it a second; a pod that is deleted keeps what it has fetched.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fakecluster.api_server import ApiServer, Event
from fakecluster.controller import Controller, Key, Timers
from fakecluster.objects import (
    controlled_by,
    controller_reference,
    copied,
    is_deleting,
    is_true,
    labels_of,
    with_condition,
)
from moe_operator.api import names
from moe_operator.api.times import format_time
from moe_operator.catalog.weights_layout import EXIT_CODES, Reason
from moe_operator.controller.kube import JOB, POD, NotFoundError, Obj
from moe_operator.resources.weights_job import claim_of
from moe_operator.resources.weights_remove import removed_entries

#: Seconds from a bound pod to its running container, and of a program that finds all done.
_START, _CHECK = 1.0, 1.0
_BACKOFF = 10.0


@dataclass
class Hub:
    """The source of all weights, and the storage that they go to."""

    seconds: float = 60.0
    """Of a whole download."""
    total_bytes: int = 400_000_000_000
    commit: str = "c" * 40
    failure: tuple[Reason, str] | None = None
    """How downloads end that begin from now on."""
    removal_seconds: float = 3.0
    """Of a removal."""
    removal_failure: tuple[Reason, str] | None = None
    """How removals end from now on."""
    fetched: dict[tuple[str, str], int] = field(default_factory=dict)
    """Bytes by claim and entry."""
    served_bytes: int = 0
    """Given out in all."""


@dataclass
class _Run:
    """A program in a pod."""

    began: float
    have: int
    """Bytes that were there when it began."""
    fails: bool = False
    """It gets no byte further."""


class Downloads(Controller):
    """The Job controller, and the kubelets as far as pods of Jobs are concerned."""

    latency = 0.05

    def __init__(self, server: ApiServer, timers: Timers) -> None:
        super().__init__(server, timers)
        self.hub = Hub()
        self._runs: dict[str, _Run] = {}
        self._number = 0

    def keys(self, event: Event) -> Iterable[Key]:
        meta = event.obj["metadata"]
        if event.kind == JOB:
            yield (meta["namespace"], meta["name"])
        elif event.kind == POD and (name := labels_of(event.obj).get(names.LABEL_JOB)):
            if event.type == "DELETED":
                self._stop(event.obj)
            yield (meta["namespace"], name)

    def sync(self, key: Key) -> None:
        job = self.server.get(JOB, *key)
        for pod in self.server.list(POD, key[0], f"{names.LABEL_JOB}={key[1]}"):
            self._pod(pod)
        if job is None or is_deleting(job) or is_true(job, "Complete") or is_true(job, "Failed"):
            return
        uid = job["metadata"]["uid"]
        pods = [
            p for p in self.server.list(POD, key[0], f"{names.LABEL_JOB}={key[1]}") if controlled_by(p, uid)
        ]
        if any(_phase(p) == "Succeeded" for p in pods):
            self._end(job, "Complete", "")
            return
        failed = [p for p in pods if _phase(p) == "Failed"]
        rules = job["spec"]["podFailurePolicy"]["rules"]
        final = {c for r in rules if r["action"] == "FailJob" for c in r["onExitCodes"]["values"]}
        if any(_exit_code(p) in final for p in failed):
            self._end(job, "Failed", "Container failed with an exit code that fails the Job")
        elif len(failed) > job["spec"]["backoffLimit"]:
            self._end(job, "Failed", "Job has reached the specified backoff limit")
        elif not any(_phase(p) not in ("Failed", "Succeeded") for p in pods):
            self.timers.after(_BACKOFF * len(failed), lambda: self._make_pod(job))

    def logs(self, pod: Obj) -> str:
        """The last lines of the program's output."""
        run = self._runs.get(pod["metadata"]["uid"])
        if run is None or run.fails:
            return ""
        line = {
            "phase": "download",
            "bytes": self._bytes(run),
            "totalBytes": self.hub.total_bytes,
            "commit": self.hub.commit,
        }
        return json.dumps(line) + "\n"

    # --- inside -----------------------------------------------------------------------------------

    def _make_pod(self, job: Obj) -> None:
        meta = job["metadata"]
        live = self.server.get(JOB, meta["namespace"], meta["name"])
        if live is None or live["metadata"]["uid"] != meta["uid"]:
            return
        alive = [
            p
            for p in self.server.list(POD, meta["namespace"])
            if controlled_by(p, meta["uid"]) and _phase(p) not in ("Failed", "Succeeded")
        ]
        if alive:
            return
        self._number += 1
        template = copied(job["spec"]["template"])
        self.server.create(
            POD,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{meta['name']}-{self._number:05d}",
                    "namespace": meta["namespace"],
                    "labels": {**labels_of(template), names.LABEL_JOB: meta["name"]},
                    "annotations": template["metadata"].get("annotations") or {},
                    "ownerReferences": [controller_reference(live)],
                },
                "spec": template["spec"],
            },
            self.name,
        )

    def _pod(self, pod: Obj) -> None:
        meta = pod["metadata"]
        if is_deleting(pod):
            self._stop(pod)
            try:
                self.server.delete(
                    POD, meta["namespace"], meta["name"], self.name, uid=meta["uid"], grace_seconds=0
                )
            except NotFoundError:
                return
        elif pod["spec"].get("nodeName") and _phase(pod) == "Pending" and meta["uid"] not in self._runs:
            self._runs[meta["uid"]] = _Run(self.server.clock(), self.hub.total_bytes)
            self.timers.after(_START, lambda: self._run(pod))

    def _run(self, pod: Obj) -> None:
        uid = pod["metadata"]["uid"]
        if uid not in self._runs:
            return
        if removed_entries(pod):
            self._runs[uid] = run = _Run(self.server.clock(), 0, fails=True)
            self._report(pod, "Running", {"running": {"startedAt": format_time(self.server.clock())}})
            self.timers.after(self.hub.removal_seconds, lambda: self._remove(pod, run))
            return
        have = self.hub.fetched.get(_place(pod), 0)
        failure = self.hub.failure
        self._runs[uid] = run = _Run(self.server.clock(), have, failure is not None)
        state = {"running": {"startedAt": format_time(self.server.clock())}}
        self._report(pod, "Running", state)
        missing = 1 - have / self.hub.total_bytes
        wait = _CHECK if failure or not missing else self.hub.seconds * missing
        self.timers.after(wait, lambda: self._finish(pod, run, failure))

    def _bytes(self, run: _Run) -> int:
        passed = (self.server.clock() - run.began) / self.hub.seconds
        return min(self.hub.total_bytes, run.have + int(self.hub.total_bytes * passed))

    def _stop(self, pod: Obj) -> None:
        """Told to end, or killed: what was fetched is kept."""
        run = self._runs.pop(pod["metadata"]["uid"], None)
        if run is not None and not run.fails:
            self._keep(pod, run, self._bytes(run))

    def _keep(self, pod: Obj, run: _Run, got: int) -> None:
        self.hub.served_bytes += got - run.have
        self.hub.fetched[_place(pod)] = got

    def _finish(self, pod: Obj, run: _Run, failure: tuple[Reason, str] | None) -> None:
        if self._runs.get(pod["metadata"]["uid"]) is not run:
            return
        if failure is None:
            self._keep(pod, run, self.hub.total_bytes)
        del self._runs[pod["metadata"]["uid"]]
        self._ended(pod, failure, self.hub.fetched.get(_place(pod), 0))

    def _remove(self, pod: Obj, run: _Run) -> None:
        uid = pod["metadata"]["uid"]
        if self._runs.get(uid) is not run:
            return
        del self._runs[uid]
        failure, freed = self.hub.removal_failure, 0
        for entry in () if failure else removed_entries(pod):
            place = (str(claim_of(pod)), entry)
            if place in [_place(p) for p in self.server.list(POD) if p["metadata"]["uid"] in self._runs]:
                failure = (Reason.BUSY, f"{entry}: another process works on it")
            else:
                freed += self.hub.fetched.pop(place, 0)
        self._ended(pod, failure, freed)

    def _ended(self, pod: Obj, failure: tuple[Reason, str] | None, size: int) -> None:
        """The program says how it ended."""
        reason, text = failure or (Reason.COMPLETE, "")
        message = {"reason": reason, "message": text, "commit": self.hub.commit, "bytes": size}
        ended = {
            "exitCode": EXIT_CODES[reason],
            "reason": "Completed" if failure is None else "Error",
            "message": json.dumps(message),
            "finishedAt": format_time(self.server.clock()),
        }
        self._report(pod, "Failed" if failure else "Succeeded", {"terminated": ended})

    def _report(self, pod: Obj, phase: str, state: dict[str, Any]) -> None:
        container = {"name": names.FETCH_CONTAINER, "restartCount": 0, "ready": False, "state": state}
        self.server.set_status(POD, pod, {"phase": phase, "containerStatuses": [container]}, self.name)

    def _end(self, job: Obj, type_: str, message: str) -> None:
        now = self.server.clock()
        conditions = with_condition(job, type_, "True", now, message=message)
        self.server.set_status(JOB, job, {"conditions": conditions}, self.name)


def _phase(pod: Obj) -> str:
    return (pod.get("status") or {}).get("phase") or "Pending"


def _exit_code(pod: Obj) -> int:
    return int(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"])


def _place(pod: Obj) -> tuple[str, str]:
    """Claim and folder that a pod fills."""
    volumes = pod["spec"]["volumes"]
    claim = next(v["persistentVolumeClaim"]["claimName"] for v in volumes if v.get("persistentVolumeClaim"))
    return claim, labels_of(pod).get(names.LABEL_WEIGHTS, "")
