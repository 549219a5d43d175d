"""Kubelets: run the engines of the pods bound to their nodes, and report what becomes of them.

As measured on a real one: a container that ends is restarted in place with restartCount + 1 and lastState, the second
restart and later ones after a back-off; readiness follows the probe (every second, out after two misses); a pod that is
deleted gets SIGTERM, then SIGKILL when its grace is over, and its object goes last. A kubelet on a silent node does
nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from fakecluster.api_server import ApiServer, Event
from fakecluster.controller import Controller, Key, Timers
from fakecluster.engines import Engine, Engines, State
from fakecluster.lws import group_of
from fakecluster.objects import copied, is_deleting, labels_of, with_condition
from moe_operator.api import names
from moe_operator.api.times import format_time, parse_time
from moe_operator.controller.kube import LEADER_WORKER_SET, POD, NotFoundError, Obj

#: Seconds from a bound pod to its running containers, with the image there.
CONTAINER_START = 1.0
#: Seconds until the probe has seen an engine that came up, and one that went.
PROBE_UP, PROBE_DOWN = 1.0, 2.5
#: Seconds that an engine takes to end after SIGTERM when it has no requests.
SHUTDOWN = 1.0
#: Restarts of a container in place: delay of the second, doubled up to five minutes.
RESTART_BACKOFF, LONGEST_BACKOFF = 10.0, 300.0


@dataclass
class _Pod:
    """What the kubelets know of one pod."""

    restarts: int = 0
    last_state: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    ready: bool = False
    created: bool = False
    term_sent_at: float | None = None
    log: str = ""
    printed: str = ""
    """To standard error of the engine that runs, before its last words."""


class Kubelets(Controller):
    """All kubelets of the cluster."""

    latency = 0.05

    def __init__(
        self, server: ApiServer, timers: Timers, engines: Engines, alive: Callable[[str], bool]
    ) -> None:
        super().__init__(server, timers)
        self._engines = engines
        self._alive = alive
        self._pods: dict[str, _Pod] = {}
        self._addresses = 0
        self.bad_images: set[str] = set()
        engines.changed = self._engine_changed
        engines.ended = self._engine_ended

    def keys(self, event: Event) -> Iterable[Key]:
        if event.kind != POD or not _has_engine(event.obj):
            return
        if event.type == "DELETED":
            # Force-deleted: the process goes too as soon as the node hears of it.
            uid = event.obj["metadata"]["uid"]
            self._pods.pop(uid, None)
            self._engines.remove(uid)
        elif event.obj["spec"].get("nodeName"):
            yield (event.obj["metadata"]["namespace"], event.obj["metadata"]["name"])

    def print(self, pod: Obj, text: str) -> None:
        """The pod's engine writes to standard error."""
        self._pods[pod["metadata"]["uid"]].printed += text

    def logs(self, namespace: str, pod: str, previous: bool) -> str:
        """What `kubectl logs` would give."""
        obj = self.server.get(POD, namespace, pod)
        known = self._pods.get(obj["metadata"]["uid"]) if obj else None
        return known.log if known and previous else ""

    def wake_node(self, node: str) -> None:
        """A node is back: look at its pods again."""
        for pod in self.server.list(POD):
            if pod["spec"].get("nodeName") == node and _has_engine(pod):
                self.again((pod["metadata"]["namespace"], pod["metadata"]["name"]))

    def sync(self, key: Key) -> None:
        pod = self.server.get(POD, *key)
        if pod is None or not pod["spec"].get("nodeName") or not self._alive(pod["spec"]["nodeName"]):
            return
        known = self._pods.setdefault(pod["metadata"]["uid"], _Pod())
        if is_deleting(pod):
            self._terminate(pod, known)
        elif not known.created:
            self._create(pod, known)
        else:
            self._probe(pod, known)

    # --- life of a pod ----------------------------------------------------------------------------

    def _create(self, pod: Obj, known: _Pod) -> None:
        known.created = True
        image = _engine_container(pod)["image"]
        if image in self.bad_images:
            known.state = {
                "waiting": {"reason": "ErrImagePull", "message": f"failed to pull {image}: not found"}
            }
            self._report(pod, known)
            self.timers.after(
                5.0, lambda: self._waiting(pod, "ImagePullBackOff", f"Back-off pulling image {image}")
            )
            return
        known.state = {"waiting": {"reason": "ContainerCreating"}}
        self._report(pod, known)
        self.timers.after(CONTAINER_START, lambda: self._run(pod))

    def _waiting(self, pod: Obj, reason: str, message: str) -> None:
        live = self._live(pod)
        if live is not None:
            known = self._pods[pod["metadata"]["uid"]]
            known.state = {"waiting": {"reason": reason, "message": message}}
            self._report(live, known)

    def _run(self, pod: Obj) -> None:
        live = self._live(pod)
        if live is None or is_deleting(live):
            return
        uid = live["metadata"]["uid"]
        known = self._pods[uid]
        if not (live.get("status") or {}).get("podIP"):
            self._addresses += 1
            address = f"10.244.{self._addresses // 250}.{self._addresses % 250 + 1}"
            self.server.set_status(POD, live, {"podIP": address, "phase": "Running"}, self.name)
            live = self.server.get(POD, live["metadata"]["namespace"], live["metadata"]["name"])
            assert live is not None
        known.state = {"running": {"startedAt": format_time(self.server.clock())}}
        group = group_of(live)
        size = 1
        if group is not None:
            lws = self.server.get(LEADER_WORKER_SET, *group)
            size = lws["spec"]["leaderWorkerTemplate"]["size"] if lws else 0
        self._report(live, known)
        probe = _engine_container(live).get("readinessProbe") or {}
        self._engines.start(
            Engine(
                pod_uid=uid,
                pod=live["metadata"]["name"],
                namespace=live["metadata"]["namespace"],
                group=group[1] if group else "",
                index=int(labels_of(live).get(names.LWS_LABEL_WORKER_INDEX, "0")),
                size=size,
                ip=live["status"]["podIP"],
                node=live["spec"]["nodeName"],
                restarts=known.restarts,
                agent=(probe.get("httpGet") or {}).get("path") == "/moe/v1/ready",
                verifier=(live["metadata"].get("annotations") or {}).get(names.ANNOTATION_AGENT_VERIFIER, ""),
                started_at=self.server.clock(),
            )
        )

    def _engine_ended(self, engine: Engine, code: int, reason: str, message: str) -> None:
        if not self._alive(engine.node):
            return
        pod = self.server.get(POD, engine.namespace, engine.pod)
        if pod is None or pod["metadata"]["uid"] != engine.pod_uid or is_deleting(pod):
            return
        known = self._pods[engine.pod_uid]
        now = self.server.clock()
        known.last_state = {
            "terminated": {
                "exitCode": code,
                "reason": reason,
                "message": message,
                "startedAt": format_time(engine.started_at),
                "finishedAt": format_time(now),
            }
        }
        known.log = known.printed + message
        known.state = copied(known.last_state)
        known.ready = False
        wait = (
            0.5 if known.restarts == 0 else min(LONGEST_BACKOFF, RESTART_BACKOFF * 2 ** (known.restarts - 1))
        )
        self._report(pod, known)
        if wait > 1:
            self.timers.after(1.0, lambda: self._waiting(pod, "CrashLoopBackOff", f"back-off {wait:.0f}s"))

        def restart() -> None:
            if self._live(pod) is not None:
                known.restarts += 1
                self._run(pod)

        self.timers.after(wait, restart)

    def _terminate(self, pod: Obj, known: _Pod) -> None:
        meta = pod["metadata"]
        engine = self._engines.by_pod.get(meta["uid"])
        now = self.server.clock()
        if known.term_sent_at is None:
            known.term_sent_at = now
        kill_at = parse_time(meta["deletionTimestamp"]) or now
        running = engine is not None and engine.state is not State.DEAD
        if running and engine is not None:
            self._engines.count(engine)
            deaf = engine.hung or engine.running > 0
            end_at = kill_at if deaf else min(kill_at, known.term_sent_at + SHUTDOWN)
            if now < end_at:
                self.again((meta["namespace"], meta["name"]), min(end_at - now, 1.0))
                return
            self._engines.end(engine, 137 if deaf else 0, "Error" if deaf else "Completed")
        self._engines.remove(meta["uid"])
        if meta.get("deletionGracePeriodSeconds") != 0 or not meta.get("finalizers"):
            try:
                self.server.delete(
                    POD, meta["namespace"], meta["name"], self.name, uid=meta["uid"], grace_seconds=0
                )
            except NotFoundError:
                return

    # --- readiness --------------------------------------------------------------------------------

    def _engine_changed(self, engine: Engine) -> None:
        good = self._answers(engine)
        self.again((engine.namespace, engine.pod), PROBE_UP if good else PROBE_DOWN)

    def _answers(self, engine: Engine) -> bool:
        """What the readiness probe would get."""
        if engine.agent:
            return self._engines.whole(engine)
        return engine.state is State.UP

    def _probe(self, pod: Obj, known: _Pod) -> None:
        engine = self._engines.by_pod.get(pod["metadata"]["uid"])
        ready = engine is not None and "running" in known.state and self._answers(engine)
        if ready != known.ready:
            known.ready = ready
            self._report(pod, known)
        elif ready != _reported_ready(pod):
            self._report(pod, known)

    def _live(self, pod: Obj) -> Obj | None:
        """The pod as it is now, if it is still this one and its node is there."""
        meta = pod["metadata"]
        live = self.server.get(POD, meta["namespace"], meta["name"])
        if (
            live is None
            or live["metadata"]["uid"] != meta["uid"]
            or not self._alive(live["spec"]["nodeName"])
        ):
            return None
        return live

    def _report(self, pod: Obj, known: _Pod) -> None:
        now = self.server.clock()
        ready = "True" if known.ready else "False"
        conditions = with_condition(
            pod, "Ready", ready, now, reason="" if known.ready else "ContainersNotReady"
        )
        container = {
            "name": names.ENGINE_CONTAINER,
            "restartCount": known.restarts,
            "ready": known.ready,
            "state": copied(known.state),
            "lastState": copied(known.last_state),
        }
        began = known.restarts > 0 or "running" in known.state or "terminated" in known.state
        status = {
            "phase": "Running" if began else "Pending",
            "conditions": conditions,
            "containerStatuses": [container],
        }
        self.server.set_status(POD, pod, status, self.name)


def _has_engine(pod: Obj) -> bool:
    return any(c["name"] == names.ENGINE_CONTAINER for c in pod["spec"]["containers"])


def _engine_container(pod: Obj) -> dict[str, Any]:
    return next(c for c in pod["spec"]["containers"] if c["name"] == names.ENGINE_CONTAINER)


def _reported_ready(pod: Obj) -> bool:
    return any(
        c["type"] == "Ready" and c["status"] == "True"
        for c in (pod.get("status") or {}).get("conditions") or []
    )
