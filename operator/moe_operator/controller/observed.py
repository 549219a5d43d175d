"""What a reconcile knows of the groups: facts read from plain objects, without any judgement.

Times are seconds since the epoch, as the API server wrote them.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from moe_operator.api import names
from moe_operator.api.times import parse_time

#: What every container waits for at first.
_STARTING = ("ContainerCreating", "PodInitializing")


_SERVED_NAME = "--served-model-name"


class NodeState(StrEnum):
    """What the node says of itself. UNKNOWN where nodes may not be read: then only pods tell."""

    READY = "Ready"
    NOT_READY = "NotReady"
    GONE = "Gone"
    UNKNOWN = "Unknown"


@dataclass(frozen=True)
class Leaving:
    """A node whose pods are to go."""

    why: str
    """In words: `is cordoned`."""
    soon: bool
    """It goes whether its pods have gone or not, within minutes."""


@dataclass(frozen=True)
class NodeCondition:
    """What a node says of itself, and what is said of it."""

    state: NodeState
    since: float | None = None
    """Since when it is in this state."""
    leaving: Leaving | None = None


@dataclass(frozen=True)
class Termination:
    """How the engine container ended."""

    exit_code: int
    reason: str
    message: str
    finished_at: float | None


@dataclass(frozen=True)
class EngineFacts:
    """State of the engine container of one pod."""

    restarts: int = 0
    running_since: float | None = None
    waiting_reason: str | None = None
    termination: Termination | None = None
    """The newest end: of the current state, else of the one before the last restart."""


@dataclass(frozen=True)
class Held:
    """A container that keeps its pod from coming up: the kubelet waits for something, or an init container ended."""

    container: str
    init: bool
    waiting_reason: str | None = None
    waiting_message: str = ""
    termination: Termination | None = None
    """The newest end, if there was one."""


@dataclass(frozen=True)
class PodFacts:
    """One pod of a group."""

    name: str
    uid: str
    index: int
    """Worker index in the group; the leader is 0."""
    ip: str | None
    node: str | None
    node_state: NodeState
    node_since: float | None
    """Since when the node is in this state."""
    node_leaving: Leaving | None
    """Whether the node is cordoned or about to go."""
    phase: str
    phase_message: str
    deleting: bool
    ready: bool
    unready_since: float | None
    unschedulable: str | None
    """The scheduler's message while it finds no place."""
    traffic: bool
    incarnation: str | None
    """The incarnation that was admitted with this pod in it."""
    engine: EngineFacts
    resource_version: str
    created_at: float | None = None
    scheduled_at: float | None = None
    """When it was given its node."""
    initialized_at: float | None = None
    """When its init containers were done; None while they are not, and where there are none."""
    ready_at: float | None = None
    """Since when it has been ready; None while it is not."""
    claims_pending: tuple[str, ...] = ()
    """ResourceClaimTemplates of which its claim has not been made yet."""
    grace: int | None = None
    """Seconds that a pod on its way out was given; None while it is not to go."""
    gates: tuple[str, ...] = ()
    """Scheduling gates: the scheduler does not look at the pod while it has any."""
    scheduling_since: float | None = None
    """Since when it has had its node, or has been without one."""
    held: tuple[Held, ...] = ()
    """Containers that keep it from coming up, those that run first before the others."""
    begun: bool = False
    """Whether a container of it has ever run, one that runs first included."""


@dataclass(frozen=True)
class GroupFacts:
    """One group: its LeaderWorkerSet and the pods that carry its name."""

    name: str
    uid: str
    slot: int
    role: str
    revision: str
    size: int
    ranks_per_pod: int
    created_at: float
    deleting: bool
    draining_since: float | None
    pods: tuple[PodFacts, ...]
    domain: str | None = None
    """`LABEL=VALUE` of the nodes that the operator put it on; None where it named none."""
    served_name: str = ""
    """The model by the name that this very group answers to; empty where its engine's arguments do not say."""
    notice: tuple[str, str] | None = None
    """What only Events say of pods that do not come: a reason and a message."""

    @property
    def leader(self) -> PodFacts | None:
        return next((p for p in self.pods if p.index == 0), None)

    @property
    def leaving(self) -> tuple[str, Leaving] | None:
        """One of its nodes that is to go, one that goes soon before others."""
        found = [(p.node, p.node_leaving) for p in self.pods if p.node and p.node_leaving]
        return min(found, key=lambda one: not one[1].soon, default=None)


def condition_of(obj: Mapping[str, Any], type_: str) -> Mapping[str, Any] | None:
    """What a pod or a node says of itself; None where it does not."""
    for condition in (obj.get("status") or {}).get("conditions") or []:
        if condition.get("type") == type_:
            return condition  # type: ignore[no-any-return]
    return None


def _true_since(condition: Mapping[str, Any] | None) -> float | None:
    if condition is None or condition.get("status") != "True":
        return None
    return parse_time(condition.get("lastTransitionTime"))


