"""What must hold at every moment, whatever goes wrong. Checked at every write and every half second."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fakecluster.api_server import Event, Write
from fakecluster.engines import Engine, State
from fakecluster.objects import is_deleting, labels_of
from fakecluster.world import World
from moe_operator.api import names
from moe_operator.controller.kube import (
    COMPUTE_DOMAIN,
    EVENT,
    JOB,
    LEADER_WORKER_SET,
    LEASE,
    MODEL_DEPLOYMENT,
    POD,
    Obj,
)

_MANAGERS = {names.FIELD_MANAGER, names.STATUS_FIELD_MANAGER}
#: Seconds for which a Service may still point to half a group: probes take two misses of a second each.
BROKEN_ENDPOINT_LIMIT = 5.0
#: Seconds within which the operator may still act upon what was true before.
KNOWLEDGE_LAG = 5.0
_PERIOD = 0.5


@dataclass
class Invariants:
    """Collects violations; `check` raises them."""

    world: World
    operator_leads: Callable[[], bool]
    """Whether an operator works at this moment."""
    lag: float = 0.0
    """Further seconds by which the operator's knowledge may be behind (delayed watches)."""
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._broken_for: dict[str, float] = {}
        self._labelled_for: dict[str, float] = {}
        self._allowed: list[tuple[float, dict[str, int]]] = []
        self._last_whole: dict[tuple[str, int], float] = {}
        self.world.server.listeners.append(self._event)
        self.world.server.write_listeners.append(self._write)
        self.world.timers.every(_PERIOD, self._tick)

    def check(self) -> None:
        """Raises AssertionError with everything that was violated."""
        assert not self.violations, "\n".join(self.violations)

    def _broke(self, text: str) -> None:
        self.violations.append(f"{self.world.clock.elapsed:9.3f} {text}")

    # --- at every event ---------------------------------------------------------------------------

    def _event(self, event: Event) -> None:
        if event.kind == POD and event.type == "MODIFIED":
            before = labels_of(event.before) if event.before else {}
            on = labels_of(event.obj).get(names.LABEL_TRAFFIC) == names.TRAFFIC_ON
            if on and before.get(names.LABEL_TRAFFIC) != names.TRAFFIC_ON:
                self._admitted(event.obj)
        elif event.kind == LEADER_WORKER_SET and event.type == "ADDED":
            self._group_count(event.obj)

    def _admitted(self, pod: Obj) -> None:
        """Nobody is routed to a group that was not whole, or that gave no token in this incarnation."""
        name = pod["metadata"]["name"]
        engine = self.world.engines.by_pod.get(pod["metadata"]["uid"])
        if engine is None:
            self._broke(f"pod {name} got the traffic label though no engine runs in it")
            return
        if not self.world.engines.whole(engine):
            seen = self._last_whole.get(engine.identity)
            if seen is None or self.world.clock() - seen > KNOWLEDGE_LAG + self.lag:
                self._broke(
                    f"pod {name} got the traffic label though its group is not whole: {_states(engine)}"
                )
        late = [e.pod for e in engine.cohort if not e.canary_passed]
        if late or not engine.cohort:
            self._broke(f"pod {name} got the traffic label before a canary passed in {late or name}")

    def _group_count(self, lws: Obj) -> None:
        """A deployment never has more groups that are meant to live than it may."""
        namespace = lws["metadata"]["namespace"]
        owner = labels_of(lws).get(names.LABEL_DEPLOYMENT, "")
        selector = f"{names.LABEL_DEPLOYMENT}={owner}"
        live = [
            o
            for o in self.world.server.list(LEADER_WORKER_SET, namespace, selector)
            if not is_deleting(o)
            and names.ANNOTATION_DRAINING not in (o["metadata"].get("annotations") or {})
        ]
        limit = self._limit(namespace, owner)
        if limit is not None and len(live) > limit:
            self._broke(
                f"{len(live)} groups of {owner} at once, {limit} are allowed: {[o['metadata']['name'] for o in live]}"
            )

    def _limit(self, namespace: str, name: str) -> int | None:
        """Wanted groups and surge; the largest of the last seconds, as the operator learns of changes late."""
        now = self.world.clock()
        key = f"{namespace}/{name}"
        self._note_limits()
        recent = [
            limits[key]
            for at, limits in self._allowed
            if now - at <= KNOWLEDGE_LAG + self.lag and key in limits
        ]
        return max(recent) if recent else None

    def _note_limits(self) -> None:
        now = self.world.clock()
        limits = {}
        for obj in self.world.server.list(MODEL_DEPLOYMENT):
            spec = obj["spec"]
            scaling = spec["scaling"]
            wanted = (
                spec["replicas"]
                if scaling["mode"] != "Auto"
                else scaling.get("maxGroups", scaling["minGroups"])
            )
            surge = spec["rollout"]["maxSurge"]
            chosen = ((obj.get("status") or {}).get("scaling") or {}).get("chosenWidth")
            if chosen is not None and scaling["mode"] == "Auto":
                # As many as have no more GPUs, of those that go or that come, and room for those that go.
                wanted = wanted * chosen["planned"] // min(chosen["gpus"], chosen["before"])
                surge *= max(1, chosen["before"] // chosen["gpus"])
            wanted = max([wanted, *(s["minGroups"] for s in scaling.get("schedules") or [])])
            limits[f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"] = wanted + surge
        self._allowed = [
            (at, one) for at, one in self._allowed if now - at <= KNOWLEDGE_LAG + self.lag + _PERIOD
        ]
        self._allowed.append((now, limits))

    # --- at every write ---------------------------------------------------------------------------

    def _write(self, write: Write) -> None:
        if write.manager not in _MANAGERS or write.kind in (EVENT, LEASE):
            return
        if write.kind == MODEL_DEPLOYMENT:
            # Its finalizer is the operator's own.
            finalizer = write.verb == "patch" and set(write.body) == {"metadata"}
            finalizer = finalizer and set(write.body["metadata"]) == {"uid", "resourceVersion", "finalizers"}
            if write.verb != "apply_status" and not finalizer:
                self._broke(f"the operator wrote to what is the user's: {write}")
            return
        if write.kind == LEADER_WORKER_SET and write.verb not in ("create", "delete"):
            touched = set(write.body) - {"metadata", "apiVersion", "kind"}
            fields = set(write.body.get("metadata") or {}) - {"labels", "annotations", "uid"}
            if write.verb != "patch" or touched or fields:
                self._broke(f"a group was written over: {write}")
        if write.before is None:
            if not self._ours(write.body):
                self._broke(f"an object without our owner reference was made: {write}")
        elif not self._ours(write.before):
            self._broke(f"an object that is not ours was written to: {write}")

    def _ours(self, obj: Obj) -> bool:
        owners = [r for r in obj["metadata"].get("ownerReferences") or [] if r["kind"] == names.KIND]
        # A ComputeDomain and a Job are shared: their owners do not control them.
        shared = obj.get("kind") in (COMPUTE_DOMAIN.kind, JOB.kind)
        if any(r.get("controller") or shared for r in owners):
            return True
        # Pods belong to LeaderWorkerSet's StatefulSets; their group is ours.
        group = self.world.server.get(
            LEADER_WORKER_SET, obj["metadata"].get("namespace"), labels_of(obj).get(names.LABEL_GROUP, "")
        )
        if group is not None:
            return self._ours(group)
        # Weights outlive their deployments, so the claim has no owner.
        ownerless = obj.get("kind") in ("Pod", "PersistentVolumeClaim")
        return ownerless and labels_of(obj).get(names.LABEL_MANAGED_BY) == names.MANAGED_BY

    # --- every half second ------------------------------------------------------------------------

    def _tick(self) -> None:
        self._note_limits()
        engines, now = self.world.engines, self.world.clock()
        operator = self.operator_leads()
        broken: dict[str, float] = {}
        labelled: dict[str, float] = {}
        for uid, engine in engines.by_pod.items():
            whole = engines.whole(engine)
            if whole:
                self._last_whole[engine.identity] = now
                continue
            # Its own kubelet cannot take a pod out whose node is silent; only the operator can.
            silent = not engines.reachable(engine.node)
            if (
                self.world.endpoints.serves(uid)
                and not (silent and not operator)
                and not _alone(engine, engines.reachable)
            ):
                broken[uid] = self._broken_for.get(uid, now)
                since = now - broken[uid]
                if since > BROKEN_ENDPOINT_LIMIT + (self.lag if silent else 0.0):
                    self._broke(
                        f"a Service points to pod {engine.pod} of half a group for {since:.1f} s: {_states(engine)}"
                    )
            pod = self.world.server.get(POD, engine.namespace, engine.pod)
            carries = pod is not None and labels_of(pod).get(names.LABEL_TRAFFIC) == names.TRAFFIC_ON
            if (
                carries
                and operator
                and pod is not None
                and not is_deleting(pod)
                and not _alone(engine, engines.reachable)
            ):
                labelled[uid] = self._labelled_for.get(uid, now)
                if now - labelled[uid] > BROKEN_ENDPOINT_LIMIT + self.lag:
                    self._broke(
                        f"pod {engine.pod} of half a group carries the traffic label for {now - labelled[uid]:.1f} s"
                    )
        self._broken_for, self._labelled_for = broken, labelled


def _alone(engine: Engine, reachable: Callable[[str], bool]) -> bool:
    """Every pod of the group is on a silent node: nobody can know before the node's heartbeat is missed."""
    return bool(engine.cohort) and all(not reachable(e.node) for e in engine.cohort)


def _states(engine: Engine) -> str:
    return ", ".join(
        f"{e.pod} {'Hung' if e.hung and e.state is State.UP else e.state}" for e in engine.cohort or (engine,)
    )
