"""Why a group is broken, in words for its owner: read from pod states, nodes and telemetry."""

from dataclasses import dataclass

from moe_operator.api import names, reasons
from moe_operator.api.base import parse_duration
from moe_operator.api.spec import RecoverySpec
from moe_operator.api.status import Cause
from moe_operator.controller.engine_errors import EngineError, Weight, read
from moe_operator.controller.half_placed import placed_in_part, waits_for_place
from moe_operator.controller.incarnation import admitted_incarnations, incarnation
from moe_operator.controller.observed import GroupFacts, Held, NodeState, PodFacts, Termination
from moe_operator.controller.weights_state import read_outcome
from moe_operator.resources.compute_domain import CHANNEL_TEMPLATE, COMPUTE_DOMAIN_NAME

_OOM_KILLED = "OOMKilled"
#: Of a message about a container that does not start, in characters: kubelets and registries say a lot.
_MAX_MESSAGE = 900


@dataclass(frozen=True)
class Limits:
    """How long a group may be in trouble before it is given up, in seconds."""

    stall: float
    unready: float
    start: float
    placement: float


def limits_of(recovery: RecoverySpec) -> Limits:
    """The limits that a spec sets."""
    return Limits(
        stall=parse_duration(recovery.stall_limit),
        unready=parse_duration(recovery.unready_limit),
        start=parse_duration(recovery.start_deadline),
        placement=parse_duration(recovery.placement_limit),
    )


def _exited(pod: PodFacts) -> Cause:
    end = pod.engine.termination
    if end is None:
        return Cause(
            reason=reasons.ENGINE_EXITED,
            message=f"the engine in pod {pod.name} was restarted {pod.engine.restarts} times",
            pod=pod.name,
            node=pod.node,
        )
    killed = f" ({_OOM_KILLED})" if end.reason == _OOM_KILLED else ""
    cause = Cause(
        reason=reasons.ENGINE_EXITED,
        message=f"the engine in pod {pod.name} ended with {_how(end)}{killed}",
        pod=pod.name,
        node=pod.node,
        exit_code=end.exit_code,
    )
    return explained(cause, _said(pod), killed=bool(killed))


def _how(end: Termination) -> str:
    return f"signal {end.exit_code - 128}" if end.exit_code > 128 else f"code {end.exit_code}"


def _said(pod: PodFacts) -> EngineError:
    return read(pod.engine.termination.message if pod.engine.termination else "")


def explained(cause: Cause, error: EngineError, *, killed: bool = False) -> Cause:
    """The same end with what the engine said of it; `killed`: by the kernel, for want of memory."""
    reason = reasons.OUT_OF_MEMORY if killed else error.reason
    where = f" on node {cause.node}" if reason == reasons.ACCELERATOR_FAULT and cause.node else ""
    message = f"{cause.message}{where}" + (f": {error.text}" if error.text else "")
    return cause.model_copy(update={"reason": reason, "message": message, "output": list(error.output)})


def _engine_ended(pod: PodFacts) -> bool:
    return pod.engine.restarts > 0 or (
        pod.engine.termination is not None and pod.engine.running_since is None
    )


def _rank_as_cause(pod: PodFacts, now: float) -> tuple[Weight, float]:
    """Smallest for the pod that took the others along: by what it said, then the earliest."""
    end = pod.engine.termination
    if end is None:
        return Weight.SILENT, now
    killed = end.reason == _OOM_KILLED
    return (
        Weight.ROOT if killed else _said(pod).weight,
        end.finished_at if end.finished_at is not None else now,
    )


def _lost(pod: PodFacts, how: str) -> Cause:
    return Cause(reason=reasons.POD_LOST, message=f"pod {pod.name} {how}", pod=pod.name, node=pod.node)


def _node_trouble(pod: PodFacts, now: float, limit: float) -> Cause | None:
    if pod.node_state not in (NodeState.NOT_READY, NodeState.GONE):
        return None
    since = pod.node_since if pod.node_since is not None else pod.unready_since
    if pod.node_state is NodeState.NOT_READY and (since is None or now - since < limit):
        return None
    what = (
        "is gone"
        if pod.node_state is NodeState.GONE
        else f"has not been ready for {int(now - (since or now))} s"
    )
    return Cause(
        reason=reasons.NODE_NOT_READY,
        message=f"node {pod.node} of pod {pod.name} {what}",
        pod=pod.name,
        node=pod.node,
    )