#: Taints by which node autoscalers and others say that a node's pods are to go, with who says it. As of Karpenter 1,
#: the cluster autoscaler 1.36 and AWS's node termination handler 1.25.
_LEAVING_TAINTS = {
    "karpenter.sh/disrupted": Leaving("is being disrupted by Karpenter", soon=False),
    "ToBeDeletedByClusterAutoscaler": Leaving("is being removed by the cluster autoscaler", soon=False),
    "aws-node-termination-handler/spot-itn": Leaving("was taken back by the cloud (spot)", soon=True),
    "aws-node-termination-handler/asg-lifecycle-termination": Leaving(
        "is being removed from its group", soon=False
    ),
    "aws-node-termination-handler/rebalance-recommendation": Leaving("may be taken back (spot)", soon=False),
    "aws-node-termination-handler/scheduled-maintenance": Leaving("has maintenance scheduled", soon=False),
    "cloud.google.com/impending-node-termination": Leaving(
        "is about to be terminated by the cloud", soon=True
    ),
    "node.kubernetes.io/out-of-service": Leaving("is out of service", soon=True),
}
_CORDONED = Leaving("is cordoned", soon=False)


def node_conditions(
    nodes: Iterable[Mapping[str, Any]] | None, unhealthy: Collection[str] = ()
) -> dict[str, NodeCondition] | None:
    """What holds of each node by name; None where nodes may not be read. `unhealthy`: types of conditions that say,
    while True, that a node's pods are to go."""
    if nodes is None:
        return None
    states: dict[str, NodeCondition] = {}
    for node in nodes:
        ready = condition_of(node, "Ready")
        ok = ready is not None and ready.get("status") == "True"
        since = parse_time(ready.get("lastTransitionTime")) if ready else None
        state = NodeState.READY if ok else NodeState.NOT_READY
        states[node["metadata"]["name"]] = NodeCondition(state, since, _leaving(node, unhealthy))
    return states


def _termination(ended: Mapping[str, Any] | None) -> Termination | None:
    if not ended:
        return None
    return Termination(
        exit_code=ended.get("exitCode", 0),
        reason=ended.get("reason") or "",
        message=ended.get("message") or "",
        finished_at=parse_time(ended.get("finishedAt")),
    )


def _held(status: Mapping[str, Any]) -> tuple[Held, ...]:
    found = []
    for init, key in ((True, "initContainerStatuses"), (False, "containerStatuses")):
        for one in status.get(key) or []:
            state, last = one.get("state") or {}, one.get("lastState") or {}
            waiting = (state.get("waiting") or {}).get("reason")
            ended = _termination(state.get("terminated") or last.get("terminated"))
            failed = init and state.get("terminated") and ended is not None and ended.exit_code != 0
            if failed or waiting not in (None, *_STARTING):
                message = (state.get("waiting") or {}).get("message") or ""
                found.append(Held(one.get("name") or "", init, waiting, message, ended))
    return tuple(found)


def unhealthy_condition(node: Mapping[str, Any], types: Collection[str]) -> Mapping[str, Any] | None:
    """The first of these conditions that is True of a node."""
    every = (condition_of(node, type_) for type_ in sorted(types))
    return next((one for one in every if one is not None and one.get("status") == "True"), None)


def _leaving(node: Mapping[str, Any], unhealthy: Collection[str]) -> Leaving | None:
    """Whether pods are to go from a node; what does not wait for them comes first."""
    spec = node.get("spec") or {}
    found = [_LEAVING_TAINTS[t["key"]] for t in spec.get("taints") or [] if t.get("key") in _LEAVING_TAINTS]
    if spec.get("unschedulable"):
        found.append(_CORDONED)
    if condition := unhealthy_condition(node, unhealthy):
        said = str(condition.get("message") or condition.get("reason") or "")[:200]
        found.append(
            Leaving(f"has the condition {condition['type']}" + (f" ({said})" if said else ""), soon=False)
        )
    return min(found, key=lambda one: not one.soon, default=None)


def _engine(pod: Mapping[str, Any]) -> EngineFacts:
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if status.get("name") != names.ENGINE_CONTAINER:
            continue
        state, last = status.get("state") or {}, status.get("lastState") or {}
        waiting = state.get("waiting") or {}
        running = state.get("running")
        return EngineFacts(
            restarts=status.get("restartCount", 0),
            running_since=parse_time(running.get("startedAt")) if running else None,
            waiting_reason=waiting.get("reason"),
            termination=_termination(state.get("terminated") or last.get("terminated")),
        )
    return EngineFacts()


def _begun(status: Mapping[str, Any]) -> bool:
    every = (one for key in ("initContainerStatuses", "containerStatuses") for one in status.get(key) or [])
    states = ({**(one.get("lastState") or {}), **(one.get("state") or {})} for one in every)
    return any("running" in state or "terminated" in state for state in states)


