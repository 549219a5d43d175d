"""Which pods telemetry scrapes: those of groups whose engine runs, by what the cache has."""

from collections.abc import Iterator, Mapping
from typing import Any

from moe_operator.api import names
from moe_operator.controller.kube import LEADER_WORKER_SET, POD
from moe_operator.controller.observed import condition_of
from moe_operator.controller.store import Key, Store, owner_key
from moe_operator.telemetry.collector import Target

_MAX_SEQUENCES = "--max-num-seqs"
_MIDDLEWARE = "--middleware"


def targets(store: Store) -> Iterator[Target]:
    """One target per pod with a running engine. Urgent: a drain or a suspicion waits for the figures."""
    groups = {
        (o["metadata"]["namespace"], o["metadata"]["name"]): o["metadata"]
        for o in store.all(LEADER_WORKER_SET)
    }
    for pod in store.all(POD):
        meta, status = pod["metadata"], pod.get("status") or {}
        key = owner_key(pod)
        labels = meta.get("labels") or {}
        engine = _engine(pod)
        if key is None or engine is None or not status.get("podIP") or not _runs(status):
            continue
        group = groups.get((meta["namespace"], labels.get(names.LABEL_GROUP, "")), {})
        arguments = engine.get("args") or []
        yield Target(
            key=key,
            pod_uid=meta["uid"],
            host=status["podIP"],
            port=names.HTTP_PORT,
            request_slots=_slots(arguments, group),
            agent=any(a.startswith(_MIDDLEWARE) for a in arguments),
            urgent=_urgent(meta, group),
            serves=_served(meta) or _ready(pod),
        )


def deployments_on(store: Store, node: str) -> set[Key]:
    """The deployments with pods on a node."""
    pods = (pod for pod in store.all(POD) if (pod.get("spec") or {}).get("nodeName") == node)
    return {key for key in map(owner_key, pods) if key is not None}


def _engine(pod: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for container in (pod.get("spec") or {}).get("containers") or []:
        if container.get("name") == names.ENGINE_CONTAINER:
            return container  # type: ignore[no-any-return]
    return None


def _runs(status: Mapping[str, Any]) -> bool:
    for container in status.get("containerStatuses") or []:
        if container.get("name") == names.ENGINE_CONTAINER:
            return "running" in (container.get("state") or {})
    return False


def _slots(arguments: list[str], group: Mapping[str, Any]) -> int:
    """Requests that the pod computes at once; 0 where the engine's default holds, which depends on the GPU."""
    ranks = (group.get("annotations") or {}).get(names.ANNOTATION_RANKS_PER_POD, "1")
    for index, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == _MAX_SEQUENCES:
            value = value or (arguments[index + 1] if index + 1 < len(arguments) else "")
            return int(value) * int(ranks) if value.isdigit() and ranks.isdigit() else 0
    return 0


def _urgent(pod: Mapping[str, Any], group: Mapping[str, Any]) -> bool:
    draining = names.ANNOTATION_DRAINING in (group.get("annotations") or {})
    suspected = _served(pod) and names.LABEL_TRAFFIC not in (pod.get("labels") or {})
    return draining or suspected


def _served(pod: Mapping[str, Any]) -> bool:
    """Whether it was admitted once."""
    return names.ANNOTATION_INCARNATION in (pod.get("annotations") or {})


def _ready(pod: Mapping[str, Any]) -> bool:
    """Whether the kubelet got an answer of its engine."""
    return (condition_of(pod, "Ready") or {}).get("status") == "True"