def broken(group: GroupFacts, limits: Limits, stalled: dict[str, float], now: float) -> Cause | None:
    """The cause for which this group must be replaced, or None while it may live.

    `stalled` gives, by pod uid, for how many seconds a pod has had work without a token.
    The engine's own end comes first: everything else that is wrong usually follows from it.
    """
    ended = [p for p in group.pods if _engine_ended(p)]
    if ended:
        first = min(ended, key=lambda pod: _rank_as_cause(pod, now))
        lost = _taken_away(group) if _rank_as_cause(first, now)[0] is Weight.CONSEQUENCE else None
        return lost or _exited(first)
    for pod in group.pods:
        if pod.phase in ("Failed", "Succeeded"):
            return _lost(pod, f"is {pod.phase}" + (f": {pod.phase_message}" if pod.phase_message else ""))
    for pod in group.pods:
        if cause := _node_trouble(pod, now, limits.unready):
            return cause
    for pod in group.pods:
        if pod.deleting:
            return _lost(pod, "is being deleted")
    admitted = admitted_incarnations(group)
    if admitted and (len(admitted) > 1 or admitted != {incarnation(group.pods)}):
        return _other_pods(group) or Cause(
            reason=reasons.POD_LOST,
            message=f"the pods of group {group.name} are not the ones that were admitted",
        )
    for pod in group.pods:
        if stalled.get(pod.uid, 0.0) >= limits.stall:
            spell = (
                f"has requests but has given no token for {int(stalled[pod.uid])} s"
                f" (limit {int(limits.stall)} s)"
            )
            return _beside_a_silent_node(group, pod, spell) or Cause(
                reason=reasons.ENGINE_STALLED,
                message=f"pod {pod.name} {spell}",
                pod=pod.name,
                node=pod.node,
            )
    if admitted:
        return _unready(group, limits, now)
    return placed_in_part(group, limits.placement, now) or _never_started(group, limits, now)


def _other_pods(group: GroupFacts) -> Cause | None:
    """Of a group that was admitted: a pod of it is gone."""
    fresh = [p for p in group.pods if p.incarnation is None]
    if fresh:
        return _lost(fresh[0], "took the place of one that was lost")
    missing = group.size - len(group.pods)
    if missing <= 0:
        return None
    return Cause(
        reason=reasons.POD_LOST, message=f"{missing} of {group.size} pods of group {group.name} are gone"
    )


def _taken_away(group: GroupFacts) -> Cause | None:
    """The pod or node that went while engines say no more than that a peer was lost."""
    for pod in group.pods:
        if pod.phase == "Failed":
            return _lost(pod, "is Failed" + (f": {pod.phase_message}" if pod.phase_message else ""))
        if pod.node_state in (NodeState.NOT_READY, NodeState.GONE):
            what = "is gone" if pod.node_state is NodeState.GONE else "is not ready"
            return Cause(
                reason=reasons.NODE_NOT_READY,
                message=f"node {pod.node} of pod {pod.name} {what}, and its peers lost their connections",
                pod=pod.name,
                node=pod.node,
            )
        if pod.deleting:
            return _lost(pod, "is being deleted")
    return _other_pods(group) if admitted_incarnations(group) else None


def _unready(group: GroupFacts, limits: Limits, now: float) -> Cause | None:
    """A group with a pod that has not been ready for too long."""
    for pod in group.pods:
        if pod.ready or pod.unready_since is None or now - pod.unready_since < limits.unready:
            continue
        spell = f"has not been ready for {int(now - pod.unready_since)} s (limit {int(limits.unready)} s)"
        return _beside_a_silent_node(group, pod, spell) or Cause(
            reason=reasons.POD_NOT_READY, message=f"pod {pod.name} {spell}", pod=pod.name, node=pod.node
        )
    return None


def _beside_a_silent_node(group: GroupFacts, pod: PodFacts, spell: str) -> Cause | None:
    """What befell a pod, put down to the group's node that is marked: all ranks wait for the one that is silent there,
    and each pod is ready only while its peers answer."""
    silent = next((p for p in group.pods if p.node_state is NodeState.NOT_READY), None)
    if silent is None:
        return None
    return Cause(
        reason=reasons.NODE_NOT_READY,
        message=f"node {silent.node} of pod {silent.name} is not ready, and pod {pod.name} {spell}",
        pod=silent.name,
        node=silent.node,
    )