def _pending_claims(pod: Mapping[str, Any]) -> tuple[str, ...]:
    made = {one.get("name") for one in (pod.get("status") or {}).get("resourceClaimStatuses") or []}
    return tuple(
        claim["resourceClaimTemplateName"]
        for claim in (pod.get("spec") or {}).get("resourceClaims") or []
        if claim.get("resourceClaimTemplateName") and claim["name"] not in made
    )


def pod_facts(pod: Mapping[str, Any], nodes: Mapping[str, NodeCondition] | None) -> PodFacts:
    """Read one pod; `nodes` as `node_conditions` gives them."""
    meta, status = pod["metadata"], pod.get("status") or {}
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    node = (pod.get("spec") or {}).get("nodeName")
    where = NodeCondition(NodeState.UNKNOWN)
    if node and nodes is not None:
        where = nodes.get(node, NodeCondition(NodeState.GONE))
    ready = condition_of(pod, "Ready")
    is_ready = ready is not None and ready.get("status") == "True"
    scheduled = condition_of(pod, "PodScheduled")
    gates = tuple(gate["name"] for gate in (pod.get("spec") or {}).get("schedulingGates") or () if not node)
    unschedulable = None
    # Just let in, a pod still says that it is gated until the scheduler has looked at it.
    looked_at = scheduled is not None and scheduled.get("reason") != "SchedulingGated"
    if not node and not gates and scheduled and looked_at and scheduled.get("status") == "False":
        unschedulable = scheduled.get("message") or scheduled.get("reason") or "no node found"
    index = labels.get(names.LWS_LABEL_WORKER_INDEX, "0")
    return PodFacts(
        name=meta["name"],
        uid=meta["uid"],
        index=int(index) if index.isdigit() else 0,
        ip=status.get("podIP"),
        node=node,
        node_state=where.state,
        node_since=where.since,
        node_leaving=where.leaving,
        phase=status.get("phase") or "Pending",
        phase_message=status.get("message") or status.get("reason") or "",
        deleting=bool(meta.get("deletionTimestamp")),
        ready=is_ready,
        unready_since=parse_time(ready.get("lastTransitionTime")) if ready and not is_ready else None,
        unschedulable=unschedulable,
        traffic=labels.get(names.LABEL_TRAFFIC) == names.TRAFFIC_ON,
        incarnation=annotations.get(names.ANNOTATION_INCARNATION),
        engine=_engine(pod),
        resource_version=meta.get("resourceVersion") or "",
        created_at=parse_time(meta.get("creationTimestamp")),
        scheduled_at=_true_since(scheduled),
        initialized_at=_true_since(condition_of(pod, "Initialized"))
        if (pod.get("spec") or {}).get("initContainers")
        else None,
        ready_at=_true_since(ready),
        claims_pending=() if node else _pending_claims(pod),
        grace=meta.get("deletionGracePeriodSeconds"),
        gates=gates,
        scheduling_since=parse_time(scheduled.get("lastTransitionTime"))
        if scheduled and (scheduled.get("status") == "True") == bool(node)
        else None,
        held=_held(status),
        begun=_begun(status),
    )


def group_facts(
    lws: Mapping[str, Any],
    slot: int,
    pods: Iterable[Mapping[str, Any]],
    nodes: Mapping[str, NodeCondition] | None,
) -> GroupFacts:
    """Read one LeaderWorkerSet with its pods."""
    meta, spec = lws["metadata"], lws["spec"]
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    own = sorted((pod_facts(p, nodes) for p in pods), key=lambda p: (p.index, p.name))
    return GroupFacts(
        name=meta["name"],
        uid=meta["uid"],
        slot=slot,
        role=labels.get(names.LABEL_ROLE, names.ROLE_SERVE),
        revision=labels.get(names.LABEL_REVISION, ""),
        size=(spec.get("leaderWorkerTemplate") or {}).get("size", 1),
        ranks_per_pod=int(annotations.get(names.ANNOTATION_RANKS_PER_POD, "1")),
        created_at=parse_time(meta.get("creationTimestamp")) or 0.0,
        deleting=bool(meta.get("deletionTimestamp")),
        draining_since=parse_time(annotations.get(names.ANNOTATION_DRAINING)),
        pods=tuple(own),
        domain=annotations.get(names.ANNOTATION_DOMAIN),
        served_name=_served_name(spec),
    )


def _served_name(spec: Mapping[str, Any]) -> str:
    pod = ((spec.get("leaderWorkerTemplate") or {}).get("workerTemplate") or {}).get("spec") or {}
    for container in pod.get("containers") or []:
        arguments = container.get("args") or []
        if container.get("name") == names.ENGINE_CONTAINER and _SERVED_NAME in arguments[:-1]:
            return str(arguments[arguments.index(_SERVED_NAME) + 1])
    return ""
