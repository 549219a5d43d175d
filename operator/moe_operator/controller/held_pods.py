"""The pods of a deployment that hold GPUs, as the ledger counts them. Pure."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from moe_operator.api import names
from moe_operator.api.times import parse_time
from moe_operator.controller.group_planner import GroupState, GroupView
from moe_operator.controller.incarnation import admitted_incarnations
from moe_operator.controller.kube import Obj
from moe_operator.controller.observed import PodFacts, pod_facts
from moe_operator.costs.holdings import GpuState, Meter, PodSeen, Reading
from moe_operator.telemetry.engine_counters import EngineCounters
from moe_operator.telemetry.observation import Snapshot
from moe_operator.telemetry.pod_memory import PodMemory

#: Phases in which no container of a pod runs any more, nor will.
_ENDED = ("Succeeded", "Failed")
_STARTING = (GroupState.STARTING, GroupState.ADMITTABLE, GroupState.SUSPECT)

History = tuple[tuple[GpuState, float], ...]


def held_pods(
    pods: Sequence[Obj],
    views: Sequence[GroupView],
    snapshot: Snapshot,
    gpus: Callable[[str], int],
    price: Callable[[str, str | None], int | None],
    now: float,
    memory: Mapping[str, PodMemory] = MappingProxyType({}),
) -> list[PodSeen]:
    """Those of `pods` that were given a node. By revision: `gpus` of each pod; `price` of a GPU-hour, there with the
    node, in millionths. `memory`: what was measured, by pod uid."""
    groups = {view.name: view for view in views}
    histories = {view.name: history(view, snapshot, now) for view in views}
    found = []
    for pod in pods:
        facts, meta = pod_facts(pod, None), pod["metadata"]
        begun = facts.scheduled_at or facts.created_at
        if facts.node is None or begun is None:
            continue
        labels = meta.get("labels") or {}
        group = labels.get(names.LABEL_GROUP, "")
        view = groups.get(group)
        revision = view.facts.revision if view is not None else labels.get(names.LABEL_REVISION, "")
        # One that outlives its group is on its way out.
        known = histories.get(group) or ((GpuState.DRAINING, _deleted_at(pod) or now),)
        seen = snapshot.pods.get(facts.uid)
        found.append(
            PodSeen(
                uid=facts.uid,
                place=facts.name,
                gpus=gpus(revision),
                begun=begun,
                history=known,
                ended=_ended(pod, facts),
                price=price(revision, facts.node),
                run=facts.engine.restarts,
                reading=reading(seen.counters) if seen is not None else None,
                meter=meter(memory.get(facts.uid)),
                unsure=view is None or any(p.uid not in snapshot.pods for p in view.facts.pods),
            )
        )
    return found


def history(view: GroupView, snapshot: Snapshot, now: float) -> History:
    """The states that a group has come to, and when, by its pods' own timestamps where they have them."""
    pods = view.facts.pods
    ready = max((pod.ready_at for pod in pods if pod.ready_at is not None), default=now)
    if view.state in _STARTING:
        unready = min((pod.unready_since for pod in pods if pod.unready_since is not None), default=now)
        return ((GpuState.STARTING, unready),)
    if view.state is GroupState.SERVING:
        idle = _idle_since(view, snapshot, ready, now)
        return ((GpuState.SERVING, ready),) + (((GpuState.IDLE, idle),) if idle is not None else ())
    served: History = ((GpuState.SERVING, ready),) if admitted_incarnations(view.facts) else ()
    since = view.facts.draining_since
    return (*served, (GpuState.DRAINING, now if since is None else since))


def _idle_since(view: GroupView, snapshot: Snapshot, ready: float, now: float) -> float | None:
    """None while it has requests, and while nobody knows."""
    seen = [snapshot.pods.get(pod.uid) for pod in view.facts.pods]
    known = [one for one in seen if one is not None]
    if not known or len(known) < len(seen) or any(one.busy for one in known):
        return None
    if all(one.counters.output_tokens <= one.counters.finished for one in known):
        return ready  # nobody has used it: the operator's own requests have one token
    used = max(one.used_at for one in known)
    return max(ready, now - max(0.0, snapshot.taken_at - used))


def _deleted_at(pod: Obj) -> float | None:
    """When its deletion was asked for."""
    meta = pod["metadata"]
    at = parse_time(meta.get("deletionTimestamp"))
    return None if at is None else at - float(meta.get("deletionGracePeriodSeconds") or 0)


def _ended(pod: Obj, facts: PodFacts) -> float | None:
    """When its last container ended, where none will run again."""
    if facts.phase not in _ENDED:
        return None
    ends = [
        parse_time(ended.get("finishedAt"))
        for one in (pod.get("status") or {}).get("containerStatuses") or []
        if (ended := (one.get("state") or {}).get("terminated"))
    ]
    return max((end for end in ends if end is not None), default=facts.unready_since or facts.created_at)


def meter(seen: PodMemory | None) -> Meter | None:
    """Of one pod."""
    if seen is None or seen.energy is None:
        return None
    return Meter(seen.energy.joules, seen.energy.at, seen.energy.since)


def reading(seen: EngineCounters) -> Reading:
    """Of one pod."""
    return Reading(
        prompt=max(0.0, seen.prompt_tokens),
        cached=seen.cached_prompt_tokens,
        output=max(0.0, seen.output_tokens),
        completed=max(0.0, seen.finished),
        aborted=max(0.0, seen.aborted - seen.failed),
        failed=seen.failed,
        preempted=seen.preemptions,
        ranks=seen.ranks,
        since=seen.since,
        own_prompt=seen.own_prompt_tokens,
        own_output=seen.own_output_tokens,
    )