def _never_started(group: GroupFacts, limits: Limits, now: float) -> Cause | None:
    """A group whose engines all run but that does not become whole. One that waits for a node or an image waits on."""
    running = [p.engine.running_since for p in group.pods]
    if len(group.pods) != group.size or any(since is None for since in running):
        return None
    started = max(since for since in running if since is not None)
    late = [p.name for p in group.pods if not p.ready]
    if not late or now - started < limits.start:
        return None
    return Cause(
        reason=reasons.START_DEADLINE,
        message=f"pods {', '.join(late)} are not ready {int(now - started)} s after the engines started "
        f"(spec.recovery.startDeadline is {int(limits.start)} s)",
        pod=late[0],
    )


def _claim_pending(pod: PodFacts) -> str:
    """Kubernetes says this in an Event alone: the scheduler does not look at a pod before its claims are there."""
    text = f"pod {pod.name} waits for its claims of ResourceClaimTemplate {', '.join(pod.claims_pending)}"
    if CHANNEL_TEMPLATE in pod.claims_pending:
        text += (
            f"; NVIDIA's compute-domain controller makes {CHANNEL_TEMPLATE} for the ComputeDomain"
            f" {COMPUTE_DOMAIN_NAME}: see that it runs"
        )
    return text


#: The kubelet's words for what a container waits for.
_WAITING = {
    "ErrImagePull": reasons.IMAGE_ERROR,
    "ImagePullBackOff": reasons.IMAGE_ERROR,
    "ErrImageNeverPull": reasons.IMAGE_ERROR,
    "ImageInspectError": reasons.IMAGE_ERROR,
    "RegistryUnavailable": reasons.IMAGE_ERROR,
    "SignatureValidationFailed": reasons.IMAGE_ERROR,
    "InvalidImageName": reasons.INVALID_IMAGE_NAME,
    "CreateContainerConfigError": reasons.CONTAINER_CONFIG_ERROR,
    "CreateContainerError": reasons.CONTAINER_CREATE_ERROR,
    "PreCreateHookError": reasons.CONTAINER_CREATE_ERROR,
    "PreStartHookError": reasons.CONTAINER_CREATE_ERROR,
    "PostStartHookError": reasons.CONTAINER_CREATE_ERROR,
    "RunContainerError": reasons.CONTAINER_CREATE_ERROR,
    "CrashLoopBackOff": reasons.CRASH_LOOP,
}


def _held(pod: PodFacts, held: Held) -> tuple[str, str]:
    """Why a container does not start: the kubelet's words, and how it ended before."""
    what = f"init container {held.container}" if held.init else f"container {held.container}"
    reason = _WAITING.get(held.waiting_reason or "", reasons.CONTAINER_WAITING)
    end = held.termination
    if end is not None and (held.waiting_reason is None or reason == reasons.CRASH_LOOP):
        why, said = reason, read(end.message).text
        if held.init:
            why = reasons.INIT_CONTAINER_FAILED
        outcome = read_outcome(end.message) if held.container == names.FETCH_CONTAINER else None
        if outcome is not None and not outcome.complete:
            why, said = outcome.failure
        text = f"pod {pod.name}: {what} ended with {_how(end)}"
        text += f" ({end.reason})" if end.reason not in ("", "Error", "Completed") else ""
        where = f" on node {pod.node}" if pod.node and held.init else ""
        return why, _bounded(f"{text}{where}" + (f": {said}" if said else ""))
    return reason, _bounded(
        f"pod {pod.name}: {what}: {held.waiting_reason}: {held.waiting_message}".rstrip(": ")
    )


def _bounded(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…"


def waiting_for(group: GroupFacts) -> tuple[str, str]:
    """What a group that does not serve yet waits for: a reason and a message."""
    if place := waits_for_place(group):
        return place
    for pod in group.pods:
        if pod.claims_pending:
            return reasons.CLAIM_PENDING, _claim_pending(pod)
    for pod in group.pods:
        if pod.held:
            return _held(pod, pod.held[0])
    if group.notice is not None:
        return group.notice
    if len(group.pods) < group.size:
        return reasons.STARTING, f"{len(group.pods)} of {group.size} pods exist"
    late = [p.name for p in group.pods if not p.ready]
    if late:
        return reasons.STARTING, f"waiting for the engine in {', '.join(late)}"
    return reasons.STARTING, "waiting for the admission canary"
